use std::time::Duration;

use zeroize::Zeroizing;

use crate::common::handshake_keys::reset_tag;
use crate::common::message::{ActivePeer, ClientMessage, Heartbeat, Request, Response, ServerMessage};
use crate::common::packet::Packet;
use crate::common::session_cipher::{SessionCipher, Side};
use crate::server::test_support::{LoginOutcome, TestServer, address, user};

const HERE: &str = "127.0.0.1:4000";

#[test]
fn a_heartbeat_is_acknowledged_and_keeps_the_session_alive() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    for _ in 0..10 {
        test.advance(Duration::from_millis(2_999));
        assert_eq!(test.heartbeat(&mut hans), [ServerMessage::HeartbeatAck { number: 1, subscriptions: None }]);
    }
    assert_eq!(test.server.session_count(), 1);
}

#[test]
fn a_silent_session_expires_exactly_at_its_deadline() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login(HERE, "hans");
    test.advance(Duration::from_millis(500));
    let mut vader = test.login("127.0.0.1:4001", "vader");
    let peers = |test: &mut TestServer, vader: &mut _| test.request(vader, Request::Peers { cursor: None });
    test.advance(Duration::from_millis(2_499));
    let active = vec![ActivePeer { user: user("hans"), active_s: 2 }];
    assert_eq!(peers(&mut test, &mut vader), Response::Peers { peers: active, next: None });
    assert_eq!(
        test.server.poll_timeout(),
        Some(test.now + Duration::from_millis(1)),
        "the driver sleeps until the deadline"
    );
    test.advance(Duration::from_millis(1));
    assert_eq!(peers(&mut test, &mut vader), Response::Peers { peers: Vec::new(), next: None });
    assert!(test.heartbeat(&mut hans).is_empty());
}

#[test]
fn a_session_that_was_heard_of_expires_the_liveness_time_later() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.advance(Duration::from_secs(2));
    test.heartbeat(&mut hans);
    // When it would have expired without the heartbeat, and just before it does.
    for ms in [1_000, 1_999] {
        test.advance(Duration::from_millis(ms));
        test.run_until_idle();
        assert_eq!(test.server.session_count(), 1);
    }
    test.advance(Duration::from_millis(1));
    test.run_until_idle();
    assert_eq!(test.server.session_count(), 0);
    test.login(HERE, "hans");
}

#[test]
fn a_server_that_was_stopped_lets_its_clients_be_heard() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, _gone) = (test.login(HERE, "hans"), test.login("127.0.0.1:4001", "vader"));
    test.advance(Duration::from_secs(60));
    test.server.handle_suspension(test.now);
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
    assert_eq!(test.server.session_count(), 2);
    test.advance(Duration::from_secs(1));
    test.run_until_idle();
    assert_eq!(test.server.session_count(), 1, "a silent client expires after all");
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
}

#[test]
fn a_user_can_log_in_again_after_the_session_has_expired() {
    let mut test = TestServer::new(&["hans"]);
    let first = test.login(HERE, "hans");
    let refused = test.try_login(address("127.0.0.1:4001"), "hans", "hans-pw");
    assert!(matches!(refused, Some(LoginOutcome::AlreadyActive { .. })));
    test.advance(Duration::from_secs(3));
    let second = test.login("127.0.0.1:4001", "hans");
    assert!(second.params.instance > first.params.instance);
}

#[test]
fn a_session_belongs_to_one_address() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert!(test.send(address("127.0.0.1:4001"), &bytes).is_empty());
    assert_eq!(test.send(address(HERE), &bytes).len(), 1, "the replay window has not moved");
}

#[test]
fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert_eq!(test.send(address("[::ffff:127.0.0.1]:4000"), &bytes)[0].to, address(HERE));
}

#[test]
fn a_replayed_datagram_changes_nothing() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert_eq!(test.send(address(HERE), &bytes).len(), 1);
    test.advance(Duration::from_millis(2_500));
    assert!(test.send(address(HERE), &bytes).is_empty());
    test.advance(Duration::from_millis(500));
    test.run_until_idle();
    assert_eq!(test.server.session_count(), 0, "a replay does not keep the session alive");
}

#[test]
fn a_logout_is_acknowledged_and_final() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (test.login(HERE, "hans"), test.login("127.0.0.1:4001", "vader"));
    assert_eq!(test.send_message(&mut hans, &ClientMessage::Logout), [ServerMessage::LogoutAck]);
    let peers = test.request(&mut vader, Request::Peers { cursor: None });
    assert_eq!(peers, Response::Peers { peers: Vec::new(), next: None });
    assert!(test.resume(&hans, hans.address).is_none());
    test.login(HERE, "hans");
}

#[test]
fn an_unknown_session_gets_an_authentic_reset_and_a_random_id_none() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.send_message(&mut hans, &ClientMessage::Logout);
    let bytes = hans.seal(&ClientMessage::Logout);
    let reply = test.send(address(HERE), &bytes);
    let tag = reset_tag(&hans.params.reset_token.0, 0);
    let expected = Packet::Reset { id: hans.params.session, tag, delay_ms: 0 };
    assert_eq!(Packet::parse(&reply[0].bytes), Some(expected));
    assert!(reply[0].bytes.len() < bytes.len());
    let mut forged = bytes.clone();
    forged[3] ^= 1;
    assert!(test.send(address(HERE), &forged).is_empty());
}

/// A datagram of a session that has ended.
fn stale(test: &mut TestServer) -> Vec<u8> {
    let id = test.server.keys.new_session_id(&mut test.rng);
    let mut cipher = SessionCipher::new(Side::Client, id, &Zeroizing::new([1; 32]));
    let mut bytes = Vec::new();
    cipher.seal_into(&mut bytes, |text| ClientMessage::Logout.encode(text));
    bytes
}

/// The delay in the reset that answers the datagram, if one does.
fn delay(test: &mut TestServer, from: &str, bytes: &[u8]) -> Option<u16> {
    match Packet::parse(&test.send(address(from), bytes).pop()?.bytes) {
        Some(Packet::Reset { delay_ms, .. }) => Some(delay_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn resets_spread_the_clients_over_time() {
    let mut test = TestServer::new(&[]);
    let hosts: Vec<String> = (0..20_000).map(|at| format!("10.0.{}.{}:4000", at / 250, at % 250)).collect();
    let sessions: Vec<_> = hosts.iter().map(|_| stale(&mut test)).collect();
    let delays: Vec<_> =
        sessions.iter().zip(&hosts).filter_map(|(session, host)| delay(&mut test, host, session)).collect();
    assert_eq!((delays.len(), delays[10_000]), (20_000, 4_000));
    assert_eq!(delays.iter().max(), Some(&5_000));
    // Each client keeps its turn; after all turns are over there is no delay.
    test.advance(Duration::from_millis(1_500));
    assert_eq!(delay(&mut test, &hosts[10_000], &sessions[10_000]), Some(2_500));
    test.advance(Duration::from_secs(10));
    assert_eq!(delay(&mut test, &hosts[10_000], &sessions[10_000]), Some(0));
}

#[test]
fn a_replayed_datagram_delays_no_other_client() {
    let mut test = TestServer::new(&[]);
    let (recorded, hans) = (stale(&mut test), stale(&mut test));
    for round in 0..100_u64 {
        for _ in 0..1_000 {
            delay(&mut test, "192.0.2.66:6", &recorded);
        }
        let from = format!("10.0.0.{round}:4000");
        assert!(delay(&mut test, &from, &hans).is_some_and(|delay_ms| delay_ms <= 1), "round {round}");
        test.advance(Duration::from_millis(10 * round));
    }
}
