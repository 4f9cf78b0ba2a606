//! A file of several chunk groups: its part is opened, looked at, filled group by group, and gets its name.

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::incomplete_file::IncompleteFile;
use super::partial_file::Part;
use super::run::{Run, State};
use super::scheduler::{Assignment, FileId};
use super::{DownloadError, DownloadOutcome};
use crate::common::chunk_tree::GroupHashes;

impl Run<'_> {
    /// A large file's outline is known: opens its part and finds out what it holds.
    pub fn prepare(&self, file: FileId, outline: GroupHashes) {
        let (arriving, candidates) = match self.open_part(file, outline) {
            Ok(opened) => opened,
            Err(error) => return self.finish(file, DownloadOutcome::Failed(error)),
        };
        let groups = arriving.outline().groups().len() as u32;
        let mut state = self.state();
        if state.jobs[file].is_finished {
            return;
        }
        state.jobs[file].arriving = Some(arriving.clone());
        let mut held = candidates.iter().copied().peekable();
        for group in 0..groups {
            if held.next_if_eq(&group).is_none() {
                state.plan.is_missing(file, group);
            }
        }
        // Downloads of one file that help each other should not all begin with the same groups.
        state.plan.opened(file, rand::random::<u32>() % groups);
        drop(state);
        self.notify();
        self.progress.arriving(self.jobs[file].index, &arriving);
        if let Err(error) = self.scan(file, &arriving, &candidates) {
            self.finish(file, DownloadOutcome::Failed(error.into()));
        }
    }

    /// The part of a large file, with its room taken on the disk, and the groups that it may hold.
    fn open_part(&self, file: FileId, outline: GroupHashes) -> Result<(Arc<IncompleteFile>, Vec<u32>), DownloadError> {
        let job = &self.jobs[file];
        let part = match Part::open(self.target_dir.open_parent(&job.name)?, &job.content.hash) {
            Err(DownloadError::Locked) => return self.take_up(file).ok_or(DownloadError::Locked),
            part => part?,
        };
        let candidates = part.candidates(&outline);
        if let Err(error) = part.reserve(job.content.size) {
            if candidates.is_empty() {
                part.discard();
            }
            return Err(error.into());
        }
        Ok((Arc::new(IncompleteFile::new(outline, part)), candidates))
    }

    /// The part that another name of the same content has left behind, still locked, when it was given up.
    fn take_up(&self, file: FileId) -> Option<(Arc<IncompleteFile>, Vec<u32>)> {
        let place = |file: FileId| (super::target::split_parent(&self.jobs[file].name).0, self.jobs[file].content.hash);
        let mut state = self.state();
        let at = state.given_up.iter().position(|(left_by, _)| place(*left_by) == place(file))?;
        let (_, arriving) = state.given_up.swap_remove(at);
        let candidates = (0..arriving.outline().groups().len() as u32).filter(|&group| arriving.has(group)).collect();
        Some((arriving, candidates))
    }

    /// Looks at what an abandoned part holds; meanwhile the rest is fetched.
    fn scan(&self, file: FileId, arriving: &IncompleteFile, candidates: &[u32]) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        for &group in candidates {
            let is_good = arriving.part().holds(arriving.outline(), group, &mut buffer)?;
            let mut state = self.state();
            if state.is_over || state.jobs[file].is_finished {
                return Ok(());
            }
            if !is_good {
                state.plan.is_missing(file, group);
                drop(state);
                self.notify();
                continue;
            }
            arriving.set_verified(group);
            let before = state.plan.verified_bytes(file);
            let is_whole = state.plan.is_present(file, group);
            state.found_bytes += state.plan.verified_bytes(file) - before;
            self.tell_received(state, file);
            if is_whole {
                self.finish_large(file, arriving);
            }
        }
        Ok(())
    }

    /// A group of a large file is verified and written.
    pub fn verified(&self, assignment: Assignment, arriving: &IncompleteFile) {
        arriving.set_verified(assignment.group);
        let mut state = self.state();
        let is_whole = state.plan.verified(assignment);
        state.jobs[assignment.file].hope.fulfil(Instant::now());
        self.tell_received(state, assignment.file);
        if is_whole {
            self.finish_large(assignment.file, arriving);
        }
    }

    fn tell_received(&self, state: MutexGuard<'_, State>, file: FileId) {
        let done = state.plan.verified_bytes(file);
        drop(state);
        self.progress.received(self.jobs[file].index, done, self.jobs[file].content.size);
    }

    fn finish_large(&self, file: FileId, arriving: &IncompleteFile) {
        let outcome = self.settle(file, arriving.part());
        arriving.part().unlock();
        self.finish(file, outcome);
    }
}
