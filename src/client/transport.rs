//! Encrypted records over a TCP connection: blocking, buffered, with a timeout for every step.
//!
//! Owns the buffers and the timeouts. `upload` and `download` know what the frames mean, `common::peer_crypto` how they
//! are encrypted. Both halves share one file descriptor.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::common::crypto::TAG_BYTES;
use crate::common::limits::RECORD_MAX_BYTES;
use crate::common::peer_crypto::{
    self, FRAME_MAX_BYTES, Frame, Initiator, NOISE_BYTES, RECORD_HEAD_BYTES, RecordOpener, RecordSealer, TransferError,
    data_record_bytes, record_bytes,
};

/// A peer on a LAN accepts a connection within this time.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Timeout of each half of the handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Most unsent bytes that the kernel buffers. On a slow link, a message would otherwise wait behind seconds of data that
/// the downloader may have cancelled.
const UNSENT_MAX_BYTES: u32 = 256 << 10;
/// Most bytes read from the socket at once: several full records.
const READ_BUFFER_BYTES: usize = 8 * (FRAME_MAX_BYTES + 64);
/// Buffered records are sent when they reach this many bytes.
const WRITE_BUFFER_BYTES: usize = 4 * (FRAME_MAX_BYTES + 64);

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer closed it between two records.
    #[error("the connection was closed")]
    Closed,
    #[error(transparent)]
    Protocol(#[from] TransferError),
    #[error("{}", describe(.0))]
    Io(#[from] io::Error),
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "the other side was silent for too long".into(),
        io::ErrorKind::UnexpectedEof => "the connection was cut".into(),
        _ => error.to_string(),
    }
}

/// Connects to an uploader: presents the ticket and completes the handshake.
pub fn connect<M>(
    address: SocketAddr,
    ticket: &[u8],
    key: &[u8; 32],
) -> Result<(RecordReader<M>, RecordWriter), TransportError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    configure_socket(&stream)?;
    let (initiator, preamble) = Initiator::start(ticket, key)?;
    stream.write_all(&preamble)?;
    let mut reply = [0; NOISE_BYTES];
    stream.read_exact(&mut reply)?;
    let (sealer, opener) = initiator.finish(&reply)?;
    Ok(split(stream.into(), sealer, opener))
}

/// Answers the handshake of a downloader whose ticket is valid. `key` is the ticket's; `prologue` and `noise` are those of
/// [`Preamble::Complete`](peer_crypto::Preamble::Complete).
pub fn respond<M>(
    stream: Arc<TcpStream>,
    key: &[u8; 32],
    prologue: &[u8],
    noise: &[u8],
) -> Result<(RecordReader<M>, RecordWriter), TransportError> {
    configure_socket(&stream)?;
    let (reply, sealer, opener) = peer_crypto::respond(key, prologue, noise)?;
    (&*stream).write_all(&reply)?;
    Ok(split(stream, sealer, opener))
}

fn configure_socket(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX_BYTES)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))
}

fn split<M>(stream: Arc<TcpStream>, sealer: RecordSealer, opener: RecordOpener) -> (RecordReader<M>, RecordWriter) {
    (RecordReader::new(stream.clone(), opener), RecordWriter::new(stream, sealer))
}

/// One frame, whose bulk data is in the buffer of its reader.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameRef<M> {
    /// Bulk data of a content from `offset` on.
    Data {
        content: u32,
        offset: u64,
        /// Its place in the buffer.
        at: Range<usize>,
    },
    Message(M),
}

/// The receiving half. `M` is the type of the peer's messages.
pub struct RecordReader<M> {
    stream: Arc<TcpStream>,
    opener: RecordOpener,
    buffer: Vec<u8>,
    /// `buffer[start..end]` was received and not yet returned.
    start: usize,
    end: usize,
    messages: PhantomData<fn() -> M>,
}

impl<M> RecordReader<M> {
    fn new(stream: Arc<TcpStream>, opener: RecordOpener) -> Self {
        let buffer = vec![0; READ_BUFFER_BYTES];
        Self { stream, opener, buffer, start: 0, end: 0, messages: PhantomData }
    }

