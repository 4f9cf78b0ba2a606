//! When which paths of a watched folder are examined, and what is published and withdrawn after that. Sans-IO: events,
//! surveys and time in, plans out.
//!
//! A path is examined when nothing has happened to it for [`QUIET`], and while a writer has it open, for [`WRITER_QUIET`].
//! Nothing is withdrawn unless the survey is certain that it is gone: the folder is the one that is watched, no part of it
//! could not be read, and no file system that was mounted in it is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::survey::{FoundFile, Survey, is_beneath};
use crate::client::backoff::Backoff;
use crate::client::files::FileIdentity;
use crate::common::types::FileName;

/// Without an event for this time a file is complete.
pub const QUIET: Duration = Duration::from_millis(200);
/// The same while a writer has it open.
pub const WRITER_QUIET: Duration = Duration::from_secs(5);
/// What has failed for want of a server is tried again after this time.
const RETRY: Duration = Duration::from_secs(1);
/// What has been refused is tried again after [`RETRY`], and then after twice the time before.
const REFUSED_RETRY_MAX: Duration = Duration::from_secs(60);
/// A folder that is away is looked for this often.
const FOLDER_RETRY: Duration = Duration::from_secs(5);
/// A survey with errors is repeated after this time, and then after twice the time before.
const SURVEY_RETRY: Duration = Duration::from_secs(5);
const SURVEY_RETRY_MAX: Duration = Duration::from_secs(600);
/// Paths that wait to be examined; beyond, the whole folder does.
const PENDING_MAX: usize = 1 << 16;

/// What has happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEvent {
    /// It was created, or has new attributes.
    Changed,
    /// A writer has it open.
    Writing,
    /// A writer has closed it; or it was moved or removed, so that another file or none has the name.
    Settled,
}

/// What is to be done after a survey.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WatchPlan {
    /// New or changed, and quiet.
    pub publish: Vec<FileName>,
    /// Published, and gone.
    pub withdraw: Vec<FileName>,
    /// Why nothing is withdrawn; said once until all is well again.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    due: Instant,
    is_written: bool,
}

/// One watched folder. Paths are relative to the shared folder, which is the empty path.
pub struct WatchCore {
    folder: String,
    /// Nothing was published so far: the user asks for what is there now.
    is_new: bool,
    pending: BTreeMap<String, Pending>,
    /// The same, in the order of their deadlines.
    deadlines: BTreeSet<(Instant, String)>,
    /// The files as they were planned to be published, unless a change could leave their identity as it is.
    known: BTreeMap<FileName, FileIdentity>,
    /// Folders on which another file system was mounted.
    mounts: BTreeSet<String>,
    /// Paths whose last survey was not certain of what is gone; a note was written.
    troubled: BTreeSet<String>,
    survey_retry: Backoff,
    /// What could not be published or withdrawn when it was last tried.
    failed: BTreeSet<FileName>,
    refused_retry: Backoff,
}

impl WatchCore {
    /// The whole folder is to be examined at once.
    pub fn new(folder: &str, now: Instant) -> Self {
        let mut core = Self {
            folder: folder.into(),
            is_new: true,
            pending: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            known: BTreeMap::new(),
            mounts: BTreeSet::new(),
            troubled: BTreeSet::new(),
            survey_retry: Backoff::new(SURVEY_RETRY, SURVEY_RETRY_MAX),
            failed: BTreeSet::new(),
            refused_retry: Backoff::new(RETRY, REFUSED_RETRY_MAX),
        };
        core.set(core.folder.clone(), Pending { due: now, is_written: false });
        core
    }

    /// Something has happened to a path in the folder, or to the folder.
    pub fn on_event(&mut self, now: Instant, path: &str, event: PathEvent) {
        let was_written = self.pending.get(path).is_some_and(|pending| pending.is_written);
        let is_written = match event {
            PathEvent::Changed => was_written,
            PathEvent::Writing => true,
            PathEvent::Settled => false,
        };
        let due = now + if is_written { WRITER_QUIET } else { QUIET };
        self.set(path.into(), Pending { due, is_written });
        if self.pending.len() > PENDING_MAX {
            self.pending.clear();
            self.deadlines.clear();
            self.on_lost(now);
        }
    }

    /// Events were lost: anything may have happened.
    pub fn on_lost(&mut self, now: Instant) {
        self.examine_folder(now + QUIET);
    }

    /// Has the whole folder examined then, or earlier.
    fn examine_folder(&mut self, due: Instant) {
        let earlier = self.pending.get(&self.folder).map_or(due, |pending| pending.due.min(due));
        self.set(self.folder.clone(), Pending { due: earlier, is_written: false });
    }

    /// When [`poll`](Self::poll) has something to examine.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The paths to examine now; may be empty.
    pub fn poll(&mut self, now: Instant) -> BTreeSet<String> {
        let mut due = BTreeSet::new();
        while let Some((_, path)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now).cloned() {
            self.remove(&path);
            due.insert(path);
        }
        due
    }

