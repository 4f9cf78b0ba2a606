//! Sealed datagrams: everything that client and server send in an established session.
//!
//! Defended: content and order of the messages, against anyone who can read, change, repeat or forge datagrams. Each
//! direction has its own key, so a datagram cannot be reflected. The counter is the nonce and never repeats under a key.
//! The head (kind, session id, counter) is associated data. The replay window moves only after the tag has been
//! verified, so a forged counter cannot push valid datagrams out of it.
//!
//! Not defended: an observer sees the size and time of every datagram.

use super::crypto::{AeadKey, Secret, TAG_BYTES, context, counter_nonce};
use super::limits::{DATAGRAM_MAX_BYTES, SEALED_OVERHEAD_BYTES};
use super::packet::{SESSION_HEAD_BYTES, SESSION_KIND};
use super::types::SessionId;

/// The end of a session that a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Encrypts the datagrams that one end of a session sends and decrypts those it receives.
pub struct SessionCipher {
    id: SessionId,
    next_counter: u64,
    window: ReplayWindow,
    opening: AeadKey,
    sealing: AeadKey,
}

/// Why a datagram was rejected. The sender gets no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Wrong length, kind or session id.
    #[error("not a datagram of this session")]
    OtherSession,
    /// The counter was received before, or is older than the replay window.
    #[error("a datagram was repeated")]
    Replayed,
    #[error("a datagram was forged or damaged")]
    Forged,
}

impl SessionCipher {
    /// Derives the keys of both directions from the session's secret.
    pub fn new(side: Side, id: SessionId, secret: &Secret) -> Self {
        let (seal, open) = match side {
            Side::Client => (context::TO_SERVER, context::TO_CLIENT),
            Side::Server => (context::TO_CLIENT, context::TO_SERVER),
        };
        Self {
            id,
            next_counter: 0,
            window: ReplayWindow::default(),
            opening: AeadKey::for_datagrams(open, secret.as_slice()),
            sealing: AeadKey::for_datagrams(seal, secret.as_slice()),
        }
    }

    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Replaces the content of `out` by one sealed datagram. `write` appends the plaintext, at most
    /// [`MESSAGE_MAX_BYTES`](super::limits::MESSAGE_MAX_BYTES).
    pub fn seal_into(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let counter = self.next_counter;
        self.next_counter += 1;
        out.clear();
        out.push(SESSION_KIND);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&counter.to_be_bytes());
        write(out);
        assert!(out.len() + TAG_BYTES <= DATAGRAM_MAX_BYTES, "a message outgrew its datagram");
        let (head, text) = out.split_at_mut(SESSION_HEAD_BYTES);
        let tag = self.sealing.seal_in_place(counter_nonce(counter), head, text);
        out.extend_from_slice(&tag);
    }

    /// Decrypts a whole datagram in place and returns the message in it.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a [u8], OpenError> {
        if datagram.len() <= SEALED_OVERHEAD_BYTES || datagram[0] != SESSION_KIND || datagram[1..17] != self.id.0 {
            return Err(OpenError::OtherSession);
        }
        let (head, sealed) = datagram.split_at_mut(SESSION_HEAD_BYTES);
        let counter = u64::from_be_bytes(head[17..].try_into().expect("eight bytes"));
        if !self.window.is_fresh(counter) {
            return Err(OpenError::Replayed);
        }
        let text = self.opening.open_in_place(counter_nonce(counter), head, sealed).ok_or(OpenError::Forged)?;
        self.window.record(counter);
        Ok(text)
    }
}

/// The latest counters received: the sliding window of RFC 6479, one block.
#[derive(Debug, Default, Clone, Copy)]
struct ReplayWindow {
    /// The highest counter received, plus one.
    next: u64,
    /// Bit *i*: counter `next - 1 - i` was received.
    seen: u128,
}

impl ReplayWindow {
    fn is_fresh(&self, counter: u64) -> bool {
        match self.next.checked_sub(counter + u64::from(counter < u64::MAX)) {
            _ if counter >= self.next => counter < u64::MAX,
            Some(age) if age < u64::from(u128::BITS) => self.seen & (1 << age) == 0,
            _ => false,
        }
    }

    fn record(&mut self, counter: u64) {
        if counter >= self.next {
            let shift = counter + 1 - self.next;
            self.seen = if shift < u64::from(u128::BITS) { self.seen << shift } else { 0 };
            self.next = counter + 1;
        }
        self.seen |= 1 << (self.next - 1 - counter);
    }
}

#[cfg(test)]
#[path = "session_cipher_tests.rs"]
mod tests;
