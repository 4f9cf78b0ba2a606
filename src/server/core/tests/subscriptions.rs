//! SUBSCRIBE: states as the subscriber may see them, and CHANGED when they change.

use std::time::Duration;

use crate::common::glob::Pattern;
use crate::common::message::{
    AudienceRef, ClientMessage, Heartbeat, Request, Response, ServerMessage, SubscriptionState, Topic,
};
use crate::common::types::RequestId;
use crate::server::core::Datagram;
use crate::server::test_support::{TestClient, TestServer, file, name, user};

pub(super) fn subscribe(test: &mut TestServer, client: &mut TestClient, number: u8, topic: Topic) -> SubscriptionState {
    match test.request(client, Request::Subscribe { number, topic }) {
        Response::Subscribed(state) => state,
        other => panic!("{other:?}"),
    }
}

/// Sends a request of one client. Returns all datagrams, also those to others.
pub(super) fn send(test: &mut TestServer, client: &mut TestClient, request: Request) -> Vec<Datagram> {
    client.next_id += 1;
    let id = RequestId(client.next_id);
    let bytes = client.seal(&ClientMessage::Request { id, lowest_pending: id, pages: 1, request });
    test.send(client.address, &bytes)
}

/// The present subscriptions that these datagrams report to the client, one list of bits a CHANGED.
pub(super) fn reported(client: &mut TestClient, sent: Vec<Datagram>) -> Vec<u32> {
    let states = client.receive(sent).into_iter().filter_map(|message| match message {
        ServerMessage::Changed(state) => Some(state.present),
        _ => None,
    });
    states.collect()
}

pub(super) fn publish(text: &str) -> Request {
    Request::Publish { files: vec![file(text)], audience: AudienceRef::Everyone }
}

pub(super) fn publish_to(test: &mut TestServer, client: &mut TestClient, text: &str, users: &[&str]) -> Vec<Datagram> {
    let users = users.iter().map(|name| user(name)).collect();
    let staged = test.request(client, Request::StageAudience { key: 1, part: 0, users });
    assert_eq!(staged, Response::AudienceStaged);
    send(test, client, Request::Publish { files: vec![file(text)], audience: AudienceRef::Staged(1) })
}

#[test]
fn a_peer_is_reported_when_it_comes_and_when_it_goes() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login("127.0.0.1:5001", "hans");
    assert_eq!(subscribe(&mut test, &mut hans, 3, Topic::Peer(user("vader"))).present, 0);
    assert_eq!(subscribe(&mut test, &mut hans, 4, Topic::Peer(user("hans"))).present, 0, "the subscriber is no peer");
    let login = test.begin_login("127.0.0.1:5002".parse().unwrap(), "vader", "vader-pw").unwrap();
    let sent = test.send("127.0.0.1:5002".parse().unwrap(), &login.login3);
    assert_eq!(reported(&mut hans, sent), [1 << 3]);
    test.advance(Duration::from_secs(2));
    assert!(!test.heartbeat(&mut hans).is_empty());
    test.advance(Duration::from_millis(1_500));
    let sent = test.run_until_idle();
    assert_eq!(reported(&mut hans, sent), [0], "vader has expired");
}

#[test]
fn a_file_is_present_while_another_active_user_shares_it_with_the_subscriber() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    assert_eq!(subscribe(&mut test, &mut vader, 0, Topic::File(name("a"))).present, 0);
    assert_eq!(subscribe(&mut test, &mut hans, 0, Topic::File(name("a"))).present, 0);
    let sent = send(&mut test, &mut hans, publish("a"));
    assert_eq!(reported(&mut hans, sent.clone()), [0_u32; 0], "one's own file does not count");
    assert_eq!(reported(&mut vader, sent), [1]);
    test.advance(Duration::from_millis(150));
    let sent = publish_to(&mut test, &mut hans, "a", &["yoda"]);
    assert_eq!(reported(&mut vader, sent), [0], "withdrawn from everyone but yoda");
    test.advance(Duration::from_millis(150));
    let sent = publish_to(&mut test, &mut hans, "a", &["vader", "yoda"]);
    assert_eq!(reported(&mut vader, sent), [1]);
    test.advance(Duration::from_millis(150));
    let sent = test.send(hans.address, &hans.seal(&ClientMessage::Logout));
    assert_eq!(reported(&mut vader, sent), [0], "hans has left");
}

