//! What the core wants done: datagrams to send, mutations to store, records to make first.
//!
//! Owns buffers, so that the reply to a heartbeat needs no allocation once the loop is warm. Must not carry out any of it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::common::message::ServerMessage;
use crate::common::net::AddressPrefix;
use crate::common::packet::Packet;
use crate::common::session_cipher::SessionCipher;
use crate::common::types::UserName;
use crate::server::journal::Mutation;

/// Buffers kept for the next iteration; more are freed.
const SPARE_MAX: usize = 1_024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub to: SocketAddr,
    /// The whole UDP payload.
    pub bytes: Vec<u8>,
}

/// The effects of one or more calls into the core, in order. The driver carries them out and empties the lists.
#[derive(Default)]
pub struct Effects {
    /// To be sent. The driver may drop what it cannot send: clients repeat everything until it is answered.
    pub datagrams: Vec<Datagram>,
    /// To be stored, in this order: the *n*-th mutation ever is the journal's sequence number *n*. None may be dropped;
    /// what does not fit into the journal's queue stays here for the next iteration.
    pub mutations: VecDeque<Mutation>,
    /// The records that logins wait for: each with the prefix of the login and its user.
    pub awaited_records: Vec<(AddressPrefix, UserName)>,
    spare: Vec<Vec<u8>>,
}

impl Effects {
    /// Passes all datagrams to `send` and keeps the buffers for reuse.
    pub fn flush(&mut self, send: impl FnOnce(&[Datagram])) {
        send(&self.datagrams);
        for datagram in self.datagrams.drain(..) {
            if self.spare.len() < SPARE_MAX {
                self.spare.push(datagram.bytes);
            }
        }
    }

    pub(super) fn send_packet(&mut self, to: SocketAddr, packet: Packet<'_>) {
        self.datagrams.push(Datagram { to, bytes: packet.to_bytes() });
    }

    pub(super) fn send_bytes(&mut self, to: SocketAddr, bytes: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.datagrams.push(Datagram { to, bytes: buffer });
    }

    pub(super) fn send_sealed(&mut self, to: SocketAddr, cipher: &mut SessionCipher, message: &ServerMessage) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        cipher.seal_into(&mut buffer, |plaintext| message.encode(plaintext));
        self.datagrams.push(Datagram { to, bytes: buffer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_leaves_its_buffers_up_to_a_bound() {
        let to = SocketAddr::from(([127, 0, 0, 1], 4_000));
        let mut out = Effects::default();
        for (datagrams, spare) in [(3, 3), (1, 3), (SPARE_MAX, SPARE_MAX), (SPARE_MAX + 5, SPARE_MAX)] {
            (0..datagrams).for_each(|at| out.send_bytes(to, &at.to_be_bytes()));
            let sent = |sent: &[Datagram]| {
                let numbers = sent.iter().map(|datagram| datagram.bytes.clone());
                assert!(numbers.eq((0..datagrams).map(|at| at.to_be_bytes().to_vec())), "each once, in order");
            };
            out.flush(sent);
            assert_eq!((out.datagrams.len(), out.spare.len()), (0, spare));
        }
    }
}
