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

use super::folder::Stamp;
use super::hashing::{HashError, hash_file};
use super::published::{Known, Publication};
use super::{Share, lock, read, write};
use crate::common::content::{GroupHash, Outline};
use crate::common::ticket::Grant;
use crate::common::transfer::RefusalReason;
use crate::common::types::{ContentHash, FileName, UserName};

/// Asked again and again while something takes long; `false` gives it up.
pub(super) type Patience<'a> = &'a mut dyn FnMut() -> bool;

/// Whoever waits for something looks this often whether patience lasts.
const LOOK: Duration = Duration::from_millis(100);
/// So often when it is for the list of publications: half a minute, as long as the server is waited for.
const LOOKS_FOR_LIST: u32 = 300;

/// A content that may be served, and where its bytes are.
pub(super) struct Served {
    publication: Arc<Publication>,
    bytes: Bytes,
}

enum Bytes {
    /// A whole file in the folder, held open.
    Whole { file: File, stamp: Stamp },
    /// A file that is still arriving.
    Part(Arc<Part>),
}

impl Served {
    /// Whether a group's bytes are there.
    pub(super) fn has(&self, group: u32) -> bool {
        match &self.bytes {
            Bytes::Whole { .. } => true,
            Bytes::Part(part) => (part.verified)(group),
        }
    }

    /// Whether all groups are.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.bytes, Bytes::Whole { .. })
    }

    /// Whether it is still what was opened: what was read of a file that has changed meanwhile must not leave.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.bytes {
            Bytes::Whole { file, stamp } => Stamp::of_file(file).is_ok_and(|now| now == *stamp),
            Bytes::Part(_) => true,
        }
    }

    /// Fills `place` from `offset` on.
    pub(super) fn read(&self, place: &mut [u8], offset: u64) -> Result<(), RefusalReason> {
        let file = match &self.bytes {
            Bytes::Whole { file, .. } => file,
            Bytes::Part(part) => &part.file,
        };
        file.read_exact_at(place, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RefusalReason::Changed,
            _ => RefusalReason::Unreadable,
        })
    }
}

