//! One source of a plan: what it serves, what it owes, and how fast it is.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::{Assignment, FileId, SILENCE};

/// A source has as much in flight as it delivers in this time.
const AHEAD: Duration = Duration::from_millis(150);
/// Rates are measured over at least this long.
const RATE_WINDOW: Duration = Duration::from_millis(40);
/// In flight from a source whose rate is not known yet, bytes.
const FIRST_AHEAD_BYTES: u64 = 2 << 20;
/// Groups in flight from one source: at least, at most (large ones), at most (files of one group).
pub(super) const GROUPS_AHEAD_MIN: usize = 2;
const BYTES_AHEAD_MAX: u64 = 64 << 20;
const GROUPS_AHEAD_MAX: usize = 1_024;

/// A set of group numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn remove(&mut self, group: u32) {
        if let Some(word) = self.0.get_mut(group as usize / 64) {
            *word &= !(1 << (group % 64));
        }
    }

    /// Of a bit a group, the lowest first.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        Self(bytes.chunks(8).map(word).collect())
    }

    /// Whether the group is in it.
    pub fn contains(&self, group: u32) -> bool {
        self.0.get(group as usize / 64).is_some_and(|word| word & 1 << (group % 64) != 0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    No,
    /// It will serve the file once its ticket has been shown.
    Promised,
    Serves,
}

pub(super) struct SourcePlan {
    pub(super) is_gone: bool,
    pub(super) covers: Vec<Cover>,
    /// Files of which it has only some groups.
    pub(super) has_part: HashMap<FileId, Bits>,
    /// Asked for and not wholly arrived, in the order asked.
    pub(super) queue: VecDeque<Assignment>,
    pub(super) queued_bytes: u64,
    /// What has arrived since the front of the queue became the front, bytes.
    pub(super) front_bytes: u64,
    /// Bytes a second, once measured.
    pub(super) rate: Option<f64>,
    pub(super) window: (Instant, u64),
    pub(super) heard: Instant,
    /// Something of its queue was taken away: it must be told to forget what it has not begun.
    pub(super) must_cancel: bool,
    /// No file below this has anything to hand out to it.
    pub(super) next_file: FileId,
}

impl SourcePlan {
    /// One that serves none of `files` files yet.
    pub(super) fn new(now: Instant, files: usize) -> Self {
        Self {
            is_gone: false,
            covers: vec![Cover::No; files],
            has_part: HashMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            front_bytes: 0,
            rate: None,
            window: (now, 0),
            heard: now,
            must_cancel: false,
            next_file: 0,
        }
    }

    /// Bytes have come from it.
    pub(super) fn received(&mut self, now: Instant, bytes: u64) {
        self.heard = now;
        self.front_bytes += bytes;
        self.window.1 += bytes;
        let elapsed = now.saturating_duration_since(self.window.0);
        if elapsed >= RATE_WINDOW {
            let sample = self.window.1 as f64 / elapsed.as_secs_f64();
            self.rate = Some(self.rate.map_or(sample, |rate| (rate + sample) / 2.0));
            self.window = (now, 0);
        }
    }

    /// Whether it owes something and has not been heard of for a while.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        !self.queue.is_empty() && now.saturating_duration_since(self.heard) > SILENCE
    }

    /// Seconds until all of its queue will have arrived, and `more` bytes; endless when it has gone silent.
    pub(super) fn eta(&self, now: Instant, more: u64, fallback: f64) -> f64 {
        if self.is_silent(now) {
            return f64::INFINITY;
        }
        let left = self.queued_bytes.saturating_sub(self.front_bytes) + more;
        left as f64 / self.rate.unwrap_or(fallback).max(1.0)
    }

    pub(super) fn ahead_bytes(&self) -> u64 {
        match self.rate {
            Some(rate) => ((rate * AHEAD.as_secs_f64()) as u64).clamp(FIRST_AHEAD_BYTES / 2, BYTES_AHEAD_MAX),
            None => FIRST_AHEAD_BYTES,
        }
    }

    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.queue.len() < GROUPS_AHEAD_MIN
            || self.queue.len() < GROUPS_AHEAD_MAX && self.queued_bytes + bytes <= self.ahead_bytes()
    }

    /// Asking in larger lots costs less than one by one.
    pub(super) fn is_due(&self) -> bool {
        self.queue.len() < GROUPS_AHEAD_MIN
            || self.queue.len() < GROUPS_AHEAD_MAX / 2 && self.queued_bytes <= self.ahead_bytes() / 2
    }

    pub(super) fn push(&mut self, now: Instant, assignment: Assignment, bytes: u64) {
        if self.queue.is_empty() {
            (self.heard, self.window, self.front_bytes) = (now, (now, 0), 0);
        }
        self.queue.push_back(assignment);
        self.queued_bytes += bytes;
    }

    /// Takes an assignment out of the queue; whether it was there.
    pub(super) fn remove(&mut self, turn: u32, bytes: u64) -> bool {
        let Some(at) = self.queue.iter().position(|waiting| waiting.turn == turn) else {
            return false;
        };
        if at == 0 {
            self.front_bytes = 0;
        }
        self.queue.remove(at);
        self.queued_bytes -= bytes;
        true
    }
}