#[test]
fn a_file_is_present_under_any_name_of_the_same_normal_form() {
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    assert_eq!(subscribe(&mut test, &mut vader, 0, Topic::File(name(composed))).present, 0);
    assert_eq!(subscribe(&mut test, &mut vader, 1, Topic::File(name(decomposed))).present, 0);
    assert_eq!(subscribe(&mut test, &mut vader, 2, Topic::File(name("cafe"))).present, 0);
    for published in [decomposed, composed] {
        let sent = send(&mut test, &mut hans, publish(published));
        assert_eq!(reported(&mut vader, sent), [0b11], "{published}");
        test.advance(Duration::from_millis(150));
        let sent = send(&mut test, &mut hans, Request::Unpublish { names: vec![name(published)] });
        assert_eq!(reported(&mut vader, sent), [0], "{published}");
        test.advance(Duration::from_millis(150));
    }
}

#[test]
fn files_of_a_peer_that_comes_are_reported() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:5001", "hans");
    for at in 0..300 {
        send(&mut test, &mut hans, publish(&format!("{at:03}")));
        test.advance(Duration::from_millis(5));
    }
    test.send(hans.address, &hans.seal(&ClientMessage::Logout));
    let mut vader = test.insert_session("vader");
    assert_eq!(subscribe(&mut test, &mut vader, 0, Topic::File(name("299"))).present, 0);
    assert_eq!(subscribe(&mut test, &mut vader, 1, Topic::File(name("300"))).present, 0);
    let login = test.begin_login("127.0.0.1:5003".parse().unwrap(), "hans", "hans-pw").unwrap();
    let sent = test.send("127.0.0.1:5003".parse().unwrap(), &login.login3);
    assert_eq!(reported(&mut vader, sent), [1]);
}

#[test]
fn what_the_subscriber_may_not_see_causes_no_datagram_and_no_count() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let before = subscribe(&mut test, &mut vader, 0, Topic::File(name("a")));
    for _ in 0..20 {
        let sent = publish_to(&mut test, &mut hans, "a", &["yoda"]);
        assert!(sent.iter().all(|datagram| datagram.to == hans.address));
        let sent = send(&mut test, &mut hans, Request::Unpublish { names: vec![name("a")] });
        assert!(sent.iter().all(|datagram| datagram.to == hans.address));
    }
    assert_eq!(subscribe(&mut test, &mut vader, 0, Topic::File(name("a"))), before);
}

#[test]
fn a_lost_report_comes_with_the_next_acknowledgement() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let before = subscribe(&mut test, &mut vader, 7, Topic::File(name("a")));
    drop(send(&mut test, &mut hans, publish("a")));
    match test.heartbeat(&mut vader)[..] {
        [ServerMessage::HeartbeatAck { subscriptions: Some(state), .. }] => {
            assert!(state.present == 1 << 7 && state.changes > before.changes);
        }
        ref other => panic!("{other:?}"),
    }
    let unsubscribed = test.request(&mut vader, Request::Unsubscribe { numbers: 1 << 7 });
    assert!(matches!(unsubscribed, Response::Subscribed(SubscriptionState { present: 0, .. })));
}

#[test]
fn reports_are_coalesced_to_ten_a_second() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    subscribe(&mut test, &mut vader, 0, Topic::File(name("a")));
    let mut reports = Vec::new();
    for _ in 0..100 {
        for request in [publish("a"), Request::Unpublish { names: vec![name("a")] }] {
            let sent = send(&mut test, &mut hans, request);
            reports.extend(reported(&mut vader, sent));
            test.advance(Duration::from_millis(5));
        }
    }
    test.advance(Duration::from_millis(100));
    let sent = test.run_until_idle();
    reports.extend(reported(&mut vader, sent));
    assert!((9..=12).contains(&reports.len()), "{reports:?}");
    assert_eq!(reports.last(), Some(&0), "the last report has the last state");
}

#[test]
fn a_change_after_a_request_is_reported_at_once() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    for text in ["a", "b", "c"] {
        assert_eq!(subscribe(&mut test, &mut vader, 0, Topic::File(name(text))).present, 0);
        let sent = send(&mut test, &mut hans, publish(text));
        assert_eq!(reported(&mut vader, sent), [1], "{text}: without an interval to the report before");
    }
}

