//! What a source sends: every frame must be the reply to a request, in the order requested.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::SourceConnection;
use crate::client::download::coordinator::{SourceEnd, SourceEvent};
use crate::client::download::group_set::GroupSet;
use crate::client::download::scheduler::FileId;
use crate::client::download::writer::Chunk;
use crate::common::chunk_tree::{GroupHash, GroupHashes, group_count};
use crate::common::peer_message::PeerResponse;

/// A source that only says that it is hashing a file is lost after this time, and a second more for so many bytes of the
/// file.
const HASHING_TIMEOUT: Duration = Duration::from_secs(300);
const HASHING_MIN_BYTES_PER_SECOND: u64 = 10 << 20;
/// After this time the user is told that a source is hashing the file.
const HASHING_NOTE_AFTER: Duration = Duration::from_secs(5);

/// How long a source has sent nothing but that it is hashing a file. Bounded, since it could say so for ever.
#[derive(Default)]
pub(super) struct HashingWait {
    since: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum HashingState {
    Normal,
    /// The user should know.
    Long,
    TooLong,
}

impl HashingWait {
    /// The source is hashing a file of this size.
    fn continues(&mut self, now: Instant, size: u64) -> HashingState {
        let elapsed = now.saturating_duration_since(*self.since.get_or_insert(now));
        match elapsed {
            _ if elapsed > HASHING_TIMEOUT + Duration::from_secs(size / HASHING_MIN_BYTES_PER_SECOND) => {
                HashingState::TooLong
            }
            _ if elapsed > HASHING_NOTE_AFTER => HashingState::Long,
            _ => HashingState::Normal,
        }
    }

    /// The source has sent something else.
    pub(super) fn end(&mut self) {
        self.since = None;
    }
}

impl SourceConnection<'_> {
    /// The source has violated the protocol. The file it is sending is named in the report.
    pub(super) fn violation(&self, what: &str) -> SourceEnd {
        self.misbehaved(self.current_file, format!("it broke the protocol: {what}"))
    }

    fn misbehaved(&self, file: FileId, reason: String) -> SourceEnd {
        SourceEnd::Misbehaved { file, reason }
    }

    pub(super) fn on_data(&mut self, content: u32, offset: u64, at: Range<usize>) -> Result<(), SourceEnd> {
        let Some(pending) = self.pending_groups.front_mut() else {
            return Err(self.violation("unrequested data"));
        };
        let end = offset.saturating_add(at.len() as u64);
        if (content, offset) != (pending.content, pending.next) || end > pending.end {
            return Err(self.violation("data out of order"));
        }
        pending.next = end;
        let (assignment, is_last) = (pending.assignment, end == pending.end);
        let incomplete = pending.incomplete.clone();
        self.current_file = assignment.file;
        self.received_bytes += at.len() as u64;
        self.last_received = Instant::now();
        self.hashing.end();
        if is_last {
            self.pending_groups.pop_front();
            self.completed.push(assignment);
        }
        self.chunks.push(Chunk { assignment, incomplete, offset, at, is_last, is_copied: false });
        Ok(())
    }

    pub(super) fn on_message(&mut self, message: PeerResponse) -> Result<(), SourceEnd> {
        self.last_received = Instant::now();
        match message {
            PeerResponse::TicketAccepted { first } => {
                let files = self.answered_grant()?;
                if first as usize != self.contents.len() {
                    return Err(self.violation("wrong numbers for granted contents"));
                }
                self.add_contents(&files);
                self.report(SourceEvent::Granted(files));
            }
            PeerResponse::TicketRefused => {
                let mut files = self.answered_grant()?;
                files.retain(|file| !self.numbers.contains_key(file));
                self.report(SourceEvent::GrantRefused(files));
            }
            PeerResponse::GroupHashes { content, first, hashes } => self.on_outline(content, first, hashes)?,
            PeerResponse::Refused { content, reason } => {
                let Some(&file) = self.contents.get(content as usize) else {
                    return Err(self.violation("refused an unknown content"));
                };
                self.pending_groups.retain(|pending| pending.content != content);
                self.pending_outlines.remove(&content);
                self.pending_availability.retain(|&pending| pending != content);
                self.hashing.end();
                self.report(SourceEvent::Refused(file, reason));
            }
            PeerResponse::Busy { retry_ms } => return Err(SourceEnd::Busy { retry_ms }),
            PeerResponse::Availability { content, groups } => self.on_availability(content, &groups)?,
            PeerResponse::NotAvailable { content, first, count } => self.on_not_available(content, first, count)?,
            PeerResponse::Hashing { content } => self.on_hashing(content)?,
            PeerResponse::DirectPath { .. } => return Err(self.violation("an unrequested path")),
            PeerResponse::GroupsPassed { ranges } => self.on_groups_passed(&ranges)?,
            PeerResponse::Cancelled => {
                if !self.is_cancelling {
                    return Err(self.violation("unexpected cancel acknowledgement"));
                }
                self.is_cancelling = false;
                self.pending_groups.clear();
                self.report(SourceEvent::Cancelled);
            }
        }
        Ok(())
    }

