//! The content of a download in order, while it arrives: for `cat`.
//!
//! The download writes to a file without a name ([`SaveAs::Unnamed`](super::SaveAs)), as fast as its sources send and in
//! any order. A reader on another thread takes from it what is verified without a gap, so that a slow reader delays neither
//! the sources nor this client, and memory holds one buffer. Nobody else can write to that file: what was verified stays as
//! it is.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::incomplete_file::IncompleteFile;
use super::{DownloadOutcome, DownloadReport};
use crate::common::chunk_tree::group_range;
use crate::common::sync::{Condvar, Mutex, lock, wait};

/// Bytes read, and given to the output, at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Connects a download of one file with the reader of its content.
pub struct ContentStream {
    /// Bytes.
    size: u64,
    state: Mutex<StreamState>,
    changed: Condvar,
}

#[derive(Default)]
struct StreamState {
    /// A large file, once its download has started.
    incomplete: Option<Arc<IncompleteFile>>,
    /// The file once all of it is verified.
    complete: Option<Arc<File>>,
    /// The download has ended, well or not.
    has_ended: bool,
}

impl ContentStream {
    /// Of a file of this many bytes.
    pub fn new(size: u64) -> Self {
        Self { size, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes in a report of the download.
    pub fn on_report(&self, report: &DownloadReport) {
        let mut state = lock(&self.state);
        match report {
            DownloadReport::Started(_, incomplete) => state.incomplete = Some(incomplete.clone()),
            DownloadReport::Finished(_, outcome) => {
                if let DownloadOutcome::Unnamed(file) = outcome {
                    state.complete = Some(file.clone());
                }
                state.has_ended = true;
            }
            DownloadReport::Received { .. } => {}
            _ => return,
        }
        self.changed.notify_all();
    }

    /// The download has ended, or could not be started: nothing more is waited for.
    pub fn end(&self) {
        lock(&self.state).has_ended = true;
        self.changed.notify_all();
    }

    /// Gives the content to `write`, in order and at most [`BUFFER_BYTES`] at once, until it breaks or the download has ended;
    /// if that has failed, what comes before the first gap. An error is one of reading.
    pub fn read_to(&self, mut write: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut at = 0;
        while at < self.size {
            let Some((file, end)) = self.wait_beyond(at) else { break };
            while at < end {
                let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(BUFFER_BYTES);
                file.read_exact_at(&mut buffer[..length], at)?;
                if write(&buffer[..length]).is_break() {
                    return Ok(());
                }
                at += length as u64;
            }
        }
        Ok(())
    }

    /// Waits until bytes at `at`, where a group starts, are verified. Returns the file and the end of these bytes; `None` if
    /// the download has ended without them.
    fn wait_beyond(&self, at: u64) -> Option<(Arc<File>, u64)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(file) = &state.complete {
                return Some((file.clone(), self.size));
            }
            if let Some(incomplete) = &state.incomplete {
                let group_bytes = group_range(self.size, 0).end;
                let group = u32::try_from(at / group_bytes).expect("at most 65,536 groups");
                if incomplete.is_verified(group) {
                    return Some((incomplete.file().clone(), group_range(self.size, group).end));
                }
            }
            if state.has_ended {
                return None;
            }
            state = wait(&self.changed, state);
        }
    }
}