#[test]
fn absence_becomes_known_whatever_the_only_topic_is() {
    let files = Topic::Files(Pattern::parse("*").unwrap());
    for topic in [Topic::Peer(user("hans")), Topic::File(name("a")), Topic::Peers, files] {
        let mut test = TestServer::new(&[]);
        let mut vader = test.insert_session("vader");
        let mut state = subscribe(&mut test, &mut vader, 0, topic.clone());
        assert_eq!(state.absent, 0, "{topic:?}");
        // 3 s of liveness, and 5 s in which clients resume.
        for seconds in 1..=8 {
            test.advance(Duration::from_secs(1));
            test.heartbeat(&mut vader);
            state = test.server.subscription_state(test.server.sessions.find(&vader.params.session).unwrap());
            assert_eq!(state.absent, u32::from(seconds == 8), "{topic:?}");
        }
    }
}

#[test]
fn a_subscriber_who_leaves_takes_no_other_along() {
    let mut test = TestServer::new(&[]);
    let (mut yoda, mut vader, mut luke) =
        (test.insert_session("yoda"), test.insert_session("vader"), test.insert_session("luke"));
    let files = Topic::Files(Pattern::parse("*").unwrap());
    for (number, topic) in (0..).zip([Topic::Peer(user("hans")), Topic::File(name("a")), Topic::Peers, files]) {
        for client in [&mut yoda, &mut vader, &mut luke] {
            subscribe(&mut test, client, number, topic.clone());
        }
    }
    test.request(&mut vader, Request::Unsubscribe { numbers: 0b1111 });
    test.send_message(&mut luke, &ClientMessage::Logout);
    subscribe(&mut test, &mut yoda, 2, Topic::Peers);
    subscribe(&mut test, &mut yoda, 3, Topic::Files(Pattern::parse("*").unwrap()));
    test.advance(Duration::from_secs(1));
    let mut hans = test.insert_session("hans");
    let mut sent = test.run_until_idle();
    test.advance(Duration::from_secs(1));
    sent.extend(send(&mut test, &mut hans, publish("a")));
    assert_eq!(reported(&mut vader, sent.clone()), [0_u32; 0]);
    assert_eq!(reported(&mut yoda, sent).last(), Some(&0b1111));
}

#[test]
fn a_subscription_outlives_the_end_of_the_others() {
    let mut test = TestServer::new(&[]);
    let (_hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    for number in 0..3 {
        subscribe(&mut test, &mut vader, number, Topic::Peer(user("hans")));
    }
    match test.request(&mut vader, Request::Unsubscribe { numbers: 0b101 }) {
        Response::Subscribed(state) => assert_eq!(state.present, 0b010),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_repeat_of_an_earlier_request_sets_nothing() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    send(&mut test, &mut hans, publish("a"));
    let request =
        |id, request| ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), pages: 1, request };
    let first = request(1, Request::Subscribe { number: 0, topic: Topic::File(name("a")) });
    let second = request(2, Request::Subscribe { number: 0, topic: Topic::File(name("b")) });
    let end = request(3, Request::Unsubscribe { numbers: 1 });
    let state = |test: &mut TestServer, client: &mut TestClient, message| match test.send_message(client, message)[..] {
        [ServerMessage::Reply { response: Response::Subscribed(state), .. }] => state.present,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(state(&mut test, &mut vader, &first), 1);
    assert_eq!(state(&mut test, &mut vader, &second), 0);
    assert_eq!(state(&mut test, &mut vader, &first), 0, "still b");
    assert_eq!(state(&mut test, &mut vader, &end), 0);
    assert_eq!(state(&mut test, &mut vader, &first), 0, "still none");
    let sent = send(&mut test, &mut hans, publish("b"));
    assert_eq!(reported(&mut vader, sent), [0_u32; 0]);
}

#[test]
fn an_unsubscribe_that_overtakes_its_subscribe_ends_it() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let request =
        |id, request| ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), pages: 1, request };
    let _ = test.send_message(&mut vader, &request(2, Request::Unsubscribe { numbers: 1 }));
    let _ = test.send_message(&mut vader, &request(1, Request::Subscribe { number: 0, topic: Topic::File(name("a")) }));
    let sent = send(&mut test, &mut hans, publish("a"));
    assert_eq!(reported(&mut vader, sent), [0_u32; 0]);
}

