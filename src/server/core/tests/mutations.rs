use std::time::Duration;

use log::Level;

use crate::common::message::{AudienceRef, ClientMessage, Request, Response, ServerMessage};
use crate::common::types::{PublicationsDigest, RequestId};
use crate::server::core::LoadedState;
use crate::server::core::ServerConfig;
use crate::server::journal::{Change, LastMutation, LoadSink};
use crate::server::test_support::{TestClient, TestServer, address, credentials, file, logged, name, origin, user};

const HERE: &str = "127.0.0.1:4000";

fn publish(text: &str) -> Request {
    Request::Publish { files: vec![file(text)], audience: AudienceRef::Everyone }
}

fn unpublish(text: &str) -> Request {
    Request::Unpublish { names: vec![name(text)] }
}

fn request(id: u64, request: Request) -> ClientMessage {
    ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(0), pages: 1, request }
}

fn own_names(test: &mut TestServer, client: &mut TestClient) -> Vec<String> {
    let Response::OwnPublications { entries, next: None } =
        test.request(client, Request::OwnPublications { user_initiated: true, cursor: None })
    else {
        panic!("no list")
    };
    entries.into_iter().map(|entry| entry.name.to_string()).collect()
}

fn digest(response: &ServerMessage) -> PublicationsDigest {
    match response {
        ServerMessage::Reply {
            response: Response::Published { digest } | Response::Unpublished { digest, .. },
            ..
        } => *digest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_visible_or_acknowledged_before_it_is_durable() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.journal_stores = false;
    assert_eq!(test.try_request(&mut hans, publish("a")), None);
    assert!(own_names(&mut test, &mut hans).is_empty());
    test.make_durable();
    let sent = test.run_until_idle();
    assert_eq!(hans.receive(sent).len(), 1);
    assert_eq!(own_names(&mut test, &mut hans), ["a"]);
}

#[test]
fn a_mutation_repeated_after_another_login_acts_once() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.request(&mut hans, publish("a"));
    let first = test.send_message(&mut hans, &request(2, unpublish("a")));
    test.advance(Duration::from_secs(7 * 24 * 3_600));
    let mut again = test.log_in_again(&hans, "hans");
    assert_eq!(test.send_message(&mut again, &request(2, unpublish("a"))), first, "it withdrew the file");

    test.send_message(&mut again, &request(8, publish("b")));
    test.journal_stores = false;
    assert!(test.send_message(&mut again, &request(9, unpublish("b"))).is_empty());
    test.advance(Duration::from_secs(3));
    let mut third = test.log_in_again(&again, "hans");
    assert!(test.send_message(&mut third, &request(9, unpublish("b"))).is_empty(), "it is in progress");
    test.make_durable();
    let sent = test.run_until_idle();
    let [ServerMessage::Reply { response: Response::Unpublished { published_mask, .. }, .. }] = third.receive(sent)[..]
    else {
        panic!("no reply in the third session")
    };
    assert_eq!(published_mask, 1);
}

#[test]
fn a_repeated_mutation_acts_once_and_is_answered_each_time() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.journal_stores = false;
    assert!(test.send_message(&mut hans, &request(1, publish("a"))).is_empty());
    assert!(test.send_message(&mut hans, &request(1, publish("a"))).is_empty(), "it is in progress");
    assert_eq!(test.journal.len(), 1);
    test.journal_stores = true;
    test.make_durable();
    let sent = test.run_until_idle();
    let first = hans.receive(sent);
    assert_eq!(first.len(), 1);
    assert_eq!(test.send_message(&mut hans, &request(1, publish("a"))), first);
    let withdrawn = test.send_message(&mut hans, &request(2, unpublish("a")));
    assert_eq!(
        test.send_message(&mut hans, &request(2, unpublish("a"))),
        withdrawn,
        "the remembered result, although the file is gone by now"
    );
    let late = test.send_message(&mut hans, &request(1, publish("a")));
    assert_eq!(late, [ServerMessage::Reply { id: RequestId(1), page: 0, response: Response::Rejected }]);
    assert!(own_names(&mut test, &mut hans).is_empty(), "a late repeat republishes nothing");
    assert_eq!(test.journal.len(), 2);
}

