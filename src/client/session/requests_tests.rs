//! Requests through a session with a scripted server: what is sent when, and what ends how.

use std::collections::BTreeSet;

use super::super::test_support::{Pair, Policy};
use super::super::{Event, RequestError};
use super::*;
use crate::common::message::{NameQuery, ResolvePurpose};
use crate::common::types::{Content, ContentHash, FileName, NamedContent, PublicationsDigest};

const PEERS: Request = Request::Peers { cursor: None };
const NOBODY: Response = Response::Users { users: Vec::new(), next: None };

fn withdrawn(found: u64) -> Response {
    Response::Unpublished { published_mask: found, digest: PublicationsDigest::default() }
}

fn unpublish(name: &str) -> Request {
    Request::Unpublish { names: vec![FileName::parse(name).unwrap()] }
}

fn answer(pair: &mut Pair) -> (RequestHandle, Result<Response, RequestError>) {
    match pair.event() {
        Event::RequestFinished { request, result } => (request, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_repeated_with_the_same_id_until_it_is_answered() {
    let mut pair = Pair::standing();
    let handle = pair.ask(PEERS);
    pair.pass(Duration::from_millis(100 + 200 + 400 + 800 + 800));
    let sent: Vec<_> = std::iter::from_fn(|| pair.server.request()).collect();
    assert_eq!(sent.len(), 6, "at 0, 100, 300, 700, 1500 and 2300 ms");
    assert!(sent.iter().all(|repeat| *repeat == sent[0]));
    pair.reply(sent[0].0, NOBODY);
    assert_eq!(answer(&mut pair), (handle, Ok(NOBODY)));
    pair.pass(Duration::from_secs(60));
    assert_eq!(pair.server.request(), None);
}

#[test]
fn a_late_reply_answers_nothing_else() {
    let mut pair = Pair::standing();
    pair.ask(PEERS);
    let (first, ..) = pair.server.request().unwrap();
    pair.reply(first, NOBODY);
    assert!(answer(&mut pair).1.is_ok());
    pair.ask(Request::OwnPublications { user_initiated: true, cursor: None });
    pair.reply(first, NOBODY);
    pair.no_event();
    let (second, floor, _) = pair.server.request().unwrap();
    assert!(second > first && floor == second, "what has ended lies below the floor");
}

#[test]
fn queries_have_a_window_and_mutations_go_one_by_one() {
    let mut pair = Pair::standing();
    for at in 0..QUERY_WINDOW + 5 {
        pair.ask(PEERS);
        if at < 3 {
            pair.ask(unpublish(&format!("file {at}")));
        }
    }
    let sent: Vec<_> = std::iter::from_fn(|| pair.server.request()).collect();
    let (mutations, queries): (Vec<_>, Vec<_>) = sent.iter().partition(|(_, _, request)| request.is_mutation());
    assert_eq!(mutations.len(), 1);
    assert!(queries.len() >= QUERY_WINDOW - 1 && queries.len() <= QUERY_WINDOW);
    pair.reply(mutations[0].0, withdrawn(1));
    let next: Vec<_> = std::iter::from_fn(|| pair.server.request()).filter(|sent| sent.2.is_mutation()).collect();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].2, unpublish("file 1"));
    assert!(next[0].0 > mutations[0].0);
}

#[test]
fn ids_rise_and_the_floor_is_the_lowest_that_has_not_ended() {
    let mut pair = Pair::standing();
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        pair.ask(PEERS);
        let (id, floor, _) = pair.server.request().unwrap();
        assert!(ids.insert(id) && ids.last() == Some(&id));
        assert_eq!(Some(&floor), ids.first());
    }
    let (first, second) = (*ids.first().unwrap(), *ids.iter().nth(1).unwrap());
    pair.reply(first, NOBODY);
    pair.ask(PEERS);
    assert_eq!(pair.server.request().unwrap().1, second);
}

#[test]
fn busy_is_waited_out() {
    let mut pair = Pair::standing();
    let handle = pair.ask(unpublish("a"));
    let (id, ..) = pair.server.request().unwrap();
    pair.reply(id, Response::Busy { retry_ms: 500 });
    pair.pass(Duration::from_millis(499));
    assert_eq!(pair.server.request(), None);
    pair.pass(Duration::from_millis(1));
    assert_eq!(pair.server.request().map(|(repeat, ..)| repeat), Some(id));
    pair.reply(id, withdrawn(1));
    assert_eq!(answer(&mut pair), (handle, Ok(withdrawn(1))));
}

