//! An attacker records everything that is sent to the server and replays it.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, Response};
use crate::common::packet::Packet;
use crate::server::core::ServerConfig;
use crate::server::test_support::{LoginOutcome, TestClient, TestServer, address, file, name, origin, user};

const HANS: &str = "192.0.2.1:4000";
const VADER: &str = "192.0.2.2:4000";

/// hans publishes and unpublishes, vader searches and stages an audience, hans changes its address, both send heartbeats.
fn recorded_session() -> (TestServer, TestClient, TestClient) {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (test.login(HANS, "hans"), test.login(VADER, "vader"));
    for round in ["a", "b"] {
        test.request(
            &mut hans,
            Request::Publish { files: vec![file(round), file("plan")], audience: AudienceRef::Everyone },
        );
        test.request(&mut hans, Request::Unpublish { names: vec![name(round)] });
        test.heartbeat(&mut hans);
        test.request(&mut vader, Request::Search { query: NameQuery::Substring(round.into()), cursor: None });
        test.request(&mut vader, Request::StageAudience { key: 1, part: 0, users: vec![user("hans")] });
    }
    test.request(&mut vader, Request::Publish { files: vec![file("secret")], audience: AudienceRef::Staged(1) });
    let mut hans = test.resume(&hans, address("192.0.2.9:4000")).expect("RESUMED");
    test.heartbeat(&mut hans);
    (test, hans, vader)
}

fn peers(test: &mut TestServer, client: &mut TestClient) -> Response {
    test.request(client, Request::Peers { cursor: None })
}

fn own(test: &mut TestServer, client: &mut TestClient) -> Response {
    test.request(client, Request::OwnPublications { user_initiated: true, cursor: None })
}

#[test]
fn a_replay_in_any_order_changes_nothing() {
    let (mut test, mut hans, mut vader) = recorded_session();
    let before =
        (own(&mut test, &mut hans), own(&mut test, &mut vader), peers(&mut test, &mut vader), test.journal.len());
    let recording = test.recorded.clone();
    assert!(
        recording.len() > 20 && recording.iter().any(|(_, bytes)| bytes[0] == 0x08),
        "logins, commands and a resumption"
    );
    for round in 0..20 {
        let mut part = recording.clone();
        part.shuffle(&mut test.rng);
        if round % 2 == 1 {
            let length = test.rng.gen_range(0..part.len());
            part.truncate(length);
        }
        for (from, bytes) in &part {
            // From the recorded address, or from another.
            let from = if round % 4 < 2 { *from } else { address("192.0.2.66:6") };
            test.send(from, bytes);
        }
    }
    assert_eq!(test.server.session_count(), 2);
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
    assert_eq!(test.heartbeat(&mut vader).len(), 1);
    let after =
        (own(&mut test, &mut hans), own(&mut test, &mut vader), peers(&mut test, &mut vader), test.journal.len());
    assert_eq!(before, after);
    test.advance(Duration::from_millis(2_999));
    recording.iter().for_each(|(from, bytes)| drop(test.send(*from, bytes)));
    test.advance(Duration::from_millis(1));
    test.run_until_idle();
    assert_eq!(test.server.session_count(), 0, "a replay does not keep a session alive");
    recording.iter().for_each(|(from, bytes)| drop(test.send(*from, bytes)));
    assert_eq!(test.server.session_count(), 0, "a replay is no login");
}

#[test]
fn a_replayed_login_does_not_begin_again() {
    let mut test = TestServer::new(&["hans"]);
    let from = address(HANS);
    for password in ["hans-pw", "a typing error"] {
        let login = test.begin_login(from, "hans", password).expect("LOGIN2");
        let login4 = test.send(from, &login.login3);
        if let Some(LoginOutcome::Accepted(mut client)) = login.outcome(from, &login4[0].bytes) {
            test.send_message(&mut client, &ClientMessage::Logout);
        }
        // The login is replayed step by step, until long after its cookie has expired.
        for _ in 0..300 {
            test.advance(Duration::from_millis(100));
            let replies = test.send(from, &login.login1);
            assert!(replies.iter().all(|reply| matches!(Packet::parse(&reply.bytes), Some(Packet::Retry { .. }))));
            let replies = test.send(from, &login.login3);
            assert!(replies.iter().all(|reply| reply == &login4[0]), "the same refusal, for a while");
        }
        assert!(test.send(from, &login.login3).is_empty());
    }
    assert_eq!(test.server.session_count(), 0);
}

#[test]
fn a_restarted_server_accepts_no_replay() {
    let (test, hans, mut vader) = recorded_session();
    let config = ServerConfig::default();
    let mut later = TestServer::start(&["hans", "vader"], config, origin() + Duration::from_secs(5));
    let mut recording = test.recorded.clone();
    for round in 0..10 {
        recording.iter().for_each(|(from, bytes)| drop(later.send(*from, bytes)));
        assert_eq!((later.server.session_count(), later.journal.len()), (0, 0), "round {round}");
        recording.shuffle(&mut later.rng);
    }
    // Also while the clients resume.
    let mut hans = later.resume(&hans, hans.address).expect("RESUMED");
    later.heartbeat(&mut hans);
    let mut vader_again = later.resume(&vader, vader.address).expect("RESUMED");
    later.heartbeat(&mut vader_again);
    recording.iter().for_each(|(from, bytes)| drop(later.send(*from, bytes)));
    assert_eq!((later.server.session_count(), later.journal.len()), (2, 0));
    assert_eq!(own(&mut later, &mut hans), Response::OwnPublications { entries: Vec::new(), next: None });
    let stale = vader.seal(&ClientMessage::Logout);
    later.send(vader.address, &stale);
    assert_eq!(later.heartbeat(&mut vader_again).len(), 1);
}