    /// What was found at the paths that were due.
    pub fn on_survey(&mut self, now: Instant, due: &BTreeSet<String>, survey: Survey) -> WatchPlan {
        if let Err(why) = survey.folder {
            self.examine_folder(now + FOLDER_RETRY);
            let note = self.note_trouble([self.folder.clone()], why);
            return WatchPlan { note, ..WatchPlan::default() };
        }
        let mut plan = WatchPlan::default();
        self.begin_retry(due);
        let unfound: Vec<&String> = due.iter().filter(|path| !survey.files.contains_key(path.as_str())).collect();
        let is_new = std::mem::take(&mut self.is_new);
        self.forget_missing(due, &survey.files);
        for (name, FoundFile { identity, age, is_racy }) in survey.files {
            if self.pending.contains_key(name.as_str()) {
                continue;
            }
            if !is_new && !due.contains(name.as_str()) && self.known.get(&name) == Some(&identity) {
                continue;
            }
            if !is_new && age < QUIET {
                // The event was lost, or came before the folder that holds it was watched.
                self.set(name.to_string(), Pending { due: now + QUIET - age, is_written: false });
                continue;
            }
            if is_racy {
                self.known.remove(&name);
            } else {
                self.known.insert(name.clone(), identity);
            }
            plan.publish.push(name);
        }
        let is_covered = |path: &str| is_covered(path, due);
        let is_above = |mount: &str| due.iter().any(|path| is_beneath(path, mount));
        let is_missing = |mount: &&String| !survey.mounts.contains(*mount) && (is_covered(mount) || is_above(mount));
        let unmounted = self.mounts.iter().find(is_missing);
        let unmounted = unmounted.map(|mount| format!("{mount}: another file system than before"));
        self.mounts.extend(survey.mounts);
        match unmounted.or_else(|| survey.errors.into_iter().next()) {
            None => {
                self.troubled.retain(|path| !is_covered(path));
                if self.troubled.is_empty() {
                    self.survey_retry.reset();
                }
                plan.withdraw = survey.gone;
                plan.withdraw.retain(|name| !self.pending.contains_key(name.as_str()));
            }
            Some(why) => {
                let again = now + self.survey_retry.next_wait();
                for path in &unfound {
                    self.set_unless_pending(path.to_string(), again);
                }
                plan.note = self.note_trouble(unfound.into_iter().cloned(), why);
            }
        }
        plan
    }

    /// These could not be published or withdrawn, for want of a server or for another reason that passes soon.
    pub fn on_failed<'a>(&mut self, now: Instant, names: impl IntoIterator<Item = &'a FileName>) {
        self.try_again(now + RETRY, names);
    }

    /// These could not be published or withdrawn, for a reason that may last.
    pub fn on_refused<'a>(&mut self, now: Instant, names: impl IntoIterator<Item = &'a FileName>) {
        self.try_again(now + self.refused_retry.wait(), names);
    }

    /// What was due could not be examined now.
    pub fn put_back(&mut self, now: Instant, due: BTreeSet<String>) {
        for path in due {
            self.set_unless_pending(path, now + RETRY);
        }
    }

    /// Whether something could not be published or withdrawn, and is still to be.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    fn try_again<'a>(&mut self, due: Instant, names: impl IntoIterator<Item = &'a FileName>) {
        for name in names {
            self.known.remove(name);
            self.failed.insert(name.clone());
            self.set_unless_pending(name.to_string(), due);
        }
    }

    /// What has failed at the paths that were due is tried again, or is not there any more.
    fn begin_retry(&mut self, due: &BTreeSet<String>) {
        let before = self.failed.len();
        self.failed.retain(|name| !is_covered(name.as_str(), due));
        if before == 0 {
            self.refused_retry.reset();
        } else if self.failed.len() < before {
            self.refused_retry.next_wait();
        }
    }

    fn note_trouble(&mut self, paths: impl IntoIterator<Item = String>, why: String) -> Option<String> {
        let is_first = self.troubled.is_empty();
        self.troubled.extend(paths);
        is_first.then(|| format!("{why}; nothing is withdrawn"))
    }

    /// What is not found at the examined paths is new when it comes again.
    fn forget_missing(&mut self, due: &BTreeSet<String>, found: &BTreeMap<FileName, FoundFile>) {
        for path in due {
            let at = (Bound::Included(path.as_str()), Bound::Unbounded);
            let names = self.known.range::<str, _>(at).map(|(name, _)| name);
            let names = names.take_while(|name| name.as_str().starts_with(path.as_str()));
            let covered = names.filter(|name| name.as_str() == path || is_beneath(name.as_str(), path));
            let missing: Vec<FileName> = covered.filter(|name| !found.contains_key(*name)).cloned().collect();
            for name in missing {
                self.known.remove(&name);
            }
        }
    }

    fn set_unless_pending(&mut self, path: String, due: Instant) {
        if !self.pending.contains_key(&path) {
            self.set(path, Pending { due, is_written: false });
        }
    }

    fn set(&mut self, path: String, pending: Pending) {
        self.remove(&path);
        self.deadlines.insert((pending.due, path.clone()));
        self.pending.insert(path, pending);
    }

    fn remove(&mut self, path: &str) {
        if let Some((path, pending)) = self.pending.remove_entry(path) {
            self.deadlines.remove(&(pending.due, path));
        }
    }
}

/// Whether a path is one of these, or beneath one.
fn is_covered(path: &str, due: &BTreeSet<String>) -> bool {
    let is_due = |top: &str| due.contains(top);
    is_due(path) || is_due("") || path.match_indices('/').any(|(at, _)| is_due(&path[..at]))
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
