//! Waits of a session with a scripted server.

use std::time::Duration;

use super::super::test_support::{LIVENESS, Pair};
use super::super::{Event, RequestError};
use super::*;
use crate::common::message::{Response, ServerMessage};
use crate::common::types::RequestId;

const LONG: Duration = Duration::from_secs(60);

fn file(text: &str) -> WaitCondition {
    WaitCondition::FileAvailable(FileName::parse(text).unwrap())
}

fn gone(text: &str) -> WaitCondition {
    WaitCondition::PeerGone(UserName::parse(text).unwrap())
}

fn wait(pair: &mut Pair, id: u64, condition: WaitCondition, timeout: Duration) {
    pair.session.wait(pair.now, WaitId(id), condition, timeout);
    pair.exchange();
}

fn state(changes: u64, present: u32) -> SubscriptionState {
    SubscriptionState { changes, present, absent: !present }
}

/// The id and the number of the next SUBSCRIBE.
fn subscribed(pair: &mut Pair) -> (RequestId, u8) {
    match pair.server.request() {
        Some((id, _, Request::Subscribe { number, .. })) => (id, number),
        other => panic!("{other:?}"),
    }
}

fn report(pair: &mut Pair, state: SubscriptionState) {
    let datagram = pair.server.seal(&ServerMessage::Changed(state));
    pair.deliver(datagram);
}

fn finished(pair: &mut Pair) -> (u64, Result<WaitOutcome, RequestError>) {
    match pair.event() {
        Event::WaitFinished(FinishedWait { wait, result }) => (wait.0, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wait_subscribes_and_ends_with_the_report_of_its_own_subscription() {
    let mut pair = Pair::established();
    wait(&mut pair, 1, file("a"), LONG);
    wait(&mut pair, 2, file("b"), LONG);
    let (first, second) = (subscribed(&mut pair), subscribed(&mut pair));
    assert_ne!(first.1, second.1);
    pair.reply(first.0, Response::Subscribed(state(0, 0)));
    pair.reply(second.0, Response::Subscribed(state(0, 0)));
    pair.no_event();
    report(&mut pair, state(2, 1 << second.1));
    assert_eq!(finished(&mut pair), (2, Ok(WaitOutcome::Met)));
    let unsubscribed = pair.server.request().map(|(_, _, request)| request);
    assert_eq!(unsubscribed, Some(Request::Unsubscribe { numbers: 1 << second.1 }));
    report(&mut pair, state(1, 1 << first.1));
    pair.no_event();
    report(&mut pair, state(3, 1 << first.1));
    assert_eq!(finished(&mut pair), (1, Ok(WaitOutcome::Met)), "the report before was older than the latest");
}

#[test]
fn a_state_says_nothing_about_a_subscription_that_is_not_confirmed() {
    let mut pair = Pair::established();
    wait(&mut pair, 1, gone("vader"), LONG);
    report(&mut pair, state(0, 0));
    pair.no_event();
    let (id, number) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(1, 1 << number)));
    pair.no_event();
    report(&mut pair, state(2, 0));
    assert_eq!(finished(&mut pair), (1, Ok(WaitOutcome::Met)));
}

#[test]
fn absence_that_the_server_does_not_know_is_no_departure() {
    let mut pair = Pair::established();
    wait(&mut pair, 1, gone("vader"), LONG);
    let (id, _) = subscribed(&mut pair);
    let unknown = SubscriptionState { changes: 0, present: 0, absent: 0 };
    pair.reply(id, Response::Subscribed(unknown));
    pair.no_event();
    report(&mut pair, SubscriptionState { changes: 1, ..unknown });
    pair.no_event();
    report(&mut pair, state(2, 0));
    assert_eq!(finished(&mut pair), (1, Ok(WaitOutcome::Met)));
}

#[test]
fn a_wait_asks_at_its_deadline_and_the_shortest_asks_once() {
    let mut pair = Pair::established();
    // The report of what is present then may have been lost.
    for (present, outcome) in [(0, WaitOutcome::TimedOut), (u32::MAX, WaitOutcome::Met)] {
        pair.server.messages.clear();
        wait(&mut pair, 1, file("a"), Duration::from_secs(5));
        let (id, _) = subscribed(&mut pair);
        pair.reply(id, Response::Subscribed(state(0, 0)));
        pair.server.messages.clear();
        pair.advance(Duration::from_millis(4_999));
        pair.no_event();
        pair.server.messages.clear();
        pair.advance(Duration::from_millis(1));
        pair.no_event();
        let (id, _) = subscribed(&mut pair);
        pair.reply(id, Response::Subscribed(state(0, present)));
        assert_eq!(finished(&mut pair), (1, Ok(outcome)));
    }
    // A report may overtake the reply.
    pair.server.messages.clear();
    wait(&mut pair, 1, file("a"), Duration::from_secs(5));
    let (id, _) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(0, 0)));
    pair.advance(Duration::from_secs(5));
    pair.no_event();
    report(&mut pair, state(1, u32::MAX));
    assert_eq!(finished(&mut pair), (1, Ok(WaitOutcome::Met)));
    for (present, outcome) in [(0, WaitOutcome::TimedOut), (u32::MAX, WaitOutcome::Met)] {
        pair.server.messages.clear();
        wait(&mut pair, 2, file("a"), Duration::ZERO);
        pair.no_event();
        pair.advance(Duration::from_millis(50));
        pair.no_event();
        let (id, _) = subscribed(&mut pair);
        pair.reply(id, Response::Subscribed(state(5, present)));
        assert_eq!(finished(&mut pair), (2, Ok(outcome)));
    }
}

