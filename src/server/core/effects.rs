//! What the core wants done: datagrams to send, mutations to store, records to make first.
//!
//! Owns buffers, so that answering a heartbeat allocates nothing once the loop is warm. Must not do any of it itself.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::common::message::ServerMessage;
use crate::common::net::AddressPrefix;
use crate::common::packet::Packet;
use crate::common::session_cipher::SessionCipher;
use crate::common::types::UserName;
use crate::server::journal::Mutation;

/// Buffers kept for the next turn; more are given back to the allocator.
const SPARE_MAX: usize = 1_024;

/// One datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// The whole UDP payload.
    pub bytes: Vec<u8>,
}

/// The effects of one or more calls into the core, in order. Whoever drives the core empties it.
#[derive(Default)]
pub struct Effects {
    /// To be sent. What cannot be sent may be dropped: everything is repeated until it is answered.
    pub datagrams: Vec<Datagram>,
    /// To be stored, in this order: the *n*-th ever to come out is the journal's sequence number *n*. None may be
    /// dropped; what does not fit into the journal's queue stays here for the next turn.
    pub mutations: VecDeque<Mutation>,
    /// Users waiting at the door for their record, and from where.
    pub awaited_records: Vec<(AddressPrefix, UserName)>,
    spare: Vec<Vec<u8>>,
}

impl Effects {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands every datagram to `send` and keeps the buffers for later.
    pub fn flush(&mut self, mut send: impl FnMut(SocketAddr, &[u8])) {
        for datagram in self.datagrams.drain(..) {
            send(datagram.to, &datagram.bytes);
            if self.spare.len() < SPARE_MAX {
                self.spare.push(datagram.bytes);
            }
        }
    }

    pub(super) fn packet(&mut self, to: SocketAddr, packet: Packet<'_>) {
        self.datagrams.push(Datagram { to, bytes: packet.to_bytes() });
    }

    pub(super) fn bytes(&mut self, to: SocketAddr, bytes: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        self.datagrams.push(Datagram { to, bytes: buffer });
    }

    pub(super) fn seal(&mut self, to: SocketAddr, channel: &mut SessionCipher, message: &ServerMessage) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        channel.seal_into(&mut buffer, |text| message.encode(text));
        self.datagrams.push(Datagram { to, bytes: buffer });
    }
}
