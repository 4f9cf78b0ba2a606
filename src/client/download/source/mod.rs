//! One connection to a source: shows tickets, asks for what the plan hands out, takes what comes in just that order (see
//! `take`).
//!
//! Everything that arrives must be the next piece of what was asked for; anything else ends the connection.
//! Whole read buffers go to the `store` thread through a bounded channel, so a slow disk slows the sender and never fills
//! the memory.

mod receive;

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::discovery::SourceOffer;
use super::run::{End, Run, TICK};
use super::scheduler::{Assignment, FileId, Next, SourceId};
use super::writer::{self, Batch, Piece};
use crate::client::transport::{self, FrameRef, RecordReader, RecordWriter, TransportError};
use crate::common::chunk_tree::{GroupHash, group_range};
use crate::common::peer_crypto::TransferError;
use crate::common::peer_message::{GroupRange, PeerRequest, PeerResponse, REQUEST_MAX_RANGES};
use crate::common::types::UserName;

/// A source that owes something and is silent for this long is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Batches on their way from a connection to its store thread, each a read buffer.
const BATCHES_UNDERWAY: usize = 2;
/// A source that is still fetching a file itself is asked this often which groups it has.
const HAVE_EVERY: Duration = Duration::from_millis(100);
/// The plan is told of bytes at least this often.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// Runs one connection from the first ticket to its end.
pub(super) fn serve(run: &Run<'_>, id: SourceId, offer: SourceOffer) {
    let (address, user) = (offer.address, offer.user.clone());
    log::debug!("dialling {user} at {address}");
    let mut blamed = offer.files.first().copied().unwrap_or(0);
    let mut has_delivered = false;
    let end = match dial(run, &offer) {
        None => End::Over,
        Some(Ok((reader, writer))) => converse(run, id, offer, reader, writer, &mut blamed, &mut has_delivered),
        Some(Err(error)) => End::Lost(format!("no connection to {address}: {error}")),
    };
    log::debug!("{user} at {address}: {end:?}");
    run.source_ended(id, address, end, blamed, has_delivered);
}

type Dialled = Result<(RecordReader<PeerResponse>, RecordWriter), TransportError>;

/// Connects on a thread of its own, which is left behind when the run is over: nobody should wait for a dead address.
fn dial(run: &Run<'_>, offer: &SourceOffer) -> Option<Dialled> {
    let (sender, dialled) = mpsc::sync_channel(1);
    let (address, ticket, key) = (offer.address, offer.ticket.clone(), offer.key);
    thread::spawn(move || {
        let _ = sender.send(transport::connect(address, &ticket, &key));
    });
    loop {
        match dialled.recv_timeout(TICK) {
            Ok(dialled) => return Some(dialled),
            Err(RecvTimeoutError::Timeout) if !run.state().is_over => {}
            Err(_) => return None,
        }
    }
}

fn converse(
    run: &Run<'_>,
    id: SourceId,
    offer: SourceOffer,
    reader: RecordReader<PeerResponse>,
    writer: RecordWriter,
    blamed: &mut FileId,
    has_delivered: &mut bool,
) -> End {
    let (batches, inbox) = mpsc::sync_channel(BATCHES_UNDERWAY);
    let (spare_sender, spare) = mpsc::channel();
    let has_lied = AtomicBool::new(false);
    thread::scope(|scope| {
        let store = scope.spawn(|| writer::keep(run, inbox, spare_sender, &has_lied));
        let mut link = Link {
            run,
            id,
            address: offer.address,
            user: offer.user,
            writer,
            contents: Vec::new(),
            numbers: HashMap::new(),
            shown: VecDeque::new(),
            owed: VecDeque::new(),
            outlines: HashMap::new(),
            partial: HashMap::new(),
            is_cancelling: false,
            untold: 0,
            told: Instant::now(),
            heard: Instant::now(),
            is_due: true,
            seen: 0,
            fresh: Vec::new(),
            batch: Vec::new(),
            batches,
            spare,
            has_lied: &has_lied,
            file: *blamed,
        };
        let end = link.work(reader, offer.files);
        *blamed = link.file;
        run.state().plan.received(link.heard, id, link.untold);
        drop(link); // the store sees the end of its batches
        let verdict = store.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        *has_delivered = verdict.has_delivered;
        match verdict.lie {
            Some(file) => {
                *blamed = file;
                End::Liar("it sent bytes that do not match the published hash".into())
            }
            None => end,
        }
    })
}