/// A copy of a request may arrive late, and the client may still wait for the reply to an earlier request.
#[test]
fn a_mutation_that_was_refused_stays_refused() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login(HERE, "hans");
    let publish_to = Request::Publish { files: vec![file("a")], audience: AudienceRef::Staged(1) };
    let refused = test.send_message(&mut hans, &request(2, publish_to.clone()));
    assert_eq!(refused, [ServerMessage::Reply { id: RequestId(2), page: 0, response: Response::UnknownAudience }]);
    let stage = Request::StageAudience { key: 1, part: 0, users: vec![user("vader")] };
    let staged = test.send_message(&mut hans, &request(3, stage));
    assert_eq!(staged, [ServerMessage::Reply { id: RequestId(3), page: 0, response: Response::AudienceStaged }]);
    assert_eq!(test.send_message(&mut hans, &request(2, publish_to.clone())), refused);
    let earlier = test.send_message(&mut hans, &request(1, publish_to.clone()));
    assert_eq!(earlier, [ServerMessage::Reply { id: RequestId(1), page: 0, response: Response::Rejected }]);
    assert!(test.journal.is_empty());
    assert_eq!(test.send_message(&mut hans, &request(4, publish_to)).len(), 1);
    assert_eq!(own_names(&mut test, &mut hans), ["a"]);
}

#[test]
fn a_publication_that_comes_after_an_unpublish_of_nothing_is_rejected() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let withdrawn = test.send_message(&mut hans, &request(2, unpublish("a")));
    let late = test.send_message(&mut hans, &request(1, publish("a")));
    assert_eq!(late, [ServerMessage::Reply { id: RequestId(1), page: 0, response: Response::Rejected }]);
    assert_eq!(test.send_message(&mut hans, &request(2, unpublish("a"))), withdrawn);
    assert!(test.journal.is_empty());
}

#[test]
fn ids_below_the_lowest_pending_are_rejected() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let ask = |floor| ClientMessage::Request {
        id: RequestId(4),
        lowest_pending: RequestId(floor),
        pages: 1,
        request: publish("a"),
    };
    let refused = [ServerMessage::Reply { id: RequestId(4), page: 0, response: Response::Rejected }];
    assert_eq!(test.send_message(&mut hans, &ask(5)), refused);
    assert_eq!(test.send_message(&mut hans, &ask(0)), refused, "the lowest pending id never falls");
    assert!(test.journal.is_empty());
}

#[test]
fn unpublish_reports_one_bit_for_each_name() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.request(&mut hans, Request::Publish { files: vec![file("a"), file("b")], audience: AudienceRef::Everyone });
    let names = ["x", "b", "b", "a"].map(name).to_vec();
    let response = test.request(&mut hans, Request::Unpublish { names });
    assert_eq!(response, Response::Unpublished { published_mask: 0b1010, digest: PublicationsDigest::default() });
    let response = test.request(&mut hans, unpublish("a"));
    assert_eq!(response, Response::Unpublished { published_mask: 0, digest: PublicationsDigest::default() });
    assert_eq!(test.journal.len(), 2, "a request without effect is not stored");
}

#[test]
fn the_digest_distinguishes_states() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let first = digest(&test.send_message(&mut hans, &request(1, publish("a")))[0]);
    let second = digest(&test.send_message(&mut hans, &request(2, publish("b")))[0]);
    let third = digest(&test.send_message(&mut hans, &request(3, unpublish("b")))[0]);
    assert!(first == third && first != second);
    let resumed = test.resume(&hans, address(HERE)).unwrap();
    assert_eq!(resumed.params.digest, first);
    assert_eq!(resumed.params.last_writer, hans.params.instance);
}

#[test]
fn a_mutation_survives_its_session() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.journal_stores = false;
    test.send_message(&mut hans, &request(7, publish("a")));
    let mut resumed = test.resume(&hans, address("127.0.0.1:4001")).unwrap();
    assert!(test.send_message(&mut resumed, &request(7, publish("a"))).is_empty());
    let busy = test.send_message(&mut resumed, &request(8, publish("b")));
    assert!(matches!(busy[..], [ServerMessage::Reply { response: Response::Busy { .. }, .. }]));
    test.make_durable();
    let sent = test.run_until_idle();
    let received = resumed.receive(sent);
    assert!(matches!(
        received[..],
        [ServerMessage::Reply { id: RequestId(7), page: 0, response: Response::Published { .. } }]
    ));
    assert_eq!(test.journal.len(), 1);
}

