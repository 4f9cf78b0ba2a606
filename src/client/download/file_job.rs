//! One file of a batch: what is known of its download, and the file operations of it, from its partial file to its name.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;

use super::give_up::GiveUpTimer;
use super::incomplete_file::IncompleteFile;
use super::partial_file::PartialFile;
use super::replaced_file::{ReplacedFile, make_private};
use super::scheduler::FileId;
use super::target::{Finalized, TargetDir, TargetState, has_content, split_parent, target_state_in};
use super::{Cancelled, DownloadError, DownloadOptions, DownloadOutcome, OnExists, SaveAs, is_cancelled};
use crate::client::files::{Fetched, FetchedFiles};
use crate::common::chunk_tree::GroupHashes;
use crate::common::sync::lock;
use crate::common::types::{FileName, NamedContent, UserName};

/// Small files with the same content use the same partial file and are written one after the other.
const SAME_CONTENT_LOCKS: usize = 64;
/// Another process that downloads the same small file locks its partial file only while it writes: how often to try to
/// open it, and the wait between tries.
const LOCK_TRIES: u32 = 100;
const LOCK_RETRY_WAIT: Duration = Duration::from_millis(10);

pub(super) struct FileJob {
    /// Its index among the files of the user's request.
    pub index: usize,
    pub item: NamedContent,
}

/// What the coordinator knows of a file beside its schedule.
pub(super) struct FileState {
    /// Its outcome was reported.
    pub is_finished: bool,
    /// Of a large file, once its partial file is open.
    pub incomplete: Option<Arc<IncompleteFile>>,
    /// Bytes that an earlier download has left, as far as they are verified.
    pub resumed_bytes: u64,
    /// Users that cannot serve it.
    pub excluded_users: HashSet<UserName>,
    /// Of these, how many have changed the file since they published it.
    pub changed_users: usize,
    /// A connection of a source has ended before the file was complete.
    pub was_lost: bool,
    /// Users who have delivered something of it that was verified.
    pub owners: HashSet<UserName>,
    /// The server has named a source of it at least once.
    pub was_offered: bool,
    pub give_up: GiveUpTimer,
    /// Why the last source failed.
    pub last_failure: Option<String>,
    /// Whether a source sent other content, and whether one failed in another way.
    pub hash_mismatch: bool,
    pub other_failure: bool,
    /// The last source failed for want of a thread or descriptor here.
    pub has_no_resources: bool,
}

impl FileState {
    pub fn new(now: Instant) -> Self {
        Self {
            is_finished: false,
            incomplete: None,
            resumed_bytes: 0,
            excluded_users: HashSet::new(),
            changed_users: 0,
            was_lost: false,
            owners: HashSet::new(),
            was_offered: false,
            give_up: GiveUpTimer::new(now),
            last_failure: None,
            hash_mismatch: false,
            other_failure: false,
            has_no_resources: false,
        }
    }

    /// The error when none of the sources that the server names can be used.
    pub fn failure_of_all(&self) -> DownloadError {
        let reason = self.last_failure.as_deref().unwrap_or("no source is left").to_owned();
        let all_changed = self.changed_users > 0 && self.changed_users == self.excluded_users.len();
        match self.has_no_resources {
            _ if all_changed => DownloadError::Changed(reason),
            _ if self.hash_mismatch && !self.other_failure => DownloadError::HashMismatch,
            true => DownloadError::NoResources(reason),
            false => DownloadError::Transfer(reason),
        }
    }

    /// The error when no source is left. One that was lost has not said that it has changed the file.
    pub fn failure(&self) -> DownloadError {
        match self.failure_of_all() {
            DownloadError::Changed(reason) if self.was_lost => DownloadError::Transfer(reason),
            error => error,
        }
    }
}

/// The file operations of a batch, used by its worker threads.
pub(super) struct FileOperations<'a> {
    pub target_dir: &'a TargetDir,
    pub options: &'a DownloadOptions,
    pub cancelled: &'a Cancelled,
    fetched: &'a FetchedFiles,
    pub jobs: &'a [FileJob],
    /// Whether sources on this host are asked for open files. Not at first.
    pub uses_direct_path: bool,
    /// Small files that have been verified: only the first verified copy is saved.
    claimed: Vec<AtomicBool>,
    same_content: [Mutex<()>; SAME_CONTENT_LOCKS],
}

