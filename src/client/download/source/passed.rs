//! Groups that are copied from files which the source passes over the [direct path](crate::client::direct), instead of
//! being received.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Instant;

use super::{PendingGroup, SourceConnection};
use crate::client::direct::{PassedFiles, is_possible};
use crate::client::download::coordinator::{SourceEnd, SourceEvent, StoreResult};
use crate::client::download::incomplete_file::{CopyError, Write};
use crate::client::download::writer::{Chunk, ReceivedBuffer};
use crate::client::transport::{RecordReader, RecordWriter, TransportError};
use crate::common::chunk_tree::group_range;
use crate::common::peer_crypto::{Frame, TransferError};
use crate::common::peer_message::{DESCRIPTORS_MAX, GroupRange, PeerRequest, PeerResponse};
use crate::common::types::UserName;

/// Small files are verified together when they reach this many bytes.
const COPIED_BYTES: usize = 256 << 10;

/// A group to copy.
pub(super) struct PassedGroup {
    group: PendingGroup,
    /// `None` if the file did not arrive.
    file: Option<Arc<File>>,
}

/// Asks a source that may be on this host for the direct path. `None`: everything comes over TCP.
pub(super) fn open_direct_path(
    reader: &mut RecordReader<PeerResponse>,
    writer: &mut RecordWriter,
    uploader: &UserName,
) -> Result<Option<Arc<PassedFiles>>, SourceEnd> {
    if !is_possible(reader.stream()) {
        return Ok(None);
    }
    let lost = |error: TransportError| SourceEnd::Lost(error.to_string());
    let asked = writer.message(&PeerRequest::OpenDirectPath).and_then(|()| writer.flush());
    match asked.and_then(|()| reader.next()).map_err(lost)? {
        Frame::Message(PeerResponse::DirectPath { socket }) => Ok(socket.and_then(|socket| {
            let connected = PassedFiles::connect(&socket, uploader);
            connected.inspect_err(|error| log::debug!("no direct path: {error}")).ok().map(Arc::new)
        })),
        Frame::Message(PeerResponse::Busy { retry_ms }) => Err(SourceEnd::Busy { retry_ms }),
        _ => Err(lost(TransferError::Malformed.into())),
    }
}

/// Reading anything else may never end.
fn is_regular(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file())
}

impl SourceConnection<'_> {
    /// The next requested groups are to be copied from files, which have been passed already.
    pub(super) fn on_groups_passed(&mut self, ranges: &[GroupRange]) -> Result<(), SourceEnd> {
        let received = self.passed.as_ref().map(|passed| passed.receive());
        let files = match received {
            None => return Err(self.violation("passed files that were not asked for")),
            Some(Ok(files)) => files,
            // What was passed before the path was closed has arrived.
            Some(Err(_)) if self.is_path_closed => return Err(self.violation("said that it passed files")),
            Some(Err(error)) => {
                log::debug!("a passed file did not arrive: {error}");
                self.close_path();
                Vec::new()
            }
        };
        if !(1..=DESCRIPTORS_MAX).contains(&ranges.len()) || ranges.iter().any(|range| range.count == 0) {
            return Err(self.violation("passed no groups, or too many"));
        }
        let mut files = files.into_iter().map(|file| is_regular(&file).then(|| Arc::new(file)));
        for range in ranges {
            let file = files.next().flatten();
            for group in range.first..range.first.saturating_add(range.count) {
                let is_next = |pending: &mut PendingGroup| {
                    let start = group_range(self.jobs[pending.assignment.file].item.content.size, group).start;
                    (pending.content, pending.assignment.group, pending.next) == (range.content, group, start)
                };
                let Some(group) = self.pending_groups.pop_front_if(is_next) else {
                    return Err(self.violation("passed an unrequested group"));
                };
                self.to_copy.push_back(PassedGroup { group, file: file.clone() });
            }
        }
        self.hashing.end();
        Ok(())
    }

    /// Copies a group to be verified.
    pub(super) fn copy_group(&mut self, PassedGroup { group, file }: PassedGroup) -> Result<(), SourceEnd> {
        let PendingGroup { assignment, incomplete, next: offset, end, .. } = group;
        let start = self.copied.bytes.len();
        let copied = match (&incomplete, file) {
            (_, None) => Err(CopyError::Source(std::io::ErrorKind::NotFound.into())),
            (Some(incomplete), Some(file)) => {
                incomplete.copy_group(assignment.group, assignment.id, &file, &mut self.copy_buffer)
            }
            (None, Some(file)) => {
                self.copied.bytes.resize(start + (end - offset) as usize, 0);
                let read = file.read_exact_at(&mut self.copied.bytes[start..], offset);
                read.map(|()| Write::Done).map_err(CopyError::Source)
            }
        };
        self.current_file = assignment.file;
        self.received_bytes += end - offset;
        self.completed.push(assignment);
        self.last_received = Instant::now();
        let failed = match copied {
            Ok(Write::Done) => {
                let at = start..self.copied.bytes.len();
                self.copied.chunks.push(Chunk { assignment, incomplete, offset, at, is_last: true, is_copied: true });
                let is_due = self.copied.chunks.last().is_some_and(|chunk| chunk.incomplete.is_some());
                let is_due = is_due || self.copied.bytes.len() >= COPIED_BYTES || self.to_copy.is_empty();
                return if is_due { self.flush_copied() } else { Ok(()) };
            }
            Ok(Write::Stale) => StoreResult::Discarded(assignment),
            Err(CopyError::Target(error)) => StoreResult::WriteFailed(assignment.file, error.into()),
            Err(CopyError::Source(error)) => {
                log::debug!("cannot copy from a passed file: {error}");
                self.close_path();
                StoreResult::Discarded(assignment)
            }
        };
        self.copied.bytes.truncate(start);
        self.flush_copied()?;
        self.report(SourceEvent::Stored(vec![failed]));
        Ok(())
    }

    /// From now on the source can pass nothing.
    fn close_path(&mut self) {
        self.is_path_closed = true;
        self.passed.as_ref().inspect(|passed| passed.close());
    }

    /// Gives all copied groups to the writer. While that has enough to do, this thread verifies them itself: what takes
    /// longer, copying or verifying, depends on the file system.
    pub(super) fn flush_copied(&mut self) -> Result<(), SourceEnd> {
        if self.copied.chunks.is_empty() {
            return Ok(());
        }
        self.report_received();
        let mut fresh = self.recycled.try_recv().unwrap_or_default();
        fresh.bytes.clear();
        let ReceivedBuffer { bytes, chunks } = match self.buffers.try_send(std::mem::replace(&mut self.copied, fresh)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(SourceEnd::Done),
            Err(TrySendError::Full(buffer)) => buffer,
        };
        let store = |chunk: Chunk| self.copies.store(&chunk, &bytes[chunk.at.clone()]);
        let results = chunks.into_iter().map(store).collect();
        self.report(SourceEvent::Stored(results));
        Ok(())
    }
}