    /// The connection, to be polled or shut down.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what has arrived, without blocking. Ready if there is a whole record, so that [`next`](Self::next) does not
    /// block either.
    pub fn poll_record(&mut self) -> Result<Poll<()>, TransportError> {
        if self.record_bytes()?.is_none() {
            self.compact();
            match recv(&self.stream, &mut self.buffer[self.end..], RecvFlags::DONTWAIT) {
                Ok((count, _)) => self.advance(count)?,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(Poll::Pending),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(self.record_bytes()?.map_or(Poll::Pending, |_| Poll::Ready(())))
    }

    /// Whether a whole record has been read, so that [`next`](Self::next) does not block.
    pub fn has_record(&self) -> bool {
        self.record_bytes().is_ok_and(|record| record.is_some())
    }

    /// Waits for the next frame. After a timeout it can be called again, and nothing is lost.
    pub fn next<'a>(&'a mut self) -> Result<Frame<'a, M>, TransportError>
    where
        M: Deserialize<'a>,
    {
        let length = loop {
            if let Some(length) = self.record_bytes()? {
                break length;
            }
            self.fill()?;
        };
        let at = self.start + RECORD_HEAD_BYTES;
        self.start = at + length;
        Ok(self.opener.open(&mut self.buffer[at..at + length])?)
    }

    /// Like [`next`](Self::next), but bulk data stays in the reader's buffer, until the next read from the socket. So
    /// [`swap_buffer`](Self::swap_buffer) is called before, when [`has_record`](Self::has_record) is false.
    pub fn next_in_place(&mut self) -> Result<FrameRef<M>, TransportError>
    where
        M: DeserializeOwned,
    {
        Ok(match self.next()? {
            Frame::Data { content, offset, bytes } => {
                let count = bytes.len();
                let end = self.start - TAG_BYTES;
                FrameRef::Data { content, offset, at: end - count..end }
            }
            Frame::Message(message) => FrameRef::Message(message),
        })
    }

    /// Returns the buffer with the bulk data in it, and continues with `fresh`: a buffer returned earlier, or an empty one.
    pub fn swap_buffer(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.resize(READ_BUFFER_BYTES, 0);
        let rest = &self.buffer[self.start..self.end];
        fresh[..rest.len()].copy_from_slice(rest);
        (self.start, self.end) = (0, rest.len());
        std::mem::replace(&mut self.buffer, fresh)
    }

    /// Bytes of the first record after its head, if all of it was received.
    fn record_bytes(&self) -> Result<Option<usize>, TransferError> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk() else {
            return Ok(None);
        };
        let length = record_bytes(*head)?;
        Ok((self.end - self.start >= RECORD_HEAD_BYTES + length).then_some(length))
    }

    fn fill(&mut self) -> Result<(), TransportError> {
        self.compact();
        loop {
            match (&*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(count) => return self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    fn advance(&mut self, count: usize) -> Result<(), TransportError> {
        match count {
            0 if self.end == 0 => Err(TransportError::Closed),
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

/// The sending half. Records are buffered until [`flush`](Self::flush), or until the buffer is full.
pub struct RecordWriter {
    stream: Arc<TcpStream>,
    sealer: RecordSealer,
    /// `out[..filled]` is to be sent. Never cleared: bulk data overwrites what is there.
    out: Vec<u8>,
    filled: usize,
    message: Vec<u8>,
    stall_limit: StallLimit,
}

/// The peer receives at least `min_bytes` in every `timeout`, or the connection fails.
#[derive(Debug, Clone, Copy)]
struct StallLimit {
    timeout: Duration,
    min_bytes: usize,
}

impl RecordWriter {
    fn new(stream: Arc<TcpStream>, sealer: RecordSealer) -> Self {
        let stall_limit = StallLimit { timeout: HANDSHAKE_TIMEOUT, min_bytes: 1 };
        let out = vec![0; WRITE_BUFFER_BYTES + data_record_bytes(RECORD_MAX_BYTES)];
        Self { stream, sealer, out, filled: 0, message: Vec::new(), stall_limit }
    }

    /// While there is something to send, the peer must receive at least `min_bytes` in every `timeout`.
    pub fn set_stall_limit(&mut self, timeout: Duration, min_bytes: usize) -> io::Result<()> {
        self.stall_limit = StallLimit { timeout, min_bytes };
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Encrypts a message. It is sent with the next flush, or now if the buffer is full.
    pub fn message(&mut self, message: &impl Serialize) -> Result<(), TransportError> {
        self.message.clear();
        self.sealer.message(message, &mut self.message);
        let end = self.filled + self.message.len();
        self.out[self.filled..end].copy_from_slice(&self.message);
        self.filled = end;
        self.flush_if_full()
    }

    /// Encrypts `length` bytes of bulk data that `fill` reads in place. They are sent with the next flush, or now if the
    /// buffer is full. An error of `fill` leaves the connection usable.
    pub fn data<E: From<TransportError>>(
        &mut self,
        content: u32,
        offset: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.filled + data_record_bytes(length);
        self.sealer.data(content, offset, &mut self.out[self.filled..end], fill)?;
        self.filled = end;
        Ok(self.flush_if_full()?)
    }

    /// Sends all buffered records.
    pub fn flush(&mut self) -> Result<(), TransportError> {
        let mut left = &self.out[..self.filled];
        while !left.is_empty() {
            let started = Instant::now();
            match (&*self.stream).write(left) {
                Ok(count) => {
                    // After the timeout the kernel returns how many bytes it has sent. (A signal also cuts a write short,
                    // but not after half the timeout.)
                    let min_bytes = self.stall_limit.min_bytes.min(left.len());
                    if count == 0 || (count < min_bytes && started.elapsed() >= self.stall_limit.timeout / 2) {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                    left = &left[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.filled = 0;
        Ok(())
    }

    fn flush_if_full(&mut self) -> Result<(), TransportError> {
        if self.filled >= WRITE_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }
}

/// Wakes a thread that waits for a socket.
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Ends the current [`wait`](Self::wait), or the next one.
    pub fn wake(&self) {
        // It fails only when the counter is full: then the thread is being woken already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until the socket is readable or closed, for a [`wake`](Self::wake), or for `timeout` if there is one.
    pub fn wait(&self, stream: &TcpStream, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = [PollFd::new(stream, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[1].revents().is_empty() {
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
        Ok(())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
pub(crate) mod tests;
