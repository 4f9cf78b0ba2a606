//! Requests through a session with a scripted server: when they are sent, and how they end.

use std::collections::BTreeSet;

use super::super::test_support::{Pair, Policy};
use super::super::{Event, RequestError};
use super::*;
use crate::common::limits::REPLY_PAGES_MAX;
use crate::common::message::{NameQuery, ResolvePurpose};
use crate::common::types::{Content, ContentHash, FileName, NamedContent, PublicationsDigest};

const PEERS: Request = Request::Peers { cursor: None };
const NO_USERS: Response = Response::Peers { peers: Vec::new(), next: None };

fn withdrawn(found: u64) -> Response {
    Response::Unpublished { published_mask: found, digest: PublicationsDigest::default() }
}

fn unpublish(name: &str) -> Request {
    Request::Unpublish { names: vec![FileName::parse(name).unwrap()] }
}

fn finished(pair: &mut Pair) -> (RequestHandle, Result<Response, RequestError>) {
    match pair.event() {
        Event::RequestFinished { request, result } => (request, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_is_retransmitted_with_the_same_id_until_the_reply() {
    let mut pair = Pair::established();
    let handle = pair.request(PEERS);
    pair.advance(Duration::from_millis(100 + 200 + 400 + 800 + 800));
    let sent: Vec<_> = std::iter::from_fn(|| pair.server.request()).collect();
    assert_eq!(sent.len(), 6, "at 0, 100, 300, 700, 1500 and 2300 ms");
    assert!(sent.iter().all(|repeat| *repeat == sent[0]));
    pair.reply(sent[0].0, NO_USERS);
    assert_eq!(finished(&mut pair), (handle, Ok(NO_USERS)));
    pair.advance(Duration::from_secs(60));
    assert_eq!(pair.server.request(), None);
}

#[test]
fn a_late_reply_completes_no_other_request() {
    let mut pair = Pair::established();
    pair.request(PEERS);
    let (first, ..) = pair.server.request().unwrap();
    pair.reply(first, NO_USERS);
    assert!(finished(&mut pair).1.is_ok());
    pair.request(Request::OwnPublications { user_initiated: true, cursor: None });
    pair.reply(first, NO_USERS);
    pair.no_event();
    let (second, floor, _) = pair.server.request().unwrap();
    assert!(second > first && floor == second, "the lowest pending id is above the ended one");
}

#[test]
fn queries_have_a_window_and_mutations_are_sent_one_by_one() {
    let mut pair = Pair::established();
    for at in 0..QUERY_WINDOW + 5 {
        pair.request(PEERS);
        if at < 3 {
            pair.request(unpublish(&format!("file {at}")));
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
fn ids_rise_and_the_lowest_pending_id_is_sent() {
    let mut pair = Pair::established();
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        pair.request(PEERS);
        let (id, floor, _) = pair.server.request().unwrap();
        assert!(ids.insert(id) && ids.last() == Some(&id));
        assert_eq!(Some(&floor), ids.first());
    }
    let (first, second) = (*ids.first().unwrap(), *ids.iter().nth(1).unwrap());
    pair.reply(first, NO_USERS);
    pair.request(PEERS);
    assert_eq!(pair.server.request().unwrap().1, second);
}

#[test]
fn a_busy_reply_delays_the_retransmission() {
    let mut pair = Pair::established();
    let handle = pair.request(unpublish("a"));
    let (id, ..) = pair.server.request().unwrap();
    pair.reply(id, Response::Busy { retry_ms: 500 });
    pair.advance(Duration::from_millis(499));
    assert_eq!(pair.server.request(), None);
    pair.advance(Duration::from_millis(1));
    assert_eq!(pair.server.request().map(|(repeat, ..)| repeat), Some(id));
    pair.reply(id, withdrawn(1));
    assert_eq!(finished(&mut pair), (handle, Ok(withdrawn(1))));
}

#[test]
fn busy_for_no_time_does_not_make_the_client_spin() {
    let mut pair = Pair::established();
    let handle = pair.request(PEERS);
    let mut sent = 0;
    for _ in 0..1_000 {
        if let Some((id, ..)) = pair.server.request() {
            sent += 1;
            pair.reply(id, Response::Busy { retry_ms: 0 });
        }
        pair.advance(Duration::from_millis(1));
    }
    assert!((50..=101).contains(&sent), "{sent} in a second");
    let (id, ..) = loop {
        pair.advance(Duration::from_millis(1));
        if let Some(request) = pair.server.request() {
            break request;
        }
    };
    pair.reply(id, NO_USERS);
    assert_eq!(finished(&mut pair), (handle, Ok(NO_USERS)));
}

#[test]
fn a_server_that_is_always_busy_ends_queued_requests_too() {
    let mut pair = Pair::established();
    let handles: Vec<RequestHandle> = (0..2).map(|at| pair.request(unpublish(&format!("file {at}")))).collect();
    for _ in 0..COMMAND_TIMEOUT.as_secs() * 2 + 2 {
        while let Some((id, ..)) = pair.server.request() {
            pair.reply(id, Response::Busy { retry_ms: 1_000 });
        }
        pair.advance(Duration::from_secs(1));
    }
    let ended: Vec<RequestHandle> = (0..2).map(|_| finished(&mut pair).0).collect();
    assert_eq!(ended, handles);
}

#[test]
fn a_server_that_is_busy_to_the_end_is_not_called_silent() {
    let mut pair = Pair::established();
    let handle = pair.request(unpublish("a"));
    let until = COMMAND_TIMEOUT.as_millis() as u64 / 5_000;
    for _ in 0..until {
        let (id, ..) = pair.server.request().unwrap();
        pair.reply(id, Response::Busy { retry_ms: 5_000 });
        pair.advance(Duration::from_secs(5));
    }
    assert_eq!(finished(&mut pair), (handle, Err(RequestError::Busy)));
}

#[test]
fn a_request_survives_a_reconnect_with_its_id() {
    let mut pair = Pair::established();
    let pending = pair.request(unpublish("a"));
    let (id, ..) = pair.server.request().unwrap();
    pair.deliver(pair.server.reset(500));
    let meanwhile = pair.request(PEERS);
    pair.no_event();
    pair.advance(Duration::from_millis(500));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    let (repeated, _, request) = pair.server.request().unwrap();
    assert_eq!((repeated, request), (id, unpublish("a")), "at once, under the same id");
    let (later, ..) = pair.server.request().unwrap();
    pair.reply(later, NO_USERS);
    pair.reply(id, withdrawn(1));
    assert_eq!(finished(&mut pair), (meanwhile, Ok(NO_USERS)));
    assert_eq!(finished(&mut pair), (pending, Ok(withdrawn(1))));
}

#[test]
fn a_request_expires_after_thirty_seconds_without_a_reply() {
    let mut pair = Pair::established();
    let sent = pair.request(PEERS);
    pair.connected = false;
    pair.advance(Duration::from_secs(10));
    assert!(matches!(pair.event(), Event::ConnectionLost));
    let queued = pair.request(unpublish("a"));
    pair.advance(COMMAND_TIMEOUT - Duration::from_secs(10));
    assert_eq!(finished(&mut pair), (sent, Err(RequestError::Unreachable)));
    pair.no_event();
    pair.advance(Duration::from_secs(10));
    assert_eq!(finished(&mut pair), (queued, Err(RequestError::Unreachable)));
}

#[test]
fn a_queued_request_does_not_expire_while_others_are_completed() {
    let mut pair = Pair::established();
    let handles: Vec<_> = (0..10).map(|at| pair.request(unpublish(&format!("file {at}")))).collect();
    for handle in handles {
        pair.advance(Duration::from_secs(20));
        let (id, ..) = std::iter::from_fn(|| pair.server.request()).last().unwrap();
        pair.reply(id, withdrawn(1));
        assert_eq!(finished(&mut pair), (handle, Ok(withdrawn(1))));
    }
}

#[test]
fn the_end_of_a_session_ends_all_requests() {
    for by_user in [true, false] {
        let mut pair = Pair::established();
        let handles = [pair.request(PEERS), pair.request(unpublish("a")), pair.request(unpublish("b"))];
        if by_user {
            pair.session.logout(pair.now);
            pair.exchange();
        } else {
            (pair.server.on_resume, pair.server.on_login) = (Policy::Refuse, Policy::Refuse);
            pair.deliver(pair.server.reset(0));
            pair.advance(super::super::handshake::LOGIN2_GRACE);
        }
        let ended: BTreeSet<_> = handles
            .iter()
            .map(|_| match finished(&mut pair) {
                (handle, Err(RequestError::NotAuthenticated)) => handle,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ended, BTreeSet::from(handles));
    }
}

#[test]
fn a_rejected_and_an_oversized_request_fail_as_refused() {
    let mut pair = Pair::established();
    let handle = pair.request(PEERS);
    let (id, ..) = pair.server.request().unwrap();
    pair.reply(id, Response::Rejected);
    assert_eq!(finished(&mut pair), (handle, Err(RequestError::Refused)));
    let content = Content { hash: ContentHash([0; 32]), size: 0, mtime_ms: 0 };
    let file = NamedContent { name: FileName::parse(&"x".repeat(200)).unwrap(), content };
    let audience = crate::common::message::AudienceRef::Everyone;
    let handle = pair.request(Request::Publish { files: vec![file; 10], audience });
    assert_eq!(finished(&mut pair), (handle, Err(RequestError::Refused)));
    assert_eq!(pair.server.request(), None, "nothing was sent");
}

#[test]
fn the_longest_query_fits() {
    let mut pair = Pair::established();
    let query = NameQuery::Substring("x".repeat(512));
    let cursor = Some(crate::common::message::Cursor(vec![0; 48]));
    pair.request(Request::Resolve { query, purpose: ResolvePurpose::Download, cursor });
    assert!(pair.server.request().is_some());
}

/// A page of a list with one name.
fn page(name: &str, next: Option<u8>) -> Response {
    let next = next.map(|byte| crate::common::message::Cursor(vec![byte]));
    Response::SearchResults { names: vec![FileName::parse(name).unwrap()], next }
}

fn names(response: Result<Response, RequestError>) -> (Vec<String>, bool) {
    match response {
        Ok(Response::SearchResults { names, next }) => {
            (names.iter().map(|name| name.as_str().to_owned()).collect(), next.is_some())
        }
        other => panic!("{other:?}"),
    }
}

fn search() -> Request {
    Request::Search { query: NameQuery::Prefix(String::new()), cursor: None }
}

#[test]
fn a_list_is_asked_for_in_many_pages_which_make_one_response() {
    let mut pair = Pair::established();
    let handle = pair.request(search());
    let ClientMessage::Request { id, pages, .. } = pair.server.messages.pop_back().unwrap() else {
        panic!("a request")
    };
    assert_eq!(pages, REPLY_PAGES_MAX);
    for (number, name, next) in [(2, "c", None), (0, "a", Some(1)), (1, "b", Some(2))] {
        pair.no_event();
        pair.reply_page(id, number, page(name, next));
    }
    let (ended, response) = finished(&mut pair);
    assert_eq!((ended, names(response)), (handle, (vec!["a".into(), "b".into(), "c".into()], false)));
}

#[test]
fn a_lost_page_ends_the_response_before_it_and_a_slow_one_does_not() {
    let mut pair = Pair::established();
    let handle = pair.request(search());
    let (id, ..) = pair.server.request().unwrap();
    for number in 0..3 {
        pair.advance(REQUEST_RETRY_FIRST - Duration::from_millis(1));
        pair.reply_page(id, number, page(&format!("f{number}"), Some(number)));
    }
    pair.advance(REQUEST_RETRY_FIRST - Duration::from_millis(1));
    pair.no_event();
    for number in [0, 2, 4, REPLY_PAGES_MAX] {
        pair.reply_page(id, number, page("f4", None));
    }
    pair.no_event();
    pair.advance(Duration::from_millis(1));
    let (ended, response) = finished(&mut pair);
    assert_eq!((ended, names(response)), (handle, (vec!["f0".into(), "f1".into(), "f2".into()], true)));
    assert_eq!(pair.server.request(), None, "nothing is repeated");
    pair.reply_page(id, 3, page("f3", Some(4)));
    pair.no_event();
}

#[test]
fn after_the_loss_of_a_first_page_one_page_is_asked_for() {
    let mut pair = Pair::established();
    pair.request(search());
    let (id, ..) = pair.server.request().unwrap();
    pair.reply_page(id, 1, page("other answer", None));
    pair.advance(REQUEST_RETRY_FIRST);
    let ClientMessage::Request { id: repeated, pages, .. } = pair.server.messages.pop_back().unwrap() else {
        panic!("a request")
    };
    assert_eq!((repeated, pages), (id, 1));
    pair.reply_page(id, 0, page("a", Some(1)));
    assert_eq!(names(finished(&mut pair).1), (vec!["a".into()], true));
}

#[test]
fn the_pages_before_a_reconnect_are_a_response() {
    let mut pair = Pair::established();
    pair.request(search());
    let (id, ..) = pair.server.request().unwrap();
    pair.reply_page(id, 0, page("a", Some(1)));
    pair.deliver(pair.server.reset(0));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    assert_eq!(names(finished(&mut pair).1), (vec!["a".into()], true));
    assert_eq!(pair.server.request(), None);
}
