//! One connection of a downloader, on a thread of its own, from its first request to its end.
//!
//! Defended: every content is checked when it is asked for ([`UploadService::serve`](super::UploadService::serve)); queues and grants are
//! bounded, and whoever outgrows them is cut off; a downloader that takes next to nothing, or asks for nothing, loses its
//! slot. A slow one holds up nobody else. What the peer does wrong is logged at debug.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::listener::{BUSY_RETRY_MS, ListenerShared};
use super::pending::AuthenticatedPeer;
use super::serve::{OpenContent, outline_parts};
use super::slots::UploadSlot;
use crate::client::transport::{RecordReader, RecordWriter, TransportError};
use crate::common::chunk_tree::{group_count, group_range};
use crate::common::limits::{GROUPS_MAX, RECORD_MAX_BYTES};
use crate::common::peer_crypto::Frame;
use crate::common::peer_message::{
    GRANTS_MAX, GROUP_HASHES_PART_MAX, GroupRange, PeerRequest, PeerResponse, QUEUED_RANGES_MAX, REQUEST_MAX_RANGES,
    RefusalReason,
};
use crate::common::sync::lock;
use crate::common::types::{ContentRef, UserName};

/// While a file is hashed before it can be served, the downloader hears of it this often.
const CHECKING_EVERY: Duration = Duration::from_secs(1);
/// An idle connection looks this often whether it should end.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A downloader that has shown a good ticket and proven that it holds its key.
pub(super) struct AcceptedUpload {
    pub(super) peer: AuthenticatedPeer,
    /// What it asked for first.
    pub(super) first: PeerRequest,
    pub(super) slot: UploadSlot,
}

