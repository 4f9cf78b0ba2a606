//! The session against a scripted server: each outcome, each disconnect, each kind of retransmission.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::test_support::{HEARTBEAT, LIVENESS, PASSWORD, Pair, Policy, address};
use super::*;
use crate::common::limits::PROTOCOL_VERSION;
use crate::common::message::ServerMessage;
use crate::common::types::{InstanceId, SessionId};

const MILLISECOND: Duration = Duration::from_millis(1);

fn login_error(pair: &mut Pair) -> LoginError {
    match pair.event() {
        Event::LoginFinished(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_gives_both_sides_the_same_keys() {
    let mut pair = Pair::new();
    pair.login(PASSWORD);
    let Event::Started { user, params, resumed, .. } = pair.event() else { panic!("no session") };
    assert_eq!((user.as_str(), params.instance, resumed), ("hans", pair.server.run, false));
    assert!(matches!(pair.event(), Event::LoginFinished(Ok(_))));
    pair.request(Request::Peers { cursor: None });
    assert!(pair.server.request().is_some(), "the server can decrypt the request");
}

#[test]
fn debug_output_of_events_shows_no_key() {
    let mut pair = Pair::new();
    pair.login(PASSWORD);
    let Some(Event::Started { ticket_key, .. }) = pair.events.front() else { panic!("no session") };
    let key = format!("{:?}", ticket_key.as_slice());
    let shown = format!("{:?}", pair.events);
    assert!(!shown.contains(key.trim_matches(['[', ']'])) && !shown.contains("9, 9, 9"), "{shown}");
}

#[test]
fn a_wrong_password_is_refused_and_can_be_retried() {
    let mut pair = Pair::new();
    pair.login(b"wrong");
    pair.no_event();
    pair.advance(handshake::LOGIN2_GRACE);
    assert_eq!(login_error(&mut pair), LoginError::Refused);
    pair.login(PASSWORD);
    assert!(matches!(pair.event(), Event::Started { .. }));
}

#[test]
fn a_wrong_password_sends_a_login3_of_the_right_size() {
    for (password, size) in [(PASSWORD, 129), (b"wrong".as_slice(), 129)] {
        let mut pair = Pair::new();
        pair.session.login(pair.now, test_support::hans(), Zeroizing::new(password.to_vec()));
        let mut sent = Vec::new();
        while let Some((to, datagram)) = pair.session.poll_transmit() {
            sent.push(datagram.len());
            if let Some(Packet::Login3 { ke3, client_info, .. }) = Packet::parse(&datagram) {
                let is_random = |bytes: &[u8]| bytes.iter().collect::<BTreeSet<_>>().len() > 12;
                assert!(is_random(ke3) && is_random(client_info), "a wrong password shows in no byte");
            }
            if let Some(mut answer) = pair.server.handle(datagram) {
                pair.session.handle_datagram(pair.now, to, &mut answer);
            }
            if sent.len() == 2 {
                pair.now += handshake::LOGIN2_GRACE;
                pair.session.handle_timeout(pair.now);
            }
        }
        assert_eq!(sent[..3], [256, 210, size]);
    }
}

#[test]
fn every_refusal_has_its_error() {
    let cases = [
        (Policy::AlreadyActive, LoginError::AlreadyActive { liveness: LIVENESS }),
        (Policy::Refuse, LoginError::Refused),
        (Policy::Throttle, LoginError::Throttled(7)),
    ];
    for (policy, error) in cases {
        let mut pair = Pair::new();
        pair.server.on_login = policy;
        pair.login(PASSWORD);
        pair.advance(handshake::LOGIN2_GRACE);
        assert_eq!(login_error(&mut pair), error);
        assert_eq!(pair.session.poll_timeout(), None, "nothing remains of the attempt");
    }
}

#[test]
fn a_server_of_another_version_is_named() {
    let mut pair = Pair::new();
    pair.session.login(pair.now, test_support::hans(), Zeroizing::new(PASSWORD.to_vec()));
    let (_, hello) = pair.session.poll_transmit().unwrap();
    let Some(Packet::Hello { nonce, .. }) = Packet::parse(&hello) else { panic!("no HELLO") };
    pair.deliver(Packet::Version { version: 9, nonce: [0; 16] }.to_bytes());
    pair.no_event();
    pair.deliver(Packet::Version { version: 9, nonce }.to_bytes());
    assert_eq!(login_error(&mut pair), LoginError::Version { server: 9, client: PROTOCOL_VERSION });
}

#[test]
fn a_login_without_an_answer_fails_after_five_seconds() {
    let mut pair = Pair::new();
    pair.connected = false;
    pair.login(PASSWORD);
    pair.advance(LOGIN_TIMEOUT - MILLISECOND);
    pair.no_event();
    pair.advance(MILLISECOND);
    assert_eq!(login_error(&mut pair), LoginError::Unreachable);
}

#[test]
fn a_login_restarts_if_the_server_forgets_it() {
    let mut pair = Pair::new();
    pair.session.login(pair.now, test_support::hans(), Zeroizing::new(PASSWORD.to_vec()));
    for _ in 0..2 {
        let (_, datagram) = pair.session.poll_transmit().unwrap();
        let mut answer = pair.server.handle(datagram).unwrap();
        pair.session.handle_datagram(pair.now, address(1), &mut answer);
    }
    pair.server = test_support::ScriptedServer::new(address(1));
    pair.advance(LOGIN_TIMEOUT * ANSWERED_LOGIN_FACTOR);
    assert!(matches!(pair.event(), Event::Started { .. }));
}

#[test]
fn a_server_that_starts_late_is_found() {
    let mut pair = Pair::new();
    pair.connected = false;
    pair.login(PASSWORD);
    pair.advance(Duration::from_secs(3));
    pair.connected = true;
    pair.advance(Duration::from_millis(300));
    assert!(matches!(pair.event(), Event::Started { .. }));
}

#[test]
fn a_stale_cookie_is_replaced_and_the_login_goes_on() {
    let mut pair = Pair::new();
    pair.session.login(pair.now, test_support::hans(), Zeroizing::new(PASSWORD.to_vec()));
    let (_, hello) = pair.session.poll_transmit().unwrap();
    let mut retry = pair.server.handle(hello).unwrap();
    pair.server.cookie = [2; 32];
    pair.session.handle_datagram(pair.now, address(1), &mut retry);
    pair.exchange();
    assert!(matches!(pair.event(), Event::Started { .. }));
}

#[test]
fn the_next_address_is_tried_after_a_wait_or_if_the_first_is_unreachable() {
    for refused in [false, true] {
        let mut pair = Pair::with_servers(vec![address(2), address(1)]);
        pair.login(PASSWORD);
        assert_eq!(pair.misdirected.len(), 1, "only the first address is tried at first");
        pair.no_event();
        match refused {
            true => pair.session.unreachable(pair.now, address(2)),
            false => pair.advance(Duration::from_millis(250)),
        }
        pair.exchange();
        assert!(matches!(pair.event(), Event::Started { .. }));
        pair.server.on_resume = Policy::Refuse;
        pair.misdirected.clear();
        pair.deliver(pair.server.reset(0));
        assert_eq!(pair.server.logins, 2, "the address that answered last is tried first");
        assert!(pair.misdirected.is_empty());
    }
}

#[test]
fn packets_from_other_addresses_are_ignored() {
    let mut pair = Pair::new();
    pair.session.login(pair.now, test_support::hans(), Zeroizing::new(PASSWORD.to_vec()));
    let (_, hello) = pair.session.poll_transmit().unwrap();
    let mut retry = pair.server.handle(hello).unwrap();
    pair.session.handle_datagram(pair.now, address(7), &mut retry);
    assert!(pair.session.poll_transmit().is_none());
    let mut pair = Pair::established();
    let mut reset = pair.server.reset(0);
    pair.session.handle_datagram(pair.now, address(7), &mut reset);
    assert!(pair.session.poll_transmit().is_none(), "and so is a RESET");
}

#[test]
fn a_forged_reset_is_ignored() {
    let mut pair = Pair::established();
    let true_reset = pair.server.reset(0);
    let Some(Packet::Reset { id, tag, .. }) = Packet::parse(&true_reset) else { panic!("no RESET") };
    // The last has a delay that the attacker has chosen.
    for (id, tag, delay_ms) in [(id, [0; 16], 0), (SessionId([0; 16]), tag, 0), (id, tag, u16::MAX)] {
        pair.deliver(Packet::Reset { id, tag, delay_ms }.to_bytes());
        pair.advance(Duration::from_secs(70));
        assert_eq!(pair.server.resumptions, 0);
    }
    pair.deliver(true_reset);
    assert_eq!(pair.server.resumptions, 1);
}

#[test]
fn a_reset_is_followed_by_a_resumption_after_its_delay() {
    let mut pair = Pair::established();
    pair.deliver(pair.server.reset(700));
    pair.advance(Duration::from_millis(699));
    assert_eq!(pair.server.resumptions, 0);
    pair.advance(MILLISECOND);
    assert_eq!(pair.server.resumptions, 1);
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    pair.no_event();
}

#[test]
fn the_delay_of_a_reset_is_capped() {
    let mut pair = Pair::established();
    pair.deliver(pair.server.reset(u16::MAX));
    pair.advance(RESET_DELAY_MAX - MILLISECOND);
    assert_eq!(pair.server.resumptions, 0);
    pair.advance(MILLISECOND);
    assert_eq!(pair.server.resumptions, 1);
}

#[test]
fn a_server_that_resets_every_session_does_not_make_the_client_spin() {
    let mut pair = Pair::established();
    let start = pair.now;
    while pair.now < start + Duration::from_secs(20) {
        pair.deliver(pair.server.reset(0));
        pair.advance(MILLISECOND * 10);
    }
    assert!((10..=24).contains(&pair.server.resumptions), "{} in 20 s", pair.server.resumptions);
}

#[test]
fn heartbeats_keep_a_session_alive_for_hours() {
    let mut pair = Pair::established();
    pair.advance(Duration::from_secs(7_200));
    pair.no_event();
    assert_eq!((pair.server.logins, pair.server.resumptions), (1, 0));
}

#[test]
fn silence_is_reported_once_and_the_session_resumes_when_the_server_returns() {
    let mut pair = Pair::established();
    pair.connected = false;
    pair.advance(HEARTBEAT + LIVENESS);
    assert!(matches!(pair.event(), Event::ConnectionLost));
    pair.advance(Duration::from_secs(3_600));
    pair.no_event();
    pair.connected = true;
    pair.advance(Duration::from_millis(1_250));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    assert_eq!(pair.server.resumptions, 1);
}

#[test]
fn a_long_restart_is_reported_as_a_lost_connection() {
    let mut pair = Pair::established();
    let reset = pair.server.reset(100);
    pair.connected = false;
    pair.deliver(reset);
    pair.advance(LIVENESS);
    pair.no_event();
    pair.advance(Duration::from_millis(100));
    assert!(matches!(pair.event(), Event::ConnectionLost));
}

#[test]
fn a_refused_ticket_leads_to_a_login_with_the_password_in_memory() {
    let mut pair = Pair::established();
    pair.server.on_resume = Policy::Refuse;
    pair.server.run = InstanceId(200);
    pair.deliver(pair.server.reset(0));
    let Event::Started { params, resumed: true, .. } = pair.event() else { panic!("no session") };
    assert_eq!((params.instance, pair.server.logins), (InstanceId(200), 2));
    assert_eq!(pair.server.continued, Some(InstanceId(100)), "the instance of the refused ticket");
    pair.no_event();
}

#[test]
fn a_refused_password_ends_the_session() {
    let mut pair = Pair::established();
    (pair.server.on_resume, pair.server.on_login) = (Policy::Refuse, Policy::Refuse);
    let revoked = pair.server.seal(&ServerMessage::SessionRevoked);
    pair.deliver(revoked);
    pair.advance(handshake::LOGIN2_GRACE);
    assert!(matches!(pair.event(), Event::LoggedOut));
    assert!(pair.session.credentials.is_none(), "the password is wiped");
    let handle = pair.request(Request::Peers { cursor: None });
    assert!(
        matches!(pair.event(), Event::RequestFinished { request, result: Err(RequestError::NotAuthenticated) } if request == handle)
    );
}

#[test]
fn already_active_is_retried_for_the_liveness_time() {
    for released in [true, false] {
        let mut pair = Pair::established();
        (pair.server.on_resume, pair.server.on_login) = (Policy::Refuse, Policy::AlreadyActive);
        pair.deliver(pair.server.reset(0));
        pair.advance(LIVENESS);
        if released {
            pair.server.on_login = Policy::Welcome;
        }
        pair.advance(Duration::from_millis(1_600));
        match (released, pair.events.pop_back().expect("an event")) {
            (true, Event::Started { resumed: true, .. }) | (false, Event::LoggedOut) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_throttled_client_waits_and_reconnects() {
    let mut pair = Pair::established();
    (pair.server.on_resume, pair.server.on_login) = (Policy::Refuse, Policy::Throttle);
    pair.deliver(pair.server.reset(0));
    pair.server.on_login = Policy::Welcome;
    // Not for the 7 s that it is told.
    pair.advance(Duration::from_millis(4_999));
    assert_eq!(pair.server.logins, 1);
    pair.advance(MILLISECOND);
    assert_eq!(pair.server.logins, 2);
}

#[test]
fn leave_is_sent_until_it_is_confirmed() {
    let mut pair = Pair::established();
    pair.session.logout(pair.now);
    pair.exchange();
    pair.advance(LOGOUT_RETRY);
    let leaves = pair.server.messages.iter().filter(|message| **message == ClientMessage::Logout).count();
    assert_eq!(leaves, 2);
    pair.no_event();
    let left = pair.server.seal(&ServerMessage::LogoutAck);
    pair.deliver(left);
    assert!(matches!(pair.event(), Event::LoggedOutByUser));
    assert!(pair.session.credentials.is_none() && pair.session.poll_timeout().is_none());
    pair.login(PASSWORD);
    assert!(matches!(pair.event(), Event::Started { resumed: false, .. }));
}

#[test]
fn a_logout_from_a_dead_server_takes_a_second() {
    for broken in [false, true] {
        let mut pair = Pair::established();
        pair.connected = false;
        if broken {
            pair.advance(HEARTBEAT + LIVENESS);
            assert!(matches!(pair.event(), Event::ConnectionLost));
        }
        pair.session.logout(pair.now);
        pair.advance(LOGOUT_TIMEOUT - MILLISECOND);
        pair.no_event();
        pair.advance(MILLISECOND);
        assert!(matches!(pair.event(), Event::LoggedOutByUser));
    }
}

#[test]
fn a_logout_while_reconnecting_reconnects_to_send_leave() {
    let mut pair = Pair::established();
    pair.deliver(pair.server.reset(60_000));
    pair.session.logout(pair.now);
    pair.exchange();
    assert_eq!(pair.server.resumptions, 1);
    assert!(pair.server.messages.contains(&ClientMessage::Logout));
    pair.deliver(pair.server.reset(0));
    assert!(matches!(pair.events.pop_back(), Some(Event::LoggedOutByUser)), "a session that is gone is logged out");
}

#[test]
fn a_logout_without_a_session_ends_at_once() {
    let mut pair = Pair::new();
    pair.session.logout(pair.now);
    pair.exchange();
    assert!(matches!(pair.event(), Event::LoggedOutByUser));
}

#[test]
fn a_second_login_is_refused_and_the_session_stays() {
    let mut pair = Pair::established();
    pair.login(PASSWORD);
    assert_eq!(login_error(&mut pair), LoginError::LoggedIn);
    pair.request(Request::Peers { cursor: None });
    assert!(pair.server.request().is_some());
}

#[test]
fn random_and_damaged_datagrams_are_ignored() {
    use rand::{RngCore, SeedableRng};
    let mut pair = Pair::established();
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let honest = pair.server.seal(&ServerMessage::LogoutAck);
    for round in 0..10_000 {
        let mut bytes = vec![0; round % 1_300];
        rng.fill_bytes(&mut bytes);
        if let Some(kind) = bytes.first_mut() {
            *kind %= 0x12;
        }
        pair.deliver(bytes);
        let mut damaged = honest.clone();
        damaged[round % honest.len()] ^= 1 + (round / honest.len()) as u8 % 255;
        pair.deliver(damaged);
    }
    pair.no_event();
    assert_eq!((pair.server.logins, pair.server.resumptions), (1, 0));
}
