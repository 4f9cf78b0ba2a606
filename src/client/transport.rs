//! Moves transfer records over a TCP connection: blocking, buffered, with a time limit on every step.
//!
//! Owns the buffers and the time limits; what the frames mean is `share`'s and `download`'s business, how they are sealed
//! `common::peer_crypto`'s. Both halves share one descriptor.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
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
    self, FRAME_MAX_BYTES, Frame, Initiator, NOISE_BYTES, PREAMBLE_HEAD_BYTES, Preamble, RECORD_HEAD_BYTES,
    RecordOpener, RecordSealer, TransferError, data_record_bytes, record_bytes,
};

/// A peer on a LAN answers a connection within this time, or is not there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Each half of the handshake takes at most this long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that the kernel takes ahead of what it can send: on a slow link a cancel or an answer would otherwise wait behind
/// seconds of data that nobody may want any more.
const UNSENT_MAX_BYTES: u32 = 256 << 10;
/// Bytes read from the socket at once: several full records.
const READ_BUFFER_BYTES: usize = 8 * (FRAME_MAX_BYTES + 64);
/// Sealed records are written out when this many bytes have gathered.
const WRITE_BUFFER_BYTES: usize = 4 * (FRAME_MAX_BYTES + 64);

/// Why a connection broke off.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The other side closed it between two records.
    #[error("the connection was closed")]
    Closed,
    /// The other side did not keep to the protocol.
    #[error(transparent)]
    Protocol(#[from] TransferError),
    /// The network failed, or a step advance too long.
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

/// Opens a connection to an uploader: connects, shows the ticket, shakes hands.
pub fn connect<M>(
    address: SocketAddr,
    ticket: &[u8],
    key: &[u8; 32],
) -> Result<(RecordReader<M>, RecordWriter), TransportError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    configure_socket(&stream)?;
    let (opening, bytes) = Initiator::start(ticket, key)?;
    stream.write_all(&bytes)?;
    let mut reply = [0; NOISE_BYTES];
    stream.read_exact(&mut reply)?;
    let (sealer, opener) = opening.finish(&reply)?;
    Ok(split(stream.into(), sealer, opener))
}

/// Answers a downloader whose whole preamble has been read and whose ticket is good: `key` is the ticket's, `prologue`
/// and `noise` are those of [`Preamble::Complete`].
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

/// Takes a connection as uploader. `admit` gets the sealed ticket and gives the connection's key and whatever the caller
/// needs of it; `None` means a stranger, and the connection ends without an answer.
pub fn accept<T, M>(
    mut stream: TcpStream,
    admit: impl FnOnce(&[u8]) -> Option<([u8; 32], T)>,
) -> Result<(T, RecordReader<M>, RecordWriter), TransportError> {
    configure_socket(&stream)?;
    let mut bytes = vec![0; PREAMBLE_HEAD_BYTES];
    let mut filled = 0;
    loop {
        stream.read_exact(&mut bytes[filled..])?;
        filled = bytes.len();
        match Preamble::parse(&bytes)? {
            Preamble::NeedBytes(more) => bytes.resize(more, 0),
            Preamble::Complete { ticket, prologue, noise } => {
                let (key, admitted) = admit(ticket).ok_or(TransferError::Forged)?;
                let (reader, writer) = respond(stream.into(), &key, prologue, noise)?;
                return Ok((admitted, reader, writer));
            }
        }
    }
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

/// One frame whose bulk data stands in the buffer of its reader.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameRef<M> {
    /// Bulk data.
    Data {
        /// Which content.
        content: u32,
        /// Where in it.
        offset: u64,
        /// Where in the buffer.
        at: Range<usize>,
    },
    /// Anything else.
    Message(M),
}

/// The receiving half. `M` is what the other side sends beside data.
pub struct RecordReader<M> {
    stream: Arc<TcpStream>,
    opener: RecordOpener,
    buffer: Vec<u8>,
    /// What is read but not yet taken stands in `buffer[start..end]`.
    start: usize,
    end: usize,
    messages: PhantomData<fn() -> M>,
}

impl<M> RecordReader<M> {
    fn new(stream: Arc<TcpStream>, opener: RecordOpener) -> Self {
        let buffer = vec![0; READ_BUFFER_BYTES];
        Self { stream, opener, buffer, start: 0, end: 0, messages: PhantomData }
    }

