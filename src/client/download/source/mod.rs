//! One connection to a source, on a thread of its own: presents tickets, sends the coordinator's requests, and receives
//! what was requested, in exactly that order (see `receive`).
//!
//! Any frame that was not requested ends the connection. Whole read buffers go to the writer thread through a bounded
//! channel, so a slow disk slows the sender and memory use stays bounded.

mod passed;
mod receive;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::sync::mpsc::{self, TrySendError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select, unbounded};

use self::passed::{PassedGroup, open_direct_path};
use self::receive::HashingWait;
use super::coordinator::{
    DownloadEvent, GroupRequest, REPORT_INTERVAL, SourceCommand, SourceEnd, SourceEvent, StoreResult,
};
use super::discovery::SourceOffer;
use super::file_job::{FileJob, FileOperations};
use super::incomplete_file::IncompleteFile;
use super::scheduler::{Assignment, FileId, SourceId};
use super::writer::{self, Chunk, CopyVerifier, ReceivedBuffer, SmallBatch};
use crate::client::direct::PassedFiles;
use crate::client::transport::{self, FrameRef, RecordReader, RecordWriter, TransportError, Waker};
use crate::common::chunk_tree::{GroupHash, group_range};
use crate::common::peer_crypto::TransferError;
use crate::common::peer_message::{GroupRange, PeerRequest, PeerResponse, REQUEST_MAX_RANGES};
use crate::common::threads;

/// Longest time to connect, with the handshake and the direct path, whatever the peer does.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// A source that owes something and sends nothing for this long is lost.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffers on their way from a connection to its writer.
const BUFFERS_IN_FLIGHT: usize = 2;

/// The coordinator's side of a source's thread.
pub(super) struct SourceHandle {
    commands: crossbeam_channel::Sender<SourceCommand>,
    link: Arc<SourceLink>,
}

/// What both sides of the command channel share.
struct SourceLink {
    /// Wakes the thread when there are commands.
    waker: Waker,
    /// The connection, once it is established.
    stream: OnceLock<TcpStream>,
}

/// The source's side of the command channel.
pub(super) struct Commands {
    receiver: crossbeam_channel::Receiver<SourceCommand>,
    link: Arc<SourceLink>,
}

/// A channel of commands to a source's thread.
pub(super) fn command_channel() -> io::Result<(SourceHandle, Commands)> {
    let link = Arc::new(SourceLink { waker: Waker::new()?, stream: OnceLock::new() });
    let (commands, receiver) = unbounded();
    Ok((SourceHandle { commands, link: link.clone() }, Commands { receiver, link }))
}

impl SourceHandle {
    pub fn send(&self, command: SourceCommand) {
        // The thread may have ended already; the event about that is on its way.
        let _ = self.commands.send(command);
        self.link.waker.wake();
    }
}

