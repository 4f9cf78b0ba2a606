//! What a source sends: every frame must be the answer to something that was asked for, in the order asked.

use std::ops::Range;
use std::time::Instant;

use super::{Link, TELL_EVERY, broke};
use crate::client::download::run::End;
use crate::client::download::scheduler::Bits;
use crate::client::download::writer::Piece;
use crate::common::chunk_tree::{GroupHash, GroupHashes, group_count};
use crate::common::peer_message::{PeerResponse, RefusalReason};

impl Link<'_, '_> {
    pub(super) fn take_data(&mut self, content: u32, offset: u64, at: Range<usize>) -> Result<(), End> {
        let Some(owed) = self.owed.front_mut() else {
            return Err(broke("data nobody asked for"));
        };
        let end = offset.saturating_add(at.len() as u64);
        if (content, offset) != (owed.content, owed.next) || end > owed.end {
            return Err(broke("data out of order"));
        }
        owed.next = end;
        let (assignment, is_last) = (owed.assignment, end == owed.end);
        self.file = assignment.file;
        self.untold += at.len() as u64;
        self.heard = Instant::now();
        let mut is_wanted = true;
        if is_last || self.heard.duration_since(self.told) >= TELL_EVERY {
            let mut state = self.run.state();
            state.plan.received(self.heard, self.id, self.untold);
            if is_last {
                self.owed.pop_front();
                is_wanted = state.plan.arrived(self.id, assignment);
                self.is_due = true;
            }
            self.is_due |= state.plan.must_cancel(self.id);
            (self.untold, self.told) = (0, self.heard);
        }
        self.batch.push(Piece { assignment, offset, at, is_last, is_wanted });
        Ok(())
    }

    pub(super) fn take_message(&mut self, message: PeerResponse) -> Result<(), End> {
        self.heard = Instant::now();
        self.is_due = true;
        match message {
            PeerResponse::TicketAccepted { first } => {
                let Some(files) = self.shown.pop_front() else { return Err(broke("an answer to no ticket")) };
                if first as usize != self.contents.len() {
                    return Err(broke("wrong numbers for granted contents"));
                }
                let mut state = self.run.state();
                self.granted(&mut state.plan, files);
            }
            PeerResponse::TicketRefused => {
                let Some(files) = self.shown.pop_front() else { return Err(broke("an answer to no ticket")) };
                let mut state = self.run.state();
                files.into_iter().filter(|file| !self.numbers.contains_key(file)).for_each(|file| {
                    state.plan.uncover(self.id, file);
                });
            }
            PeerResponse::GroupHashes { content, first, hashes } => self.take_outline(content, first, hashes)?,
            PeerResponse::Refused { content, reason } => {
                let Some(&file) = self.contents.get(content as usize) else {
                    return Err(broke("a refusal of nothing"));
                };
                self.owed.retain(|owed| owed.content != content);
                self.outlines.remove(&content);
                self.partial.remove(&content);
                let is_news = self.run.cannot_serve(self.id, &self.user, file, &reason.to_string());
                if is_news && reason == RefusalReason::Changed {
                    self.run.progress.source_dropped(&self.user, &self.run.jobs[file].name, &reason.to_string());
                }
            }
            PeerResponse::Busy { retry_ms } => return Err(End::Busy(retry_ms)),
            PeerResponse::Availability { content, groups } => self.take_available(content, &groups)?,
            PeerResponse::NotAvailable { content, first, count } => self.take_not_yet(content, first, count)?,
            PeerResponse::Hashing { .. } => {}
            PeerResponse::Cancelled => {
                if !self.is_cancelling {
                    return Err(broke("an answer to no cancel"));
                }
                self.is_cancelling = false;
                self.owed.clear();
                self.run.state().plan.cancelled(self.id);
                self.run.notify();
            }
        }
        Ok(())
    }

    /// The source has said which groups of a content it has.
    fn take_available(&mut self, content: u32, groups: &[u8]) -> Result<(), End> {
        if !self.partial.contains_key(&content) {
            return Err(broke("news nobody asked for"));
        }
        let file = self.contents[content as usize];
        let count = group_count(self.run.jobs[file].content.size);
        let part = match groups {
            [] => None,
            groups if groups.len() == count.div_ceil(8) as usize => Some(Bits::of_bytes(groups)),
            _ => return Err(broke("news of the wrong length")),
        };
        let mut state = self.run.state();
        if part.is_none() || state.jobs[file].is_finished {
            self.partial.remove(&content);
        }
        if state.plan.covers(self.id, file) {
            state.plan.cover(self.id, file, part);
        }
        Ok(())
    }

    /// The source has passed over groups that it does not have yet.
    fn take_not_yet(&mut self, content: u32, first: u32, count: u32) -> Result<(), End> {
        let Some(&file) = self.contents.get(content as usize) else {
            return Err(broke("news of nothing"));
        };
        let mut state = self.run.state();
        for group in first..first.saturating_add(count) {
            let skipped = self
                .owed
                .pop_front_if(|owed| owed.content == content && owed.assignment.group == group && owed.next < owed.end);
            let Some(owed) = skipped else { return Err(broke("it passes over what nobody asked for")) };
            state.plan.passed_over(self.id, owed.assignment);
        }
        state.plan.cover_nothing_yet(self.id, file);
        self.partial.entry(content).or_insert(None);
        drop(state);
        self.run.notify();
        Ok(())
    }

    fn take_outline(&mut self, content: u32, first: u32, hashes: Vec<GroupHash>) -> Result<(), End> {
        let Some(known) = self.outlines.get_mut(&content) else {
            return Err(broke("an outline nobody asked for"));
        };
        let file = self.contents[content as usize];
        self.file = file;
        let wanted = &self.run.jobs[file].content;
        let count = group_count(wanted.size) as usize;
        if first as usize != known.len() || hashes.is_empty() || known.len() + hashes.len() > count {
            return Err(broke("an outline in disorder"));
        }
        known.extend(hashes);
        if known.len() < count {
            return Ok(());
        }
        let hashes = self.outlines.remove(&content).expect("looked up above");
        let Some(outline) = GroupHashes::verify(wanted.hash, wanted.size, hashes) else {
            return Err(End::Liar("its outline does not match the published hash".into()));
        };
        let mut state = self.run.state();
        if state.plan.outline_known(file) {
            state.outlines.push((file, outline));
        }
        drop(state);
        self.run.notify();
        Ok(())
    }
}