/// What became of a small file's bytes.
pub(super) enum SmallFile {
    /// They do not match the published hash.
    Corrupt,
    /// Another source has delivered the file.
    Duplicate,
    Finished(DownloadOutcome),
}

impl<'a> FileOperations<'a> {
    pub fn new(
        target_dir: &'a TargetDir,
        fetched: &'a FetchedFiles,
        options: &'a DownloadOptions,
        cancelled: &'a Cancelled,
        jobs: &'a [FileJob],
    ) -> Self {
        let claimed = jobs.iter().map(|_| AtomicBool::new(false)).collect();
        Self {
            target_dir,
            options,
            cancelled,
            fetched,
            jobs,
            uses_direct_path: false,
            claimed,
            same_content: [const { Mutex::new(()) }; _],
        }
    }

    /// Verifies and saves a file of one group.
    pub fn save_small(&self, file: FileId, bytes: &[u8]) -> SmallFile {
        let hash = &self.jobs[file].item.content.hash;
        if blake3::hash(bytes).as_bytes() != &hash.0 {
            return SmallFile::Corrupt;
        }
        if self.claimed[file].swap(true, Ordering::Relaxed) {
            return SmallFile::Duplicate;
        }
        let _guard = lock(&self.same_content[usize::from(hash.0[0]) % SAME_CONTENT_LOCKS]);
        SmallFile::Finished(self.write_small(file, bytes).unwrap_or_else(DownloadOutcome::Failed))
    }

    fn write_small(&self, file: FileId, bytes: &[u8]) -> Result<DownloadOutcome, DownloadError> {
        let mut partial = self.open_partial(file);
        for _ in 1..LOCK_TRIES {
            let is_locked = matches!(partial, Err(DownloadError::Locked));
            if !is_locked || self.cancelled.recv_timeout(LOCK_RETRY_WAIT) == Err(RecvTimeoutError::Disconnected) {
                break;
            }
            partial = self.open_partial(file);
        }
        let partial = partial?;
        if let Err(error) = partial.write_all(bytes) {
            partial.remove();
            return Err(error.into());
        }
        Ok(self.finalize(file, &partial))
    }

    /// Opens the partial file of a large file. Also returns the groups that it may
    /// hold.
    pub fn open_large(
        &self,
        file: FileId,
        outline: GroupHashes,
    ) -> Result<(Arc<IncompleteFile>, Vec<u32>), DownloadError> {
        let partial = self.open_partial(file)?;
        let groups = partial.groups_with_data(&outline);
        if let Err(error) = partial.set_size(self.jobs[file].item.content.size) {
            if groups.is_empty() {
                partial.remove();
            }
            return Err(error.into());
        }
        Ok((Arc::new(IncompleteFile::new(outline, partial, !groups.is_empty())), groups))
    }

    /// Opens the partial file. What replaces a file is not readable to more users than that file before it is complete.
    fn open_partial(&self, file: FileId) -> Result<PartialFile, DownloadError> {
        if self.options.save_as == SaveAs::Unnamed {
            return PartialFile::create_unnamed(self.target_dir.open_root()?);
        }
        let folder = self.target_dir.open_parent(self.target(file))?;
        let partial = PartialFile::open(folder, &self.jobs[file].item.content.hash)?;
        if replaced_file(&partial, self.target(file), self.options.on_exists).is_some() {
            make_private(partial.file());
        }
        Ok(partial)
    }

    fn target(&self, file: FileId) -> &FileName {
        self.options.target(&self.jobs[file].item)
    }

    /// Gives a complete large file its name and unlocks it.
    pub fn finalize_large(&self, file: FileId, incomplete: &IncompleteFile) -> DownloadOutcome {
        let outcome = self.finalize(file, incomplete.partial());
        incomplete.partial().unlock();
        outcome
    }

