//! SUBSCRIBE to lists: the first change that the subscriber may see is reported, once.

use std::sync::Arc;
use std::time::Duration;

use super::subscriptions::{publish, publish_to, reported, send, subscribe};
use crate::common::glob::Pattern;
use crate::common::message::{AudienceRef, ClientMessage, Heartbeat, Request, Response, ServerMessage, Topic};
use crate::common::types::{ContentHash, RequestId};
use crate::server::core::ServerConfig;
use crate::server::test_support::{TestClient, TestServer, file, name, origin, user};

const NOTHING: [u32; 0] = [];

fn files(pattern: &str) -> Topic {
    Topic::Files(Pattern::parse(pattern).unwrap())
}

fn unpublish(text: &str) -> Request {
    Request::Unpublish { names: vec![name(text)] }
}

/// Subscribes anew, as a client does before it asks for the list.
fn rearm(test: &mut TestServer, client: &mut TestClient, topic: &Topic) {
    assert_eq!(subscribe(test, client, 0, topic.clone()).present, 0);
}

#[test]
fn a_change_of_a_matching_file_is_reported_once_until_the_client_subscribes_again() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let topic = files("*.pdf");
    rearm(&mut test, &mut vader, &topic);
    let sent = send(&mut test, &mut hans, publish("a.txt"));
    assert_eq!(reported(&mut vader, sent), NOTHING, "it does not match");
    let sent = send(&mut test, &mut hans, publish("a.pdf"));
    assert_eq!(reported(&mut hans, sent.clone()), NOTHING);
    assert_eq!(reported(&mut vader, sent), [1]);
    test.advance(Duration::from_secs(1));
    let sent = send(&mut test, &mut hans, publish("b.pdf"));
    assert_eq!(reported(&mut vader, sent), NOTHING, "told already");
    rearm(&mut test, &mut vader, &topic);
    let sent = send(&mut test, &mut hans, publish("b.pdf"));
    assert_eq!(reported(&mut vader, sent), NOTHING, "the same content again is no change");
    let mut other = file("b.pdf");
    other.content.hash = ContentHash([9; 32]);
    let replace = Request::Publish { files: vec![other], audience: AudienceRef::Everyone };
    let sent = send(&mut test, &mut hans, replace);
    assert_eq!(reported(&mut vader, sent), [1], "another content");
    rearm(&mut test, &mut vader, &topic);
    let sent = send(&mut test, &mut hans, unpublish("b.pdf"));
    assert_eq!(reported(&mut vader, sent), [1]);
    let sent = send(&mut test, &mut vader, publish("c.pdf"));
    assert_eq!(reported(&mut vader, sent), NOTHING, "one's own file");
}

#[test]
fn peers_that_come_and_go_are_reported_to_the_subscribers_to_lists() {
    let mut test = TestServer::new(&[]);
    let mut vader = test.insert_session("vader");
    for topic in [Topic::Peers, files("*")] {
        rearm(&mut test, &mut vader, &topic);
        let mut hans = test.insert_session("hans");
        let sent = test.run_until_idle();
        assert_eq!(reported(&mut vader, sent), [1]);
        rearm(&mut test, &mut vader, &topic);
        let sent = send(&mut test, &mut hans, publish(if topic == Topic::Peers { "a" } else { ".hidden" }));
        assert_eq!(reported(&mut vader, sent), NOTHING);
        let sent = test.send(hans.address, &hans.seal(&ClientMessage::Logout));
        assert_eq!(reported(&mut vader, sent), [1]);
        test.advance(Duration::from_millis(200));
    }
}

#[test]
fn a_session_that_is_replaced_by_its_own_client_is_no_change() {
    let mut test = TestServer::new(&["hans"]);
    let mut vader = test.insert_session("vader");
    let hans = test.login("127.0.0.1:5001", "hans");
    rearm(&mut test, &mut vader, &Topic::Peers);
    let (_, resume) = test.resume_packet(&hans, "127.0.0.1:5002".parse().unwrap());
    let sent = test.send("127.0.0.1:5002".parse().unwrap(), &resume);
    assert_eq!(reported(&mut vader, sent), NOTHING);
}

