//! Floods: the state that unauthenticated clients can cause is bounded, and so are the replies.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::limits::{PENDING_LOGIN_LIFETIME, PENDING_LOGINS_KNOWN_MAX, PENDING_LOGINS_MAX, PROTOCOL_VERSION};
use crate::common::message::ClientMessage;
use crate::common::packet::{Cookie, KE1_BYTES, Nonce, Packet};
use crate::server::core::{ReceiveBuffer, Refusal};
use crate::server::test_support::{TestServer, address};

/// Hosts, each in a network of its own.
fn host(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(number) << 80 | 1).into(), 4_000)
}

/// Passes in a LOGIN1 and lets the server do nothing else.
fn queue_login(test: &mut TestServer, from: SocketAddr, user: &str, (nonce, cookie): (Nonce, Cookie)) {
    let mut login1 = Packet::Login1 { nonce, cookie, user, ke1: &[3; KE1_BYTES] }.to_bytes();
    test.server.handle_datagram(test.now, from, &mut login1, &mut test.out);
    test.out.datagrams.clear();
}

#[test]
fn pending_logins_are_bounded_and_no_login_is_refused() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (home, elsewhere) = (address("192.0.2.1:4000"), address("192.0.2.2:4000"));
    let mut hans = test.login("192.0.2.1:4001", "hans");
    test.send_message(&mut hans, &ClientMessage::Logout);
    // While records are made, every login waits.
    test.server.enrolling = true;
    for number in 0..PENDING_LOGINS_MAX as u32 + 2_000 {
        let cookie = test.cookie(host(number));
        queue_login(&mut test, host(number), &format!("user{number}"), cookie);
        test.out.awaited_records.clear();
    }
    assert_eq!(test.server.pending_logins.awaited_records().count(), PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX);
    let displaced = test.server.stats().counters.refused.of(Refusal::DisplacedLogin);
    assert_eq!(displaced, PENDING_LOGINS_KNOWN_MAX as u64 + 2_000 + 1, "hans' earlier one too");
    let (at_home, at_elsewhere) = (test.cookie(home), test.cookie(elsewhere));
    test.server.handle_enrolment_done();
    // Thousands of logins are queued. One from a prefix with an earlier login is processed at once.
    queue_login(&mut test, home, "hans", at_home);
    test.server.run_deferred_work(test.now, ReceiveBuffer::Empty, &mut test.out);
    test.server.run_deferred_work(test.now, ReceiveBuffer::Empty, &mut test.out);
    assert!(test.out.datagrams.iter().any(|login2| login2.to == home));
    queue_login(&mut test, elsewhere, "vader", at_elsewhere);
    assert!(test.run_until_idle().iter().any(|login2| login2.to == elsewhere), "from an unknown prefix, in its turn");
    test.advance(PENDING_LOGIN_LIFETIME);
    test.run_until_idle();
    assert!(!test.server.pending_logins.has_ready() && test.server.pending_logins.next_expiry().is_none());
}

#[test]
fn resets_are_limited_in_rate() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    test.send_message(&mut hans, &ClientMessage::Logout);
    let bytes = hans.seal(&ClientMessage::Logout);
    let resets = |test: &mut TestServer, from: &str| {
        (0..30_000).filter(|_| !test.send(address(from), &bytes).is_empty()).count()
    };
    // For each prefix, and in all.
    assert_eq!(["192.0.2.7:9", "192.0.2.8:9", "192.0.2.9:9"].map(|from| resets(&mut test, from)), [10_000, 10_000, 0]);
    test.advance(Duration::from_millis(100));
    assert_eq!(resets(&mut test, "192.0.2.7:9"), 1_000);
    assert_eq!(resets(&mut test, "192.0.2.9:9"), 1_000);
    let refused = test.server.stats().counters.refused;
    assert_eq!((refused.of(Refusal::EndedSession), refused.of(Refusal::ResetLimit)), (22_000, 5 * 30_000 - 22_000));
}

#[test]
fn any_unauthenticated_datagram_gets_at_most_one_reply_and_no_larger_one() {
    let test = RefCell::new(TestServer::new(&["hans"]));
    let (session, ticket) = {
        let mut test = test.borrow_mut();
        let mut hans = test.login("127.0.0.1:4000", "hans");
        let session = hans.seal(&ClientMessage::Logout);
        test.send_message(&mut hans, &ClientMessage::Logout);
        (session, hans.params.ticket.clone())
    };
    let sizes = [256, 49, 19, 210, 337, 129, 353, 97 + ticket.len(), 369, 17, 35, session.len()];
    let kinds = prop_oneof![0x01_u8..=0x11, any::<u8>()];
    let size = prop_oneof![proptest::sample::select(sizes.to_vec()), 0..1_300_usize];
    // Random bytes, or valid packets with one change, which get past the first checks.
    let noise = (kinds, size).prop_flat_map(|(kind, size)| {
        proptest::collection::vec(any::<u8>(), size).prop_map(move |mut bytes| {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            bytes
        })
    });
    let valid = vec![
        Packet::Hello { version: PROTOCOL_VERSION, nonce: [1; 16] }.to_bytes(),
        Packet::Login1 { nonce: [1; 16], cookie: [2; 32], user: "hans", ke1: &[3; KE1_BYTES] }.to_bytes(),
        Packet::Login3 { nonce: [1; 16], ke3: &[3; 64], client_info: &[4; 48] }.to_bytes(),
        Packet::Resume { nonce: [1; 16], cookie: [2; 32], client_info: &[4; 48], ticket: &ticket }.to_bytes(),
        session,
    ];
    let changed = (proptest::sample::select(valid), any::<prop::sample::Index>(), any::<u8>(), 0..3_usize);
    let changed = changed.prop_map(|(mut bytes, at, change, cut)| {
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        bytes.truncate(bytes.len() - cut);
        bytes
    });
    let mut runner = TestRunner::new(Config { cases: 30_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop_oneof![noise, changed], |bytes| {
        let replies = test.borrow_mut().send(address("192.0.2.77:9"), &bytes);
        let reply_bytes: usize = replies.iter().map(|datagram| datagram.bytes.len()).sum();
        prop_assert!(replies.len() <= 1 && reply_bytes <= bytes.len(), "{replies:?}");
        prop_assert!(replies.iter().all(|datagram| datagram.to == address("192.0.2.77:9")));
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(test.borrow().server.session_count(), 0);
}
