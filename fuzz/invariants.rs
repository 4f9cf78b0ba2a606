//! Invariants for arbitrary input from outside: one function for each fuzz target. `tests/threats.rs` checks each with
//! generated inputs, without a nightly toolchain.

use std::path::Path;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{Event, Session, SessionConfig};
use fileshare::internals::client::shell::command;
use fileshare::internals::client::shell::path_arg::normalize;
use fileshare::internals::client::shell::tokenizer::{Tokenizer, quote};
use fileshare::internals::common::limits::{RECORD_MAX_BYTES, TICKET_MAX_BYTES};
use fileshare::internals::common::message::{ClientMessage, ServerMessage};
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::peer_crypto::{self, Preamble};
use fileshare::internals::common::peer_message::{PeerRequest, PeerResponse};
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::Credentials;
use fileshare::internals::server::core::{Effects, LoadedState, Server, ServerConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Any datagram is at most one packet, and its encoding is the datagram.
pub fn packet(datagram: &[u8]) {
    let Some(packet) = Packet::parse(datagram) else { return };
    if matches!(packet, Packet::Session { .. }) {
        return; // written by SessionCipher only
    }
    let encoded = packet.to_bytes();
    assert_eq!(Packet::parse(&encoded), Some(packet));
    assert_eq!(encoded.len(), datagram.len());
}

/// Any plaintext of a sealed datagram, in either direction, is at most one message, and its encoding decodes to the same.
pub fn messages(text: &[u8]) {
    if let Ok(message) = ClientMessage::decode(text) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(ClientMessage::decode(&again), Ok(message));
        // Patterns are decoded to their normal forms, which have at most three times as many bytes.
        assert!(again.len() <= 3 * text.len());
    }
    if let Ok(message) = ServerMessage::decode(text) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(ServerMessage::decode(&again), Ok(message));
    }
}

/// Any bytes on a TCP connection: the preamble, the length of a record and the messages in it.
pub fn transfer(bytes: &[u8]) {
    match Preamble::parse(bytes) {
        Ok(Preamble::NeedBytes(needed)) => assert!(needed > bytes.len() && needed < TICKET_MAX_BYTES + 100),
        Ok(Preamble::Complete { ticket, prologue, noise }) => {
            assert!(ticket.len() <= TICKET_MAX_BYTES);
            assert_eq!(prologue.len() + noise.len(), bytes.len());
            let _ = peer_crypto::respond(&[7; 32], prologue, noise);
        }
        Err(_) => {}
    }
    if let Some(head) = bytes.first_chunk()
        && let Ok(length) = peer_crypto::record_bytes(*head)
    {
        assert!(length < RECORD_MAX_BYTES + 100);
    }
    let _ = postcard::take_from_bytes::<PeerRequest>(bytes);
    let _ = postcard::take_from_bytes::<PeerResponse>(bytes);
}

/// Any credentials file gives users, or an error of one line that names the line of the file.
pub fn credentials(text: &[u8]) {
    match Credentials::parse(text, Path::new("file")) {
        Ok(credentials) => assert!(credentials.users.len() <= text.split(|byte| *byte == b'\n').count()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("line") && !text.contains(['\n', '\x1b']), "{text:?}");
        }
    }
}

/// Any typed line is a command or an error, and a quoted text is one token with that text.
pub fn tokenizer(line: &[u8]) {
    let _ = command::parse(line);
    let Ok(text) = std::str::from_utf8(line) else { return };
    if !text.is_empty() && !text.contains(['\n', '\r']) {
        let tokens = Tokenizer::new(&quote(text)).collect_tokens().expect("our own quotes close");
        assert_eq!((tokens.len(), tokens[0].text.as_str(), &tokens[0].pattern), (1, text, &None));
    }
    for token in Tokenizer::new(text).collect_tokens().into_iter().flatten() {
        if let Ok(path) = normalize(&token) {
            assert!(!path.text.starts_with('/') && path.text.split('/').all(|part| part != ".."), "{path:?}");
        }
    }
}

/// Any datagrams from an unauthenticated client: at most one reply to each, never larger than it, and no session. The first
/// byte of `input`, modulo 8, is the number of datagrams in the rest.
#[expect(clippy::disallowed_methods, reason = "a first Instant comes from the clock")]
pub fn unauthenticated_client(input: &[u8]) {
    let Some((&pieces, bytes)) = input.split_first() else { return };
    let now = Instant::now();
    let mut server = Server::new(ServerConfig::default(), LoadedState::new(), [1; 32], now, 1_700_000_000_000);
    let mut out = Effects::default();
    let from = "192.0.2.1:9".parse().expect("an address");
    for piece in bytes.chunks(bytes.len().div_ceil(usize::from(pieces % 8).max(1)).max(1)) {
        server.handle_datagram(now, from, &mut piece.to_vec(), &mut out);
        server.handle_timeout(now, &mut out);
        assert!(out.datagrams.len() <= 1 && out.datagrams.iter().all(|sent| sent.bytes.len() <= piece.len()));
        out.datagrams.clear();
    }
    assert_eq!(server.session_count(), 0);
}

/// A client at the start of a login, with fixed randomness, and its first datagram.
#[expect(clippy::disallowed_methods, reason = "a first Instant comes from the clock")]
pub fn client() -> (Instant, Session, Vec<u8>) {
    let servers = vec!["192.0.2.1:9".parse().expect("an address")];
    let config = SessionConfig { servers, tcp_port: 1, stretching: KeyStretching::Insecure };
    let (now, user) = (Instant::now(), UserName::parse("hans").expect("a name"));
    let mut session = Session::new(config, ChaCha20Rng::seed_from_u64(1));
    session.login(now, user, b"falcon*solo".to_vec().into());
    let (_, hello) = session.poll_transmit().expect("a HELLO");
    (now, session, hello)
}

/// Any datagrams from a server without the user's record: no session, at most one failure of the login, and at most two
/// datagrams sent after each, one of them by a timer. In `bytes` each datagram follows its length in two bytes.
pub fn malicious_server(mut bytes: &[u8]) {
    let (mut now, mut session, _) = client();
    let server = "192.0.2.1:9".parse().expect("an address");
    let mut failures = 0;
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (datagram, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        session.handle_datagram(now, server, &mut datagram.to_vec());
        now += Duration::from_millis(100);
        if session.poll_timeout().is_some_and(|due| due <= now) {
            session.handle_timeout(now);
        }
        assert!(std::iter::from_fn(|| session.poll_transmit()).count() <= 2);
        while let Some(event) = session.poll_event() {
            assert!(matches!(event, Event::LoginFinished(Err(_))), "{event:?}");
            failures += 1;
        }
    }
    assert!(failures <= 1);
}