#[test]
fn a_wait_outlives_a_reconnect_and_subscribes_again() {
    let mut pair = Pair::established();
    wait(&mut pair, 1, file("a"), LONG);
    let (id, _) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(9, 0)));
    pair.connected = false;
    pair.advance(LIVENESS * 2);
    assert!(matches!(pair.event(), Event::ConnectionLost));
    pair.connected = true;
    pair.advance(LIVENESS);
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    let (id, number) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(0, 1 << number)));
    assert_eq!(finished(&mut pair), (1, Ok(WaitOutcome::Met)), "the numbers of changes start again with a session");
}

#[test]
fn at_the_deadline_without_a_connection_the_server_is_unreachable() {
    let mut pair = Pair::established();
    wait(&mut pair, 1, file("a"), LIVENESS * 3);
    wait(&mut pair, 2, file("a"), Duration::ZERO);
    pair.connected = false;
    pair.server.messages.clear();
    pair.advance(LIVENESS * 4);
    assert!(matches!(pair.event(), Event::ConnectionLost));
    assert_eq!(finished(&mut pair), (2, Err(RequestError::Unreachable)), "as soon as the connection is lost");
    assert_eq!(finished(&mut pair), (1, Err(RequestError::Unreachable)));
}

#[test]
fn a_logout_and_a_cancellation_end_waits() {
    let mut pair = Pair::established();
    for id in 1..=SUBSCRIPTIONS_MAX as u64 {
        wait(&mut pair, id, file(&id.to_string()), LONG);
    }
    wait(&mut pair, 100, file("a"), LONG);
    assert_eq!(finished(&mut pair), (100, Err(RequestError::TooManyWaits)));
    pair.session.cancel_wait(pair.now, WaitId(7));
    pair.exchange();
    assert_eq!(finished(&mut pair), (7, Ok(WaitOutcome::Cancelled)));
    wait(&mut pair, 101, file("a"), LONG);
    pair.no_event();
    pair.session.logout(pair.now);
    pair.exchange();
    for _ in 0..SUBSCRIPTIONS_MAX {
        assert_eq!(finished(&mut pair).1, Err(RequestError::NotAuthenticated));
    }
    wait(&mut pair, 102, file("a"), LONG);
    assert_eq!(finished(&mut pair), (102, Err(RequestError::NotAuthenticated)));
}

#[test]
fn waits_for_the_same_share_a_subscription_and_each_asks_once() {
    let mut pair = Pair::established();
    for id in 1..SUBSCRIPTIONS_MAX as u64 {
        wait(&mut pair, id, file(&id.to_string()), LONG);
    }
    pair.server.messages.clear();
    wait(&mut pair, 100, gone("vader"), LONG);
    let (id, number) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(1, 1 << number)));
    pair.no_event();
    // A report that is lost: vader has gone, and come back before the next wait.
    report(&mut pair, state(3, 1 << number));
    wait(&mut pair, 101, gone("vader"), LONG);
    let (id, shared) = subscribed(&mut pair);
    assert_eq!(shared, number);
    wait(&mut pair, 102, WaitCondition::PeerActive(UserName::parse("vader").unwrap()), Duration::ZERO);
    pair.no_event();
    let (second_id, _) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(5, 1 << number)));
    pair.no_event();
    pair.reply(second_id, Response::Subscribed(state(7, 1 << number)));
    assert_eq!(finished(&mut pair), (102, Ok(WaitOutcome::Met)));
    pair.session.cancel_wait(pair.now, WaitId(100));
    pair.exchange();
    assert_eq!(finished(&mut pair).0, 100);
    assert!(pair.server.request().is_none(), "another wait has the subscription");
    report(&mut pair, state(8, 0));
    assert_eq!(finished(&mut pair), (101, Ok(WaitOutcome::Met)));
    let unsubscribed = pair.server.request().map(|(_, _, request)| request);
    assert_eq!(unsubscribed, Some(Request::Unsubscribe { numbers: 1 << number }));
}

