//! Stand-in until the real one lands.
use std::net::SocketAddr;

use crate::common::packet::{Cookie, Nonce};

/// Stand-in.
pub struct CookieJar {
    key: [u8; 32],
}

impl CookieJar {
    /// Stand-in.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }
    /// Stand-in.
    pub fn issue(&self, now_ms: u64, addr: SocketAddr, nonce: &Nonce) -> Cookie {
        let text = format!("{} {addr} {nonce:?}", now_ms / 10_000);
        *blake3::keyed_hash(&self.key, text.as_bytes()).as_bytes()
    }
    /// Stand-in.
    pub fn verify(&self, now_ms: u64, addr: SocketAddr, nonce: &Nonce, cookie: &Cookie) -> bool {
        self.issue(now_ms, addr, nonce) == *cookie
            || now_ms >= 10_000 && self.issue(now_ms - 10_000, addr, nonce) == *cookie
    }
}
