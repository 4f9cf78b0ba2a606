//! Any datagrams from an address that has proven nothing: at most one answer each, never larger, and no session.
#![no_main]

use std::time::Instant;

use fileshare::server::core::{Outbox, Server, ServerConfig, Stored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (pieces, bytes) = input;
    let now = Instant::now();
    let mut server = Server::new(ServerConfig::default(), Stored::new(), [1; 32], now, 1_700_000_000_000);
    let mut out = Outbox::new();
    let from = "192.0.2.1:9".parse().expect("an address");
    for piece in bytes.chunks(bytes.len().div_ceil(usize::from(pieces).max(1)).max(1)) {
        server.handle_datagram(now, from, &mut piece.to_vec(), &mut out);
        server.handle_timeout(now, &mut out);
        assert!(out.datagrams.len() <= 1 && out.datagrams.iter().all(|sent| sent.bytes.len() <= piece.len()));
        out.datagrams.clear();
    }
    assert_eq!(server.session_count(), 0);
});