impl Share {
    /// Opens what `grant` means for `downloader`. May have to hash the file first.
    pub(super) fn serve(
        &self,
        grant: &Grant,
        downloader: &UserName,
        patience: Patience<'_>,
    ) -> Result<Served, RefusalReason> {
        let publication = match self.registry.granted(grant, downloader) {
            Some(publication) => publication,
            // Not "no longer shared" as long as the list is not whole.
            None if !self.listing.wait_whole(patience) => return Err(RefusalReason::Unreadable),
            None => self.registry.granted(grant, downloader).ok_or(RefusalReason::NotShared)?,
        };
        if let Some(part) = self.arriving.of(&grant.name, grant.hash) {
            return Ok(Served { publication, bytes: Bytes::Part(part) });
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
                let settled = stamp.is_settled(SystemTime::now());
                let hash = self.outline_of(&file, &stamp, patience)?.root();
                publication.learn(Known { stamp, hash, settled });
                hash
            }
        };
        if hash != grant.hash {
            return Err(RefusalReason::Changed);
        }
        Ok(Served { publication, bytes: Bytes::Whole { file, stamp } })
    }

    /// Whether what was opened before may still be served as it is; if not, [`serve`](Self::serve) tells why, or opens
    /// it anew.
    pub(super) fn still_serves(&self, served: &Served, name: &FileName) -> bool {
        let same = self.registry.of(name).is_some_and(|publication| Arc::ptr_eq(&publication, &served.publication));
        same && match &served.bytes {
            Bytes::Whole { .. } => served.is_unchanged(),
            Bytes::Part(part) => self.arriving.of(name, part.outline.root()).is_some_and(|now| Arc::ptr_eq(&now, part)),
        }
    }

    /// The group hashes of what is served.
    pub(super) fn outline(&self, served: &Served, patience: Patience<'_>) -> Result<Arc<Outline>, RefusalReason> {
        let content = &served.publication.content;
        match &served.bytes {
            Bytes::Part(part) => Ok(part.outline.clone()),
            Bytes::Whole { file, stamp } => {
                if let Some(outline) = Outline::of_single_group(content.hash, content.size) {
                    return Ok(Arc::new(outline));
                }
                if let Some(outline) = self.recent.of(content.hash) {
                    return Ok(outline);
                }
                let outline = self.outline_of(file, stamp, patience)?;
                if outline.root() == content.hash { Ok(outline) } else { Err(RefusalReason::Changed) }
            }
        }
    }

    /// Finds or computes the outline of what the file holds now. One file is hashed at a time: it takes all cores.
    fn outline_of(&self, file: &File, stamp: &Stamp, patience: Patience<'_>) -> Result<Arc<Outline>, RefusalReason> {
        if let Some(outline) = self.cache.load(stamp) {
            return Ok(self.recent.share(outline));
        }
        let _turn = self.turnstile.enter(patience).ok_or(RefusalReason::Unreadable)?;
        if let Some(outline) = self.cache.load(stamp) {
            // Another upload has hashed it while this one waited.
            return Ok(self.recent.share(outline));
        }
        let settled = stamp.is_settled(SystemTime::now());
        let outline = hash_file(file, stamp, &mut |_| patience()).map_err(|error| match error {
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
pub(super) struct Listing {
    under_way: Mutex<usize>,
    ended: Condvar,
}

impl Listing {
    pub(super) fn begin(&self) {
        *lock(&self.under_way) += 1;
    }

    pub(super) fn end(&self) {
        *lock(&self.under_way) -= 1;
        self.ended.notify_all();
    }

    /// Waits until the list is whole; `false` if that takes too long.
    fn wait_whole(&self, patience: Patience<'_>) -> bool {
        for _ in 0..LOOKS_FOR_LIST {
            let under_way = lock(&self.under_way);
            if *under_way == 0 {
                return true;
            }
            drop(self.ended.wait_timeout(under_way, LOOK));
            if !patience() {
                return false;
            }
        }
        false
    }
}

/// Lets one in at a time.
#[derive(Default)]
pub(super) struct Turnstile {
    busy: Mutex<bool>,
    freed: Condvar,
}

/// Somebody is in.
pub(super) struct Turn<'a>(&'a Turnstile);

impl Turnstile {
    /// Waits for its turn, as long as `patience` lasts.
    pub(super) fn enter(&self, patience: Patience<'_>) -> Option<Turn<'_>> {
        let mut busy = lock(&self.busy);
        while *busy {
            let waited = self.freed.wait_timeout(busy, LOOK);
            drop(waited);
            if !patience() {
                return None;
            }
            busy = lock(&self.busy);
        }
        *busy = true;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.busy) = false;
        self.0.freed.notify_one();
    }
}

/// A file that is still arriving.
struct Part {
    outline: Arc<Outline>,
    file: Arc<File>,
    verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
}

/// All files that are still arriving and are served meanwhile.
#[derive(Default)]
pub(super) struct Arriving {
    parts: RwLock<HashMap<FileName, Arc<Part>>>,
}

impl Arriving {
    pub(super) fn begin(
        &self,
        name: &FileName,
        outline: Arc<Outline>,
        file: Arc<File>,
        verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    ) {
        write(&self.parts).insert(name.clone(), Arc::new(Part { outline, file, verified }));
    }

    pub(super) fn end(&self, name: &FileName) {
        write(&self.parts).remove(name);
    }

    pub(super) fn clear(&self) {
        write(&self.parts).clear();
    }

    fn of(&self, name: &FileName, hash: ContentHash) -> Option<Arc<Part>> {
        read(&self.parts).get(name).filter(|part| part.outline.root() == hash).cloned()
    }
}

/// Cuts an outline into parts that fit a frame each: the index of a part's first hash, and its hashes.
pub(super) fn outline_parts(outline: &Outline, part_max: usize) -> impl Iterator<Item = (u32, &[GroupHash])> {
    let first = move |part: usize| u32::try_from(part * part_max).expect("at most GROUPS_MAX groups");
    outline.groups().chunks(part_max).enumerate().map(move |(part, hashes)| (first(part), hashes))
}
