//! An on-path attacker who sees the client's datagrams and forges answers, but cannot drop any datagram.

use rand::{RngCore, SeedableRng};
use zeroize::Zeroizing;

use super::test_support::{LIVENESS, PASSWORD, Pair, Policy, hans};
use super::*;
use crate::common::opaque::{ClientLogin, PasswordRecord, ServerLogin};
use crate::common::packet::{LOGIN_RESULT_BYTES, Nonce};
use crate::common::types::SessionId;

fn nonce(datagram: &[u8]) -> Nonce {
    match Packet::parse(datagram).expect("the client's packet") {
        Packet::Hello { nonce, .. }
        | Packet::Login1 { nonce, .. }
        | Packet::Login3 { nonce, .. }
        | Packet::Resume { nonce, .. } => nonce,
        other => panic!("{other:?}"),
    }
}

/// A LOGIN2 of an attacker without the password record; a different one for every `seed`.
fn forged_login2(nonce: Nonce, seed: u8) -> Vec<u8> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed.into());
    let (_, ke1) = ClientLogin::start(&mut rng, b"guess");
    let (_, ke2) =
        ServerLogin::start(&mut rng, &PasswordRecord::fake(&Zeroizing::new([7; 32]), &hans()), &hans(), &ke1);
    Packet::Login2 { nonce, ke2: &ke2 }.to_bytes()
}

/// A forgery of every packet that a server sends in this exchange.
fn forgeries(nonce: Nonce) -> Vec<Vec<u8>> {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let mut answer = [0; LOGIN_RESULT_BYTES];
    rng.fill_bytes(&mut answer);
    let packets = [
        Packet::Retry { nonce, cookie: [66; 32] },
        Packet::Version { version: 9, nonce },
        Packet::Login4 { nonce, result: &answer },
        Packet::Resumed { nonce, server_nonce: [1; 16], result: &answer },
        Packet::Refused { nonce },
        Packet::Throttled { nonce, retry_after_s: u16::MAX },
        Packet::Reset { id: SessionId([0; 16]), tag: [0; 16], delay_ms: 0 },
    ];
    packets.iter().map(Packet::to_bytes).chain([forged_login2(nonce, 9)]).collect()
}

/// Runs the exchange step by step; `forged` arrives before the answer to the datagram number `step`.
fn run_exchange(pair: &mut Pair, step: usize, forged: impl Fn(Nonce) -> Vec<u8>) {
    run_exchange_with_all(pair, step, |nonce| vec![forged(nonce)]);
}

fn run_exchange_with_all(pair: &mut Pair, step: usize, forged: impl Fn(Nonce) -> Vec<Vec<u8>>) {
    let mut steps = 0;
    while let Some((to, datagram)) = pair.session.poll_transmit() {
        if steps == step {
            for mut forged in forged(nonce(&datagram)) {
                pair.session.handle_datagram(pair.now, to, &mut forged);
            }
        }
        steps += 1;
        if let Some(mut answer) = pair.server.handle(datagram) {
            pair.session.handle_datagram(pair.now, to, &mut answer);
        }
    }
    while let Some(event) = pair.session.poll_event() {
        pair.events.push_back(event);
    }
}

#[test]
fn forged_packets_do_not_affect_an_established_session() {
    let mut pair = Pair::new();
    pair.session.login(pair.now, hans(), Zeroizing::new(PASSWORD.to_vec()));
    let seen = nonce(&pair.session.poll_transmit().expect("HELLO").1);
    pair.advance(Duration::from_secs(1));
    assert!(matches!(pair.event(), Event::Started { .. }));
    assert!(matches!(pair.event(), Event::LoginFinished(Ok(_))));
    let resumed = pair.server.resumptions;
    for forged in forgeries(seen) {
        pair.deliver(forged);
    }
    pair.advance(LIVENESS * 3);
    pair.no_event();
    assert_eq!((pair.server.logins, pair.server.resumptions), (1, resumed));
}

#[test]
fn a_forged_refusal_of_a_resumption_costs_only_a_login() {
    let mut pair = Pair::established();
    let mut reset = pair.server.reset(0);
    let server = pair.server.address;
    pair.session.handle_datagram(pair.now, server, &mut reset);
    // HELLO, then RESUME.
    run_exchange(&mut pair, 1, |nonce| Packet::Refused { nonce }.to_bytes());
    pair.advance(Duration::from_secs(3));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    pair.no_event();
    assert_eq!(pair.server.logins, 2);
}

#[test]
fn no_forgery_can_refuse_a_login_once_the_server_has_proven_itself() {
    for at in 0..forgeries([0; 16]).len() {
        let mut pair = Pair::new();
        pair.session.login(pair.now, hans(), Zeroizing::new(PASSWORD.to_vec()));
        // HELLO, LOGIN1, then LOGIN3.
        run_exchange(&mut pair, 2, |nonce| forgeries(nonce).swap_remove(at));
        pair.advance(Duration::from_secs(3));
        assert!(matches!(pair.event(), Event::Started { .. }), "forgery {at}");
        assert!(matches!(pair.event(), Event::LoginFinished(Ok(_))), "forgery {at}");
    }
}