/// Why an upload ended.
#[derive(Debug, thiserror::Error)]
enum UploadEnd {
    #[error(transparent)]
    Channel(#[from] TransportError),
    #[error("the downloader broke the protocol: {0}")]
    Broke(&'static str),
    #[error("the downloader asked for nothing for too long")]
    Idle,
    #[error("the slot went from an idle downloader to one that waits")]
    Preempted,
    #[error("the client is leaving")]
    Leaving,
}

/// Serves one downloader until it is done.
pub(super) fn run(shared: &ListenerShared, admitted: AcceptedUpload) {
    let AcceptedUpload { peer: AuthenticatedPeer { ticket, reader, writer }, first, slot } = admitted;
    let mut upload = Upload {
        shared,
        downloader: ticket.downloader,
        reader,
        writer,
        grants: ticket.grants,
        queue: VecDeque::new(),
        open: None,
    };
    let end = upload.run(first);
    log::debug!("an upload to {} ended: {end}", upload.downloader);
    // The connection ends before the slot is free.
    drop(upload);
    drop(slot);
}

struct Upload<'a> {
    shared: &'a ListenerShared,
    downloader: UserName,
    reader: RecordReader<PeerRequest>,
    writer: RecordWriter,
    /// The contents of all tickets; peer messages number them in this order. At most [`GRANTS_MAX`].
    grants: Vec<ContentRef>,
    /// What is wanted and not yet sent, in the order it was asked for.
    queue: VecDeque<GroupRange>,
    /// The content served last: its groups are mostly asked for in a row.
    open: Option<(u32, OpenContent)>,
}

impl Upload<'_> {
    fn run(&mut self, first: PeerRequest) -> UploadEnd {
        match self.serve_until_the_end(first) {
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    fn serve_until_the_end(&mut self, first: PeerRequest) -> Result<std::convert::Infallible, UploadEnd> {
        let limits = &self.shared.limits;
        self.writer.set_stall_limit(limits.stall, limits.stall_least_bytes).map_err(TransportError::from)?;
        self.handle_request(first)?;
        loop {
            while self.reader.read_ready()? {
                self.take_request()?;
                self.check_shutdown()?;
            }
            self.check_shutdown()?;
            if self.queue.is_empty() {
                self.writer.flush()?;
                self.wait_for_request()?;
            } else {
                self.serve_group()?;
            }
        }
    }

    fn check_shutdown(&self) -> Result<(), UploadEnd> {
        if self.shared.is_stopping() { Err(UploadEnd::Leaving) } else { Ok(()) }
    }

    fn wait_for_request(&mut self) -> Result<(), UploadEnd> {
        let (limits, since) = (&self.shared.limits, Instant::now());
        let glance = IDLE_POLL_INTERVAL.min(limits.idle).min(limits.idle_yield);
        let glance = Timespec { tv_sec: 0, tv_nsec: i64::from(glance.subsec_nanos()) };
        loop {
            let mut fds = [PollFd::new(self.reader.stream(), PollFlags::IN)];
            // An error here would show in the read as well.
            let _ = poll(&mut fds, Some(&glance));
            if self.reader.read_ready()? {
                return Ok(());
            }
            self.check_shutdown()?;
            let idle = since.elapsed();
            if idle >= limits.idle {
                return Err(UploadEnd::Idle);
            }
            if idle >= limits.idle_yield && self.shared.share.slots.wanted(Instant::now(), 2 * limits.idle_yield) {
                self.writer.message(&PeerResponse::Busy { retry_ms: BUSY_RETRY_MS })?;
                self.writer.flush()?;
                return Err(UploadEnd::Preempted);
            }
        }
    }

    fn take_request(&mut self) -> Result<(), UploadEnd> {
        let Frame::Message(request) = self.reader.next()? else {
            return Err(UploadEnd::Broke("it sent data"));
        };
        self.handle_request(request)
    }

    fn handle_request(&mut self, request: PeerRequest) -> Result<(), UploadEnd> {
        match request {
            PeerRequest::AddTicket { ticket } => self.take_ticket(&ticket),
            PeerRequest::Unused { .. } => Ok(()),
            PeerRequest::GetGroupHashes { content } => self.send_outline(content),
            PeerRequest::RequestGroups { ranges } => self.enqueue(&ranges),
            PeerRequest::Cancel => {
                self.queue.clear();
                Ok(self.writer.message(&PeerResponse::Cancelled)?)
            }
            PeerRequest::QueryAvailability { content } => self.send_available(content),
        }
    }

    fn take_ticket(&mut self, sealed: &[u8]) -> Result<(), UploadEnd> {
        let opened = lock(&self.shared.share.tickets).open(sealed, Instant::now());
        let Some(ticket) = opened.ok().filter(|ticket| ticket.downloader == self.downloader) else {
            return Ok(self.writer.message(&PeerResponse::TicketRefused)?);
        };
        if self.grants.len() + ticket.grants.len() > GRANTS_MAX {
            return Err(UploadEnd::Broke("it keeps too many grants"));
        }
        let first = u32::try_from(self.grants.len()).expect("at most GRANTS_MAX");
        self.grants.extend(ticket.grants);
        Ok(self.writer.message(&PeerResponse::TicketAccepted { first })?)
    }

    fn enqueue(&mut self, ranges: &[GroupRange]) -> Result<(), UploadEnd> {
        if ranges.len() > REQUEST_MAX_RANGES || self.queue.len() + ranges.len() > QUEUED_RANGES_MAX {
            return Err(UploadEnd::Broke("it wants too much at once"));
        }
        for range in ranges {
            let groups = group_count(self.grant(range.content)?.size);
            if range.first.checked_add(range.count).is_none_or(|end| end > groups) {
                return Err(UploadEnd::Broke("it wants what the content does not have"));
            }
        }
        self.queue.extend(ranges.iter().filter(|range| range.count > 0));
        Ok(())
    }

    fn grant(&self, content: u32) -> Result<&ContentRef, UploadEnd> {
        self.grants.get(content as usize).ok_or(UploadEnd::Broke("it asks for what it was not granted"))
    }

    /// Opens `content` unless it is open and still what was asked for.
    fn open(&mut self, content: u32) -> Result<Result<&OpenContent, RefusalReason>, UploadEnd> {
        let grant = self.grant(content)?.clone();
        let share = &self.shared.share;
        if !matches!(&self.open, Some((open, served)) if *open == content && share.is_still_valid(served, &grant.name))
        {
            self.open = None;
            let downloader = self.downloader.clone();
            let served = self.with_keepalive(content, |keep_waiting| share.serve(&grant, &downloader, keep_waiting))?;
            match served {
                Ok(served) => self.open = Some((content, served)),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let (_, served) = self.open.as_ref().expect("opened above");
        Ok(Ok(served))
    }

    /// Does what may take long while the downloader hears now and then that it is being done.
    fn with_keepalive<T>(
        &mut self,
        content: u32,
        work: impl FnOnce(&mut dyn FnMut() -> bool) -> T,
    ) -> Result<T, UploadEnd> {
        let mut told = Instant::now();
        let mut lost = None;
        let done = work(&mut || {
            if self.shared.is_stopping() {
                return false;
            }
            if told.elapsed() >= CHECKING_EVERY {
                told = Instant::now();
                let sent = self.writer.message(&PeerResponse::Hashing { content });
                lost = sent.and_then(|()| self.writer.flush()).err();
            }
            lost.is_none()
        });
        lost.map_or(Ok(done), |error| Err(error.into()))
    }

    fn refuse(&mut self, content: u32, reason: RefusalReason) -> Result<(), UploadEnd> {
        self.queue.retain(|range| range.content != content);
        self.open.take_if(|(open, _)| *open == content);
        Ok(self.writer.message(&PeerResponse::Refused { content, reason })?)
    }

    fn send_outline(&mut self, content: u32) -> Result<(), UploadEnd> {
        if let Err(reason) = self.open(content)? {
            return self.refuse(content, reason);
        }
        let Some((_, served)) = self.open.take() else { return Ok(()) };
        let share = &self.shared.share;
        let outline = self.with_keepalive(content, |keep_waiting| share.outline(&served, keep_waiting))?;
        self.open = Some((content, served));
        let outline = match outline {
            Ok(outline) => outline,
            Err(reason) => return self.refuse(content, reason),
        };
        for (first, hashes) in outline_parts(&outline, GROUP_HASHES_PART_MAX) {
            self.writer.message(&PeerResponse::GroupHashes { content, first, hashes: hashes.to_vec() })?;
        }
        Ok(())
    }

    fn send_available(&mut self, content: u32) -> Result<(), UploadEnd> {
        let count = group_count(self.grant(content)?.size);
        let served = match self.open(content)? {
            Ok(served) => served,
            Err(reason) => return self.refuse(content, reason),
        };
        let mut groups = Vec::new();
        if !served.is_whole() {
            groups.resize(count.div_ceil(8) as usize, 0u8);
            (0..count).filter(|&group| served.has(group)).for_each(|group| {
                groups[group as usize / 8] |= 1 << (group % 8);
            });
        }
        Ok(self.writer.message(&PeerResponse::Availability { content, groups })?)
    }

    /// Sends the next wanted group, or says why not.
    fn serve_group(&mut self) -> Result<(), UploadEnd> {
        let Some(range) = self.queue.front().copied() else { return Ok(()) };
        let GroupRange { content, first, count } = range;
        let size = self.grant(content)?.size;
        let served = match self.open(content)? {
            Ok(served) => served,
            Err(reason) => return self.refuse(content, reason),
        };
        let missing = (0..count).take_while(|&at| !served.has(first + at)).count();
        let missing = u32::try_from(missing).expect("at most `count`");
        self.advance(missing.max(1));
        if missing > 0 {
            return Ok(self.writer.message(&PeerResponse::NotAvailable { content, first, count: missing })?);
        }
        self.send_bytes(content, group_range(size, first))
    }

    /// The front of the queue is done with so many groups.
    fn advance(&mut self, groups: u32) {
        if let Some(front) = self.queue.front_mut() {
            front.first += groups;
            front.count -= groups;
            if front.count == 0 {
                self.queue.pop_front();
            }
        }
    }

    fn send_bytes(&mut self, content: u32, mut range: std::ops::Range<u64>) -> Result<(), UploadEnd> {
        let limiter = self.shared.limiter.as_ref();
        let most = limiter.map_or(RECORD_MAX_BYTES, super::rate::RateLimiter::piece_bytes);
        while range.start < range.end {
            let length = usize::try_from(range.end - range.start).map_or(most, |left| left.min(most));
            if let Some(limiter) = limiter {
                let wait = limiter.reserve(length);
                if !wait.is_zero() {
                    self.writer.flush()?;
                    limiter.wait(wait, &self.shared.stop);
                    self.check_shutdown()?;
                }
            }
            let Some((_, served)) = &self.open else { return Ok(()) };
            let is_last = range.start + length as u64 == range.end;
            let read = self.writer.data(content, range.start, length, |place| {
                served.read(place, range.start)?;
                // A group is sent to its end only if the file has stayed the same: nobody shall take it for a lie.
                if is_last && !served.is_unchanged() { Err(RefusalReason::Changed) } else { Ok(()) }
            })?;
            if let Err(reason) = read {
                return self.refuse(content, reason);
            }
            range.start += length as u64;
        }
        Ok(())
    }
}

const _: () = assert!(GROUPS_MAX / 8 < RECORD_MAX_BYTES as u64 - 64, "the largest AVAILABLE fits a record");

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
