//! The second thread of a connection: hashes and writes what has arrived, while the first one receives more.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::coordinator::{DownloadEvent, REPORT_INTERVAL, SourceEvent, StoreResult};
use super::file_job::FileOperations;
use super::incomplete_file::{IncompleteFile, Write};
use super::scheduler::{Assignment, SourceId};
use super::small_files::SAVED_TOGETHER_MAX;
use crate::client::direct::PassedFiles;
use crate::common::chunk_tree::{GroupHasher, group_range};
use crate::common::sync::mpsc::{Receiver, Sender};

/// One read buffer of a connection.
#[derive(Default)]
pub(super) struct ReceivedBuffer {
    pub bytes: Vec<u8>,
    pub chunks: Vec<Chunk>,
}

/// Data of one group in a buffer.
pub(super) struct Chunk {
    pub assignment: Assignment,
    /// The file to write to, of a large file.
    pub incomplete: Option<Arc<IncompleteFile>>,
    /// Where in the content.
    pub offset: u64,
    /// Where in the buffer.
    pub at: Range<usize>,
    /// Whether the group ends with it.
    pub is_last: bool,
    /// The whole group was copied from a file that the source has passed: of a large file it is in its partial file, and
    /// nothing in the buffer.
    pub is_copied: bool,
}

impl Chunk {
    /// Whether it is all of a small file that was received.
    pub fn is_small_file(&self) -> bool {
        self.is_last && self.offset == 0 && self.incomplete.is_none() && !self.is_copied
    }
}

/// Small files of one buffer, saved together.
pub(super) struct SmallBatch<'a> {
    files: &'a FileOperations<'a>,
    verified: Vec<(Assignment, &'a [u8])>,
    /// The source has sent other content than published: nothing after it is saved.
    is_corrupt: bool,
}

impl<'a> SmallBatch<'a> {
    pub fn new(files: &'a FileOperations<'a>) -> Self {
        Self { files, verified: Vec::new(), is_corrupt: false }
    }

    /// Takes the bytes of a file in.
    pub fn add(&mut self, assignment: Assignment, bytes: &'a [u8]) -> Vec<StoreResult> {
        if self.is_corrupt {
            return vec![StoreResult::Discarded(assignment)];
        }
        if !self.files.is_content(assignment.file, bytes) {
            self.is_corrupt = true;
            return vec![StoreResult::Corrupt(assignment)];
        }
        self.verified.push((assignment, bytes));
        if self.verified.len() < SAVED_TOGETHER_MAX { Vec::new() } else { self.save() }
    }

    /// Saves what was taken in.
    pub fn save(&mut self) -> Vec<StoreResult> {
        let files: Vec<_> = self.verified.iter().map(|(assignment, bytes)| (assignment.file, *bytes)).collect();
        let saved = self.files.save_small(&files).into_iter().zip(self.verified.drain(..));
        let result = |((file, outcome), (assignment, _)): ((_, Option<_>), (Assignment, _))| {
            outcome.map_or(StoreResult::Discarded(assignment), |outcome| StoreResult::SmallFile(file, outcome))
        };
        saved.map(result).collect()
    }
}

enum ReceivingGroup {
    /// The only group of its file: gathered, then written at once.
    Small(Vec<u8>),
    Large(Box<GroupHasher>),
    /// It has another assignment by now, or could not be written.
    Stale,
}

struct Writer<'a> {
    files: &'a FileOperations<'a>,
    /// The group that is arriving, and its assignment.
    current: Option<(u32, ReceivingGroup)>,
    /// The source has sent other content than published: nothing more is written.
    is_corrupt: bool,
    copies: CopyVerifier<'a>,
}

/// Verifies groups that were copied from files, in either thread of a source.
pub(super) struct CopyVerifier<'a> {
    files: &'a FileOperations<'a>,
    /// Where the files came from.
    passed: Option<Arc<PassedFiles>>,
    /// For what is read to be verified.
    scratch: Vec<u8>,
}

/// Handles buffers until the channel is closed, and returns them empty.
pub(super) fn run_writer(
    files: &FileOperations<'_>,
    id: SourceId,
    buffers: Receiver<ReceivedBuffer>,
    recycled: &Sender<ReceivedBuffer>,
    events: &Sender<DownloadEvent>,
    copies: CopyVerifier<'_>,
) {
    let mut writer = Writer { files, current: None, is_corrupt: false, copies };
    let mut results = Vec::new();
    let report = |results: &mut Vec<StoreResult>| {
        if !results.is_empty() {
            let _ = events.send(DownloadEvent::Source(id, SourceEvent::Stored(std::mem::take(results))));
        }
    };
    for mut buffer in buffers {
        let mut reported_at = Instant::now();
        let mut small = SmallBatch::new(files);
        for chunk in buffer.chunks.drain(..) {
            let bytes = &buffer.bytes[chunk.at.clone()];
            match chunk.is_small_file() && !writer.is_corrupt {
                true => results.extend(small.add(chunk.assignment, bytes)),
                false => results.extend(writer.store(&chunk, bytes)),
            }
            writer.is_corrupt |= small.is_corrupt;
            // One event for many small files, unless they take long.
            if reported_at.elapsed() >= REPORT_INTERVAL {
                report(&mut results);
                reported_at = Instant::now();
            }
        }
        results.extend(small.save());
        report(&mut results);
        let _ = recycled.send(buffer);
    }
}