    /// Gives a complete partial file its modification time, the attributes of the file that it replaces, and its name.
    fn finalize(&self, file: FileId, partial: &PartialFile) -> DownloadOutcome {
        if self.options.save_as == SaveAs::Unnamed {
            return DownloadOutcome::Unnamed(partial.file().clone());
        }
        let (target, content) = (self.target(file), &self.jobs[file].item.content);
        let (policy, owner) = match &self.options.save_as {
            SaveAs::Followed(owner) => match self.policy_for_copy(target, partial, owner) {
                Ok(policy) => (policy, Some(owner.clone())),
                Err(error) => return DownloadOutcome::Failed(error.into()),
            },
            _ => (self.options.on_exists, None),
        };
        let fetched = Fetched { hash: content.hash, owner };
        let tried: RefCell<Option<FileName>> = RefCell::default();
        let end = |is_saved| tried.take().into_iter().for_each(|name| self.fetched.end(&name, &fetched, is_saved));
        let begin = &|name: &FileName| {
            end(false);
            tried.replace(Some(name.clone()));
            let begun = self.fetched.begin(name, fetched.clone());
            // What the user asks for is fetched all the same; `get` says that it is not recorded.
            if fetched.owner.is_some() { begun } else { Ok(()) }
        };
        let saved = partial.set_mtime(content.mtime_ms);
        let saved = saved.and_then(|()| save(self.target_dir, partial, target, policy, begin));
        end(matches!(saved, Ok(Finalized::Saved(_))));
        let outcome = saved.and_then(|finalized| match finalized {
            Finalized::Saved(name) => Ok(DownloadOutcome::Saved { name }),
            Finalized::Exists => self.on_target_exists(file, partial),
        });
        outcome.unwrap_or_else(|error| DownloadOutcome::Failed(error.into()))
    }

    /// Replaces the copy that was fetched from this owner before, and nothing else.
    fn policy_for_copy(&self, target: &FileName, partial: &PartialFile, owner: &UserName) -> io::Result<OnExists> {
        let is_copy = is_copy_of(self.fetched, partial.folder(), target, owner, &|| is_cancelled(self.cancelled))?;
        Ok(if is_copy { OnExists::Overwrite } else { OnExists::Error })
    }

    /// The target was created by another program meanwhile.
    fn on_target_exists(&self, file: FileId, partial: &PartialFile) -> io::Result<DownloadOutcome> {
        let (target, content) = (self.target(file), &self.jobs[file].item.content);
        let leaf = split_parent(target).1;
        let state = target_state_in(partial.folder(), leaf, content, &|| is_cancelled(self.cancelled))?;
        Ok(match (state, self.options.on_exists) {
            (TargetState::Identical, _) => {
                partial.remove();
                DownloadOutcome::Saved { name: target.clone() }
            }
            (_, OnExists::Skip) => {
                partial.remove();
                DownloadOutcome::Skipped
            }
            // The partial file is complete: the same command with another policy needs no transfer.
            _ => DownloadOutcome::Failed(DownloadError::Exists),
        })
    }
}

/// Whether the file in its folder is what was fetched from this owner.
pub(super) fn is_copy_of(
    fetched: &FetchedFiles,
    folder: &OwnedFd,
    name: &FileName,
    owner: &UserName,
    interrupted: &(dyn Fn() -> bool + Sync),
) -> io::Result<bool> {
    let candidates = fetched.candidates(name).into_iter().filter(|fetched| fetched.owner.as_ref() == Some(owner));
    for Fetched { hash, .. } in candidates {
        if has_content(folder, split_parent(name).1, hash, interrupted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives a complete partial file the attributes of the file that it replaces, if it replaces one, and its name.
/// `before_rename` gets that name before; its error is the result.
pub(super) fn save(
    target_dir: &TargetDir,
    partial: &PartialFile,
    target: &FileName,
    on_exists: OnExists,
    before_rename: &dyn Fn(&FileName) -> io::Result<()>,
) -> io::Result<Finalized> {
    if let Some(replaced) = replaced_file(partial, target, on_exists) {
        make_private(partial.file());
        replaced.give_attributes(partial.file());
    }
    target_dir.finalize(partial.folder(), partial.name(), target, on_exists, before_rename)
}

/// The file that is replaced, if the policy is to replace one.
pub(super) fn replaced_file(partial: &PartialFile, target: &FileName, on_exists: OnExists) -> Option<ReplacedFile> {
    let replaces = on_exists == OnExists::Overwrite;
    replaces.then(|| ReplacedFile::open(partial.folder(), split_parent(target).1)).flatten()
}
