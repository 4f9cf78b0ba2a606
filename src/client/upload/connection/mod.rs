//! One connection of a downloader, on its own thread, from its first request to its end.
//!
//! Defended: every content is authorized when it is requested ([`UploadService::open_content`]). Queues and grants are
//! bounded, and a downloader that exceeds them is disconnected. One that receives next to nothing, or requests nothing,
//! loses its slot. A slow downloader delays no other. Protocol violations are logged at debug.
//!
//! `passing` hands out open files in place of their bytes.
//!
//! [`UploadService::open_content`]: super::UploadService::open_content

mod passing;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::UploadService;
use super::direct::DirectPath;
use super::limits::{RateLimiter, UploadLimits};
use super::pending::{AuthenticatedPeer, BUSY};
use super::reports::UploadReports;
use super::serve::{KeepAlive, OpenContent, ServeError, UploadEnd, message_parts};
use super::slots::UploadSlot;
use crate::client::transport::{RecordReader, RecordWriter, TransportError, Waker};
use crate::common::chunk_tree::{GroupHash, group_count, group_range};
use crate::common::limits::{GROUPS_MAX, RECORD_MAX_BYTES};
use crate::common::peer_crypto::{Frame, data_record_bytes, message_record_bytes};
use crate::common::peer_message::{
    GRANTS_MAX, GROUP_HASHES_PART_MAX, GroupRange, PeerRequest, PeerResponse, QUEUED_RANGES_MAX, REQUEST_MAX_RANGES,
    RefusalReason,
};
use crate::common::types::{ContentRef, UserName};

/// How often the content of a file that seems to change is looked at for one chunk group.
const CONTENT_CHECKS_MAX: u32 = 3;
/// Between two [`PeerResponse::Hashing`] while a file is hashed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// What all uploads share.
pub(super) struct UploadContext {
    pub(super) service: Arc<UploadService>,
    pub(super) limits: UploadLimits,
    pub(super) rate_limiter: Option<Arc<RateLimiter>>,
    /// Disconnected when the listener shuts down.
    pub(super) shutdown: Receiver<Infallible>,
}

impl UploadContext {
    /// Counts bytes that are sent whatever the rate.
    pub(super) fn charge(&self, bytes: usize, now: Instant) {
        if let Some(limiter) = &self.rate_limiter {
            limiter.reserve(bytes, now);
        }
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.try_recv() == Err(TryRecvError::Disconnected)
    }
}

/// A downloader with a valid ticket that has proven to hold its key, and has a slot.
pub(super) struct AcceptedUpload {
    pub(super) peer: AuthenticatedPeer,
    pub(super) first_request: PeerRequest,
    pub(super) slot: UploadSlot,
    /// Wakes the upload when another downloader waits for a slot.
    pub(super) waker: Arc<Waker>,
}

/// Serves one downloader until the connection ends.
pub(super) fn run(context: &UploadContext, accepted: AcceptedUpload) {
    let AcceptedUpload { peer: AuthenticatedPeer { ticket, reader, writer }, first_request, slot, waker } = accepted;
    let mut upload = Upload {
        context,
        reports: UploadReports::new(context.service.events(), &context.service.active, ticket.downloader.clone()),
        downloader: ticket.downloader,
        reader,
        writer,
        waker,
        slot,
        grants: ticket.grants,
        queue: VecDeque::new(),
        open: None,
        direct: None,
    };
    let Err(end) = upload.serve(first_request);
    log::debug!("an upload to {} ended: {end}", upload.downloader);
    let Upload { reports, queue, .. } = upload;
    reports.end(|content| queue.iter().any(|range| range.content == content));
}

struct Upload<'a> {
    context: &'a UploadContext,
    downloader: UserName,
    reader: RecordReader<PeerRequest>,
    writer: RecordWriter,
    waker: Arc<Waker>,
    /// All granted contents; messages refer to them by index.
    grants: Vec<ContentRef>,
    /// What was requested and is not yet sent, in the order of the requests.
    queue: VecDeque<GroupRange>,
    /// The content served last: most groups of a content are requested in a row.
    open: Option<(u32, OpenContent)>,
    reports: UploadReports<'a>,
    /// Where open files are passed.
    direct: Option<Arc<DirectPath>>,
    /// The last field: the connection ends before the slot is free.
    slot: UploadSlot,
}

