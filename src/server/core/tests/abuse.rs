use std::collections::BTreeSet;
use std::time::Duration;

use rand::{Rng, RngCore};

use crate::common::limits::{DATAGRAM_MAX_BYTES, MESSAGE_MAX_BYTES, PROTOCOL_VERSION};
use crate::common::message::{ClientMessage, Heartbeat, ServerMessage};
use crate::common::packet::{Cookie, KE1_BYTES, Nonce, Packet};
use crate::server::core::ReceiveBuffer;
use crate::server::test_support::{LoginOutcome, TestServer, address};

const HERE: &str = "127.0.0.1:4000";

#[test]
fn random_bytes_are_never_answered() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    for _ in 0..100_000 {
        let mut bytes = vec![0; test.rng.gen_range(0..=DATAGRAM_MAX_BYTES + 1)];
        test.rng.fill_bytes(&mut bytes);
        if let [kind @ 0x01, ..] | [kind @ 0x04, ..] | [kind @ 0x08, ..] = &mut bytes[..] {
            *kind = 0x10; // these kinds are answered without a session; see the next test
        }
        assert!(test.send(address(HERE), &bytes).is_empty(), "{bytes:x?}");
    }
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
}

#[test]
fn no_reply_to_an_unvalidated_address_is_larger_than_its_request() {
    let mut test = TestServer::new(&["hans"]);
    let (nonce, cookie) = ([1; 16], [2; 32]);
    let mut hans = test.login(HERE, "hans");
    let session = hans.seal(&ClientMessage::Logout);
    let packets = [
        Packet::Hello { version: PROTOCOL_VERSION, nonce },
        Packet::Hello { version: 7, nonce },
        Packet::Retry { nonce, cookie },
        Packet::Version { version: 7, nonce },
        Packet::Login1 { nonce, cookie, user: "hans", ke1: &[3; KE1_BYTES] },
        Packet::Login2 { nonce, ke2: &[4; 320] },
        Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] },
        Packet::Login4 { nonce, result: &[7; 336] },
        Packet::Resume { nonce, cookie, client_info: &[6; 48], ticket: &[9; 1] },
        Packet::Resume { nonce, cookie, client_info: &[6; 48], ticket: &hans.params.ticket },
        Packet::Resumed { nonce, server_nonce: [8; 16], result: &[7; 336] },
        Packet::Refused { nonce },
        Packet::Throttled { nonce, retry_after_s: 300 },
        Packet::Reset { id: hans.params.session, tag: [2; 16], delay_ms: 700 },
    ];
    let mut requests: Vec<Vec<u8>> = packets.iter().map(Packet::to_bytes).chain([session]).collect();
    test.send_message(&mut hans, &ClientMessage::Logout);
    let unauthenticated = address("192.0.2.77:9");
    for round in 0..2_000 {
        for bytes in &mut requests {
            let replies = test.send(unauthenticated, bytes);
            let reply_bytes: usize = replies.iter().map(|datagram| datagram.bytes.len()).sum();
            assert!(reply_bytes <= bytes.len() && replies.len() <= 1, "round {round}, kind {:#x}", bytes[0]);
            let at = test.rng.gen_range(1..bytes.len());
            bytes[at] = test.rng.r#gen();
        }
    }
    assert_eq!(test.server.session_count(), 0);
}

#[test]
fn a_damaged_session_datagram_is_not_answered_and_leaves_the_replay_window_alone() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let good = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    for at in (0..good.len()).filter(|&at| at != 0) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(test.send(address(HERE), &bad).is_empty(), "byte {at}");
    }
    for cut in 0..good.len() {
        assert!(test.send(address(HERE), &good[..cut]).is_empty(), "cut to {cut}");
    }
    assert_eq!(test.send(address(HERE), &good).len(), 1, "the replay window has not moved");
}

