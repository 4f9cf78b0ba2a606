//! Saves what is read from a stream in the shared folder, for `pub --stdin`: all or nothing, as a download is saved.

use std::io::{self, Read};

use super::file_job::{replaced_file, save};
use super::partial_file::PartialFile;
use super::replaced_file::make_private;
use super::request::check_target;
use super::target::{Finalized, TargetDir};
use super::{Cancelled, DownloadError, DownloadOutcome, OnExists, is_cancelled};
use crate::common::types::{Content, ContentHash, FileName};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// No file has this content, so that every file that exists counts as another one.
const NO_CONTENT: Content = Content { hash: ContentHash([0; 32]), size: u64::MAX, mtime_ms: 0 };

/// Removes a partial file that is not saved.
struct RemoveUnlessSaved<'a> {
    partial: &'a PartialFile,
    is_saved: bool,
}

impl Drop for RemoveUnlessSaved<'_> {
    fn drop(&mut self) {
        if !self.is_saved {
            self.partial.remove();
        }
    }
}

/// See [`Download::store`](super::Download::store).
pub(super) fn store(
    target_dir: &TargetDir,
    name: &FileName,
    on_exists: OnExists,
    input: &mut dyn Read,
    cancelled: &Cancelled,
) -> Result<Option<FileName>, DownloadError> {
    match check_target(target_dir, name, &NO_CONTENT, on_exists, cancelled) {
        Some(DownloadOutcome::Failed(error)) => return Err(error),
        Some(_) => return Ok(None),
        None => {}
    }
    let partial = PartialFile::create(target_dir.open_parent(name)?)?;
    let mut guard = RemoveUnlessSaved { partial: &partial, is_saved: false };
    if replaced_file(&partial, name, on_exists).is_some() {
        make_private(partial.file());
    }
    copy(input, &partial, cancelled)?;
    match save(target_dir, &partial, name, on_exists, &|_| Ok(()))? {
        Finalized::Saved(name) => {
            guard.is_saved = true;
            partial.unlock();
            Ok(Some(name))
        }
        // Created by another program meanwhile.
        Finalized::Exists if on_exists == OnExists::Skip => Ok(None),
        Finalized::Exists => Err(DownloadError::Exists),
    }
}

fn copy(input: &mut dyn Read, partial: &PartialFile, cancelled: &Cancelled) -> Result<(), DownloadError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    loop {
        if is_cancelled(cancelled) {
            return Err(DownloadError::Interrupted);
        }
        let length = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(DownloadError::Local(error)),
        };
        partial.write_at(&buffer[..length], at)?;
        at += length as u64;
    }
}
