//! Open files in place of their bytes, over the [direct path](crate::client::direct): the same decision for each group as
//! when it is sent, in the same order.

use std::fs::File;
use std::sync::Arc;

use super::{Upload, UploadEnd};
use crate::client::direct;
use crate::client::upload::serve::ServeError;
use crate::common::chunk_tree::group_range;
use crate::common::peer_message::{DESCRIPTORS_MAX, GroupRange, PeerResponse};

/// Smaller files are sent: passing, opening and copying a file of 4 KiB takes longer than its bytes over TCP (10,000 of them
/// 2.16 s instead of 1.72 on ext4, 0.42 instead of 0.35 on tmpfs).
const PASSED_MIN_BYTES: u64 = 128 << 10;
/// About as many bytes of files are passed together, so that the downloader can begin with them.
const PASSED_BYTES: u64 = 8 << 20;
/// Most files that are passed together: with ten sources, a downloader with 1,024 descriptors has room for them.
const PASSED_FILES_MAX: usize = 64;
const _: () = assert!(PASSED_FILES_MAX <= DESCRIPTORS_MAX);

impl Upload<'_> {
    /// Tells the downloader where it gets open files, if that is possible.
    pub(super) fn open_direct_path(&mut self) -> Result<(), UploadEnd> {
        // Files that are passed count for no rate.
        let is_possible = self.context.rate_limiter.is_none() && direct::is_possible(self.reader.stream());
        let offer = is_possible.then(|| self.context.service.offer_direct()).flatten();
        let (socket, path) = offer.unzip();
        self.direct = path;
        self.send(&PeerResponse::DirectPath { socket })?;
        Ok(self.writer.flush()?)
    }

    /// Passes the files of the next requested groups. False if that is not possible: the next group is served as usual.
    pub(super) fn pass_groups(&mut self) -> Result<bool, UploadEnd> {
        let Some(path) = self.direct.clone().filter(|path| path.is_open()) else { return Ok(false) };
        let (mut ranges, mut files, mut bytes) = (Vec::<GroupRange>::new(), Vec::<Arc<File>>::new(), 0);
        while bytes < PASSED_BYTES
            && let Some(&GroupRange { content, first, .. }) = self.queue.front()
        {
            let size = self.grants.get(content as usize).map_or(0, |grant| grant.size);
            if size < PASSED_MIN_BYTES || !files.is_empty() && self.must_hash(content) {
                break;
            }
            let file = match self.open(content) {
                Ok(opened) => opened.passable_file().cloned(),
                Err(ServeError::Refused(_)) => None,
                Err(ServeError::Closed(end)) => {
                    self.requeue(ranges);
                    return Err(end);
                }
            };
            let Some(file) = file else { break };
            let is_same_file = files.last().is_some_and(|last| Arc::ptr_eq(last, &file));
            let is_next =
                |last: &&mut GroupRange| is_same_file && (last.content, last.first + last.count) == (content, first);
            match ranges.last_mut().filter(is_next) {
                Some(last) => last.count += 1,
                None if files.len() == PASSED_FILES_MAX => break,
                None => {
                    ranges.push(GroupRange { content, first, count: 1 });
                    files.push(file);
                }
            }
            let group = group_range(size, first);
            bytes += group.end - group.start;
            self.advance_queue(1);
        }
        if files.is_empty() {
            return Ok(false);
        }
        if let Err(error) = path.pass(&files) {
            log::debug!("no file is passed any more: {error}");
            self.direct = None;
            self.requeue(ranges);
            return Ok(false);
        }
        self.send(&PeerResponse::GroupsPassed { ranges: ranges.clone() })?;
        // The downloader copies these while the next files are opened.
        self.writer.flush()?;
        for &GroupRange { content, first, count } in &ranges {
            let grant = &self.grants[content as usize];
            for group in first..first + count {
                let range = group_range(grant.size, group);
                self.reports.begin_group(content, grant);
                self.reports.end_group(content, range.end - range.start);
            }
        }
        Ok(true)
    }

    /// Whether the content's file is hashed before it is passed: files that are open do not wait for that.
    fn must_hash(&self, content: u32) -> bool {
        let is_open = self.open.as_ref().is_some_and(|(open, _)| *open == content);
        let grant = self.grants.get(content as usize);
        !is_open && grant.is_some_and(|grant| !self.context.service.is_hash_known(&grant.name))
    }

    /// Puts groups that were not passed back to the front of the queue.
    fn requeue(&mut self, ranges: Vec<GroupRange>) {
        ranges.into_iter().rev().for_each(|range| self.queue.push_front(range));
    }
}
