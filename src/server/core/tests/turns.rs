//! The budget of a turn: however many long searches somebody asks for, a turn stays short, and others have theirs.

use std::sync::Arc;
use std::time::Duration;

use crate::common::limits::QUERY_WINDOW;
use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, Response, ServerMessage};
use crate::common::types::{Audience, RequestId};
use crate::server::core::query_budget::STEPS_PER_ITERATION;
use crate::server::test_support::{Client, World, file, name, user};

/// What one query may take beyond the budget: what it costs before the first name.
const BEYOND: usize = 1_024;

/// Hands requests in as one burst: nothing else is done between them. Gives what is answered at once.
fn burst(world: &mut World, client: &mut Client, requests: Vec<Request>) -> Vec<(RequestId, Response)> {
    for request in requests {
        client.next_id += 1;
        let message = ClientMessage::Request { id: RequestId(client.next_id), lowest_pending: RequestId(1), request };
        let mut bytes = client.seal(&message);
        world.server.handle_datagram(world.now, client.address, &mut bytes, &mut world.out);
    }
    replies(world, client)
}

fn replies(world: &mut World, client: &mut Client) -> Vec<(RequestId, Response)> {
    let (ours, others) =
        std::mem::take(&mut world.out.datagrams).into_iter().partition(|sent| sent.to == client.address);
    world.out.datagrams = others;
    let reply = |message| match message {
        ServerMessage::Reply { id, response } => (id, response),
        other => panic!("{other:?}"),
    };
    client.hear(ours).into_iter().map(reply).collect()
}

/// Names whose case takes long to fold, so that one search takes several turns.
fn crowded_world() -> (World, Client, Client) {
    let mut world = World::new(&["hans"]);
    let hans = world.insert_session("hans");
    let vader = world.insert_session("vader");
    world.insert_session("yoda");
    let owner = world.server.index.intern_owner(&user("yoda"));
    let component = "É".repeat(120);
    for at in 0..300 {
        let text = format!("{component}/{component}/{at:03}");
        world.server.index.publish(owner, &file(&text), &Arc::new(Audience::Everyone), 1);
    }
    world.server.index.publish(owner, &file("plan.pdf"), &Arc::new(Audience::Everyone), 1);
    while world.server.index.has_pending() {
        world.server.handle_timeout(world.now, &mut world.out);
    }
    (world, hans, vader)
}

fn long_search() -> Request {
    Request::Search { query: NameQuery::SubstringIgnoreCase("qz".into()), cursor: None }
}

#[test]
fn a_burst_of_long_searches_keeps_every_turn_short_and_others_have_theirs() {
    let (mut world, mut hans, mut vader) = crowded_world();
    let mut luke = world.insert_session("luke");
    for client in [&mut hans, &mut luke] {
        let refused = burst(&mut world, client, vec![long_search(); 256]);
        assert!(refused.iter().all(|(_, response)| matches!(response, Response::Busy { .. })), "none is done yet");
        assert_eq!(refused.len(), 256 - QUERY_WINDOW);
    }
    assert!(world.server.query_budget.used() <= STEPS_PER_ITERATION + BEYOND, "{}", world.server.query_budget.used());

    let query = NameQuery::Exact(name("plan.pdf"));
    assert!(burst(&mut world, &mut vader, vec![Request::Search { query, cursor: None }]).is_empty(), "it waits");
    let (mut turns, mut answered, mut heard) = (0, 0, None);
    while world.server.poll_timeout().is_some_and(|due| due <= world.now) {
        turns += 1;
        world.server.run_deferred_work(world.now, false, &mut world.out);
        assert!(world.server.query_budget.used() <= STEPS_PER_ITERATION + BEYOND);
        if let Some((_, response)) = replies(&mut world, &mut vader).pop() {
            heard = Some((turns, response));
        }
        answered += replies(&mut world, &mut hans).len() + replies(&mut world, &mut luke).len();
    }
    assert_eq!(heard, Some((2, Response::SearchResults { names: vec![name("plan.pdf")], next: None })));
    assert_eq!(answered, 2 * QUERY_WINDOW, "the others are answered in time");
    assert!(turns > 2 * QUERY_WINDOW, "each takes more than a turn: {turns}");
}

#[test]
fn whatever_is_asked_is_charged_to_the_turn() {
    let (mut world, mut hans, mut vader) = crowded_world();
    let requests = [
        Request::Peers { cursor: None },
        Request::OwnPublications { user_initiated: true, cursor: None },
        Request::AudienceOf { name: name("plan.pdf"), cursor: None },
        Request::Sources { files: Vec::new(), cursor: None },
        Request::Search { query: NameQuery::Substring("x".repeat(512)), cursor: None },
    ];
    for request in requests {
        let answered = burst(&mut world, &mut hans, vec![request.clone(); 256]).len();
        assert!(answered < 256, "{request:?}");
        assert!(world.server.query_budget.used() <= STEPS_PER_ITERATION + BEYOND, "{request:?}");
        assert!(burst(&mut world, &mut vader, vec![request.clone()]).is_empty(), "{request:?}");
        world.settle();
        world.server.handle_timeout(world.now, &mut world.out);
    }
}

#[test]
fn a_repeat_of_what_waits_is_answered_once_and_who_leaves_is_forgotten() {
    let (mut world, mut hans, mut vader) = crowded_world();
    burst(&mut world, &mut hans, vec![long_search(); 2]);
    hans.next_id -= 2;
    assert!(burst(&mut world, &mut hans, vec![long_search(); 2]).is_empty());
    let sent = world.settle();
    assert_eq!(hans.hear(sent).len(), 2);

    burst(&mut world, &mut vader, vec![long_search(); 2]);
    world.say(&mut vader, &ClientMessage::Logout);
    world.advance(Duration::from_millis(1));
    assert!(
        world.settle().is_empty() && world.server.queued_queries.is_empty() && !world.server.query_budget.needs_reset()
    );
}

#[test]
fn refused_publications_that_inherit_long_audiences_are_charged_too() {
    let (mut world, mut hans, _) = crowded_world();
    let owner = world.server.index.intern_owner(&user("yoda"));
    let files = [file("a"), file("b")];
    for (file, last) in files.iter().zip(["x", "y"]) {
        let others = (0..STEPS_PER_ITERATION).map(|at| user(&format!("user{at}")));
        let audience = Audience::only(others.chain([user("hans"), user(last)]).collect());
        world.server.index.publish(owner, file, &Arc::new(audience), 1);
    }
    for _ in 0..3 {
        let publish = Request::Publish { files: files.to_vec(), audience: AudienceRef::Inherited };
        let answers = burst(&mut world, &mut hans, vec![publish; 20]);
        let refused = answers.iter().filter(|(_, response)| *response == Response::Rejected).count();
        assert_eq!((answers.len(), refused), (20, 1), "the others are told to wait");
        world.settle();
    }
}
