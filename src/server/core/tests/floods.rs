//! Floods: what is kept for strangers is bounded, and so is what they can make the server say.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::limits::{PENDING_LOGIN_LIFETIME, PENDING_LOGINS_KNOWN_MAX, PENDING_LOGINS_MAX};
use crate::common::message::ClientMessage;
use crate::common::packet::{Cookie, KE1_BYTES, Nonce, Packet};
use crate::server::test_support::{World, address};

/// Hosts of as many networks.
fn host(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(number) << 80 | 1).into(), 4_000)
}

/// A LOGIN1, handed in without letting the server do anything else.
fn line_up(world: &mut World, from: SocketAddr, user: &str, (nonce, cookie): (Nonce, Cookie)) {
    let mut login1 = Packet::Login1 { nonce, cookie, user, ke1: &[3; KE1_BYTES] }.to_bytes();
    world.server.handle_datagram(world.now, from, &mut login1, &mut world.out);
    world.out.datagrams.clear();
}

#[test]
fn logins_under_way_are_bounded_whoever_sends_them_and_nobody_is_kept_out() {
    let mut world = World::new(&["hans", "vader"]);
    let (home, elsewhere) = (address("192.0.2.1:4000"), address("192.0.2.2:4000"));
    let mut hans = world.login("192.0.2.1:4001", "hans");
    world.say(&mut hans, &ClientMessage::Logout);
    // While records are made, everyone waits.
    world.server.enrolling = true;
    for number in 0..PENDING_LOGINS_MAX as u32 + 2_000 {
        let cookie = world.cookie(host(number));
        line_up(&mut world, host(number), &format!("user{number}"), cookie);
        world.out.awaited_records.clear();
    }
    assert_eq!(world.server.pending_logins.awaited_records().count(), PENDING_LOGINS_MAX - PENDING_LOGINS_KNOWN_MAX);
    let (at_home, at_elsewhere) = (world.cookie(home), world.cookie(elsewhere));
    world.server.handle_enrolment_done();
    // Whose turn comes after those of thousands: at a place where somebody has logged in before, at once.
    line_up(&mut world, home, "hans", at_home);
    world.server.run_deferred_work(world.now, true, &mut world.out);
    world.server.run_deferred_work(world.now, true, &mut world.out);
    assert!(world.out.datagrams.iter().any(|login2| login2.to == home));
    line_up(&mut world, elsewhere, "vader", at_elsewhere);
    assert!(world.settle().iter().any(|login2| login2.to == elsewhere), "elsewhere, in turn");
    world.advance(PENDING_LOGIN_LIFETIME);
    world.settle();
    assert!(!world.server.pending_logins.has_ready() && world.server.pending_logins.next_expiry().is_none());
}

#[test]
fn resets_have_a_rate() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login("127.0.0.1:4000", "hans");
    world.say(&mut hans, &ClientMessage::Logout);
    let bytes = hans.seal(&ClientMessage::Logout);
    let drawn =
        |world: &mut World, from: &str| (0..30_000).filter(|_| !world.send(address(from), &bytes).is_empty()).count();
    // For each network, and for all of them.
    assert_eq!(["192.0.2.7:9", "192.0.2.8:9", "192.0.2.9:9"].map(|from| drawn(&mut world, from)), [10_000, 10_000, 0]);
    world.advance(Duration::from_millis(100));
    assert_eq!(drawn(&mut world, "192.0.2.7:9"), 1_000);
    assert_eq!(drawn(&mut world, "192.0.2.9:9"), 1_000);
}

#[test]
fn whatever_a_stranger_sends_the_answer_is_one_datagram_and_no_larger() {
    let world = RefCell::new(World::new(&["hans"]));
    let (session, ticket) = {
        let mut world = world.borrow_mut();
        let mut hans = world.login("127.0.0.1:4000", "hans");
        let session = hans.seal(&ClientMessage::Logout);
        world.say(&mut hans, &ClientMessage::Logout);
        (session, hans.welcome.ticket.clone())
    };
    let sizes = [256, 49, 19, 210, 337, 129, 353, 97 + ticket.len(), 369, 17, 35, session.len()];
    let kinds = prop_oneof![0x01_u8..=0x11, any::<u8>()];
    let size = prop_oneof![proptest::sample::select(sizes.to_vec()), 0..1_300_usize];
    // Noise; or what is true but for a change somewhere, so that it gets past the first checks.
    let noise = (kinds, size).prop_flat_map(|(kind, size)| {
        proptest::collection::vec(any::<u8>(), size).prop_map(move |mut bytes| {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            bytes
        })
    });
    let truths = vec![
        Packet::Hello { version: 1, nonce: [1; 16] }.to_bytes(),
        Packet::Login1 { nonce: [1; 16], cookie: [2; 32], user: "hans", ke1: &[3; KE1_BYTES] }.to_bytes(),
        Packet::Login3 { nonce: [1; 16], ke3: &[3; 64], client_info: &[4; 48] }.to_bytes(),
        Packet::Resume { nonce: [1; 16], cookie: [2; 32], client_info: &[4; 48], ticket: &ticket }.to_bytes(),
        session,
    ];
    let changed = (proptest::sample::select(truths), any::<prop::sample::Index>(), any::<u8>(), 0..3_usize);
    let changed = changed.prop_map(|(mut bytes, at, change, cut)| {
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        bytes.truncate(bytes.len() - cut);
        bytes
    });
    let mut runner = TestRunner::new(Config { cases: 30_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&prop_oneof![noise, changed], |bytes| {
        let answer = world.borrow_mut().send(address("192.0.2.77:9"), &bytes);
        let answered: usize = answer.iter().map(|datagram| datagram.bytes.len()).sum();
        prop_assert!(answer.len() <= 1 && answered <= bytes.len(), "{answer:?}");
        prop_assert!(answer.iter().all(|datagram| datagram.to == address("192.0.2.77:9")));
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(world.borrow().server.session_count(), 0);
}