    fn on_hashing(&mut self, content: u32) -> Result<(), SourceEnd> {
        let Some(&file) = self.contents.get(content as usize) else {
            return Err(self.violation("hashes an unknown content"));
        };
        match self.hashing.continues(self.last_received, self.jobs[file].item.content.size) {
            HashingState::Normal => {}
            HashingState::Long => self.report(SourceEvent::Hashing),
            HashingState::TooLong => {
                return Err(SourceEnd::Lost("it has been checking the file for too long".to_owned()));
            }
        }
        Ok(())
    }

    /// The files of the ticket that a reply belongs to.
    fn answered_grant(&mut self) -> Result<Vec<FileId>, SourceEnd> {
        self.pending_grants.pop_front().ok_or_else(|| self.violation("reply without a pending ticket"))
    }

    fn on_availability(&mut self, content: u32, groups: &[u8]) -> Result<(), SourceEnd> {
        let Some(at) = self.pending_availability.iter().position(|&pending| pending == content) else {
            return Err(self.violation("unrequested availability"));
        };
        self.pending_availability.swap_remove(at);
        let file = self.contents[content as usize];
        let count = group_count(self.jobs[file].item.content.size);
        let groups = match groups {
            [] => None,
            groups if groups.len() == count.div_ceil(8) as usize => Some(GroupSet::from_bytes(groups)),
            _ => return Err(self.violation("availability bitmap has the wrong length")),
        };
        self.report(SourceEvent::Availability(file, groups));
        Ok(())
    }

    /// The source skips requested groups that it does not have yet.
    fn on_not_available(&mut self, content: u32, first: u32, count: u32) -> Result<(), SourceEnd> {
        let Some(&file) = self.contents.get(content as usize) else {
            return Err(self.violation("availability for an unknown content"));
        };
        let mut skipped = Vec::new();
        for group in first..first.saturating_add(count) {
            let pending = self.pending_groups.pop_front_if(|pending| {
                pending.content == content && pending.assignment.group == group && pending.next < pending.end
            });
            let Some(pending) = pending else { return Err(self.violation("skipped an unrequested group")) };
            skipped.push(pending.assignment);
        }
        self.report(SourceEvent::NotAvailable(file, skipped));
        Ok(())
    }

    fn on_outline(&mut self, content: u32, first: u32, hashes: Vec<GroupHash>) -> Result<(), SourceEnd> {
        let Some(received) = self.pending_outlines.get_mut(&content) else {
            return Err(self.violation("unrequested outline"));
        };
        let file = self.contents[content as usize];
        self.current_file = file;
        self.hashing.end();
        let published = &self.jobs[file].item.content;
        let count = group_count(published.size) as usize;
        if first as usize != received.len() || hashes.is_empty() || received.len() + hashes.len() > count {
            return Err(self.violation("outline parts out of order"));
        }
        received.extend(hashes);
        if received.len() < count {
            return Ok(());
        }
        let hashes = self.pending_outlines.remove(&content).expect("looked up above");
        let Some(outline) = GroupHashes::verify(published.hash, published.size, hashes) else {
            return Err(self.misbehaved(file, "its outline does not match the published hash".into()));
        };
        self.report(SourceEvent::Outline(file, outline));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_hashes_for_ever_is_told_of_and_given_up() {
        let (start, size) = (Instant::now(), 100 * HASHING_MIN_BYTES_PER_SECOND);
        let mut hashing = HashingWait::default();
        let mut after = |seconds| hashing.continues(start + Duration::from_secs(seconds), size);
        assert_eq!([0, 5, 6, 400, 401].map(&mut after), {
            use HashingState::{Long, Normal, TooLong};
            [Normal, Normal, Long, Long, TooLong]
        });
        hashing.end();
        assert_eq!(hashing.continues(start + Duration::from_secs(402), size), HashingState::Normal);
    }
}