impl Drop for SourceHandle {
    /// Ends the connection at once, even if a write waits for the peer.
    fn drop(&mut self) {
        self.send(SourceCommand::Stop);
        if let Some(stream) = self.link.stream.get() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Connects to the source and follows commands until the connection ends.
pub(super) fn run_source(
    files: &FileOperations<'_>,
    id: SourceId,
    offer: SourceOffer,
    commands: Commands,
    events: &mpsc::Sender<DownloadEvent>,
) {
    let (address, user) = (offer.address, offer.user.clone());
    log::debug!("dialling {user} at {address}");
    let end = match dial(files, &offer, &commands.receiver) {
        Ok(connection) => run_connection(files, id, offer.files, connection, commands, events),
        Err(end) => end,
    };
    log::debug!("{user} at {address}: {end:?}");
    let _ = events.send(DownloadEvent::Source(id, SourceEvent::Ended(end)));
}

struct Connection {
    reader: RecordReader<PeerResponse>,
    writer: RecordWriter,
    /// Where the source passes files, if it does.
    passed: Option<Arc<PassedFiles>>,
}

/// Connects on a separate thread, which is abandoned on [`SourceCommand::Stop`]: nothing waits for a dead address.
fn dial(
    files: &FileOperations<'_>,
    offer: &SourceOffer,
    commands: &crossbeam_channel::Receiver<SourceCommand>,
) -> Result<Connection, SourceEnd> {
    let (sender, connected) = bounded(1);
    let (offer, uses_direct_path) = (offer.clone(), files.uses_direct_path);
    let connect = move || drop(sender.send(connect(&offer, uses_direct_path)));
    threads::spawn("dial", connect).map_err(|error| SourceEnd::NoResources(error.to_string()))?;
    select! {
        recv(connected) -> connected => match connected {
            Ok(result) => result,
            Err(_) => Err(SourceEnd::Done),
        },
        recv(commands) -> _ => Err(SourceEnd::Done),
        default(DIAL_TIMEOUT) => Err(SourceEnd::Lost("it took too long to connect".into())),
    }
}

fn connect(offer: &SourceOffer, uses_direct_path: bool) -> Result<Connection, SourceEnd> {
    let address = offer.address;
    let lost = |error| SourceEnd::Lost(format!("no connection to {address}: {error}"));
    let (mut reader, mut writer) = transport::connect(address, &offer.ticket, &offer.key).map_err(lost)?;
    let passed = if uses_direct_path { open_direct_path(&mut reader, &mut writer, &offer.user)? } else { None };
    Ok(Connection { reader, writer, passed })
}

fn run_connection(
    files: &FileOperations<'_>,
    id: SourceId,
    granted: Vec<FileId>,
    connection: Connection,
    commands: Commands,
    events: &mpsc::Sender<DownloadEvent>,
) -> SourceEnd {
    let Connection { reader, writer, passed } = connection;
    // These channels park a thread at once, where those of crossbeam yield the processor first: on a busy machine that
    // takes long.
    let (buffers, to_store) = mpsc::sync_channel(BUFFERS_IN_FLIGHT);
    let (recycle, recycled) = mpsc::channel();
    thread::scope(|scope| {
        let copies = CopyVerifier::new(files, passed.clone());
        let write = move || writer::run_writer(files, id, to_store, &recycle, events, copies);
        let store = match threads::spawn_scoped(scope, "writer", write) {
            Ok(store) => store,
            Err(error) => return SourceEnd::NoResources(error.to_string()),
        };
        let connection = SourceConnection {
            files,
            jobs: files.jobs,
            id,
            events,
            commands,
            writer,
            contents: Vec::new(),
            numbers: HashMap::new(),
            pending_grants: VecDeque::new(),
            pending_groups: VecDeque::new(),
            pending_outlines: HashMap::new(),
            pending_availability: Vec::new(),
            is_cancelling: false,
            received_bytes: 0,
            completed: Vec::new(),
            reported_at: Instant::now(),
            last_received: Instant::now(),
            hashing: HashingWait::default(),
            current_file: granted.first().copied().unwrap_or(0),
            chunks: Vec::new(),
            copies: CopyVerifier::new(files, passed.clone()),
            passed,
            is_path_closed: false,
            to_copy: VecDeque::new(),
            copy_buffer: Vec::new(),
            copied: ReceivedBuffer::default(),
            buffers,
            recycled,
        };
        // It is dropped at its end: then the writer sees the end of its buffers.
        let end = connection.run(reader, granted);
        store.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        end
    })
}

/// A requested group, as far as it has arrived.
struct PendingGroup {
    assignment: Assignment,
    incomplete: Option<Arc<IncompleteFile>>,
    content: u32,
    /// Where the next data must begin, and where the last must end.
    next: u64,
    end: u64,
}

struct SourceConnection<'a> {
    files: &'a FileOperations<'a>,
    jobs: &'a [FileJob],
    id: SourceId,
    events: &'a mpsc::Sender<DownloadEvent>,
    commands: Commands,
    writer: RecordWriter,
    /// The files of the granted contents, by content number.
    contents: Vec<FileId>,
    numbers: HashMap<FileId, u32>,
    /// Files of the tickets presented and not answered.
    pending_grants: VecDeque<Vec<FileId>>,
    /// What must arrive, in this order.
    pending_groups: VecDeque<PendingGroup>,
    /// Requested outlines, as far as they have arrived.
    pending_outlines: HashMap<u32, Vec<GroupHash>>,
    /// Contents whose availability was queried.
    pending_availability: Vec<u32>,
    is_cancelling: bool,
    /// Received and not reported.
    received_bytes: u64,
    completed: Vec<Assignment>,
    reported_at: Instant,
    last_received: Instant,
    hashing: HashingWait,
    /// The file that the source sends.
    current_file: FileId,
    /// What the reader's buffer holds for the writer.
    chunks: Vec<Chunk>,
    passed: Option<Arc<PassedFiles>>,
    /// Something was wrong with the direct path: all comes over TCP.
    is_path_closed: bool,
    /// Groups to copy, in the order in which they were passed.
    to_copy: VecDeque<PassedGroup>,
    /// For what the kernel does not copy.
    copy_buffer: Vec<u8>,
    /// What was copied and is to be verified.
    copied: ReceivedBuffer,
    copies: CopyVerifier<'a>,
    buffers: mpsc::SyncSender<ReceivedBuffer>,
    recycled: mpsc::Receiver<ReceivedBuffer>,
}

impl SourceConnection<'_> {
    fn run(mut self, mut reader: RecordReader<PeerResponse>, granted: Vec<FileId>) -> SourceEnd {
        if let Ok(stream) = reader.stream().try_clone() {
            let _ = self.commands.link.stream.set(stream);
        }
        self.add_contents(&granted);
        self.report(SourceEvent::Connected(granted));
        let end = loop {
            if let Err(end) = self.step(&mut reader) {
                break end;
            }
        };
        // What has arrived counts, whatever came after it.
        let _ = self.flush_to_writer(&mut reader).and_then(|()| self.flush_copied());
        self.report_received();
        end
    }