#[test]
fn hidden_changes_of_matching_files_cause_no_datagram_and_no_count() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let before = subscribe(&mut test, &mut vader, 0, files("*"));
    for text in ["a", "b"] {
        for sent in [publish_to(&mut test, &mut hans, text, &["yoda"]), send(&mut test, &mut hans, unpublish(text))] {
            assert!(sent.iter().all(|datagram| datagram.to == hans.address));
        }
    }
    publish_to(&mut test, &mut hans, "a", &["yoda"]);
    match test.heartbeat(&mut vader)[..] {
        [ServerMessage::HeartbeatAck { subscriptions: Some(state), .. }] => assert_eq!(state, before),
        ref other => panic!("{other:?}"),
    }
    let sent = publish_to(&mut test, &mut hans, "a", &["vader", "yoda"]);
    assert_eq!(reported(&mut vader, sent), [1], "it becomes visible");
    rearm(&mut test, &mut vader, &files("*"));
    let sent = publish_to(&mut test, &mut hans, "a", &["vader"]);
    assert_eq!(reported(&mut vader, sent), NOTHING, "who else may see it does not concern vader");
    let sent = publish_to(&mut test, &mut hans, "a", &["yoda"]);
    assert_eq!(reported(&mut vader, sent), [1], "it is withdrawn from vader");
}

#[test]
fn absence_from_a_list_is_known_once_all_clients_had_time_to_resume() {
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    let states: Vec<_> = (0..)
        .zip([Topic::Peers, files("*")])
        .map(|(number, topic)| subscribe(&mut test, &mut hans, number, topic))
        .collect();
    assert!(states.iter().all(|state| (state.present, state.absent) == (0, 0)));
    for _ in 0..20 {
        test.advance(Duration::from_millis(500));
        test.heartbeat(&mut hans);
    }
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 9, free_slots: 0 }));
    let sent = test.send(hans.address, &bytes);
    match hans.receive(sent)[..] {
        [ServerMessage::HeartbeatAck { subscriptions: Some(state), .. }] => {
            assert_eq!((state.present, state.absent), (0, 0b11));
        }
        ref other => panic!("{other:?}"),
    }
    let state = subscribe(&mut test, &mut hans, 5, Topic::Peers);
    assert_eq!((state.present, state.absent), (0, 0b10_0011), "and at once from then on");
}

#[test]
fn a_late_repeat_of_a_subscription_forgets_no_change() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    let id = RequestId(1);
    let request = Request::Subscribe { number: 3, topic: files("*.pdf") };
    let subscribe = ClientMessage::Request { id, lowest_pending: id, pages: 1, request };
    let state = |test: &mut TestServer, client: &mut TestClient| match test.send_message(client, &subscribe)[..] {
        [ServerMessage::Reply { response: Response::Subscribed(state), .. }] => (state.present, state.changes),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(state(&mut test, &mut vader), (0, 0));
    let sent = send(&mut test, &mut hans, publish("a.pdf"));
    assert_eq!(reported(&mut vader, sent), [1 << 3]);
    assert_eq!(state(&mut test, &mut vader), (1 << 3, 1));
}

#[test]
fn a_reported_change_of_a_list_stays_when_absence_becomes_known() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    subscribe(&mut test, &mut vader, 0, Topic::Peer(user("yoda")));
    subscribe(&mut test, &mut vader, 3, files("*.pdf"));
    let sent = send(&mut test, &mut hans, publish("a.pdf"));
    assert_eq!(reported(&mut vader, sent), [1 << 3]);
    for _ in 0..8 {
        test.advance(Duration::from_secs(1));
        test.heartbeat(&mut vader);
    }
    let state = test.server.subscription_state(test.server.sessions.find(&vader.params.session).unwrap());
    assert_eq!((state.present, state.absent), (1 << 3, 1));
}

/// Lets the server work until nothing is left to be found out: so many iterations, or one or two more.
fn assert_iterations(test: &mut TestServer, expected: usize) {
    let mut iterations = 0;
    while iterations == 0 || test.server.changes_to_report() > 0 {
        test.server.handle_timeout(test.now, &mut test.out);
        iterations += 1;
    }
    assert!((expected..=expected + 2).contains(&iterations), "{iterations}, not {expected}");
}

#[test]
fn subscribers_and_sessions_are_looked_at_256_in_an_iteration() {
    const MANY: usize = 1_000;
    let config = ServerConfig { liveness: Duration::from_secs(60), ..ServerConfig::default() };
    let mut test = TestServer::start(&[], config, origin());
    let mut hans = test.insert_session("hans");
    subscribe(&mut test, &mut hans, 0, Topic::Peers);
    test.journal_stores = false;
    let mut others: Vec<_> = (0..MANY).map(|at| test.insert_session(&format!("user{at}"))).collect();
    for client in &mut others {
        subscribe(&mut test, client, 1, Topic::File(name("none")));
    }
    assert_iterations(&mut test, 1);
    // All sessions, once absence is known, each with a name that nobody publishes.
    test.advance(Duration::from_secs(59));
    for client in others.iter_mut().chain([&mut hans]) {
        test.heartbeat(client);
    }
    test.advance(Duration::from_secs(6));
    assert_iterations(&mut test, 8);
    // All subscribers to one name: each with the publications that are examined for it.
    assert_eq!(test.try_request(&mut hans, publish("none")), None);
    test.make_durable();
    assert_iterations(&mut test, 12);
    // All names of a peer that comes.
    let rich = test.server.index.intern_owner(&user("rich"));
    (0..MANY).for_each(|at| test.server.index.publish(rich, &file(&format!("file{at}")), &Arc::default(), 1));
    test.insert_session("rich");
    assert_iterations(&mut test, 4);
    // All subscribers to one list.
    for client in &mut others {
        subscribe(&mut test, client, 0, files("*"));
    }
    assert_eq!(test.try_request(&mut hans, publish("a")), None);
    test.make_durable();
    assert_iterations(&mut test, 4);
}

