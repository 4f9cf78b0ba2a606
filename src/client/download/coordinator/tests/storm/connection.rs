//! One connection of the simulated batch: what `source::run_source` and a peer do together, in virtual time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::*;
use super::plan::{Conduct, Ms};

/// A group that takes longer is reported in parts.
const PART_MS: Ms = 100;

/// What the peer owes, in the order requested.
pub(super) enum Reply {
    Group { assignment: Assignment, incomplete: Option<Arc<IncompleteFile>>, left_ms: Ms },
    Outline(FileId),
    Availability(FileId),
    Ticket(Vec<FileId>),
    Cancelled,
}

pub(super) struct SimulatedConnection {
    pub source: SourceId,
    pub peer: usize,
    pub conduct: Conduct,
    pub is_connected: bool,
    pub granted: BTreeSet<FileId>,
    pub queue: VecDeque<Reply>,
    pub sent_groups: u32,
    /// A reply is under way.
    pub is_sending: bool,
    /// When the last received group is stored.
    pub stored_at: Instant,
    /// Nothing is stored any more.
    pub is_corrupt: bool,
    pub is_ended: bool,
}

/// What comes of the peer's next reply.
pub(super) enum Outcome {
    Events(Vec<SourceEvent>),
    Outline(FileId),
    /// A group has arrived, right or not.
    Group {
        assignment: Assignment,
        incomplete: Option<Arc<IncompleteFile>>,
        bytes: u64,
        is_right: bool,
    },
    End(SourceEnd),
    /// It sends nothing any more.
    Silence,
}

impl SimulatedConnection {
    pub fn new(source: SourceId, peer: usize, conduct: Conduct, now: Instant) -> Self {
        Self {
            source,
            peer,
            conduct,
            is_connected: false,
            granted: BTreeSet::new(),
            queue: VecDeque::new(),
            sent_groups: 0,
            is_sending: false,
            stored_at: now,
            is_corrupt: false,
            is_ended: false,
        }
    }

    /// Takes a command in, except for [`SourceCommand::Stop`].
    pub fn follow(&mut self, command: SourceCommand, group_ms: Ms) {
        match command {
            SourceCommand::RequestGroups(requests) => {
                for GroupRequest { assignment, incomplete } in requests {
                    self.queue.push_back(Reply::Group { assignment, incomplete, left_ms: group_ms });
                }
            }
            SourceCommand::RequestOutline(file) => self.queue.push_back(Reply::Outline(file)),
            SourceCommand::QueryAvailability(file) => self.queue.push_back(Reply::Availability(file)),
            SourceCommand::Grant(offer) => self.queue.push_back(Reply::Ticket(offer.files)),
            SourceCommand::Cancel => {
                let mut at = 0;
                // What has begun is sent to its end.
                self.queue.retain(|reply| {
                    at += 1;
                    at == 1 || !matches!(reply, Reply::Group { .. })
                });
                self.queue.push_back(Reply::Cancelled);
            }
            SourceCommand::Stop => {}
        }
    }

    /// How long the next part of the reply takes.
    pub fn part_ms(&self) -> Ms {
        match self.queue.front() {
            Some(Reply::Group { left_ms, .. }) => (*left_ms).min(PART_MS),
            _ => 0,
        }
    }

