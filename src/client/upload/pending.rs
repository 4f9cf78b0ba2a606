//! A connection that is not authenticated yet, from its first byte to its first encrypted request.
//!
//! A ticket and a handshake under its key can be a recording that an attacker replays; a record under the fresh session
//! keys cannot. So before such a record, a connection gets no thread and no upload slot. Nothing here blocks: the
//! listener's thread drives all pending connections.

use std::fmt::Display;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::limits::BUSY_RETRY_MS;
use crate::client::transport::{self, RecordReader, RecordWriter, TransportError};
use crate::common::net::AddressPrefix;
use crate::common::peer_crypto::{Frame, Preamble, TransferError};
use crate::common::peer_message::{PeerRequest, PeerResponse};
use crate::common::ticket::TransferTicket;

/// The rejection of a downloader that finds all slots taken.
pub(super) const BUSY: PeerResponse = PeerResponse::Busy { retry_ms: BUSY_RETRY_MS };

/// See the module.
pub(super) struct PendingConnection {
    pub(super) stream: Arc<TcpStream>,
    from: SocketAddr,
    /// When the connection is closed.
    pub(super) deadline: Instant,
    stage: Stage,
}

enum Stage {
    /// Holds what was received of the preamble.
    ReadingPreamble(Vec<u8>),
    /// The handshake is answered; the first request is missing.
    AwaitingRequest(Box<AuthenticatedPeer>),
    /// Rejected; the connection waits for the peer to close it.
    Draining,
}

/// A downloader with a valid ticket, and the connection under its keys.
pub(super) struct AuthenticatedPeer {
    pub(super) ticket: TransferTicket,
    pub(super) reader: RecordReader<PeerRequest>,
    pub(super) writer: RecordWriter,
}

/// What has become of a pending connection.
pub(super) enum Progress {
    /// More input is needed.
    Pending,
    /// The peer closed it or is not authorized.
    Closed,
    /// The preamble is complete: [`PendingConnection::respond`] is next.
    PreambleComplete,
    /// The peer is authenticated by its first request.
    Ready(Box<AuthenticatedPeer>, PeerRequest),
}

impl Progress {
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

impl PendingConnection {
    /// `stream` is nonblocking.
    pub(super) fn new(stream: TcpStream, from: SocketAddr, deadline: Instant) -> Self {
        Self { stream: Arc::new(stream), from, deadline, stage: Stage::ReadingPreamble(Vec::new()) }
    }

    pub(super) fn prefix(&self) -> AddressPrefix {
        AddressPrefix::of(self.from.ip())
    }

    /// Whether the peer has not presented a valid ticket.
    pub(super) fn is_unauthenticated(&self) -> bool {
        matches!(self.stage, Stage::ReadingPreamble(_))
    }

    /// Reads what has arrived, but nothing beyond the current stage.
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
                    log::debug!("a connection with a ticket of {} failed: {error}", peer.ticket.downloader);
                    Progress::Closed
                }
            },
        }
    }

    /// Opens the ticket and answers the handshake, and reads on: most downloaders have sent their first request already.
    /// Does not block: the send buffer of a fresh connection holds the few bytes of the answer.
    pub(super) fn respond<E: Display>(
        &mut self,
        open_ticket: impl FnOnce(&[u8]) -> Result<TransferTicket, E>,
        deadline: Instant,
    ) -> Progress {
        let Stage::ReadingPreamble(preamble) = &self.stage else { return Progress::Closed };
        let Ok(Preamble::Complete { ticket, prologue, noise }) = Preamble::parse(preamble) else {
            return Progress::Closed;
        };
        let ticket = match open_ticket(ticket) {
            Ok(ticket) => ticket,
            Err(error) => {
                log::debug!("a connection from {} was refused: {error}", self.from);
                return Progress::Closed;
            }
        };
        let Ok((reader, writer)) = transport::respond(self.stream.clone(), &ticket.key, prologue, noise) else {
            return Progress::Closed;
        };
        self.stage = Stage::AwaitingRequest(Box::new(AuthenticatedPeer { ticket, reader, writer }));
        self.deadline = deadline;
        self.read()
    }

    /// Sends that all slots are taken. The connection stays open until the peer has read it: closing at once could
    /// discard it.
    pub(super) fn reject_busy(&mut self, mut peer: AuthenticatedPeer, deadline: Instant) -> Progress {
        self.stage = Stage::Draining;
        self.deadline = deadline;
        let sent = peer.writer.message(&BUSY);
        match sent.and_then(|()| peer.writer.flush()) {
            Ok(()) if self.stream.shutdown(Shutdown::Write).is_ok() => Progress::Pending,
            _ => Progress::Closed,
        }
    }
}

fn read_preamble(mut stream: &TcpStream, preamble: &mut Vec<u8>) -> Progress {
    let mut filled = preamble.len();
    loop {
        let needed = match Preamble::parse(&preamble[..filled]) {
            Err(_) => return Progress::Closed,
            Ok(Preamble::Complete { .. }) => return Progress::PreambleComplete,
            Ok(Preamble::NeedBytes(needed)) => needed,
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

/// `None`: the request has not arrived.
fn first_request(reader: &mut RecordReader<PeerRequest>) -> Result<Option<PeerRequest>, TransportError> {
    if reader.poll_record()?.is_pending() {
        return Ok(None);
    }
    match reader.next()? {
        Frame::Message(request) => Ok(Some(request)),
        Frame::Data { .. } => Err(TransferError::Malformed.into()),
    }
}

/// Discards input after a rejection: closing a connection with unread input would discard the rejection.
fn discard(mut stream: &TcpStream) -> Progress {
    match stream.read(&mut [0; 1024]) {
        Ok(0) => Progress::Closed,
        Ok(_) => Progress::Pending,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Progress::Pending
        }
        Err(_) => Progress::Closed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rejected_connection_stays_open_until_its_peer_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        assert!(discard(&stream).is_pending(), "nothing has come");
        peer.write_all(&[0; 10]).unwrap();
        drop(peer);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(discard(&stream).is_pending(), "what has come is discarded");
        assert!(matches!(discard(&stream), Progress::Closed));
    }
}