#[test]
fn a_publication_of_a_user_who_has_left_is_no_change() {
    let mut test = TestServer::new(&[]);
    let (mut hans, mut vader) = (test.insert_session("hans"), test.insert_session("vader"));
    test.journal_stores = false;
    assert_eq!(test.try_request(&mut hans, publish("a.pdf")), None);
    test.send_message(&mut hans, &ClientMessage::Logout);
    assert_eq!(subscribe(&mut test, &mut vader, 0, files("*.pdf")).present, 0);
    test.make_durable();
    let sent = test.run_until_idle();
    assert_eq!(reported(&mut vader, sent), NOTHING);
}

#[test]
fn the_work_for_many_patterns_is_split_into_iterations() {
    const SUBSCRIBERS: usize = 500;
    let mut test = TestServer::new(&[]);
    let mut hans = test.insert_session("hans");
    let mut subscribers: Vec<TestClient> =
        (0..SUBSCRIBERS).map(|number| test.insert_session(&format!("u{number}"))).collect();
    for (at, client) in subscribers.iter_mut().enumerate() {
        for number in 0..16 {
            subscribe(&mut test, client, number, files(&format!("*{at:03}{number:02}*")));
        }
        subscribe(&mut test, client, 16, files("a*"));
    }
    let sent = send(&mut test, &mut hans, publish("a03105"));
    let reports: Vec<u32> = subscribers.iter_mut().flat_map(|client| reported(client, sent.clone())).collect();
    assert_eq!(reports.len(), SUBSCRIBERS);
    let of_one = reports.iter().filter(|&&bits| bits & 1 << 5 != 0);
    assert_eq!(of_one.count(), 1, "its other pattern is reported after the interval");
    let id = RequestId(hans.next_id + 1);
    let mut bytes = hans.seal(&ClientMessage::Request {
        id,
        lowest_pending: id,
        pages: 1,
        request: Request::Publish { files: vec![file("b")], audience: AudienceRef::Everyone },
    });
    test.server.handle_datagram(test.now, hans.address, &mut bytes, &mut test.out);
    test.journal.extend(test.out.mutations.drain(..));
    test.make_durable();
    let mut iterations = 0;
    while test.server.poll_timeout().is_some_and(|due| due <= test.now) {
        test.server.handle_timeout(test.now, &mut test.out);
        iterations += 1;
    }
    assert!((32..=64).contains(&iterations), "8,000 patterns, 256 steps each: {iterations}");
    for mut client in subscribers {
        let logout = client.seal(&ClientMessage::Logout);
        test.send(client.address, &logout);
    }
    assert!(test.server.has_no_subscriptions());
}

#[test]
fn changes_that_wait_to_be_reported_are_bounded_and_further_mutations_wait() {
    let mut test = TestServer::new(&[]);
    test.journal_stores = false;
    let mut publishers: Vec<_> = (0..1_200).map(|at| test.insert_session(&format!("user{at}"))).collect();
    // Each change takes more than an iteration to be compared with all patterns.
    let mut subscribers: Vec<_> = (0..20).map(|at| test.insert_session(&format!("subscriber{at}"))).collect();
    for (number, client) in subscribers.iter_mut().enumerate() {
        (0..16).for_each(|at| _ = subscribe(&mut test, client, at, files(&format!("never*{number:02}{at:02}*"))));
    }
    for client in &mut publishers {
        assert_eq!(test.try_request(client, publish("a")), None);
    }
    test.make_durable();
    let (mut acknowledged, mut most) = (0, 0);
    while test.server.poll_timeout().is_some_and(|due| due <= test.now) {
        test.server.handle_timeout(test.now, &mut test.out);
        acknowledged += std::mem::take(&mut test.out.datagrams).len();
        most = most.max(test.server.changes_to_report());
    }
    assert_eq!(acknowledged, publishers.len());
    assert!((1_020..=1_024).contains(&most), "{most} of 1,024");
}
