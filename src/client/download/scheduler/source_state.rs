//! One source of the scheduler: what it serves, what it owes, and how fast it is.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Assignment, FileId, STALL_TIMEOUT, STALL_TIMEOUT_MAX};
use crate::client::download::group_set::GroupSet;

/// A source has as much in flight as it delivers in this time.
const PIPELINE_TIME: Duration = Duration::from_millis(150);
/// Rates are measured over at least this time.
const RATE_WINDOW: Duration = Duration::from_millis(40);
/// In flight from a source whose rate is not known yet, bytes.
const PIPELINE_INITIAL_BYTES: u64 = 2 << 20;
/// Limits of what is in flight from one source.
pub(super) const PIPELINE_MIN_GROUPS: usize = 2;
const PIPELINE_MAX_GROUPS: usize = 1_024;
const PIPELINE_MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    None,
    /// The source will serve the file once it has accepted its ticket.
    Announced,
    Serves,
}

pub(super) struct SourceState {
    pub(super) is_removed: bool,
    /// One for each file.
    pub(super) coverage: Vec<Coverage>,
    /// Files of which it has only these groups.
    pub(super) partial: HashMap<FileId, GroupSet>,
    /// Requested and not completely received, in the order requested.
    pub(super) queue: VecDeque<Assignment>,
    pub(super) queued_bytes: u64,
    /// Bytes received since the front of the queue became the front.
    pub(super) front_bytes: u64,
    /// Bytes a second, once measured.
    rate: Option<f64>,
    window_start: Instant,
    window_bytes: u64,
    pub(super) last_received: Instant,
    /// Since when it has owed something and has not replied yet.
    asked_at: Option<Instant>,
    /// How long it took until the first bytes came, the last time that it was asked while it owed nothing.
    reply_time: Duration,
    /// Assignments were taken from its queue: it must be sent a cancel.
    pub(super) must_cancel: bool,
    /// The files before this one are finished, or it does not serve them.
    pub(super) next_file: FileId,
}

impl SourceState {
    /// A source that serves none of `files` files yet.
    pub(super) fn new(now: Instant, files: usize) -> Self {
        Self {
            is_removed: false,
            coverage: vec![Coverage::None; files],
            partial: HashMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            front_bytes: 0,
            rate: None,
            window_start: now,
            window_bytes: 0,
            last_received: now,
            asked_at: None,
            reply_time: Duration::ZERO,
            must_cancel: false,
            next_file: 0,
        }
    }

    pub(super) fn serves(&self, file: FileId) -> bool {
        !self.is_removed && self.coverage[file] != Coverage::None
    }

    pub(super) fn on_bytes(&mut self, now: Instant, bytes: u64) {
        self.last_received = now;
        if let Some(asked_at) = self.asked_at.take() {
            self.reply_time = now.saturating_duration_since(asked_at);
        }
        self.front_bytes += bytes;
        self.window_bytes += bytes;
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed >= RATE_WINDOW {
            let sample = self.window_bytes as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(sample, |rate| (rate + sample) / 2.0));
            (self.window_start, self.window_bytes) = (now, 0);
        }
    }

    /// Whether it owes groups and has sent nothing for a while.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        !self.queue.is_empty() && now.saturating_duration_since(self.last_received) > self.stall_timeout()
    }

    /// Longer than its replies take: two sources with slow replies would otherwise take a group from each other for ever. At
    /// most [`STALL_TIMEOUT_MAX`], so that no source delays the end of a download by replying late.
    pub(super) fn stall_timeout(&self) -> Duration {
        (2 * self.reply_time).clamp(STALL_TIMEOUT, STALL_TIMEOUT_MAX)
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Seconds until its queue and `more` bytes will have arrived; infinite when it has stalled.
    pub(super) fn eta(&self, now: Instant, more: u64, fallback_rate: f64) -> f64 {
        if self.is_stalled(now) {
            return f64::INFINITY;
        }
        let left = self.queued_bytes.saturating_sub(self.front_bytes) + more;
        left as f64 / self.rate.unwrap_or(fallback_rate).max(1.0)
    }

    fn pipeline_bytes(&self) -> u64 {
        match self.rate {
            Some(rate) => {
                let bytes = (rate * PIPELINE_TIME.as_secs_f64()) as u64;
                bytes.clamp(PIPELINE_INITIAL_BYTES / 2, PIPELINE_MAX_BYTES)
            }
            None => PIPELINE_INITIAL_BYTES,
        }
    }

    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.queue.len() < PIPELINE_MIN_GROUPS
            || self.queue.len() < PIPELINE_MAX_GROUPS && self.queued_bytes + bytes <= self.pipeline_bytes()
    }

    /// Whether enough room is free to request more: fewer, larger requests cost less.
    pub(super) fn is_due(&self) -> bool {
        self.queue.len() < PIPELINE_MIN_GROUPS
            || self.queue.len() < PIPELINE_MAX_GROUPS / 2 && self.queued_bytes <= self.pipeline_bytes() / 2
    }

    pub(super) fn enqueue(&mut self, now: Instant, assignment: Assignment, bytes: u64) {
        if self.queue.is_empty() {
            (self.last_received, self.front_bytes) = (now, 0);
            self.asked_at = Some(now);
            (self.window_start, self.window_bytes) = (now, 0);
        }
        self.queue.push_back(assignment);
        self.queued_bytes += bytes;
    }

    /// Takes the assignment of `bytes` bytes out of the queue, if it is there.
    pub(super) fn dequeue(&mut self, id: u32, bytes: u64) -> Option<Assignment> {
        let at = self.queue.iter().position(|queued| queued.id == id)?;
        if at == 0 {
            self.front_bytes = 0;
        }
        self.queued_bytes -= bytes;
        self.queue.remove(at)
    }
}
