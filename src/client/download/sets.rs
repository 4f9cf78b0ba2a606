//! Many files, cut into sets: while one set is fetched, the targets of the next are looked at and its sources asked for.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use super::desk::{Asking, Book};
use super::discovery::SourceDiscovery;
use super::run::{Job, Run};
use super::target::{TargetDir, TargetState};
use super::{DownloadError, DownloadItem, DownloadOptions, DownloadOutcome, DownloadProgress, OnExists};

/// Files fetched as one set: their sources are asked for together, and stay below what an uploader keeps granted.
pub(super) const SET_MAX_FILES: usize = 2_048;

/// All that one call of the user's wants.
pub(super) struct Order<'a> {
    pub target_dir: &'a TargetDir,
    pub ask: &'a Arc<dyn SourceDiscovery>,
    pub wanted: &'a [DownloadItem],
    pub options: &'a DownloadOptions,
    pub progress: &'a dyn DownloadProgress,
}

/// A set whose targets have been looked at.
struct Ready {
    /// What must be fetched.
    jobs: Vec<Job>,
    asking: Option<Asking>,
    /// The outcomes of the rest, by their places among the wanted files.
    settled: Vec<(usize, DownloadOutcome)>,
}

impl Order<'_> {
    /// Fetches all; one outcome for each wanted file, in order.
    pub fn fulfil(&self) -> Vec<DownloadOutcome> {
        let mut outcomes: Vec<Option<DownloadOutcome>> = self.wanted.iter().map(|_| None).collect();
        let mut book = Book::default();
        let starts = (0..self.wanted.len()).step_by(SET_MAX_FILES);
        let mut sets = starts.map(|start| start..self.wanted.len().min(start + SET_MAX_FILES));
        thread::scope(|scope| {
            let mut look_ahead = || sets.next().map(|set| scope.spawn(|| self.look_at(set)));
            let mut next = look_ahead();
            while let Some(ahead) = next {
                let Ready { jobs, asking, settled } =
                    ahead.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                next = look_ahead();
                let mut fetched = settled;
                if !jobs.is_empty() {
                    let run = Run::new(self.target_dir, self.options, self.progress, jobs);
                    fetched.extend(run.fetch(self.ask, &mut book, asking));
                }
                for (index, outcome) in fetched {
                    outcomes[index] = Some(outcome);
                }
            }
        });
        outcomes.into_iter().map(|outcome| outcome.expect("every file has an outcome")).collect()
    }

    fn look_at(&self, set: Range<usize>) -> Ready {
        let (mut jobs, mut settled) = (Vec::new(), Vec::new());
        for index in set {
            let wanted = &self.wanted[index];
            match self.look_at_target(wanted) {
                Some(outcome) => {
                    self.progress.finished(index, &outcome);
                    settled.push((index, outcome));
                }
                None => jobs.push(Job { index, name: wanted.name.clone(), content: wanted.content }),
            }
        }
        // An empty content is made, not fetched.
        let files: Vec<usize> = (0..jobs.len()).filter(|&file| jobs[file].content.size > 0).collect();
        let asking = (!files.is_empty()).then(|| Asking::begin(self.ask, &jobs, files));
        Ready { jobs, asking, settled }
    }

    /// An outcome means that nothing needs to be fetched.
    fn look_at_target(&self, wanted: &DownloadItem) -> Option<DownloadOutcome> {
        if self.progress.interrupted() {
            return Some(DownloadOutcome::Failed(DownloadError::Interrupted));
        }
        let standing = self.target_dir.target_state(&wanted.name, &wanted.content, &|| self.progress.interrupted());
        match (standing, self.options.on_exists) {
            (Err(error), _) => Some(DownloadOutcome::Failed(error.into())),
            (Ok(TargetState::Identical), _) => Some(DownloadOutcome::Saved { name: wanted.name.clone() }),
            (Ok(TargetState::Different | TargetState::Directory), OnExists::Error) => {
                Some(DownloadOutcome::Failed(DownloadError::Exists))
            }
            (Ok(TargetState::Different | TargetState::Directory), OnExists::Skip) => Some(DownloadOutcome::Skipped),
            (Ok(TargetState::Directory), OnExists::Overwrite) => {
                let why = "a folder has this name, and folders are not replaced";
                let error = io::Error::new(io::ErrorKind::IsADirectory, why);
                Some(DownloadOutcome::Failed(DownloadError::Local(error)))
            }
            (Ok(_), _) => None,
        }
    }
}