impl Upload<'_> {
    fn serve(&mut self, first_request: PeerRequest) -> Result<Infallible, UploadEnd> {
        let limits = &self.context.limits;
        self.writer.set_stall_limit(limits.stall, limits.stall_min_bytes).map_err(TransportError::from)?;
        self.handle_request(first_request)?;
        loop {
            while self.reader.poll_record()?.is_ready() {
                let Frame::Message(request) = self.reader.next()? else {
                    return Err(UploadEnd::Violation("it sent data"));
                };
                self.handle_request(request)?;
                self.check_shutdown()?;
            }
            self.check_shutdown()?;
            match self.queue.front().copied() {
                Some(_) if self.slot.must_yield(Instant::now(), limits) => return Err(self.yield_slot()?),
                Some(_) if self.pass_groups()? => {}
                Some(range) => {
                    let served = self.serve_next(range);
                    self.or_refuse(range.content, served)?;
                }
                None => {
                    self.writer.flush()?;
                    self.wait_for_request()?;
                }
            }
        }
    }

    /// Ends the connection, since another downloader waits for the slot.
    fn yield_slot(&mut self) -> Result<UploadEnd, UploadEnd> {
        self.slot.turn().begin_sending(Instant::now(), 0);
        self.send(&BUSY)?;
        self.writer.flush()?;
        Ok(UploadEnd::Preempted)
    }

    /// Sends a message within the rate.
    fn send(&mut self, message: &PeerResponse) -> Result<(), UploadEnd> {
        self.wait_for_rate(message_record_bytes(message))?;
        Ok(self.writer.message(message)?)
    }

    fn check_shutdown(&self) -> Result<(), UploadEnd> {
        if self.context.is_shutting_down() { Err(UploadEnd::ShuttingDown) } else { Ok(()) }
    }

    fn wait_for_request(&mut self) -> Result<(), UploadEnd> {
        let (limits, since) = (&self.context.limits, Instant::now());
        while self.reader.poll_record()?.is_pending() {
            self.check_shutdown()?;
            let (now, idle) = (Instant::now(), since.elapsed());
            if idle >= limits.idle {
                return Err(UploadEnd::Idle);
            }
            let must_yield = idle >= limits.idle_yield;
            if must_yield && self.context.service.slots.has_waiters(now, 2 * limits.idle_yield) {
                return Err(self.yield_slot()?);
            }
            let until = if must_yield { limits.idle } else { limits.idle_yield.min(limits.idle) };
            self.waker.wait(self.reader.stream(), Some(until - idle)).map_err(TransportError::from)?;
        }
        Ok(())
    }

    fn handle_request(&mut self, request: PeerRequest) -> Result<(), UploadEnd> {
        match request {
            PeerRequest::AddTicket { ticket } => self.add_ticket(&ticket),
            PeerRequest::GetGroupHashes { content } => {
                let sent = self.send_group_hashes(content);
                self.or_refuse(content, sent)
            }
            PeerRequest::RequestGroups { ranges } => self.enqueue(&ranges),
            PeerRequest::Cancel => {
                self.queue.clear();
                self.send(&PeerResponse::Cancelled)
            }
            PeerRequest::QueryAvailability { content } => {
                let sent = self.send_availability(content);
                self.or_refuse(content, sent)
            }
            PeerRequest::OpenDirectPath => self.open_direct_path(),
        }
    }

    fn add_ticket(&mut self, sealed: &[u8]) -> Result<(), UploadEnd> {
        let opened = self.context.service.open_ticket(sealed, Instant::now());
        let Some(ticket) = opened.ok().filter(|ticket| ticket.downloader == self.downloader) else {
            return self.send(&PeerResponse::TicketRefused);
        };
        let first = u32::try_from(self.grants.len()).expect("at most GRANTS_MAX");
        if self.grants.len() + ticket.grants.len() > GRANTS_MAX {
            return Err(UploadEnd::Violation("too many grants"));
        }
        self.grants.extend(ticket.grants);
        self.send(&PeerResponse::TicketAccepted { first })
    }

    fn enqueue(&mut self, ranges: &[GroupRange]) -> Result<(), UploadEnd> {
        if ranges.len() > REQUEST_MAX_RANGES || self.queue.len() + ranges.len() > QUEUED_RANGES_MAX {
            return Err(UploadEnd::Violation("too many requested ranges"));
        }
        for range in ranges {
            let groups = group_count(self.grant(range.content)?.size);
            if range.first.checked_add(range.count).is_none_or(|end| end > groups) {
                return Err(UploadEnd::Violation("a requested range beyond the end of the content"));
            }
        }
        self.queue.extend(ranges.iter().filter(|range| range.count > 0));
        Ok(())
    }

    fn grant(&self, content: u32) -> Result<&ContentRef, UploadEnd> {
        self.grants.get(content as usize).ok_or(UploadEnd::Violation("a request for a content that is not granted"))
    }

    /// Opens `content` unless it is open and still valid.
    fn open(&mut self, content: u32) -> Result<&OpenContent, ServeError> {
        let (context, grant) = (self.context, self.grant(content)?.clone());
        let is_valid = |open: &OpenContent| context.service.is_still_valid(open, &grant.name);
        if !matches!(&self.open, Some((open, opened)) if *open == content && is_valid(opened)) {
            self.open = None;
            let mut send = || send_hashing(context, &mut self.writer, content);
            let mut keep_alive =
                KeepAlive { shutdown: &context.shutdown, interval: KEEPALIVE_INTERVAL, send: &mut send };
            let opened = context.service.open_content(&grant, &self.downloader, &mut keep_alive)?;
            self.open = Some((content, opened));
        }
        Ok(&self.open.as_ref().expect("opened above").1)
    }

    /// Sends a refusal if there is one. It drops the content's queued ranges.
    fn or_refuse(&mut self, content: u32, served: Result<(), ServeError>) -> Result<(), UploadEnd> {
        match served {
            Ok(()) => Ok(()),
            Err(ServeError::Closed(end)) => Err(end),
            Err(ServeError::Refused(reason)) => {
                self.queue.retain(|range| range.content != content);
                self.open.take_if(|(open, _)| *open == content);
                self.reports.refused(content);
                if reason == RefusalReason::Changed {
                    self.context.service.report_changed(self.grant(content)?);
                }
                self.send(&PeerResponse::Refused { content, reason })
            }
        }
    }

    fn send_group_hashes(&mut self, content: u32) -> Result<(), ServeError> {
        self.open(content)?;
        let context = self.context;
        let Some((_, opened)) = &self.open else { return Ok(()) };
        let mut send = || send_hashing(context, &mut self.writer, content);
        let mut keep_alive =
            KeepAlive { shutdown: &self.context.shutdown, interval: KEEPALIVE_INTERVAL, send: &mut send };
        let hashes = self.context.service.group_hashes(opened, &mut keep_alive)?;
        let part_max = (self.piece_max() / size_of::<GroupHash>()).clamp(1, GROUP_HASHES_PART_MAX);
        for (first, hashes) in message_parts(&hashes, part_max) {
            self.slot.turn().begin_sending(Instant::now(), size_of_val(hashes) as u64);
            self.send(&PeerResponse::GroupHashes { content, first, hashes: hashes.to_vec() })?;
        }
        self.slot.turn().end_sending();
        Ok(())
    }

    fn send_availability(&mut self, content: u32) -> Result<(), ServeError> {
        let count = group_count(self.grant(content)?.size);
        let opened = self.open(content)?;
        let mut groups = Vec::new();
        if !opened.is_complete() {
            groups.resize(count.div_ceil(8) as usize, 0u8);
            for group in (0..count).filter(|&group| opened.has_group(group)) {
                groups[group as usize / 8] |= 1 << (group % 8);
            }
        }
        Ok(self.send(&PeerResponse::Availability { content, groups })?)
    }

    /// Sends the first group of the range at the front of the queue, or reports groups that are not available.
    fn serve_next(&mut self, range: GroupRange) -> Result<(), ServeError> {
        let GroupRange { content, first, count } = range;
        let size = self.grant(content)?.size;
        let opened = self.open(content)?;
        let missing = (0..count).take_while(|&at| !opened.has_group(first + at)).count();
        let missing = u32::try_from(missing).expect("at most `count`");
        self.advance_queue(missing.max(1));
        if missing > 0 {
            return Ok(self.send(&PeerResponse::NotAvailable { content, first, count: missing })?);
        }
        let range = group_range(size, first);
        let bytes = range.end - range.start;
        self.reports.begin_group(content, &self.grants[content as usize]);
        self.send_bytes(content, range)?;
        self.reports.end_group(content, bytes);
        Ok(())
    }

    /// Removes a number of groups from the front of the queue.
    fn advance_queue(&mut self, groups: u32) {
        if let Some(front) = self.queue.front_mut() {
            front.first += groups;
            front.count -= groups;
            if front.count == 0 {
                self.queue.pop_front();
            }
        }
    }

    fn send_bytes(&mut self, content: u32, mut range: Range<u64>) -> Result<(), ServeError> {
        let mut checks = 0;
        let piece_max = self.piece_max();
        self.slot.turn().begin_sending(Instant::now(), range.end - range.start);
        while range.start < range.end {
            let length = usize::try_from(range.end - range.start).map_or(piece_max, |left| left.min(piece_max));
            self.wait_for_rate(data_record_bytes(length))?;
            let Some((_, opened)) = &self.open else { return Ok(()) };
            let is_last = range.start + length as u64 == range.end;
            let sent = self.writer.data(content, range.start, length, |buffer| -> Result<(), ServeError> {
                opened.read(buffer, range.start)?;
                // The last bytes of a group are sent only if the file has not changed, so that the downloader does not
                // take the change for a mismatch.
                if is_last && !opened.is_unchanged() { Err(RefusalReason::Changed.into()) } else { Ok(()) }
            });
            match sent {
                // A change of the file's times or mode is none of its content: that is looked at before the rest is sent.
                Err(ServeError::Refused(RefusalReason::Changed)) if checks < CONTENT_CHECKS_MAX => {
                    checks += 1;
                    let began = Instant::now();
                    self.open(content)?;
                    self.slot.turn().add_own_delay(began.elapsed());
                    continue;
                }
                sent => sent?,
            }
            range.start += length as u64;
        }
        self.slot.turn().end_sending();
        Ok(())
    }

    /// Most bytes of one record.
    fn piece_max(&self) -> usize {
        self.context.rate_limiter.as_ref().map_or(RECORD_MAX_BYTES, |limiter| limiter.piece_bytes())
    }

    /// Waits until the rate allows for this many bytes.
    fn wait_for_rate(&mut self, bytes: usize) -> Result<(), UploadEnd> {
        let Some(limiter) = &self.context.rate_limiter else { return Ok(()) };
        let delay = limiter.reserve(bytes, Instant::now());
        if delay.is_zero() {
            return Ok(());
        }
        self.writer.flush()?;
        self.slot.turn().add_own_delay(delay);
        match self.context.shutdown.recv_timeout(delay) {
            Ok(never) => match never {},
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(UploadEnd::ShuttingDown),
        }
    }
}

fn send_hashing(context: &UploadContext, writer: &mut RecordWriter, content: u32) -> Result<(), TransportError> {
    let message = PeerResponse::Hashing { content };
    context.charge(message_record_bytes(&message), Instant::now());
    writer.message(&message)?;
    writer.flush()
}

const _: () = assert!(GROUPS_MAX / 8 < RECORD_MAX_BYTES as u64 - 64, "the largest Availability fits a record");

#[cfg(test)]
mod tests;
