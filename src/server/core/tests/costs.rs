//! What requests cost: the budget of an iteration, and the share that a session has of the server's time.

use std::sync::Arc;
use std::time::Duration;

use crate::common::limits::QUERY_WINDOW;
use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, Response, Topic};
use crate::common::types::{Audience, NamedContent, RequestId};
use crate::server::core::query_budget::{DATAGRAM_STEPS, NAME_BYTE_STEPS};
use crate::server::test_support::{TestClient, TestServer, file, name, user, wanted};

/// A session may have this many steps at once, and then one each 250 ns.
const BURST_STEPS: u64 = 400_000;
const STEP: Duration = Duration::from_nanos(250);

/// Passes in a request; nothing that is left to do is done.
fn pass(test: &mut TestServer, client: &mut TestClient, request: Request) {
    client.next_id += 1;
    let id = RequestId(client.next_id);
    let mut bytes = client.seal(&ClientMessage::Request { id, lowest_pending: id, pages: 1, request });
    test.server.handle_datagram(test.now, client.address, &mut bytes, &mut test.out);
}

/// How long a session has to wait until its share is as it was before, in steps.
fn debt_steps(test: &mut TestServer, client: &TestClient, charge: u64) -> u64 {
    let key = test.server.sessions.find(&client.params.session).unwrap();
    let debt = test.server.charge_session(test.now, key, charge);
    u64::try_from(debt.as_nanos() / STEP.as_nanos()).unwrap()
}

#[test]
fn a_query_is_charged_for_what_it_examines() {
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    let mut peer = test.insert_session("vader");
    let vader = test.server.index.intern_owner(&user("vader"));
    test.server.index.publish(vader, &file("abc"), &Arc::default(), 1);
    let search = |query| Request::Search { query, cursor: None };
    let requests = [
        (Request::Peers { cursor: None }, 0),
        (Request::AudienceOf { name: name("abc"), cursor: None }, 0),
        (Request::OwnPublications { user_initiated: true, cursor: None }, 0),
        (Request::Sources { files: vec![wanted("abc")], avoid: Vec::new(), cursor: None }, 512),
        (Request::Subscribe { number: 0, topic: Topic::Peer(user("vader")) }, 1),
        (Request::Shared { user: user("vader"), cursor: None }, 1 + 1),
        // The trigrams of the text, the name, its content and the publication.
        (search(NameQuery::Exact(name("abc"))), 1 + 3),
        (search(NameQuery::Prefix("abc".into())), 3 + 3),
        (search(NameQuery::Substring("bc".into())), 2 + 3),
        (search(NameQuery::SubstringIgnoreCase("x".repeat(300))), 300),
    ];
    for (request, steps) in requests {
        test.advance(Duration::from_secs(1));
        [&mut hans, &mut peer].into_iter().for_each(|client| _ = test.heartbeat(client));
        test.server.handle_timeout(test.now, &mut test.out);
        assert_eq!(debt_steps(&mut test, &hans, BURST_STEPS - DATAGRAM_STEPS), 0);
        pass(&mut test, &mut hans, request.clone());
        assert_eq!(test.server.query_budget.used(), 128 + steps, "{request:?}");
        assert_eq!(debt_steps(&mut test, &hans, 0), 128 + steps as u64, "{request:?}");
        assert_eq!(test.out.datagrams.len(), 1, "answered at once: {request:?}");
        test.run_until_idle();
    }
}

#[test]
fn a_mutation_is_charged_for_the_bytes_of_its_names() {
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    let names = ["a".repeat(100), "b".repeat(20)];
    let publish =
        Request::Publish { files: names.each_ref().map(|name| file(name)).into(), audience: AudienceRef::Everyone };
    let unpublish = Request::Unpublish { names: names.each_ref().map(|text| name(text)).into() };
    for request in [publish, unpublish] {
        test.advance(Duration::from_secs(1));
        test.heartbeat(&mut hans);
        assert_eq!(debt_steps(&mut test, &hans, BURST_STEPS - DATAGRAM_STEPS), 0);
        pass(&mut test, &mut hans, request.clone());
        assert_eq!(debt_steps(&mut test, &hans, 0), NAME_BYTE_STEPS * 120, "{request:?}");
        test.run_until_idle();
    }
    assert_eq!(test.journal.len(), 2);
}

#[test]
fn an_iteration_applies_a_bounded_part_of_what_is_durable() {
    let mut test = TestServer::new(&[]);
    test.journal_stores = false;
    let mut clients: Vec<_> = (0..40).map(|at| test.insert_session(&format!("user{at}"))).collect();
    // 32 steps each, of 512.
    let text = "x".repeat(16);
    let publish = Request::Publish { files: vec![file(&text)], audience: AudienceRef::Everyone };
    let unpublish = Request::Unpublish { names: vec![name(&text)] };
    for request in [publish, unpublish] {
        for client in &mut clients {
            assert_eq!(test.try_request(client, request.clone()), None);
        }
        test.make_durable();
        let mut applied = Vec::new();
        while test.server.has_unacknowledged() {
            test.server.handle_timeout(test.now, &mut test.out);
            applied.push(std::mem::take(&mut test.out.datagrams).len());
        }
        assert_eq!(applied, [16, 16, 8]);
    }
}