#[test]
fn any_authenticated_message_is_answered_by_one_datagram_at_most() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let mut answered = 0;
    for _ in 0..30_000 {
        let (mut bytes, mut text) = (Vec::new(), vec![0; test.rng.gen_range(1..MESSAGE_MAX_BYTES)]);
        test.rng.fill_bytes(&mut text);
        // A heartbeat or a request, with small numbers for ids, kinds and lengths; never a logout.
        text[0] %= 2;
        let small = test.rng.gen_range(1..=text.len());
        text[1..small].iter_mut().for_each(|byte| *byte %= 9);
        hans.cipher.seal_into(&mut bytes, |out| out.extend_from_slice(&text));
        test.advance(Duration::from_millis(1));
        let sent = test.send(address(HERE), &bytes);
        assert!(sent.len() <= 1 && sent.iter().all(|datagram| datagram.bytes.len() <= DATAGRAM_MAX_BYTES));
        answered += hans.receive(sent).len();
    }
    assert!(answered > 0, "some messages are valid");
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
}

#[test]
fn malformed_authenticated_messages_are_dropped() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    for length in 1..200 {
        let mut bytes = Vec::new();
        let mut text = vec![0; length];
        test.rng.fill_bytes(&mut text);
        text[0] = 200;
        hans.cipher.seal_into(&mut bytes, |out| out.extend_from_slice(&text));
        assert!(test.send(address(HERE), &bytes).is_empty());
    }
    assert_eq!(test.heartbeat(&mut hans).len(), 1);
}

/// Passes in a LOGIN1 and lets the server do nothing else. Returns whether it was queued, without a reply.
fn queue_login(test: &mut TestServer, from: &str, user: &str, (nonce, cookie): (Nonce, Cookie)) -> bool {
    let mut login1 = Packet::Login1 { nonce, cookie, user, ke1: &[3; KE1_BYTES] }.to_bytes();
    test.server.handle_datagram(test.now, address(from), &mut login1, &mut test.out);
    std::mem::take(&mut test.out.datagrams).is_empty()
}

#[test]
fn a_flood_of_logins_delays_no_heartbeat_and_no_login_from_another_network() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let attackers: Vec<String> = (0..200).map(|port| format!("192.0.2.1:{}", 10_000 + port)).collect();
    let cookies: Vec<_> = attackers.iter().map(|from| test.cookie(address(from))).collect();
    let honest = test.cookie(address("192.0.2.2:1"));
    let mut waiting = 0;
    for (at, (from, cookie)) in attackers.iter().zip(cookies).enumerate() {
        waiting += usize::from(queue_login(&mut test, from, &format!("user{at}"), cookie));
    }
    assert!(waiting > 4, "{waiting} logins are queued");
    assert!(queue_login(&mut test, "192.0.2.2:1", "vader", honest));
    let mut beat = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    test.server.handle_datagram(test.now, address(HERE), &mut beat, &mut test.out);
    let received = hans.receive(std::mem::take(&mut test.out.datagrams));
    assert_eq!(received, [ServerMessage::HeartbeatAck { number: 1, subscriptions: None }], "at once");
    for _ in 0..32 {
        test.server.run_deferred_work(test.now, ReceiveBuffer::MayHoldMore, &mut test.out);
    }
    assert_eq!(test.out.datagrams.len(), 2, "one step in sixteen busy iterations");
    let served: BTreeSet<_> = test.out.datagrams.drain(..).map(|login2| login2.to.ip().to_string()).collect();
    assert_eq!(served.into_iter().collect::<Vec<_>>(), ["192.0.2.1", "192.0.2.2"], "networks are served round robin");
    assert_eq!(test.run_until_idle().len(), waiting - 1, "in the end all are served");
}

#[test]
fn guesses_are_throttled_and_the_victim_is_not_locked_out() {
    let mut test = TestServer::new(&["hans"]);
    let (mut tried, mut throttled) = (0, 0);
    for guess in 0..600 {
        test.advance(Duration::from_millis(100));
        let from = address(&format!("127.0.0.2:{}", 1_000 + guess));
        match test.begin_login(from, "hans", "guess") {
            Ok(login) => {
                tried += 1;
                test.send(from, &login.login3);
            }
            Err(reply) => {
                let packet = reply.first().and_then(|first| Packet::parse(&first.bytes));
                assert!(matches!(packet, Some(Packet::Throttled { retry_after_s: 1.., .. })), "{packet:?}");
                throttled += 1;
            }
        }
    }
    assert!(throttled > tried, "{tried} guesses in a minute, {throttled} refused");
    let victim = test.try_login(address("127.0.0.1:1"), "hans", "hans-pw");
    assert!(matches!(victim, Some(LoginOutcome::Accepted(_))));
}
