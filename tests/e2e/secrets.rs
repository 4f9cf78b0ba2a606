//! A recorded session contains no secret, and replaying it changes nothing.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use crate::test_support::relay::{RecordedDatagram, TcpRelay, UdpRelay};
use crate::test_support::{CREDENTIALS, Client, TestEnv, auth, contains_bytes};

pub(crate) const CONTENT: &str = "the text that no one on the wire may read";
pub(crate) const NAME: &str = "unmistakable-file-name.txt";

/// The bytes of LOGIN1 that hold the user name in clear, the only place on the wire.
const LOGIN1: u8 = 0x04;

/// Offset of the sealed part of a SESSION datagram, after kind 1, session id 16 and counter 8 in clear.
const SESSION: u8 = 0x10;

/// A server and clients whose traffic passes recording relays.
pub(crate) struct Recorded {
    pub env: TestEnv,
    pub hans: crate::test_support::Running,
    pub vader: crate::test_support::Running,
    /// Relays between the server and hans, and the server and vader.
    pub relays: (UdpRelay, UdpRelay),
    /// Address of hans's listener.
    pub listen: SocketAddr,
    /// The bytes of the transfer, both directions interleaved.
    pub transfer: Vec<u8>,
}

/// hans publishes, vader searches and downloads; relays record all three connections.
pub(crate) fn record() -> Recorded {
    let env = TestEnv::with(CREDENTIALS, &["--heartbeat", "0.3"]);
    let behind = Ipv4Addr::new(127, 0, 0, 2);
    let relays = (UdpRelay::start(env.address(), behind), UdpRelay::start(env.address(), Ipv4Addr::LOCALHOST));
    let tcp = TcpRelay::start(behind);
    let listen = format!("127.0.0.1:{}", tcp.port());
    let client = |name: &str, port| Client::new(env.path(), name, "127.0.0.1", port);
    let mut hans = client("hans", relays.0.port()).file(NAME, CONTENT.repeat(100)).args(["--listen", &listen]).spawn();
    hans.log_in("hans");
    hans.run_command(&format!("pub {NAME}"), &["File published successfully"]);
    let vader = client("vader", relays.1.port()).args(["--tcp-only"]);
    let saved = vader.dir().join(NAME);
    let mut vader = vader.spawn();
    vader.log_in("vader");
    vader.run_command("lap", &["1 active peer:", "hans"]);
    vader.run_command("sch unmistakable", &["1 file found:", NAME]);
    vader.run_command(&format!("get {NAME}"), &[&format!("{NAME} downloaded successfully")]);
    assert_eq!(fs::read_to_string(saved).expect("a copy"), CONTENT.repeat(100));
    let transfer = tcp.recording();
    assert!(transfer.len() > CONTENT.len() * 100, "the transfer went through the relay");
    let listen = (Ipv4Addr::LOCALHOST, tcp.port()).into();
    Recorded { env, hans, vader, relays, listen, transfer }
}

#[test]
fn a_recorded_session_contains_no_secret() {
    let recorded = record();
    let datagrams: Vec<RecordedDatagram> = [recorded.relays.0.recording(), recorded.relays.1.recording()].concat();
    assert!(
        datagrams.iter().any(|seen| seen.bytes[0] == LOGIN1 && contains_bytes(&seen.bytes, b"hans")),
        "the tape runs"
    );
    for seen in &datagrams {
        for secret in ["falcon", "sithlord", "unmistakable", "very words"] {
            assert!(
                !contains_bytes(&seen.bytes, secret.as_bytes()),
                "{secret} in a datagram of kind {:#x}",
                seen.bytes[0]
            );
        }
        if seen.bytes[0] != LOGIN1 {
            assert!(
                !contains_bytes(&seen.bytes, b"hans") && !contains_bytes(&seen.bytes, b"vader"),
                "kind {:#x}",
                seen.bytes[0]
            );
        }
    }
    for secret in ["falcon", "unmistakable", "very words", "hans", "vader"] {
        assert!(!contains_bytes(&recorded.transfer, secret.as_bytes()), "{secret} in the transfer");
    }
}

#[test]
fn a_recorded_session_replayed_changes_nothing() {
    let mut recorded = record();
    let (hans, vader) = (&recorded.relays.0, &recorded.relays.1);
    recorded.env.wait_log("Received GET from vader");
    let log = recorded.env.log();
    for relay in [hans, vader] {
        let tape = relay.recording();
        // Replays the login step by step, waiting for each; then the whole recording backwards and forwards without waiting.
        tape.iter().take(12).for_each(|seen| relay.inject_and_wait(seen));
        tape.iter().rev().chain(&tape).for_each(|seen| relay.inject(seen));
    }
    recorded.hans.run_command("lpf", &["1 file published:", NAME]);
    recorded.vader.run_command("lap", &["1 active peer:", "hans"]);
    recorded.vader.run_command("lpf", &["No files published"]);
    recorded.env.wait_log_times("Received LPF", 2);
    let after = recorded.env.log();
    let news: Vec<&str> = after[log.len()..].lines().filter(|line| !line.contains(": Sent ")).collect();
    assert!(news.iter().all(|line| line.contains("Received LPF") || line.contains("Received LAP")), "{news:?}");
    assert_eq!(news.len(), 3, "only what was typed is done:\n{}", news.join("\n"));
}

#[test]
fn the_same_login_twice_shares_no_bytes_but_the_name() {
    let env = TestEnv::new();
    let mut windows: Vec<HashSet<[u8; 8]>> = Vec::new();
    for _ in 0..2 {
        let relay = UdpRelay::start(env.address(), Ipv4Addr::LOCALHOST);
        let done = Client::new(env.path(), "hans", "127.0.0.1", relay.port()).run(&[&auth("hans")]);
        done.expect_code(0);
        let mut seen = HashSet::new();
        for datagram in relay.recording() {
            // The counter of every session starts at 0, in clear, and reveals nothing.
            let (head, rest) = match datagram.bytes[0] {
                SESSION => (&datagram.bytes[1..17], &datagram.bytes[25..]),
                _ => (&datagram.bytes[..0], &datagram.bytes[1..]),
            };
            for window in head.windows(8).chain(rest.windows(8)) {
                // Padding ends with zeroes in both.
                let window: [u8; 8] = window.try_into().expect("eight bytes");
                if window[4..] != [0; 4] && !contains_bytes(&window, b"hans") {
                    seen.insert(window);
                }
            }
        }
        assert!(seen.len() > 500, "the tape runs");
        windows.push(seen);
    }
    let shared: Vec<_> = windows[0].intersection(&windows[1]).collect();
    assert!(shared.is_empty(), "{shared:02x?}");
}

#[test]
fn no_process_shows_a_password_in_its_arguments() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    for id in [hans.id(), env.server().id()] {
        let arguments = fs::read(format!("/proc/{id}/cmdline")).expect("a running process");
        assert!(!arguments.is_empty() && !contains_bytes(&arguments, b"falcon"), "{arguments:?}");
    }
}