#[test]
fn a_batch_that_inherits_a_long_audience_is_cut_into_single_files() {
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    test.insert_session("yoda");
    let yoda = test.server.index.intern_owner(&user("yoda"));
    let mut publish = |members: usize, files: &[&str]| {
        let others = (1..members).map(|at| user(&format!("user{at}")));
        let audience = Arc::new(Audience::only(others.chain([user("hans")]).collect()));
        let files: Vec<NamedContent> = files.iter().map(|text| file(text)).collect();
        files.iter().for_each(|file| test.server.index.publish(yoda, file, &audience, 1));
        let inherited = AudienceRef::Inherited { owners: vec![user("yoda")] };
        test.request(&mut hans, Request::Publish { files, audience: inherited })
    };
    let is_published = |response: &Response| matches!(response, Response::Published { .. });
    assert!(is_published(&publish(2_048, &["a", "b"])), "4,096 users in all are examined");
    assert_eq!(publish(2_049, &["c", "d"]), Response::Rejected);
    assert!(is_published(&publish(2_049, &["c"])), "a single file");
    let mut publish_alone = |members: usize| {
        let others = (1..members).map(|at| user(&format!("user{at}")));
        let audience = Arc::new(Audience::only(others.chain([user("hans")]).collect()));
        let owners = ["yoda", "leia"].map(user);
        for owner in &owners {
            let owner = test.server.index.intern_owner(owner);
            test.server.index.set_active(owner, true);
            test.server.index.publish(owner, &file("e"), &audience, 1);
        }
        let audience = AudienceRef::Inherited { owners: owners.into() };
        test.request(&mut hans, Request::Publish { files: vec![file("e")], audience })
    };
    assert!(is_published(&publish_alone(2_049)), "a single file of two sources");
}

#[test]
fn an_iteration_finds_a_bounded_number_of_inherited_audiences() {
    let mut test = TestServer::new(&[]);
    test.insert_session("yoda");
    let yoda = test.server.index.intern_owner(&user("yoda"));
    let mut clients: Vec<_> = (0..10).map(|at| test.insert_session(&format!("user{at}"))).collect();
    let audience = Arc::new(Audience::only((0..50).map(|at| user(&format!("user{at}"))).collect()));
    let files = [file("a"), file("b")];
    files.iter().for_each(|file| test.server.index.publish(yoda, file, &audience, 1));
    // 64 steps a file, and one for each of its 50 users; a budget of 512.
    for (files, expected) in [(&files[..1], 5), (&files[..], 3)] {
        let inherited = AudienceRef::Inherited { owners: vec![user("yoda")] };
        let publish = Request::Publish { files: files.to_vec(), audience: inherited };
        clients.iter_mut().for_each(|client| pass(&mut test, client, publish.clone()));
        assert_eq!(test.out.mutations.len(), expected);
        assert_eq!(std::mem::take(&mut test.out.datagrams).len(), 10 - expected, "BUSY");
        test.run_until_idle();
    }
}

#[test]
fn a_session_beyond_its_share_is_served_until_its_debt_is_100_ms() {
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    assert_eq!(debt_steps(&mut test, &hans, 2 * BURST_STEPS - DATAGRAM_STEPS), BURST_STEPS - DATAGRAM_STEPS);
    pass(&mut test, &mut hans, Request::Peers { cursor: None });
    assert_eq!(test.server.queued_queries.len(), 1, "it waits");
    debt_steps(&mut test, &hans, 1);
    pass(&mut test, &mut hans, Request::Peers { cursor: None });
    assert_eq!(test.server.queued_queries.len(), 1, "dropped");
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
}

#[test]
fn queries_of_all_sessions_that_wait_are_bounded_and_each_session_may_have_one() {
    let mut test = TestServer::new(&[]);
    let peers = || Request::Peers { cursor: None };
    let is_answered = |test: &mut TestServer| !std::mem::take(&mut test.out.datagrams).is_empty();
    let mut clients: Vec<_> = (0..4_096 / QUERY_WINDOW).map(|at| test.insert_session(&format!("user{at}"))).collect();
    let mut late = test.insert_session("late");
    test.server.query_budget.charge(512);
    for client in &mut clients {
        (0..QUERY_WINDOW).for_each(|_| pass(&mut test, client, peers()));
        assert!(!is_answered(&mut test), "every query waits");
    }
    pass(&mut test, &mut clients[0], peers());
    assert!(is_answered(&mut test), "BUSY, beyond the window");
    pass(&mut test, &mut late, peers());
    assert!(!is_answered(&mut test), "the first of a session waits");
    pass(&mut test, &mut late, peers());
    assert!(is_answered(&mut test), "BUSY, beyond 4,096");
    let sent = test.run_until_idle();
    assert_eq!(sent.len(), 4_096 + 1, "all that waited are answered");
}