/// A group that was asked for, as far as it has arrived.
struct Owed {
    assignment: Assignment,
    content: u32,
    /// Where the next piece must begin, and where the last one must end.
    next: u64,
    end: u64,
}

struct Link<'r, 'a> {
    run: &'r Run<'a>,
    id: SourceId,
    address: SocketAddr,
    user: UserName,
    writer: RecordWriter,
    /// The files of the granted contents, by their number.
    contents: Vec<FileId>,
    numbers: HashMap<FileId, u32>,
    /// Files of tickets shown and not yet answered.
    shown: VecDeque<Vec<FileId>>,
    /// What must arrive, in this order.
    owed: VecDeque<Owed>,
    /// Outlines asked for, as far as they have arrived.
    outlines: HashMap<u32, Vec<GroupHash>>,
    /// Contents of which it has only some groups yet, and when it was last asked which.
    partial: HashMap<u32, Option<Instant>>,
    is_cancelling: bool,
    /// Bytes the plan has not been told of, and when it last was.
    untold: u64,
    told: Instant,
    heard: Instant,
    /// The plan may have more to ask for.
    is_due: bool,
    /// The changes that the plan's last answer took into account.
    seen: u64,
    fresh: Vec<Assignment>,
    /// What stands in the reader's buffer for the store thread.
    batch: Vec<Piece>,
    batches: SyncSender<Batch>,
    spare: Receiver<Batch>,
    has_lied: &'r AtomicBool,
    /// The file that is spoken of.
    file: FileId,
}

impl From<TransportError> for End {
    fn from(error: TransportError) -> Self {
        match error {
            // What does not verify may come from anyone on the way; only nonsense under seal is the peer's own.
            TransportError::Protocol(TransferError::Malformed) => broke("nonsense"),
            other => Self::Lost(other.to_string()),
        }
    }
}

fn broke(why: &str) -> End {
    End::Liar(format!("it broke the protocol: {why}"))
}

impl Link<'_, '_> {
    fn work(&mut self, mut reader: RecordReader<PeerResponse>, files: Vec<FileId>) -> End {
        match self.begin(&reader, files) {
            Ok(true) => {}
            Ok(false) => return End::Over,
            Err(error) => return End::Lost(error.to_string()),
        }
        let end = loop {
            match self.step(&mut reader) {
                Ok(true) => {}
                Ok(false) => break End::Over,
                Err(end) => break end,
            }
        };
        // What has arrived counts, whatever came after it.
        let _ = self.hand_over(&mut reader);
        end
    }

    /// `false` when the run is over already.
    fn begin(&mut self, reader: &RecordReader<PeerResponse>, files: Vec<FileId>) -> io::Result<bool> {
        reader.set_timeout(TICK)?;
        let stream = reader.stream().try_clone()?;
        let mut state = self.run.state();
        if let Some(live) = state.live.get_mut(&self.address) {
            live.stream = Some(stream);
        }
        self.granted(&mut state.plan, files);
        Ok(!state.is_over)
    }

    fn granted(&mut self, plan: &mut super::scheduler::Plan, files: Vec<FileId>) {
        for file in files {
            plan.keep_promise(self.id, file);
            let number = u32::try_from(self.contents.len()).expect("few contents a connection");
            self.numbers.insert(file, number);
            self.contents.push(file);
        }
        self.is_due = true;
    }

