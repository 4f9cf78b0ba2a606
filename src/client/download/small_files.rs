//! Files of one chunk group: saved as soon as their bytes have arrived, many of them at once.
//!
//! Each is written to a file without a name (`O_TMPFILE`), which gets its name when it is complete, and is gone when the
//! client is killed before. Where there are no such files, and where one is replaced, the bytes go to a partial file, as
//! those of a large file do.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::copy_record::CopyRecord;
use super::file_job::FileOperations;
use super::partial_file::{PartialFile, set_mtime};
use super::scheduler::FileId;
use super::target::{Finalized, split_parent, take_name};
use super::{DownloadError, DownloadOutcome, OnExists, SaveAs};
use crate::client::files::Rename;
use crate::common::sync::lock;
use crate::common::types::FileName;

/// Most files that are saved together: one record of them is written before they get their names, and one after.
pub(super) const SAVED_TOGETHER_MAX: usize = 32;
/// Another process that downloads the same small file locks its partial file only while it writes: how often to try to
/// open it, and the wait between tries.
const LOCK_TRIES: u32 = 100;
const LOCK_RETRY_WAIT: Duration = Duration::from_millis(10);

impl FileOperations<'_> {
    /// Whether these bytes are the published content.
    pub fn is_content(&self, file: FileId, bytes: &[u8]) -> bool {
        *blake3::hash(bytes).as_bytes() == self.jobs[file].item.content.hash.0
    }

    /// Saves verified contents. Without an outcome: another source has delivered the file.
    pub fn save_small(&self, verified: &[(FileId, &[u8])]) -> Vec<(FileId, Option<DownloadOutcome>)> {
        let is_first = |&&(file, _): &&(FileId, _)| !self.small.claimed[file].swap(true, Ordering::Relaxed);
        let claimed: Vec<(FileId, &[u8])> = verified.iter().filter(is_first).copied().collect();
        let mut outcomes = self.save_claimed(&claimed).into_iter().zip(&claimed).peekable();
        let outcome = |&(file, _): &(FileId, &[u8])| {
            (file, outcomes.next_if(|(_, (saved, _))| *saved == file).map(|(outcome, _)| outcome))
        };
        verified.iter().map(outcome).collect()
    }

    fn save_claimed(&self, files: &[(FileId, &[u8])]) -> Vec<DownloadOutcome> {
        if files.is_empty() {
            return Vec::new();
        }
        if self.options.save_as == SaveAs::Unnamed {
            let save = |&(file, bytes): &(FileId, &[u8])| match self.write_partial(file, bytes) {
                Ok(partial) => DownloadOutcome::Unnamed(partial.file().clone()),
                Err(error) => DownloadOutcome::Failed(error),
            };
            return files.iter().map(save).collect();
        }
        // What was fetched before decides, not what is recorded now.
        let policies: Vec<io::Result<OnExists>> = files.iter().map(|&(file, _)| self.policy(file)).collect();
        let copies: Vec<_> = files.iter().map(|&(file, _)| self.copy(file)).collect();
        let begun = self.fetched.begin(&copies);
        let unrecorded = begun.err().filter(|_| matches!(self.options.save_as, SaveAs::Followed(_)));
        let (mut saved, mut unsaved, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
        for ((&(file, bytes), policy), copy) in files.iter().zip(policies).zip(copies) {
            let record = CopyRecord::begun(self.fetched, copy);
            let outcome = match (&unrecorded, policy) {
                (Some(error), _) => Err(io::Error::new(error.kind(), error.to_string()).into()),
                (None, Err(error)) => Err(error.into()),
                (None, Ok(policy)) => self.save_one(file, bytes, policy, &record),
            };
            let is_saved = outcome.as_ref().is_ok_and(|(_, is_saved)| *is_saved);
            if is_saved { &mut saved } else { &mut unsaved }.extend(record.take());
            outcomes.push(outcome.map_or_else(DownloadOutcome::Failed, |(outcome, _)| outcome));
        }
        self.fetched.end(&saved, true);
        self.fetched.end(&unsaved, false);
        outcomes
    }

    /// The outcome, and whether the file was saved here.
    fn save_one(
        &self,
        file: FileId,
        bytes: &[u8],
        policy: OnExists,
        record: &CopyRecord<'_>,
    ) -> Result<(DownloadOutcome, bool), DownloadError> {
        if let Some(name) = self.save_nameless(file, bytes, policy, record)? {
            return Ok((DownloadOutcome::Saved { name }, true));
        }
        let hash = &self.jobs[file].item.content.hash;
        let _guard = lock(&self.small.same_content[usize::from(hash.0[0]) % self.small.same_content.len()]);
        let partial = self.write_partial(file, bytes)?;
        let finalized = self.give_name(file, &partial, policy, record)?;
        let is_saved = matches!(finalized, Finalized::Saved(_));
        Ok((self.outcome(file, &partial, finalized)?, is_saved))
    }

    /// Saves a file that replaces none; the name that it has got. `None`: that needs a partial file.
    fn save_nameless(
        &self,
        file: FileId,
        bytes: &[u8],
        policy: OnExists,
        record: &CopyRecord<'_>,
    ) -> io::Result<Option<FileName>> {
        let (target, mtime_ms) = (self.target(file), self.jobs[file].item.content.mtime_ms);
        let folder = self.target_dir.open_parent(target)?;
        let exists = || rustix::fs::statat(&folder, split_parent(target).1, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if policy == OnExists::Overwrite && exists() {
            return Ok(None);
        }
        let named = write_nameless(&folder, bytes, mtime_ms).and_then(|nameless| {
            let policy = if policy == OnExists::Overwrite { OnExists::Error } else { policy };
            take_name(target, policy, &|name| record.begin(name), &|leaf| link(&nameless, &folder, leaf))
        });
        Ok(match named {
            Ok(Finalized::Saved(name)) => Some(name),
            Ok(Finalized::Exists) => None,
            Err(error) => {
                log::debug!("{target} needs a partial file: {error}");
                None
            }
        })
    }

    /// Writes the content to a partial file.
    fn write_partial(&self, file: FileId, bytes: &[u8]) -> Result<PartialFile, DownloadError> {
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
        Ok(partial)
    }
}

fn write_nameless(folder: &OwnedFd, bytes: &[u8], mtime_ms: i64) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, ".", flags, Mode::from_raw_mode(0o666))?);
    file.write_all_at(bytes, 0)?;
    set_mtime(&file, mtime_ms)?;
    Ok(file)
}

/// Gives the file its name in the folder, unless that is in use.
fn link(nameless: &File, folder: &OwnedFd, leaf: &str) -> io::Result<Rename> {
    let linked = match rustix::fs::linkat(nameless, "", folder, leaf, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10, that takes a capability.
        Err(Errno::NOENT) => {
            let path = format!("/proc/self/fd/{}", nameless.as_raw_fd());
            rustix::fs::linkat(CWD, path, folder, leaf, AtFlags::SYMLINK_FOLLOW)
        }
        linked => linked,
    };
    match linked {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(Rename::Exists),
        Err(error) => return Err(error.into()),
    }
    // Programs that watch the folder for complete files see one closed by its writer, as from a program that writes it in place.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    drop(rustix::fs::openat(folder, leaf, flags, Mode::empty()));
    Ok(Rename::Done)
}