#[test]
fn a_request_waits_out_a_reconnect_and_keeps_its_id() {
    let mut pair = Pair::standing();
    let under_way = pair.ask(unpublish("a"));
    let (id, ..) = pair.server.request().unwrap();
    pair.deliver(pair.server.reset(500));
    let meanwhile = pair.ask(PEERS);
    pair.no_event();
    pair.pass(Duration::from_millis(500));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    let (repeated, _, request) = pair.server.request().unwrap();
    assert_eq!((repeated, request), (id, unpublish("a")), "at once, under the same id");
    let (later, ..) = pair.server.request().unwrap();
    pair.reply(later, NOBODY);
    pair.reply(id, withdrawn(1));
    assert_eq!(answer(&mut pair), (meanwhile, Ok(NOBODY)));
    assert_eq!(answer(&mut pair), (under_way, Ok(withdrawn(1))));
}

#[test]
fn patience_ends_after_thirty_seconds_without_an_answer() {
    let mut pair = Pair::standing();
    let sent = pair.ask(PEERS);
    pair.connected = false;
    pair.pass(Duration::from_secs(10));
    assert!(matches!(pair.event(), Event::ConnectionLost));
    let queued = pair.ask(unpublish("a"));
    pair.pass(COMMAND_TIMEOUT - Duration::from_secs(10));
    assert_eq!(answer(&mut pair), (sent, Err(RequestError::Unreachable)));
    pair.no_event();
    pair.pass(Duration::from_secs(10));
    assert_eq!(answer(&mut pair), (queued, Err(RequestError::Unreachable)));
}

#[test]
fn what_waits_in_a_long_queue_does_not_lose_patience_while_others_are_answered() {
    let mut pair = Pair::standing();
    let asked: Vec<_> = (0..10).map(|at| pair.ask(unpublish(&format!("file {at}")))).collect();
    for handle in asked {
        pair.pass(Duration::from_secs(20));
        let (id, ..) = std::iter::from_fn(|| pair.server.request()).last().unwrap();
        pair.reply(id, withdrawn(1));
        assert_eq!(answer(&mut pair), (handle, Ok(withdrawn(1))));
    }
}

#[test]
fn leaving_and_logging_out_end_all_requests() {
    for leaves in [true, false] {
        let mut pair = Pair::standing();
        let asked = [pair.ask(PEERS), pair.ask(unpublish("a")), pair.ask(unpublish("b"))];
        if leaves {
            pair.session.logout(pair.now);
            pair.exchange();
        } else {
            (pair.server.on_resume, pair.server.on_login) = (Policy::Refuse, Policy::Refuse);
            pair.deliver(pair.server.reset(0));
            pair.pass(super::super::handshake::LOGIN2_GRACE);
        }
        let ended: BTreeSet<_> = asked
            .iter()
            .map(|_| match answer(&mut pair) {
                (handle, Err(RequestError::NotAuthenticated)) => handle,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ended, BTreeSet::from(asked));
    }
}

#[test]
fn a_refused_and_an_oversized_request_are_told_as_ours() {
    let mut pair = Pair::standing();
    let handle = pair.ask(PEERS);
    let (id, ..) = pair.server.request().unwrap();
    pair.reply(id, Response::Rejected);
    assert_eq!(answer(&mut pair), (handle, Err(RequestError::Refused)));
    let content = Content { hash: ContentHash([0; 32]), size: 0, mtime_ms: 0 };
    let file = NamedContent { name: FileName::parse(&"x".repeat(200)).unwrap(), content };
    let audience = crate::common::message::AudienceRef::Everyone;
    let handle = pair.ask(Request::Publish { files: vec![file; 10], audience });
    assert_eq!(answer(&mut pair), (handle, Err(RequestError::Refused)));
    assert_eq!(pair.server.request(), None, "nothing was sent");
}

#[test]
fn the_longest_query_fits() {
    let mut pair = Pair::standing();
    let query = NameQuery::Substring("x".repeat(512));
    let cursor = Some(crate::common::message::Cursor(vec![0; 48]));
    pair.ask(Request::Resolve { query, purpose: ResolvePurpose::Download, cursor });
    assert!(pair.server.request().is_some());
}