#[test]
fn absence_is_known_once_all_clients_had_time_to_resume() {
    let mut test = TestServer::new(&["vader"]);
    let mut hans = test.insert_session("hans");
    for (number, topic) in
        [(0, Topic::Peer(user("vader"))), (1, Topic::Peer(user("yoda"))), (2, Topic::File(name("a")))]
    {
        let state = subscribe(&mut test, &mut hans, number, topic);
        assert_eq!((state.present, state.absent), (0, 0), "they may have been there before the start");
    }
    let mut vader = test.login("127.0.0.1:5002", "vader");
    test.advance(Duration::from_secs(1));
    let sent = test.send(vader.address, &vader.seal(&ClientMessage::Logout));
    let known: Vec<_> = hans.receive(sent).into_iter().collect();
    assert!(
        matches!(known[..], [ServerMessage::Changed(SubscriptionState { present: 0, absent: 1, .. })]),
        "vader was here and has left: {known:?}"
    );
    let mut waited = Duration::from_secs(1);
    let settled = loop {
        test.advance(Duration::from_millis(500));
        waited += Duration::from_millis(500);
        let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
        let sent = test.send(hans.address, &bytes);
        let changed = hans.receive(sent).into_iter().find_map(|message| match message {
            ServerMessage::Changed(state) => Some(state),
            _ => None,
        });
        if let Some(state) = changed {
            break state;
        }
        assert!(waited < Duration::from_secs(30));
    };
    assert!(waited > Duration::from_secs(3), "the liveness time: {waited:?}");
    assert_eq!((settled.present, settled.absent), (0, 0b111));
}

#[test]
fn a_session_that_is_replaced_by_its_own_client_is_not_reported_as_gone() {
    let mut test = TestServer::new(&["hans"]);
    let mut vader = test.insert_session("vader");
    let hans = test.login("127.0.0.1:5001", "hans");
    subscribe(&mut test, &mut vader, 0, Topic::Peer(user("hans")));
    let (nonce, resume) = test.resume_packet(&hans, "127.0.0.1:5002".parse().unwrap());
    let sent = test.send("127.0.0.1:5002".parse().unwrap(), &resume);
    assert_eq!(reported(&mut vader, sent.clone()), [0_u32; 0]);
    let resumed = sent.iter().find_map(|datagram| hans.resumed(datagram.to, nonce, &datagram.bytes));
    assert!(resumed.is_some());
}

#[test]
fn many_subscribers_are_reported_to_over_several_iterations_and_leave_nothing_behind() {
    const SUBSCRIBERS: usize = 3_000;
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    let mut subscribers: Vec<TestClient> =
        (0..SUBSCRIBERS).map(|number| test.insert_session(&format!("u{number}"))).collect();
    for client in &mut subscribers {
        subscribe(&mut test, client, 0, Topic::File(name("a")));
        subscribe(&mut test, client, 1, Topic::Peer(user("hans")));
    }
    let id = RequestId(1);
    let mut bytes = hans.seal(&ClientMessage::Request { id, lowest_pending: id, pages: 1, request: publish("a") });
    test.server.handle_datagram(test.now, hans.address, &mut bytes, &mut test.out);
    test.journal.extend(test.out.mutations.drain(..));
    test.make_durable();
    let mut reports = 0;
    let mut iterations = 0;
    while reports < SUBSCRIBERS {
        test.server.handle_timeout(test.now, &mut test.out);
        let sent = std::mem::take(&mut test.out.datagrams);
        let in_this_iteration = sent.iter().filter(|datagram| datagram.to != hans.address).count();
        assert!(in_this_iteration <= 64, "{in_this_iteration}");
        reports += in_this_iteration;
        iterations += 1;
    }
    assert!(iterations >= SUBSCRIBERS / 64, "{iterations}");
    for mut client in subscribers {
        let logout = client.seal(&ClientMessage::Logout);
        test.send(client.address, &logout);
    }
    test.send(hans.address, &hans.seal(&ClientMessage::Logout));
    assert!(test.server.has_no_subscriptions());
}
