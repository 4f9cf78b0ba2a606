//! One file of a batch: what is known of its download, and the file operations of it, from its partial file to its name.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::copy_record::CopyRecord;
use super::give_up::GiveUpTimer;
use super::incomplete_file::IncompleteFile;
use super::partial_file::PartialFile;
use super::replaced_file::{ReplacedFile, make_private};
use super::scheduler::FileId;
use super::target::{Finalized, TargetDir, TargetState, has_content, split_parent, target_state_in};
use super::{Cancelled, DownloadError, DownloadOptions, DownloadOutcome, OnExists, SaveAs, is_cancelled};
use crate::client::files::{Fetched, FetchedFiles};
use crate::common::chunk_tree::GroupHashes;
use crate::common::types::{FileName, NamedContent, UserName};

/// Small files with the same content use the same partial file and are written one after the other.
const SAME_CONTENT_LOCKS: usize = 64;

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

/// What is known of the small files of a batch.
pub(super) struct SmallFiles {
    /// Verified: only the first verified copy is saved.
    pub claimed: Vec<AtomicBool>,
    pub same_content: [Mutex<()>; SAME_CONTENT_LOCKS],
}

impl SmallFiles {
    fn new(files: usize) -> Self {
        let claimed = (0..files).map(|_| AtomicBool::new(false)).collect();
        Self { claimed, same_content: [const { Mutex::new(()) }; _] }
    }
}

/// The file operations of a batch, used by its worker threads.
pub(super) struct FileOperations<'a> {
    pub target_dir: &'a TargetDir,
    pub options: &'a DownloadOptions,
    pub cancelled: &'a Cancelled,
    pub fetched: &'a FetchedFiles,
    pub jobs: &'a [FileJob],
    /// Whether sources on this host are asked for open files. Not at first.
    pub uses_direct_path: bool,
    pub small: SmallFiles,
}

impl<'a> FileOperations<'a> {
    pub fn new(
        target_dir: &'a TargetDir,
        fetched: &'a FetchedFiles,
        options: &'a DownloadOptions,
        cancelled: &'a Cancelled,
        jobs: &'a [FileJob],
    ) -> Self {
        Self {
            target_dir,
            options,
            cancelled,
            fetched,
            jobs,
            uses_direct_path: false,
            small: SmallFiles::new(jobs.len()),
        }
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
    pub fn open_partial(&self, file: FileId) -> Result<PartialFile, DownloadError> {
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

    pub fn target(&self, file: FileId) -> &FileName {
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
        let policy = match self.policy(file) {
            Ok(policy) => policy,
            Err(error) => return DownloadOutcome::Failed(error.into()),
        };
        let record = CopyRecord::new(self.fetched, self.copy(file));
        let saved = self.give_name(file, partial, policy, &record);
        record.end(matches!(saved, Ok(Finalized::Saved(_))));
        let outcome = saved.and_then(|finalized| self.outcome(file, partial, finalized));
        outcome.unwrap_or_else(|error| DownloadOutcome::Failed(error.into()))
    }

    pub fn give_name(
        &self,
        file: FileId,
        partial: &PartialFile,
        policy: OnExists,
        record: &CopyRecord<'_>,
    ) -> io::Result<Finalized> {
        partial.set_mtime(self.jobs[file].item.content.mtime_ms)?;
        save(self.target_dir, partial, self.target(file), policy, &|name| record.begin(name))
    }

    /// The file as it is recorded, under its first name.
    pub fn copy(&self, file: FileId) -> (FileName, Fetched) {
        let owner = match &self.options.save_as {
            SaveAs::Followed(owner) => Some(owner.clone()),
            _ => None,
        };
        (self.target(file).clone(), Fetched { hash: self.jobs[file].item.content.hash, owner })
    }

    /// What is done about a file that has the name. What `follow` fetches replaces the copy that was fetched from this owner
    /// before, and nothing else.
    pub fn policy(&self, file: FileId) -> io::Result<OnExists> {
        let SaveAs::Followed(owner) = &self.options.save_as else { return Ok(self.options.on_exists) };
        let target = self.target(file);
        let folder = self.target_dir.open_parent(target)?;
        let is_copy = is_copy_of(self.fetched, &folder, target, owner, &|| is_cancelled(self.cancelled))?;
        Ok(if is_copy { OnExists::Overwrite } else { OnExists::Error })
    }

    /// What has become of the file. A target that exists was created by another program meanwhile.
    pub fn outcome(&self, file: FileId, partial: &PartialFile, finalized: Finalized) -> io::Result<DownloadOutcome> {
        if let Finalized::Saved(name) = finalized {
            return Ok(DownloadOutcome::Saved { name });
        }
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