impl<'a> CopyVerifier<'a> {
    pub fn new(files: &'a FileOperations<'a>, passed: Option<Arc<PassedFiles>>) -> Self {
        Self { files, passed, scratch: Vec::new() }
    }

    /// A copy of other content is no fault of the source: the file may have changed after it was passed. It is asked for
    /// the group again, over TCP: it then says what has become of the file.
    pub fn store(&mut self, chunk: &Chunk, bytes: &[u8]) -> StoreResult {
        let Assignment { file, group, .. } = chunk.assignment;
        match &chunk.incomplete {
            Some(incomplete) => {
                match incomplete.partial().verify_group(incomplete.outline(), group, &mut self.scratch) {
                    Ok(true) => {
                        incomplete.set_holds_groups();
                        return StoreResult::Verified(chunk.assignment);
                    }
                    Ok(false) => {}
                    Err(error) => return StoreResult::WriteFailed(file, error.into()),
                }
            }
            None if self.files.is_content(file, bytes) => {
                let saved = self.files.save_small(&[(file, bytes)]).pop().and_then(|(_, outcome)| outcome);
                return saved
                    .map_or(StoreResult::Discarded(chunk.assignment), |outcome| StoreResult::SmallFile(file, outcome));
            }
            None => {}
        }
        self.passed.as_ref().inspect(|passed| passed.close());
        StoreResult::Discarded(chunk.assignment)
    }
}

impl Writer<'_> {
    /// Takes one chunk in; a result if its group ends with it.
    fn store(&mut self, chunk: &Chunk, bytes: &[u8]) -> Option<StoreResult> {
        let Assignment { file, group, id } = chunk.assignment;
        if self.is_corrupt {
            return chunk.is_last.then_some(StoreResult::Discarded(chunk.assignment));
        }
        if chunk.is_copied {
            return Some(self.copies.store(chunk, bytes));
        }
        let range = group_range(self.files.jobs[file].item.content.size, group);
        let mut state = match self.current.take() {
            Some((current, state)) if current == id => state,
            _ if chunk.incomplete.is_none() => {
                ReceivingGroup::Small(Vec::with_capacity((range.end - range.start) as usize))
            }
            _ => ReceivingGroup::Large(Box::new(GroupHasher::new(self.files.jobs[file].item.content.size, group))),
        };
        let result = self.store_in(&mut state, chunk, bytes);
        self.current = Some((id, state));
        result
    }

    fn store_in(&mut self, state: &mut ReceivingGroup, chunk: &Chunk, bytes: &[u8]) -> Option<StoreResult> {
        let Assignment { file, group, id } = chunk.assignment;
        match (state, &chunk.incomplete) {
            (ReceivingGroup::Small(gathered), _) => {
                gathered.extend_from_slice(bytes);
                if !chunk.is_last {
                    return None;
                }
                let mut small = SmallBatch::new(self.files);
                let corrupt = small.add(chunk.assignment, gathered).pop();
                self.is_corrupt = small.is_corrupt;
                corrupt.or_else(|| small.save().pop())
            }
            (state @ ReceivingGroup::Large(_), Some(incomplete)) => {
                if let ReceivingGroup::Large(hasher) = state {
                    hasher.update(bytes);
                }
                match incomplete.write(group, id, bytes, chunk.offset) {
                    Ok(Write::Done) => {}
                    // What is not on the disk must not count, whatever its hash.
                    Ok(Write::Stale) => {
                        *state = ReceivingGroup::Stale;
                        return finish_stale(chunk);
                    }
                    Err(error) => {
                        *state = ReceivingGroup::Stale;
                        return Some(StoreResult::WriteFailed(file, error.into()));
                    }
                }
                let ReceivingGroup::Large(hasher) = state else { return None };
                if !chunk.is_last {
                    return None;
                }
                self.is_corrupt = Some(&hasher.finish()) != incomplete.outline().group(group);
                Some(match self.is_corrupt {
                    true => StoreResult::Corrupt(chunk.assignment),
                    false => {
                        incomplete.set_holds_groups();
                        StoreResult::Verified(chunk.assignment)
                    }
                })
            }
            (ReceivingGroup::Large(_) | ReceivingGroup::Stale, _) => finish_stale(chunk),
        }
    }
}

fn finish_stale(chunk: &Chunk) -> Option<StoreResult> {
    chunk.is_last.then_some(StoreResult::Discarded(chunk.assignment))
}
