use super::PageResult::{Complete, Joined, Unjoined};
use super::*;
use crate::common::message::Cursor;
use crate::common::types::UserName;

fn user(number: u8) -> UserName {
    UserName::parse(&format!("user-{number}")).unwrap()
}

/// Page `number` of a list of `count` pages, with one user.
fn page(number: u8, count: u8) -> Response {
    let next = (number + 1 < count).then(|| Cursor(vec![number + 1]));
    Response::Users { users: vec![user(number)], next }
}

/// The first pages of such a list as one.
fn joined(pages: u8, count: u8) -> Option<Response> {
    let next = (pages < count).then(|| Cursor(vec![pages]));
    Some(Response::Users { users: (0..pages).map(user).collect(), next })
}

fn sent() -> ReplyPages {
    let mut pages = ReplyPages::new(&mut Request::Peers { cursor: None });
    assert_eq!(pages.on_sent(), REPLY_PAGES_MAX);
    pages
}

#[test]
fn pages_that_come_in_any_order_and_more_than_once_are_joined_in_order() {
    let mut pages = sent();
    for (number, result) in
        [(2, Unjoined), (0, Joined), (2, Unjoined), (0, Unjoined), (3, Unjoined), (4, Unjoined), (1, Complete)]
    {
        assert_eq!(pages.insert(number, page(number, 5)), result, "page {number}");
    }
    assert_eq!(pages.take(), joined(5, 5));
}

#[test]
fn as_many_pages_as_were_asked_for_complete_a_reply_and_others_are_ignored() {
    let mut pages = sent();
    for number in [REPLY_PAGES_MAX, 255] {
        assert_eq!(pages.insert(number, page(REPLY_PAGES_MAX, 255)), Unjoined);
    }
    for number in 0..REPLY_PAGES_MAX {
        let result = if number == REPLY_PAGES_MAX - 1 { Complete } else { Joined };
        assert_eq!(pages.insert(number, page(number, 255)), result);
    }
    assert_eq!(pages.take(), joined(REPLY_PAGES_MAX, 255));
}

#[test]
fn pages_after_the_last_are_left_out() {
    let mut pages = sent();
    assert_eq!(pages.insert(2, page(2, 4)), Unjoined);
    assert_eq!(pages.insert(1, page(1, 2)), Unjoined);
    assert_eq!(pages.insert(0, page(0, 4)), Complete);
    assert_eq!(pages.take(), joined(2, 2));
}

#[test]
fn pages_after_one_that_is_missing_are_left_out() {
    let mut pages = sent();
    assert_eq!(pages.insert(1, page(1, 4)), Unjoined);
    assert!(!pages.has_any());
    assert_eq!(pages.insert(0, page(0, 4)), Joined, "with page 1");
    assert_eq!(pages.insert(3, page(3, 4)), Unjoined);
    assert!(pages.has_any());
    assert_eq!(pages.take(), joined(2, 4));
}

#[test]
fn of_a_repeated_request_only_the_first_page_counts() {
    let mut pages = sent();
    assert_eq!(pages.insert(1, page(1, 4)), Unjoined);
    assert_eq!(pages.on_sent(), 1);
    assert_eq!(pages.insert(2, page(2, 4)), Unjoined);
    assert_eq!(pages.insert(0, page(0, 4)), Complete);
    assert_eq!(pages.take(), joined(1, 4), "page 1 may be of the other answer");
}

#[test]
fn something_else_in_place_of_a_page_completes_the_reply() {
    let mut pages = sent();
    assert_eq!(pages.insert(0, page(0, 4)), Joined);
    assert_eq!(pages.insert(1, Response::NotPublished), Complete);
    assert_eq!(pages.take(), joined(1, 4));
    let mut pages = sent();
    assert_eq!(pages.insert(0, Response::StaleCursor), Complete);
    assert_eq!(pages.take(), Some(Response::StaleCursor));
}

#[test]
fn sources_and_what_is_no_list_are_asked_for_by_single_pages() {
    let sources = Request::Sources { files: vec![], avoid: vec![], cursor: None };
    for mut request in [sources, Request::Unsubscribe { numbers: 1 }, Request::Unpublish { names: vec![] }] {
        assert_eq!(ReplyPages::new(&mut request).on_sent(), 1);
    }
}
