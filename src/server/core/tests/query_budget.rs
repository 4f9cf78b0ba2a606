//! The query budget: however many long searches a client sends, an iteration stays short, and others are served.

use std::sync::Arc;
use std::time::Duration;

use crate::common::limits::QUERY_WINDOW;
use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, Response, ServerMessage};
use crate::common::types::{Audience, RequestId};
use crate::server::core::ReceiveBuffer;
use crate::server::core::query_budget::STEPS_PER_ITERATION;
use crate::server::test_support::{TestClient, TestServer, file, name, user, wanted};

/// Steps that one query may take beyond the budget: those before the first name.
const EXCESS_MAX: usize = 1_024;

/// Passes in requests as one burst, with nothing else in between. Returns the replies that come at once.
fn burst(test: &mut TestServer, client: &mut TestClient, requests: Vec<Request>) -> Vec<(RequestId, Response)> {
    for request in requests {
        client.next_id += 1;
        let message =
            ClientMessage::Request { id: RequestId(client.next_id), lowest_pending: RequestId(1), pages: 1, request };
        let mut bytes = client.seal(&message);
        test.server.handle_datagram(test.now, client.address, &mut bytes, &mut test.out);
    }
    replies(test, client)
}

fn replies(test: &mut TestServer, client: &mut TestClient) -> Vec<(RequestId, Response)> {
    let (ours, others) =
        std::mem::take(&mut test.out.datagrams).into_iter().partition(|sent| sent.to == client.address);
    test.out.datagrams = others;
    let reply = |message| match message {
        ServerMessage::Reply { id, page: 0, response } => (id, response),
        other => panic!("{other:?}"),
    };
    client.receive(ours).into_iter().map(reply).collect()
}

/// Names whose case folding is slow, so that one search takes several iterations.
fn test_with_slow_searches() -> (TestServer, TestClient, TestClient) {
    let mut test = TestServer::new(&["hans"]);
    let hans = test.insert_session("hans");
    let vader = test.insert_session("vader");
    test.insert_session("yoda");
    let owner = test.server.index.intern_owner(&user("yoda"));
    let component = "É".repeat(120);
    for at in 0..300 {
        let text = format!("{component}/{component}/{at:03}");
        test.server.index.publish(owner, &file(&text), &Arc::new(Audience::Everyone), 1);
    }
    test.server.index.publish(owner, &file("plan.pdf"), &Arc::new(Audience::Everyone), 1);
    while test.server.index.has_pending() {
        test.server.handle_timeout(test.now, &mut test.out);
    }
    (test, hans, vader)
}

fn long_search() -> Request {
    Request::Search { query: NameQuery::SubstringIgnoreCase("qz".into()), cursor: None }
}

#[test]
fn a_burst_of_long_searches_keeps_every_iteration_short_and_does_not_block_others() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    let mut luke = test.insert_session("luke");
    for client in [&mut hans, &mut luke] {
        let refused = burst(&mut test, client, vec![long_search(); 256]);
        assert!(refused.iter().all(|(_, response)| matches!(response, Response::Busy { .. })), "none is finished yet");
        assert_eq!(refused.len(), 256 - QUERY_WINDOW);
    }
    assert!(test.server.query_budget.used() <= STEPS_PER_ITERATION + EXCESS_MAX, "{}", test.server.query_budget.used());

    let query = NameQuery::Exact(name("plan.pdf"));
    assert!(burst(&mut test, &mut vader, vec![Request::Search { query, cursor: None }]).is_empty(), "it is queued");
    // What was queued does not use up the budget of what arrives next.
    test.server.run_deferred_work(test.now, ReceiveBuffer::MayHoldMore, &mut test.out);
    let mut yoda = test.insert_session("obi-wan");
    assert_eq!(burst(&mut test, &mut yoda, vec![Request::Peers { cursor: None }]).len(), 1);
    let (mut iterations, mut answered, mut received) = (0, 0, None);
    while !test.server.queued_queries.is_empty() {
        iterations += 1;
        test.now = test.server.poll_timeout().expect("queries wait").max(test.now);
        test.server.run_deferred_work(test.now, ReceiveBuffer::MayHoldMore, &mut test.out);
        assert!(test.server.query_budget.used() <= STEPS_PER_ITERATION + EXCESS_MAX);
        if let Some((_, response)) = replies(&mut test, &mut vader).pop() {
            received = Some((iterations, response));
        }
        answered += replies(&mut test, &mut hans).len() + replies(&mut test, &mut luke).len();
    }
    assert_eq!(received, Some((2, Response::SearchResults { names: vec![name("plan.pdf")], next: None })));
    assert_eq!(answered, 2 * QUERY_WINDOW, "the others are answered in the end");
    assert!(iterations > 2 * QUERY_WINDOW, "each takes more than one: {iterations}");
}

#[test]
fn a_query_waits_for_the_earlier_ones_of_its_session_and_for_no_other() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    let peers = || vec![Request::Peers { cursor: None }];
    assert!(burst(&mut test, &mut hans, vec![long_search(); 3]).is_empty());
    test.server.run_deferred_work(test.now, ReceiveBuffer::MayHoldMore, &mut test.out);
    assert!(!test.server.query_budget.is_exhausted(), "what arrives next has a budget of its own");
    assert!(burst(&mut test, &mut hans, peers()).is_empty());
    assert_eq!(burst(&mut test, &mut vader, peers()).len(), 1);
}