    /// How long one read may wait; it fails then with [`io::ErrorKind::WouldBlock`] and can be repeated.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(timeout))
    }

    /// The connection, to be shut down from elsewhere or polled.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads what has arrived, without waiting, and tells whether [`next`](Self::next) will not wait either.
    pub fn read_ready(&mut self) -> Result<bool, TransportError> {
        if self.whole_record()?.is_some() {
            return Ok(true);
        }
        self.make_room();
        match recv(&self.stream, &mut self.buffer[self.end..], RecvFlags::DONTWAIT) {
            Ok((count, _)) => self.advance(count)?,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        Ok(self.whole_record()?.is_some())
    }

    /// Whether a whole record has been read already, so that [`next`](Self::next) will not wait.
    pub fn has_record(&self) -> bool {
        self.whole_record().is_ok_and(|record| record.is_some())
    }

    /// Waits for the next frame. After a time-out it may be called again and nothing is lost.
    pub fn next<'a>(&'a mut self) -> Result<Frame<'a, M>, TransportError>
    where
        M: Deserialize<'a>,
    {
        let length = loop {
            if let Some(length) = self.whole_record()? {
                break length;
            }
            self.fill()?;
        };
        let at = self.start + RECORD_HEAD_BYTES;
        self.start = at + length;
        Ok(self.opener.open(&mut self.buffer[at..at + length])?)
    }

    /// Like [`next`](Self::next), but bulk data stays where it stands in the reader's buffer: it is there until
    /// [`swap_buffer`](Self::swap_buffer) gives the buffer away, or until more must be read. The first is called before the
    /// second, whenever [`has_record`](Self::has_record) says no.
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

    /// Gives the buffer away with all that was placed in it, and goes on with `fresh` (any that was given away before, or
    /// an empty one).
    pub fn swap_buffer(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.resize(READ_BUFFER_BYTES, 0);
        let rest = &self.buffer[self.start..self.end];
        fresh[..rest.len()].copy_from_slice(rest);
        (self.start, self.end) = (0, rest.len());
        std::mem::replace(&mut self.buffer, fresh)
    }

    /// The length of the first record behind its head, if all of it is there.
    fn whole_record(&self) -> Result<Option<usize>, TransferError> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk() else {
            return Ok(None);
        };
        let length = record_bytes(*head)?;
        Ok((self.end - self.start >= RECORD_HEAD_BYTES + length).then_some(length))
    }

    fn fill(&mut self) -> Result<(), TransportError> {
        self.make_room();
        loop {
            match (&*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(count) => return self.advance(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn make_room(&mut self) {
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

/// The sending half: records gather until [`flush`](Self::flush) or until there are enough of them.
pub struct RecordWriter {
    stream: Arc<TcpStream>,
    sealer: RecordSealer,
    /// What waits to be flushed stands in `out[..filled]`. Never cleared: bulk data is read over what was there.
    out: Vec<u8>,
    filled: usize,
    message: Vec<u8>,
    stall_limit: StallLimit,
}

/// The other side takes at least this much in this time, or is given up.
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

    /// How long one write may wait.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(timeout))
    }

    /// While something waits to be sent, the other side must take at least `min_bytes` in every `timeout`.
    pub fn set_stall_limit(&mut self, timeout: Duration, min_bytes: usize) -> io::Result<()> {
        self.stall_limit = StallLimit { timeout, min_bytes };
        self.stream.set_write_timeout(Some(timeout))
    }

    /// The connection, to be shut down from elsewhere or polled.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Seals a message; it leaves with the next flush.
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

    /// Bytes that wait to be flushed.
    pub fn pending_bytes(&self) -> usize {
        self.filled
    }

    /// Sends all that has gathered.
    pub fn flush(&mut self) -> Result<(), TransportError> {
        let mut left = &self.out[..self.filled];
        while !left.is_empty() {
            let started = Instant::now();
            match (&*self.stream).write(left) {
                Ok(count) => {
                    // The kernel gives up after the time-out and tells what it got rid of by then. (A signal also cuts
                    // a write short, but not after so long.)
                    let least = self.stall_limit.min_bytes.min(left.len());
                    if count == 0 || (count < least && started.elapsed() >= self.stall_limit.timeout / 2) {
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

    /// Waits until the socket is readable or closed, for a [`wake`](Self::wake), or for `timeout`.
    pub fn wait(&self, stream: &TcpStream, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::new(stream, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
        Ok(())
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::common::peer_message::{PeerRequest, PeerResponse};

    const KEY: [u8; 32] = [3; 32];

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[test]
    fn frames_cross_a_connection_both_ways() {
        let (listener, address) = listener();
        let uploader = thread::spawn(move || {
            let admit = |ticket: &[u8]| (ticket == b"ticket").then_some((KEY, "vader"));
            let (who, mut reader, mut writer) = accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).unwrap();
            assert_eq!(who, "vader");
            assert!(matches!(reader.next().unwrap(), Frame::Message(PeerRequest::Cancel)));
            for offset in 0..20 {
                let fill = |place: &mut [u8]| {
                    place.fill(offset as u8);
                    Ok::<_, TransportError>(())
                };
                writer.data(1, offset, RECORD_MAX_BYTES, fill).unwrap();
            }
            writer.message(&PeerResponse::Cancelled).unwrap();
            writer.flush().unwrap();
            assert!(matches!(reader.next(), Err(TransportError::Closed)));
        });
        let (mut reader, mut writer) = connect::<PeerResponse>(address, b"ticket", &KEY).unwrap();
        writer.message(&PeerRequest::Cancel).unwrap();
        writer.flush().unwrap();
        for expected in 0..20 {
            let Frame::Data { content: 1, offset, bytes } = reader.next().unwrap() else { panic!("data") };
            assert_eq!(offset, expected);
            assert!(bytes.len() == RECORD_MAX_BYTES && bytes.iter().all(|&byte| byte == expected as u8));
        }
        assert!(matches!(reader.next().unwrap(), Frame::Message(PeerResponse::Cancelled)));
        drop((reader, writer));
        uploader.join().unwrap();
    }

    #[test]
    fn a_false_uploader_and_a_stranger_get_nowhere() {
        let (listener, address) = listener();
        let uploader = thread::spawn(move || {
            let admit = |_: &[u8]| Some(([9; 32], ()));
            assert!(accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).is_err());
            let admit = |_: &[u8]| -> Option<([u8; 32], ())> { panic!("garbage is no ticket") };
            assert!(accept::<_, PeerRequest>(listener.accept().unwrap().0, admit).is_err());
        });
        assert!(connect::<PeerResponse>(address, b"ticket", &KEY).is_err());
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty(), "a stranger gets silence");
        uploader.join().unwrap();
    }
}
