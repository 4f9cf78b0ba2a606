//! The decision to serve: made for every chunk group anew, so that a withdrawal or a change of the file takes effect in
//! the middle of a transfer.
//!
//! Defended: a ticket, however honest, reaches only what is published now, under that name, with that content, to that
//! downloader, and stands in the folder as it was when it was hashed. A file whose stamp is another than then is hashed
//! again before a byte of it leaves.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use super::UploadService;
use super::registry::{HashedState, Publication};
use crate::client::files::{FileIdentity, HashError, hash_file};
use crate::common::chunk_tree::{GroupHash, GroupHashes};
use crate::common::peer_message::RefusalReason;
use crate::common::sync::{lock, read, write};
use crate::common::types::{ContentHash, ContentRef, FileName, UserName};

/// Asked again and again while something takes long; `false` gives it up.
pub(super) type KeepWaiting<'a> = &'a mut dyn FnMut() -> bool;

/// Whoever waits for something looks this often whether keep_waiting lasts.
const LOOK: Duration = Duration::from_millis(100);
/// So often when it is for the list of publications: half a minute, as long as the server is waited for.
const LOOKS_FOR_LIST: u32 = 300;

/// A content that may be served, and where its bytes are.
pub(super) struct OpenContent {
    publication: Arc<Publication>,
    bytes: Backing,
}

enum Backing {
    /// A whole file in the folder, held open.
    Whole { file: File, stamp: FileIdentity },
    /// A file that is still arriving.
    IncompleteFile(Arc<IncompleteFile>),
}

impl OpenContent {
    /// Whether a group's bytes are there.
    pub(super) fn has(&self, group: u32) -> bool {
        match &self.bytes {
            Backing::Whole { .. } => true,
            Backing::IncompleteFile(part) => (part.verified)(group),
        }
    }

    /// Whether all groups are.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.bytes, Backing::Whole { .. })
    }

    /// Whether it is still what was opened: what was read of a file that has changed meanwhile must not leave.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.bytes {
            Backing::Whole { file, stamp } => FileIdentity::of_file(file).is_ok_and(|now| now == *stamp),
            Backing::IncompleteFile(_) => true,
        }
    }

    /// Fills `place` from `offset` on.
    pub(super) fn read(&self, place: &mut [u8], offset: u64) -> Result<(), RefusalReason> {
        let file = match &self.bytes {
            Backing::Whole { file, .. } => file,
            Backing::IncompleteFile(part) => &part.file,
        };
        file.read_exact_at(place, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RefusalReason::Changed,
            _ => RefusalReason::Unreadable,
        })
    }
}

