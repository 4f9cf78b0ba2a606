//! Requests for several pages of a list.

use std::collections::BTreeSet;
use std::sync::Arc;

use log::Level;

use crate::common::limits::REPLY_PAGES_MAX;
use crate::common::message::{ClientMessage, Cursor, NameQuery, Request, Response, ServerMessage};
use crate::common::types::{Audience, FileName, RequestId};
use crate::server::core::ReceiveBuffer;
use crate::server::core::query_budget::STEPS_PER_ITERATION;
use crate::server::test_support::{TestClient, TestServer, file, logged, user};

/// Names of which about ten fit into a page.
const NAMES: usize = 1_000;

fn test_with_many_names() -> (TestServer, TestClient, TestClient) {
    let mut test = TestServer::new(&["hans"]);
    let (hans, vader) = (test.insert_session("hans"), test.insert_session("vader"));
    test.insert_session("yoda");
    let owner = test.server.index.intern_owner(&user("yoda"));
    for at in 0..NAMES {
        let name = format!("{at:0>100}");
        test.server.index.publish(owner, &file(&name), &Arc::new(Audience::Everyone), 1);
    }
    test.run_until_idle();
    (test, hans, vader)
}

fn search(cursor: Option<Cursor>) -> Request {
    Request::Search { query: NameQuery::Prefix(String::new()), cursor }
}

fn message(id: u64, pages: u8, cursor: Option<Cursor>) -> ClientMessage {
    ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(id), pages, request: search(cursor) }
}

/// The replies with their ids and pages.
fn replies(messages: Vec<ServerMessage>) -> Vec<(u64, u8, Response)> {
    let reply = |message| match message {
        ServerMessage::Reply { id, page, response } => (id.0, page, response),
        other => panic!("{other:?}"),
    };
    messages.into_iter().map(reply).collect()
}

fn numbers(replies: &[(u64, u8, Response)]) -> Vec<(u64, u8)> {
    replies.iter().map(|(id, page, _)| (*id, *page)).collect()
}

fn names(replies: &[(u64, u8, Response)]) -> Vec<FileName> {
    let names = |(.., response): &(u64, u8, Response)| match response {
        Response::SearchResults { names, .. } => names.clone(),
        other => panic!("{other:?}"),
    };
    replies.iter().flat_map(names).collect()
}

/// Passes a message in and returns the replies that come at once.
fn pass(test: &mut TestServer, client: &mut TestClient, message: &ClientMessage) -> Vec<(u64, u8, Response)> {
    let mut bytes = client.seal(message);
    test.server.handle_datagram(test.now, client.address, &mut bytes, &mut test.out);
    replies(client.receive(std::mem::take(&mut test.out.datagrams)))
}

/// Sends a request for pages and returns all replies, in order.
fn ask(test: &mut TestServer, client: &mut TestClient, message: &ClientMessage) -> Vec<(u64, u8, Response)> {
    replies(test.send_message(client, message))
}

#[test]
fn the_pages_of_one_request_are_those_of_several() {
    let (mut test, mut hans, _) = test_with_many_names();
    let (mut listed, mut cursor, mut requests) = (Vec::<FileName>::new(), None, 0);
    loop {
        requests += 1;
        let answers = ask(&mut test, &mut hans, &message(requests, 5, cursor.take()));
        for (number, (id, page, response)) in answers.into_iter().enumerate() {
            assert_eq!((id, usize::from(page)), (requests, number));
            let Response::SearchResults { names, next } = response else { panic!("{response:?}") };
            listed.extend(names);
            cursor = next;
        }
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((listed.len(), listed.iter().collect::<BTreeSet<_>>().len()), (NAMES, NAMES), "each name once");
    let (mut single, mut cursor) = (Vec::new(), None);
    hans.next_id = requests;
    let pages = loop {
        let Response::SearchResults { names, next } = test.request(&mut hans, search(cursor)) else { panic!("names") };
        single.extend(names);
        cursor = next;
        if cursor.is_none() {
            break hans.next_id - requests;
        }
    };
    assert_eq!(single, listed);
    assert_eq!(requests, pages.div_ceil(5), "{pages} pages");
}

#[test]
fn others_are_served_between_the_pages_and_each_iteration_stays_short() {
    let (mut test, mut hans, mut vader) = test_with_many_names();
    let mut answers = pass(&mut test, &mut hans, &message(1, REPLY_PAGES_MAX, None));
    assert_eq!(answers.len(), 1, "the first page comes at once");
    while answers.len() < usize::from(REPLY_PAGES_MAX) {
        test.server.run_deferred_work(test.now, ReceiveBuffer::MayHoldMore, &mut test.out);
        let more = replies(hans.receive(std::mem::take(&mut test.out.datagrams)));
        assert!((1..=4).contains(&more.len()), "{} pages in an iteration", more.len());
        answers.extend(more);
        vader.next_id += 1;
        let id = vader.next_id;
        assert_eq!(numbers(&pass(&mut test, &mut vader, &message(id, 1, None))), [(id, 0)], "at once");
    }
    assert!(test.run_until_idle().is_empty(), "no more than were asked for");
}

#[test]
fn a_repetition_is_answered_from_page_0_and_ends_the_answer_before() {
    let (mut test, mut hans, _) = test_with_many_names();
    let first = pass(&mut test, &mut hans, &message(1, REPLY_PAGES_MAX, None));
    assert_eq!(numbers(&first), [(1, 0)]);
    let again = ask(&mut test, &mut hans, &message(1, 1, None));
    assert_eq!(numbers(&again), [(1, 0)]);
    assert_eq!(names(&again), names(&first));
    let ended = ask(&mut test, &mut hans, &message(1, 2, None));
    assert_eq!(numbers(&ended), [(1, 0), (1, 1)], "that answer has ended too");
}

#[test]
fn a_repetition_of_what_waits_for_its_first_page_changes_nothing() {
    let (mut test, mut hans, _) = test_with_many_names();
    test.server.query_budget.charge(STEPS_PER_ITERATION);
    for pages in [3, 1] {
        assert!(pass(&mut test, &mut hans, &message(1, pages, None)).is_empty());
    }
    let answers = replies(hans.receive(test.run_until_idle()));
    assert_eq!(numbers(&answers), [(1, 0), (1, 1), (1, 2)]);
}

#[test]
fn a_finished_request_and_an_ended_session_get_no_more_pages() {
    let (mut test, mut hans, mut vader) = test_with_many_names();
    assert_eq!(pass(&mut test, &mut hans, &message(1, REPLY_PAGES_MAX, None)).len(), 1);
    let answers = ask(&mut test, &mut hans, &message(2, 2, None));
    assert_eq!(numbers(&answers), [(2, 0), (2, 1)]);
    assert_eq!(pass(&mut test, &mut vader, &message(1, REPLY_PAGES_MAX, None)).len(), 1);
    let sent = test.send_message(&mut vader, &ClientMessage::Logout);
    assert_eq!(sent, [ServerMessage::LogoutAck]);
    assert!(test.run_until_idle().is_empty());
    assert!(test.server.queued_queries.is_empty());
}

#[test]
fn a_request_for_many_pages_is_logged_once() {
    let (mut test, mut hans, _) = test_with_many_names();
    let lines = logged(Level::Info, || {
        assert_eq!(ask(&mut test, &mut hans, &message(1, REPLY_PAGES_MAX, None)).len(), 32);
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
}