/// A session whose ticket is refused, so that it logs in again; `forged` arrive before the answer to LOGIN1.
fn logging_in_again(forged: impl Fn(Nonce) -> Vec<Vec<u8>>) -> Pair {
    let mut pair = Pair::established();
    pair.server.on_resume = Policy::Refuse;
    let mut reset = pair.server.reset(0);
    let server = pair.server.address;
    pair.session.handle_datagram(pair.now, server, &mut reset);
    // HELLO, RESUME, HELLO, then LOGIN1.
    run_exchange_with_all(&mut pair, 3, forged);
    pair
}

#[test]
fn a_forged_login2_before_the_servers_changes_nothing() {
    for forgeries in 1..=2 {
        let mut pair = Pair::new();
        pair.session.login(pair.now, hans(), Zeroizing::new(PASSWORD.to_vec()));
        let forged = |nonce| (0..forgeries).map(|seed| forged_login2(nonce, seed)).collect();
        run_exchange_with_all(&mut pair, 1, forged);
        assert!(matches!(pair.event(), Event::Started { .. }));
        assert!(matches!(pair.event(), Event::LoginFinished(Ok(_))));

        let mut pair = logging_in_again(forged);
        assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
        pair.no_event();
        assert_eq!(pair.server.logins, 2);
    }
}

#[test]
fn more_forged_login2s_than_are_verified_only_delay_a_reconnect() {
    let mut pair = logging_in_again(|nonce| (0..9).map(|seed| forged_login2(nonce, seed)).collect());
    pair.no_event();
    pair.advance(Duration::from_millis(1_500));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    pair.no_event();
}

#[test]
fn a_late_login2_reveals_the_forged_one() {
    let mut pair = Pair::established();
    pair.server.on_resume = Policy::Refuse;
    let (mut reset, server) = (pair.server.reset(0), pair.server.address);
    pair.session.handle_datagram(pair.now, server, &mut reset);
    let mut late = None;
    for step in 0..4 {
        let (to, datagram) = pair.session.poll_transmit().expect("HELLO, RESUME, HELLO, LOGIN1");
        let mut answer = pair.server.handle(datagram.clone()).expect("an answer");
        if step == 3 {
            late = Some(std::mem::replace(&mut answer, forged_login2(nonce(&datagram), 1)));
        }
        pair.session.handle_datagram(pair.now, to, &mut answer);
    }
    pair.now += super::handshake::LOGIN2_GRACE;
    pair.session.handle_timeout(pair.now);
    let (to, login3) = pair.session.poll_transmit().expect("LOGIN3");
    assert!(matches!(Packet::parse(&login3), Some(Packet::Login3 { .. })));
    pair.session.handle_datagram(pair.now, to, &mut late.expect("kept"));
    let mut refusal = pair.server.handle(login3).expect("an answer");
    pair.session.handle_datagram(pair.now, to, &mut refusal);
    pair.advance(Duration::from_millis(1_500));
    assert!(matches!(pair.event(), Event::Started { resumed: true, .. }));
    pair.no_event();
}

#[test]
fn forged_throttling_delays_a_reconnect_by_seconds_only() {
    let mut pair = Pair::established();
    pair.server.on_resume = Policy::Refuse;
    let mut reset = pair.server.reset(0);
    let server = pair.server.address;
    pair.session.handle_datagram(pair.now, server, &mut reset);
    // HELLO, RESUME, HELLO, then LOGIN1.
    run_exchange(&mut pair, 3, |nonce| Packet::Throttled { nonce, retry_after_s: u16::MAX }.to_bytes());
    assert_eq!(pair.server.logins, 1);
    pair.advance(Duration::from_secs(31));
    assert_eq!(pair.server.logins, 2);
}

#[test]
fn replayed_server_datagrams_are_ignored() {
    use rand::seq::SliceRandom;
    let mut pair = Pair::new();
    let mut recorded = Vec::new();
    pair.session.login(pair.now, hans(), Zeroizing::new(PASSWORD.to_vec()));
    for at in 0..20 {
        while let Some((to, datagram)) = pair.session.poll_transmit() {
            if let Some(mut answer) = pair.server.handle(datagram) {
                recorded.push(answer.clone());
                pair.session.handle_datagram(pair.now, to, &mut answer);
            }
        }
        if at % 5 == 4 {
            let mut reset = pair.server.reset(0);
            recorded.push(reset.clone());
            pair.session.handle_datagram(pair.now, pair.server.address, &mut reset);
        }
        pair.now += Duration::from_millis(500);
        pair.session.handle_timeout(pair.now);
    }
    pair.exchange();
    pair.events.clear();
    assert!(recorded.len() > 12 && pair.server.resumptions == 4);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for _ in 0..20 {
        recorded.shuffle(&mut rng);
        recorded.iter().for_each(|seen| pair.deliver(seen.clone()));
    }
    pair.no_event();
    assert_eq!((pair.server.logins, pair.server.resumptions), (1, 4));
    pair.connected = false;
    pair.advance(LIVENESS);
    recorded.iter().for_each(|seen| pair.deliver(seen.clone()));
    pair.advance(super::test_support::HEARTBEAT);
    assert!(matches!(pair.event(), Event::ConnectionLost), "replays do not count as a sign of life");
}