#[test]
fn a_session_has_a_share_of_the_servers_time_and_what_exceeds_it_waits() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    const SEARCHES: u64 = 200;
    let (start, mut sent, mut answered, mut iterations) = (test.now, 0, 0, 0);
    while answered < SEARCHES {
        // As many searches in flight as a session may have.
        let more = (QUERY_WINDOW as u64 - (sent - answered)).min(SEARCHES - sent);
        sent += more;
        answered += burst(&mut test, &mut hans, vec![long_search(); more as usize]).len() as u64;
        while test.server.poll_timeout().is_some_and(|due| due <= test.now) {
            test.server.handle_timeout(test.now, &mut test.out);
            answered += replies(&mut test, &mut hans).len() as u64;
            iterations += 1;
        }
        // Whenever another asks, the server has time: it is answered before anything else is done.
        let peers = burst(&mut test, &mut vader, vec![Request::Peers { cursor: None }]);
        assert!(matches!(peers[..], [(_, Response::Peers { .. })]), "{peers:?}");
        test.now = test.server.poll_timeout().expect("a session").max(test.now);
    }
    let (took_s, steps) = ((test.now - start).as_secs_f64(), iterations * STEPS_PER_ITERATION);
    assert!(took_s > 0.5 && steps as f64 <= 4e6 * (took_s + 0.1), "about {steps} steps in {took_s} s");
}

#[test]
fn a_flood_of_requests_of_one_session_is_dropped_and_the_session_goes_on() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    let answered = |test: &mut TestServer, client: &mut TestClient, requests: usize| {
        (0..requests).map(|_| burst(test, client, vec![Request::Peers { cursor: None }]).len()).sum::<usize>()
    };
    let first = answered(&mut test, &mut hans, 50_000);
    assert!(first < 20_000, "{first} of 50,000 at once");
    assert_eq!(answered(&mut test, &mut hans, 100), 0, "then none");
    for client in [&mut hans, &mut vader] {
        let is_ack = |message: &ServerMessage| matches!(message, ServerMessage::HeartbeatAck { .. });
        assert!(test.heartbeat(client).iter().any(is_ack), "no session is lost");
    }
    test.advance(Duration::from_secs(2));
    test.run_until_idle();
    assert_eq!(burst(&mut test, &mut hans, vec![Request::Peers { cursor: None }]).len(), 1);
}

#[test]
fn every_kind_of_query_is_charged_to_the_budget() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    let requests = [
        Request::Peers { cursor: None },
        Request::OwnPublications { user_initiated: true, cursor: None },
        Request::AudienceOf { name: name("plan.pdf"), cursor: None },
        Request::Sources { files: vec![wanted("plan.pdf")], avoid: Vec::new(), cursor: None },
        Request::Search { query: NameQuery::Substring("x".repeat(512)), cursor: None },
    ];
    for request in requests {
        let answered = burst(&mut test, &mut hans, vec![request.clone(); 256]).len();
        assert!(answered < 256, "{request:?}");
        assert!(test.server.query_budget.used() <= STEPS_PER_ITERATION + EXCESS_MAX, "{request:?}");
        assert!(burst(&mut test, &mut vader, vec![request.clone()]).is_empty(), "{request:?}");
        test.run_until_idle();
        test.server.handle_timeout(test.now, &mut test.out);
    }
}

#[test]
fn a_repeat_of_a_queued_query_is_answered_once_and_logging_out_drops_queued_queries() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    burst(&mut test, &mut hans, vec![long_search(); 2]);
    hans.next_id -= 2;
    assert!(burst(&mut test, &mut hans, vec![long_search(); 2]).is_empty());
    let sent = test.run_until_idle();
    assert_eq!(hans.receive(sent).len(), 2);

    burst(&mut test, &mut vader, vec![long_search(); 2]);
    test.send_message(&mut vader, &ClientMessage::Logout);
    test.advance(Duration::from_millis(1));
    assert!(
        test.run_until_idle().is_empty()
            && test.server.queued_queries.is_empty()
            && !test.server.query_budget.needs_reset()
    );
}

#[test]
fn rejected_publications_that_inherit_long_audiences_are_charged_too() {
    let (mut test, mut hans, _) = test_with_slow_searches();
    let owner = test.server.index.intern_owner(&user("yoda"));
    let files = [file("a"), file("b")];
    for (file, last) in files.iter().zip(["x", "y"]) {
        let others = (0..STEPS_PER_ITERATION).map(|at| user(&format!("user{at}")));
        let audience = Audience::only(others.chain([user("hans"), user(last)]).collect());
        test.server.index.publish(owner, file, &Arc::new(audience), 1);
    }
    let inherited = AudienceRef::Inherited { owners: vec![user("yoda")] };
    for _ in 0..3 {
        let publish = Request::Publish { files: files.to_vec(), audience: inherited.clone() };
        let answers = burst(&mut test, &mut hans, vec![publish; 20]);
        let rejected = answers.iter().filter(|(_, response)| *response == Response::Rejected).count();
        assert_eq!((answers.len(), rejected), (20, 1), "the others get BUSY");
        test.run_until_idle();
    }
}

#[test]
fn publications_of_long_names_are_charged_to_the_share_of_the_session() {
    let (mut test, mut hans, mut vader) = test_with_slow_searches();
    let publish = |at: u32| {
        let files = vec![file(&format!("{}/{at}", "x".repeat(250)))];
        Request::Publish { files, audience: AudienceRef::Everyone }
    };
    let is_busy = |response: &Response| matches!(response, Response::Busy { .. });
    let first = (0..2_000).find(|&at| is_busy(&test.request(&mut hans, publish(at))));
    assert!(first.is_some_and(|first| first > 500), "{first:?}");
    assert!(!is_busy(&test.request(&mut vader, publish(0))));
    test.advance(Duration::from_secs(1));
    assert!(!is_busy(&test.request(&mut hans, publish(2_001))));
}