    /// Follows commands, handles one frame, or waits for either.
    fn step(&mut self, reader: &mut RecordReader<PeerResponse>) -> Result<(), SourceEnd> {
        self.follow_commands()?;
        if let Some(group) = self.to_copy.pop_front() {
            return self.copy_group(group);
        }
        if !reader.has_record() {
            self.flush_to_writer(reader)?;
            if !self.read(reader)? {
                return self.wait(reader);
            }
        }
        match reader.next_in_place() {
            Ok(FrameRef::Data { content, offset, at }) => self.on_data(content, offset, at),
            Ok(FrameRef::Message(message)) => self.on_message(message),
            Err(error) => Err(self.end_for(error)),
        }
    }

    /// Reads what has arrived, without waiting; whether there is a whole record.
    fn read(&self, reader: &mut RecordReader<PeerResponse>) -> Result<bool, SourceEnd> {
        reader.poll_record().map(|record| record.is_ready()).map_err(|error| self.end_for(error))
    }

    /// Waits for data or commands.
    fn wait(&mut self, reader: &RecordReader<PeerResponse>) -> Result<(), SourceEnd> {
        let timeout = self.is_reply_due().then(|| SILENCE_TIMEOUT.saturating_sub(self.last_received.elapsed()));
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(SourceEnd::Lost("it was silent for too long".into()));
        }
        let waited = self.commands.link.waker.wait(reader.stream(), timeout);
        waited.map_err(|error| SourceEnd::Lost(error.to_string()))
    }

    /// Whether the source must send something.
    fn is_reply_due(&self) -> bool {
        !self.pending_groups.is_empty()
            || !self.pending_outlines.is_empty()
            || !self.pending_grants.is_empty()
            || !self.pending_availability.is_empty()
            || self.is_cancelling
    }

    fn follow_commands(&mut self) -> Result<(), SourceEnd> {
        if self.commands.receiver.is_empty() {
            return Ok(());
        }
        if !self.is_reply_due() {
            self.last_received = Instant::now();
        }
        while let Ok(command) = self.commands.receiver.try_recv() {
            self.follow(command)?;
        }
        self.writer.flush().map_err(|error| self.end_for(error))
    }

    fn follow(&mut self, command: SourceCommand) -> Result<(), SourceEnd> {
        match command {
            SourceCommand::RequestGroups(requests) => self.request_groups(requests),
            SourceCommand::RequestOutline(file) => {
                let content = self.number(file);
                self.pending_outlines.insert(content, Vec::new());
                self.send(&PeerRequest::GetGroupHashes { content })
            }
            SourceCommand::QueryAvailability(file) => {
                let content = self.number(file);
                self.pending_availability.push(content);
                self.send(&PeerRequest::QueryAvailability { content })
            }
            SourceCommand::Grant(offer) => {
                self.pending_grants.push_back(offer.files);
                self.send(&PeerRequest::AddTicket { ticket: offer.ticket })
            }
            SourceCommand::Cancel => {
                self.is_cancelling = true;
                self.send(&PeerRequest::Cancel)
            }
            SourceCommand::Stop => Err(SourceEnd::Done),
        }
    }

    fn request_groups(&mut self, requests: Vec<GroupRequest>) -> Result<(), SourceEnd> {
        let mut ranges = Vec::with_capacity(requests.len());
        for GroupRequest { assignment, incomplete } in requests {
            let Assignment { file, group, id } = assignment;
            if let Some(incomplete) = &incomplete {
                incomplete.assign(group, id);
            }
            let content = self.number(file);
            let range = group_range(self.jobs[file].item.content.size, group);
            let (next, end) = (range.start, range.end);
            self.pending_groups.push_back(PendingGroup { assignment, incomplete, content, next, end });
            // One range a group, so that a cancel leaves at most one group that has begun.
            ranges.push(GroupRange { content, first: group, count: 1 });
        }
        ranges
            .chunks(REQUEST_MAX_RANGES)
            .try_for_each(|ranges| self.send(&PeerRequest::RequestGroups { ranges: ranges.to_vec() }))
    }

    fn send(&mut self, message: &PeerRequest) -> Result<(), SourceEnd> {
        self.writer.message(message).map_err(|error| self.end_for(error))
    }

    /// Numbers the contents of an accepted ticket.
    fn add_contents(&mut self, files: &[FileId]) {
        for &file in files {
            let number = u32::try_from(self.contents.len()).expect("few contents a connection");
            self.numbers.insert(file, number);
            self.contents.push(file);
        }
    }

    /// The number by which the source knows a file.
    fn number(&self, file: FileId) -> u32 {
        *self.numbers.get(&file).expect("only granted files are requested")
    }

    /// Gives all received data to the writer, in the buffer that it was read into: nothing is copied but the beginning of
    /// an incomplete record. While the writer has enough to do, this thread saves small files itself: making a file takes
    /// longer than receiving it.
    fn flush_to_writer(&mut self, reader: &mut RecordReader<PeerResponse>) -> Result<(), SourceEnd> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        if !self.completed.is_empty() || self.last_received.duration_since(self.reported_at) >= REPORT_INTERVAL {
            self.report_received();
        }
        let ReceivedBuffer { bytes, chunks } = self.recycled.try_recv().unwrap_or_default();
        let chunks = std::mem::replace(&mut self.chunks, chunks);
        let bytes = reader.swap_buffer(bytes);
        let buffer = match self.buffers.try_send(ReceivedBuffer { bytes, chunks }) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(SourceEnd::Done),
            Err(TrySendError::Full(buffer)) => buffer,
        };
        if !buffer.chunks.iter().all(Chunk::is_small_file) {
            return self.buffers.send(buffer).map_err(|_| SourceEnd::Done);
        }
        let mut small = SmallBatch::new(self.files);
        let add = |chunk: &Chunk| small.add(chunk.assignment, &buffer.bytes[chunk.at.clone()]);
        let mut results: Vec<StoreResult> = buffer.chunks.iter().flat_map(add).collect();
        results.extend(small.save());
        self.report(SourceEvent::Stored(results));
        Ok(())
    }

    fn report_received(&mut self) {
        let (bytes, completed) = (std::mem::take(&mut self.received_bytes), std::mem::take(&mut self.completed));
        if bytes > 0 {
            self.reported_at = self.last_received;
            let _ = self.events.send(DownloadEvent::Source(self.id, SourceEvent::Received { bytes, completed }));
        }
    }

    /// Reports to the coordinator, in the order of what was received. Without a coordinator the report is lost.
    fn report(&mut self, event: SourceEvent) {
        self.report_received();
        let _ = self.events.send(DownloadEvent::Source(self.id, event));
    }

    /// What a failure of the connection means. Records that do not verify may come from an attacker on the path; only a
    /// malformed message inside a verified record is the source's own.
    fn end_for(&self, error: TransportError) -> SourceEnd {
        match error {
            TransportError::Protocol(TransferError::Malformed) => self.violation("malformed message"),
            other => SourceEnd::Lost(other.to_string()),
        }
    }
}