    /// Asks for what is due and takes one frame; `false` when nothing is left to do.
    fn step(&mut self, reader: &mut RecordReader<PeerResponse>) -> Result<bool, End> {
        if self.is_due && !self.ask()? {
            return Ok(false);
        }
        let expects_news = !self.partial.is_empty();
        if self.owed.is_empty()
            && !expects_news
            && self.outlines.is_empty()
            && self.shown.is_empty()
            && !self.is_cancelling
        {
            self.hand_over(reader)?;
            let state = self.run.state();
            self.run.wait(state, self.seen);
            self.is_due = true;
            self.heard = Instant::now();
            return Ok(!self.has_lied.load(Ordering::Relaxed));
        }
        if !reader.has_record() {
            self.hand_over(reader)?;
        }
        match reader.next_in_place() {
            Ok(FrameRef::Data { content, offset, at }) => self.take_data(content, offset, at)?,
            Ok(FrameRef::Message(message)) => self.take_message(message)?,
            Err(TransportError::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.is_due = true;
                if self.heard.elapsed() > PATIENCE {
                    return Err(End::Lost("it was silent for too long".into()));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(!self.has_lied.load(Ordering::Relaxed))
    }

    /// Gets work from the plan and sends for it; `false` when there will be none.
    fn ask(&mut self) -> Result<bool, End> {
        self.is_due = false;
        let now = Instant::now();
        let mut state = self.run.state();
        if state.is_over {
            return Ok(false);
        }
        self.seen = state.changes;
        if state.plan.must_cancel(self.id) && !self.is_cancelling {
            drop(state);
            self.is_cancelling = true;
            self.writer.message(&PeerRequest::Cancel)?;
            self.writer.flush()?;
            return Ok(true);
        }
        // Not before: what is promised for these waits until they are shown.
        let grants = state.live.get_mut(&self.address).map(|live| std::mem::take(&mut live.grants)).unwrap_or_default();
        self.fresh.clear();
        let mut next = Next::Wait;
        if !self.is_cancelling {
            next = state.plan.next(now, self.id, &mut self.fresh);
        }
        let arriving = |assignment: &Assignment| Some((state.jobs[assignment.file].arriving.clone()?, *assignment));
        let turns: Vec<_> = self.fresh.iter().filter_map(arriving).collect();
        drop(state);
        for (arriving, Assignment { group, turn, .. }) in turns {
            arriving.give_turn(group, turn);
        }
        for grant in grants {
            self.writer.message(&PeerRequest::AddTicket { ticket: grant.ticket })?;
            self.shown.push_back(grant.files);
        }
        self.ask_have(now)?;
        match next {
            Next::Ask => self.want()?,
            Next::Outline(file) => self.want_outline(file)?,
            Next::Nothing if self.shown.is_empty() && self.owed.is_empty() && !self.is_cancelling => return Ok(false),
            Next::Wait | Next::Nothing => {}
        }
        if self.writer.pending_bytes() > 0 {
            self.writer.flush()?;
        }
        Ok(true)
    }

    /// Asks for news of files that the source is still fetching itself.
    fn ask_have(&mut self, now: Instant) -> Result<(), End> {
        for (&content, asked) in &mut self.partial {
            if asked.is_none_or(|asked| now.saturating_duration_since(asked) >= HAVE_EVERY) {
                *asked = Some(now);
                self.writer.message(&PeerRequest::QueryAvailability { content })?;
            }
        }
        Ok(())
    }

    /// The number that the source knows a file by.
    fn number(&self, file: FileId) -> u32 {
        *self.numbers.get(&file).expect("only granted files are handed out")
    }

    fn want(&mut self) -> Result<(), End> {
        let mut ranges = Vec::with_capacity(self.fresh.len());
        for assignment in std::mem::take(&mut self.fresh) {
            let content = self.number(assignment.file);
            let range = group_range(self.run.jobs[assignment.file].content.size, assignment.group);
            self.owed.push_back(Owed { assignment, content, next: range.start, end: range.end });
            // One range a group, so that a cancel leaves as little as one group begun.
            ranges.push(GroupRange { content, first: assignment.group, count: 1 });
        }
        for ranges in ranges.chunks(REQUEST_MAX_RANGES) {
            self.writer.message(&PeerRequest::RequestGroups { ranges: ranges.to_vec() })?;
        }
        Ok(())
    }

    fn want_outline(&mut self, file: FileId) -> Result<(), End> {
        let content = self.number(file);
        self.outlines.insert(content, Vec::new());
        self.writer.message(&PeerRequest::GetGroupHashes { content })?;
        self.is_due = true; // meanwhile there may be groups of other files
        Ok(())
    }

    /// Gives all that has arrived to the store thread, in the buffer it stands in: nothing is copied but the beginning of
    /// a record whose end has not come yet.
    fn hand_over(&mut self, reader: &mut RecordReader<PeerResponse>) -> Result<(), End> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let Batch { bytes, pieces } = self.spare.try_recv().unwrap_or_default();
        let pieces = std::mem::replace(&mut self.batch, pieces);
        let bytes = reader.swap_buffer(bytes);
        self.batches.send(Batch { bytes, pieces }).map_err(|_| End::Over)
    }
}