    /// What the peer has sent next. `has`: whether it has a group; `file_size`: of a file; `is_forgotten`: it has lost it.
    pub fn send(
        &mut self,
        group_ms: Ms,
        group_bytes: impl Fn(Assignment) -> u64,
        has: impl Fn(FileId, u32) -> bool,
        is_forgotten: impl Fn(FileId) -> bool,
    ) -> Outcome {
        if let Some(outcome) = self.misconduct() {
            return outcome;
        }
        let refused = match (self.conduct, self.requested_file()) {
            (Conduct::LacksFiles(reason), Some(file)) => Some((file, reason)),
            (_, Some(file)) if is_forgotten(file) => Some((file, RefusalReason::NotShared)),
            _ => None,
        };
        if let Some((file, reason)) = refused {
            self.queue.retain(|reply| requested_file(reply) != Some(file));
            return Outcome::Events(vec![SourceEvent::Refused(file, reason)]);
        }
        match self.queue.pop_front().expect("a reply is due") {
            Reply::Group { assignment, incomplete, left_ms } => {
                self.send_group(assignment, incomplete, left_ms, group_ms, group_bytes(assignment), has)
            }
            Reply::Ticket(files) => {
                self.granted.extend(&files);
                Outcome::Events(vec![SourceEvent::Granted(files)])
            }
            Reply::Cancelled => {
                self.queue.retain(|reply| !matches!(reply, Reply::Group { .. }));
                Outcome::Events(vec![SourceEvent::Cancelled])
            }
            Reply::Availability(file) => {
                let groups: u64 = (0..64).filter(|&group| has(file, group)).fold(0, |bits, group| bits | 1 << group);
                let is_all = groups == u64::MAX || self.conduct == Conduct::BreaksPromises;
                let groups = (!is_all).then(|| GroupSet::from_bytes(&groups.to_le_bytes()));
                Outcome::Events(vec![SourceEvent::Availability(file, groups)])
            }
            Reply::Outline(file) => Outcome::Outline(file),
        }
    }

    fn send_group(
        &mut self,
        assignment: Assignment,
        incomplete: Option<Arc<IncompleteFile>>,
        left_ms: Ms,
        group_ms: Ms,
        bytes: u64,
        has: impl Fn(FileId, u32) -> bool,
    ) -> Outcome {
        if self.conduct == Conduct::BreaksPromises || !has(assignment.file, assignment.group) {
            return Outcome::Events(vec![SourceEvent::NotAvailable(assignment.file, vec![assignment])]);
        }
        let part = left_ms.min(PART_MS);
        let sent = |left: Ms| bytes * (group_ms - left) / group_ms;
        let (left, part_bytes) = (left_ms - part, sent(left_ms - part) - sent(left_ms));
        if left > 0 {
            self.queue.push_front(Reply::Group { assignment, incomplete, left_ms: left });
            return Outcome::Events(vec![SourceEvent::Received { bytes: part_bytes, completed: Vec::new() }]);
        }
        let is_right = !matches!(self.conduct, Conduct::SendsWrongBytes { after } if after <= self.sent_groups);
        self.sent_groups += 1;
        Outcome::Group { assignment, incomplete, bytes: part_bytes, is_right }
    }

    /// What a peer that is not honest does instead of the reply.
    fn misconduct(&mut self) -> Option<Outcome> {
        let is_due = |after: u32| after <= self.sent_groups;
        match self.conduct {
            Conduct::Busy { after, retry_ms } if is_due(after) => Some(Outcome::End(SourceEnd::Busy { retry_ms })),
            Conduct::Cuts { after } if is_due(after) => Some(Outcome::End(lost("it closed the connection"))),
            Conduct::Stalls { after } if is_due(after) => Some(Outcome::Silence),
            Conduct::BreaksProtocol { after } if is_due(after) => {
                let file = self.requested_file().or(self.granted.first().copied())?;
                let reason = "it broke the protocol".to_owned();
                Some(Outcome::End(SourceEnd::Misbehaved { file, reason }))
            }
            _ => None,
        }
    }

    fn requested_file(&self) -> Option<FileId> {
        self.queue.front().and_then(requested_file)
    }

    /// The time that its last results take, from now on.
    pub fn ends_after(&self, now: Instant) -> Duration {
        self.stored_at.saturating_duration_since(now)
    }
}

fn requested_file(reply: &Reply) -> Option<FileId> {
    match reply {
        Reply::Group { assignment, .. } => Some(assignment.file),
        Reply::Outline(file) | Reply::Availability(file) => Some(*file),
        Reply::Ticket(_) | Reply::Cancelled => None,
    }
}

pub(super) fn lost(reason: &str) -> SourceEnd {
    SourceEnd::Lost(reason.to_owned())
}
