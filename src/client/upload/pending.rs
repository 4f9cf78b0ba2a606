//! A connection that has not proven anything yet, from its first byte to its first sealed record.
//!
//! A ticket and a handshake under its key can be a recording played again; a record under the fresh keys cannot. So
//! nothing but a place among the pending is given to a connection before such a record has come. The listener's thread
//! attends to all pending: nothing here waits.

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::listener::BUSY_RETRY_MS;
use crate::client::transport::{self, RecordReader, RecordWriter, TransportError};
use crate::common::peer_crypto::{Frame, PREAMBLE_HEAD_BYTES, Preamble, TransferError};
use crate::common::peer_message::{PeerRequest, PeerResponse};
use crate::common::ticket::TransferTicket;

/// See the module.
pub(super) struct PendingConnection {
    pub(super) stream: Arc<TcpStream>,
    /// Its neighbourhood, for the bounds.
    pub(super) address: IpAddr,
    /// When it is given up.
    pub(super) until: Instant,
    stage: Stage,
}

enum Stage {
    /// What has been read of the preamble.
    ReadingPreamble(Vec<u8>),
    /// Answered; its first record is waited for.
    AwaitingRequest(Box<AuthenticatedPeer>),
    /// Told to come back later, and only waited for to leave.
    Draining,
}

/// Who has shown a good ticket, and the connection under its keys.
pub(super) struct AuthenticatedPeer {
    pub(super) ticket: TransferTicket,
    pub(super) reader: RecordReader<PeerRequest>,
    pub(super) writer: RecordWriter,
}

/// What has become of a connection.
pub(super) enum Progress {
    /// Nothing yet.
    Pending,
    /// It broke off, or is a stranger.
    Closed,
    /// The preamble is there: [`PendingConnection::answer`] is next.
    PreambleComplete,
    /// It has proven itself, by asking for this.
    Ready(Box<AuthenticatedPeer>, PeerRequest),
}

impl PendingConnection {
    /// `stream` does not block.
    pub(super) fn new(stream: TcpStream, address: IpAddr, until: Instant) -> Self {
        Self { stream: Arc::new(stream), address, until, stage: Stage::ReadingPreamble(Vec::new()) }
    }

    /// Whether it has not even shown a ticket.
    pub(super) fn is_unauthenticated(&self) -> bool {
        matches!(self.stage, Stage::ReadingPreamble(_))
    }

    /// Reads what is there, and nothing beyond what it has to prove next.
    pub(super) fn read(&mut self) -> Progress {
        match &mut self.stage {
            Stage::ReadingPreamble(preamble) => read_preamble(&self.stream, preamble),
            Stage::Draining => discard(&self.stream),
            Stage::AwaitingRequest(peer) => match first_request(&mut peer.reader) {
                Ok(None) => Progress::Pending,
                Ok(Some(request)) => match std::mem::replace(&mut self.stage, Stage::Draining) {
                    Stage::AwaitingRequest(peer) => Progress::Ready(peer, request),
                    _ => Progress::Closed,
                },
                Err(error) => {
                    log::debug!("a connection with a ticket of {} came to nothing: {error}", peer.ticket.downloader);
                    Progress::Closed
                }
            },
        }
    }

    /// Opens the ticket and answers the handshake; whether there is more to wait for. A fresh connection has room for the
    /// few bytes of the answer.
    pub(super) fn respond<E: std::fmt::Display>(
        &mut self,
        open: impl FnOnce(&[u8]) -> Result<TransferTicket, E>,
        until: Instant,
    ) -> bool {
        let Stage::ReadingPreamble(preamble) = &self.stage else { return false };
        let Ok(Preamble::Complete { ticket, prologue, noise }) = Preamble::parse(preamble) else { return false };
        let ticket = match open(ticket) {
            Ok(ticket) => ticket,
            Err(error) => {
                log::debug!("a connection from {} was refused: {error}", self.address);
                return false;
            }
        };
        let Ok((reader, writer)) = transport::respond(self.stream.clone(), &ticket.key, prologue, noise) else {
            return false;
        };
        self.stage = Stage::AwaitingRequest(Box::new(AuthenticatedPeer { ticket, reader, writer }));
        self.until = until;
        true
    }

    /// Says under seal that all slots are taken; whether it is still to be waited for. Closing at once could cut that off.
    pub(super) fn reject_busy(&mut self, mut peer: AuthenticatedPeer, until: Instant) -> bool {
        self.stage = Stage::Draining;
        self.until = until;
        let told = peer.writer.message(&PeerResponse::Busy { retry_ms: BUSY_RETRY_MS });
        told.and_then(|()| peer.writer.flush()).is_ok() && self.stream.shutdown(Shutdown::Write).is_ok()
    }
}

fn read_preamble(mut stream: &TcpStream, preamble: &mut Vec<u8>) -> Progress {
    let mut filled = preamble.len();
    loop {
        let needed = match Preamble::parse(&preamble[..filled]) {
            Err(_) => return Progress::Closed,
            Ok(Preamble::Complete { .. }) => return Progress::PreambleComplete,
            Ok(Preamble::NeedBytes(needed)) => needed.max(PREAMBLE_HEAD_BYTES),
        };
        preamble.resize(needed, 0);
        let read = stream.read(&mut preamble[filled..]);
        filled += read.as_ref().map_or(0, |count| *count);
        preamble.truncate(filled);
        match read {
            Ok(0) => return Progress::Closed,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Pending,
            Err(_) => return Progress::Closed,
        }
    }
}

/// `None`: its first record has not come yet.
fn first_request(reader: &mut RecordReader<PeerRequest>) -> Result<Option<PeerRequest>, TransportError> {
    if !reader.read_ready()? {
        return Ok(None);
    }
    match reader.next()? {
        Frame::Message(request) => Ok(Some(request)),
        Frame::Data { .. } => Err(TransferError::Malformed.into()),
    }
}

/// Input after a farewell is dropped unread: closing before it has come would cut the farewell off.
fn discard(mut stream: &TcpStream) -> Progress {
    let mut bytes = [0; 1024];
    match stream.read(&mut bytes) {
        Ok(0) => Progress::Closed,
        Ok(_) => Progress::Pending,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Progress::Pending
        }
        Err(_) => Progress::Closed,
    }
}