#[test]
fn after_a_reconnect_waits_for_the_same_subscribe_once_even_if_the_first_is_cancelled() {
    let mut pair = Pair::established();
    for id in 1..=1_000 {
        wait(&mut pair, id, file("a"), LONG);
    }
    pair.connected = false;
    pair.advance(LIVENESS * 2);
    assert!(matches!(pair.event(), Event::ConnectionLost));
    pair.server.messages.clear();
    pair.connected = true;
    pair.advance(LIVENESS);
    assert!(matches!(pair.event(), Event::Started { .. }));
    let (id, number) = subscribed(&mut pair);
    while let Some((again, ..)) = pair.server.request() {
        assert_eq!(again, id, "one is enough, which is repeated");
    }
    pair.session.cancel_wait(pair.now, WaitId(1));
    pair.exchange();
    assert_eq!(finished(&mut pair).0, 1);
    pair.reply(id, Response::Subscribed(state(0, 1 << number)));
    for id in 2..=1_000 {
        assert_eq!(finished(&mut pair), (id, Ok(WaitOutcome::Met)));
    }
}

fn list_changes(pair: &mut Pair) -> Vec<bool> {
    let changes = pair.events.drain(..).filter_map(|event| match event {
        Event::ListChanged(ChangedList { list: WaitId(1), is_complete }) => Some(is_complete),
        _ => None,
    });
    changes.collect()
}

#[test]
fn a_watched_list_subscribes_before_it_is_asked_for_and_again_after_each_change() {
    let mut pair = Pair::established();
    pair.session.watch(pair.now, WaitId(1), WatchedList::Peers).unwrap();
    pair.exchange();
    assert_eq!(list_changes(&mut pair), [false; 0], "not before the subscription is acknowledged");
    let (id, number) = subscribed(&mut pair);
    let (none, fired) = (SubscriptionState::default(), 1 << number);
    pair.reply(id, Response::Subscribed(none));
    assert_eq!(list_changes(&mut pair), [false]);
    report(&mut pair, SubscriptionState { changes: 1, absent: fired, ..none });
    assert_eq!(list_changes(&mut pair), [true], "absence counts from now on");
    report(&mut pair, SubscriptionState { changes: 2, present: fired, ..none });
    pair.no_event();
    pair.server.messages.clear();
    pair.advance(LIST_INTERVAL);
    let (id, again) = subscribed(&mut pair);
    assert_eq!(again, number);
    pair.reply(id, Response::Subscribed(SubscriptionState { changes: 3, absent: fired, ..none }));
    assert_eq!(list_changes(&mut pair), [true]);
    pair.advance(LIST_INTERVAL * 2);
    report(&mut pair, SubscriptionState { changes: 4, present: fired, ..none });
    subscribed(&mut pair);
}

#[test]
fn of_two_watched_lists_the_one_that_changes_is_asked_for_again() {
    let mut pair = Pair::established();
    let mut numbers = Vec::new();
    for (wait, list) in [(2, WatchedList::Files(Pattern::parse("*").unwrap())), (1, WatchedList::Peers)] {
        pair.session.watch(pair.now, WaitId(wait), list).unwrap();
        pair.exchange();
        let (id, number) = subscribed(&mut pair);
        pair.reply(id, Response::Subscribed(SubscriptionState::default()));
        numbers.push(number);
    }
    assert_eq!((list_changes(&mut pair), numbers[0] != numbers[1]), (vec![false], true));
    pair.server.messages.clear();
    report(&mut pair, SubscriptionState { changes: 1, present: 1 << numbers[1], ..SubscriptionState::default() });
    pair.advance(LIST_INTERVAL);
    assert_eq!(subscribed(&mut pair).1, numbers[1]);
}

#[test]
fn a_list_is_watched_over_reconnects_and_logouts_until_it_is_cancelled() {
    let mut pair = Pair::established();
    pair.session.watch(pair.now, WaitId(1), WatchedList::Peers).unwrap();
    pair.exchange();
    let (id, _) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(state(0, 0)));
    assert_eq!(list_changes(&mut pair), [true]);
    pair.connected = false;
    pair.advance(LIVENESS * 2);
    pair.connected = true;
    pair.advance(LIVENESS);
    let (id, number) = subscribed(&mut pair);
    pair.reply(id, Response::Subscribed(SubscriptionState::default()));
    assert_eq!(list_changes(&mut pair), [false], "whether absence counts is that server's to say");
    pair.session.logout(pair.now);
    pair.exchange();
    assert!(pair.session.waits.take_all().next().is_none() && !pair.session.waits.waits.is_empty());
    pair.session.cancel_wait(pair.now, WaitId(1));
    assert!(pair.session.waits.waits.is_empty(), "{number}");
}