#[test]
fn the_last_reply_survives_a_restart() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.send_message(&mut hans, &request(1, publish("a")));
    test.send_message(&mut hans, &request(2, unpublish("a")));
    let mut stored = LoadedState::new();
    let last = LastMutation { instance: hans.params.instance, request: RequestId(2), found: Some(1) };
    stored.last_mutation(crate::server::test_support::user("hans"), last);
    let mut later = TestServer::start(&[], ServerConfig::default(), origin() + Duration::from_secs(9));
    let wall_ms = crate::server::test_support::WALL_MS + 9_000;
    later.server = crate::server::core::Server::new(ServerConfig::default(), stored, [5; 32], later.now, wall_ms);
    later.set_credentials(credentials(&["hans"]));
    let mut resumed = later.resume(&hans, address(HERE)).expect("RESUMED");
    assert_eq!(resumed.params.last_writer, hans.params.instance);
    let again = later.send_message(&mut resumed, &request(2, unpublish("a")));
    let expected = Response::Unpublished { published_mask: 1, digest: PublicationsDigest::default() };
    assert_eq!(again, [ServerMessage::Reply { id: RequestId(2), page: 0, response: expected }]);
    assert!(later.journal.is_empty());
}

#[test]
fn a_full_queue_replies_busy_and_loses_nothing() {
    let mut test = TestServer::new(&[]);
    test.journal_stores = false;
    let users: Vec<_> = (0..8_193).map(|at| format!("user{at}")).collect();
    let mut clients: Vec<_> = users.iter().map(|user| test.insert_session(user)).collect();
    let mut busy = 0;
    for client in &mut clients {
        match test.try_request(client, publish("a")) {
            None => {}
            Some(Response::Busy { .. }) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((busy, test.journal.len()), (1, 8_192));
    test.make_durable();
    assert_eq!(test.run_until_idle().len(), 8_192);
    assert!(test.try_request(clients.last_mut().unwrap(), publish("a")).is_none());
}

#[test]
fn publications_survive_a_logout() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.request(&mut hans, publish("a"));
    test.send_message(&mut hans, &ClientMessage::Logout);
    let mut hans = test.login(HERE, "hans");
    assert_eq!(own_names(&mut test, &mut hans), ["a"]);
    assert!(matches!(&test.journal[0].change, Change::Publish { published_s: 1_700_000_000, .. }));
}

#[test]
fn a_request_that_is_repeated_is_logged_once() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let mut lines = |id| logged(Level::Info, || _ = test.send_message(&mut hans, &request(id, publish("a"))));
    let received = format!("{HERE}: Received PUB from hans");
    assert_eq!(lines(1).first(), Some(&received));
    assert!(!lines(1).contains(&received));
    assert_eq!(lines(2).first(), Some(&received));
}

#[test]
fn a_publication_that_was_busy_first_has_one_outcome_in_the_log() {
    let mut test = TestServer::new(&["hans"]);
    let mut earlier = test.login(HERE, "hans");
    test.journal_stores = false;
    assert_eq!(test.try_request(&mut earlier, publish("a")), None);
    test.send_message(&mut earlier, &ClientMessage::Logout);
    let mut hans = test.login(HERE, "hans");
    let lines = logged(Level::Info, || {
        let reply = test.send_message(&mut hans, &request(1, publish("b"))).pop();
        assert!(matches!(reply, Some(ServerMessage::Reply { response: Response::Busy { .. }, .. })), "{reply:?}");
        test.journal_stores = true;
        test.run_until_idle();
        test.make_durable();
        assert_eq!(test.send_message(&mut hans, &request(1, publish("b"))).len(), 1);
    });
    assert_eq!(lines, [format!("{HERE}: Received PUB from hans"), format!("{HERE}: Sent OK to hans")]);
}