impl UploadService {
    /// Opens what `grant` means for `downloader`. May have to hash the file first.
    pub(super) fn serve(
        &self,
        grant: &ContentRef,
        downloader: &UserName,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<OpenContent, RefusalReason> {
        let publication = match self.registry.lookup_granted(grant, downloader) {
            Some(publication) => publication,
            // Not "no longer shared" as long as the list is not whole.
            None if !self.listing.wait_complete(keep_waiting) => return Err(RefusalReason::Unreadable),
            None => self.registry.lookup_granted(grant, downloader).ok_or(RefusalReason::NotShared)?,
        };
        if let Some(part) = self.incomplete.of(&grant.name, grant.hash) {
            return Ok(OpenContent { publication, bytes: Backing::IncompleteFile(part) });
        }
        let (file, stamp) = self.folder.open_file(&grant.name).map_err(|error| {
            log::debug!("asked for a published file: {error}");
            RefusalReason::Unreadable
        })?;
        if stamp.size != grant.size {
            return Err(RefusalReason::Changed);
        }
        let known = publication.known().filter(|known| known.stamp == stamp && known.settled);
        let hash = match known {
            Some(known) => known.hash,
            None => {
                let settled = !stamp.is_racy(SystemTime::now());
                let hash = self.outline_of(&file, &stamp, keep_waiting)?.root();
                publication.set_hashed(HashedState { stamp, hash, settled });
                hash
            }
        };
        if hash != grant.hash {
            return Err(RefusalReason::Changed);
        }
        Ok(OpenContent { publication, bytes: Backing::Whole { file, stamp } })
    }

    /// Whether what was opened before may still be served as it is; if not, [`serve`](Self::serve) tells why, or opens
    /// it anew.
    pub(super) fn is_still_valid(&self, served: &OpenContent, name: &FileName) -> bool {
        let same = self.registry.of(name).is_some_and(|publication| Arc::ptr_eq(&publication, &served.publication));
        same && match &served.bytes {
            Backing::Whole { .. } => served.is_unchanged(),
            Backing::IncompleteFile(part) => {
                self.incomplete.of(name, part.outline.root()).is_some_and(|now| Arc::ptr_eq(&now, part))
            }
        }
    }

    /// The group hashes of what is served.
    pub(super) fn outline(
        &self,
        served: &OpenContent,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<Arc<GroupHashes>, RefusalReason> {
        let content = &served.publication.content;
        match &served.bytes {
            Backing::IncompleteFile(part) => Ok(part.outline.clone()),
            Backing::Whole { file, stamp } => {
                if let Some(outline) = GroupHashes::from_single_group(content.hash, content.size) {
                    return Ok(Arc::new(outline));
                }
                if let Some(outline) = self.recent.of(content.hash) {
                    return Ok(outline);
                }
                let outline = self.outline_of(file, stamp, keep_waiting)?;
                if outline.root() == content.hash { Ok(outline) } else { Err(RefusalReason::Changed) }
            }
        }
    }

    /// Finds or computes the outline of what the file holds now. One file is hashed at a time: it takes all cores.
    fn outline_of(
        &self,
        file: &File,
        stamp: &FileIdentity,
        keep_waiting: KeepWaiting<'_>,
    ) -> Result<Arc<GroupHashes>, RefusalReason> {
        if let Some(outline) = self.cache.load(stamp) {
            return Ok(self.recent.share(outline));
        }
        let _turn = self.turnstile.acquire(keep_waiting).ok_or(RefusalReason::Unreadable)?;
        if let Some(outline) = self.cache.load(stamp) {
            // Another upload has hashed it while this one waited.
            return Ok(self.recent.share(outline));
        }
        let settled = !stamp.is_racy(SystemTime::now());
        let outline = hash_file(file, stamp, &mut |_| keep_waiting()).map_err(|error| match error {
            HashError::Changed => RefusalReason::Changed,
            HashError::Interrupted | HashError::Io(_) => RefusalReason::Unreadable,
        })?;
        if settled {
            self.cache.store(stamp, &outline);
        }
        Ok(self.recent.share(outline))
    }
}

/// Whether what is published is being told to the registry just now: the server may name this client as a source of
/// something that is not on its list yet.
#[derive(Default)]
pub(super) struct LoadGate {
    under_way: Mutex<usize>,
    ended: Condvar,
}

impl LoadGate {
    pub(super) fn begin(&self) {
        *lock(&self.under_way) += 1;
    }

    #[cfg(test)]
    pub(super) fn is_loading(&self) -> bool {
        *lock(&self.under_way) > 0
    }

    pub(super) fn end(&self) {
        *lock(&self.under_way) -= 1;
        self.ended.notify_all();
    }

    /// Waits until the list is whole; `false` if that takes too long.
    fn wait_complete(&self, keep_waiting: KeepWaiting<'_>) -> bool {
        for _ in 0..LOOKS_FOR_LIST {
            let under_way = lock(&self.under_way);
            if *under_way == 0 {
                return true;
            }
            drop(self.ended.wait_timeout(under_way, LOOK));
            if !keep_waiting() {
                return false;
            }
        }
        false
    }
}

/// Lets one in at a time.
#[derive(Default)]
pub(super) struct HashLock {
    busy: Mutex<bool>,
    freed: Condvar,
}

/// Somebody is in.
pub(super) struct HashPermit<'a>(&'a HashLock);

impl HashLock {
    /// Waits for its turn, as long as `keep_waiting` lasts.
    pub(super) fn acquire(&self, keep_waiting: KeepWaiting<'_>) -> Option<HashPermit<'_>> {
        let mut busy = lock(&self.busy);
        while *busy {
            let waited = self.freed.wait_timeout(busy, LOOK);
            drop(waited);
            if !keep_waiting() {
                return None;
            }
            busy = lock(&self.busy);
        }
        *busy = true;
        Some(HashPermit(self))
    }
}

impl Drop for HashPermit<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) = false;
        self.0.freed.notify_one();
    }
}

/// A file that is still arriving.
struct IncompleteFile {
    outline: Arc<GroupHashes>,
    file: Arc<File>,
    verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
}

/// All files that are still arriving and are served meanwhile.
#[derive(Default)]
pub(super) struct IncompleteFiles {
    parts: RwLock<HashMap<FileName, Arc<IncompleteFile>>>,
}

impl IncompleteFiles {
    pub(super) fn begin(
        &self,
        name: &FileName,
        outline: Arc<GroupHashes>,
        file: Arc<File>,
        verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    ) {
        write(&self.parts).insert(name.clone(), Arc::new(IncompleteFile { outline, file, verified }));
    }

    pub(super) fn end(&self, name: &FileName) {
        write(&self.parts).remove(name);
    }

    pub(super) fn clear(&self) {
        write(&self.parts).clear();
    }

    fn of(&self, name: &FileName, hash: ContentHash) -> Option<Arc<IncompleteFile>> {
        read(&self.parts).get(name).filter(|part| part.outline.root() == hash).cloned()
    }
}

/// Cuts an outline into parts that fit a frame each: the index of a part's first hash, and its hashes.
pub(super) fn outline_parts(outline: &GroupHashes, part_max: usize) -> impl Iterator<Item = (u32, &[GroupHash])> {
    let first = move |part: usize| u32::try_from(part * part_max).expect("at most GROUPS_MAX groups");
    outline.groups().chunks(part_max).enumerate().map(move |(part, hashes)| (first(part), hashes))
}
