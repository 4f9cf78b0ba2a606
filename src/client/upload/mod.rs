//! Serves published files to other clients over TCP.
//!
//! * `listener`, `pending`: accepting connections, and those that have not authenticated yet.
//! * `upload`: one connection of a downloader.
//! * `serve`: the decision to serve, made anew for every chunk group.
//! * `registry`: what is published, to which audience.
//! * `slots`, `rate`, `ticket_keys`: how much is served at once, and to whom.
//!
//! Must not know about the server, the screen, or how downloads are written.

mod listener;
mod pending;
mod rate;
mod registry;
mod serve;
mod slots;
mod ticket_keys;
mod upload;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

pub use self::listener::Listener;
use self::registry::{HashedState, Registry};
use self::serve::{HashLock, IncompleteFiles, LoadGate};
use self::slots::UploadSlots;
use self::ticket_keys::TicketKeys;
use crate::client::files::{
    DiskCache, ExpandedPaths, FileIdentity, HashError, HashProgress, MemoryCache, PathArg, ShareError, SharedDir,
    hash_file,
};
use crate::common::chunk_tree::{GroupHashes, group_count};
use crate::common::crypto::Secret;
use crate::common::sync::lock;
use crate::common::types::{Audience, Content, FileName, NamedContent};

/// The shared folder and what is published from it. One for the whole client, shared by the shell, the listener and the
/// downloads.
pub struct UploadService {
    folder: SharedDir,
    cache: DiskCache,
    recent: MemoryCache,
    registry: Registry,
    incomplete: IncompleteFiles,
    listing: LoadGate,
    /// To hash what is asked for, and what is to be published.
    turnstile: HashLock,
    publishing: HashLock,
    tickets: Mutex<TicketKeys>,
    slots: Arc<UploadSlots>,
}

impl UploadService {
    /// Opens the folder by capability. `upload_slots` bounds the uploads that run at once.
    pub fn open(dir: &Path, upload_slots: u8) -> std::io::Result<Arc<Self>> {
        Self::with_cache(dir, upload_slots, DiskCache::in_user_cache_dir())
    }

    fn with_cache(dir: &Path, upload_slots: u8, cache: DiskCache) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            folder: SharedDir::open(dir)?,
            cache,
            recent: MemoryCache::default(),
            registry: Registry::default(),
            incomplete: IncompleteFiles::default(),
            listing: LoadGate::default(),
            turnstile: HashLock::default(),
            publishing: HashLock::default(),
            tickets: Mutex::default(),
            slots: Arc::new(UploadSlots::new(upload_slots)),
        }))
    }

    /// The files that an argument of `pub` means: itself, what the pattern matches, or everything in the folder (`.` is
    /// the shared folder itself). Hidden entries, unfinished parts, `credentials.txt` and `fileshare.db*` are left out of
    /// patterns and folders; links and special files are left out of folders and patterns and refused by name.
    pub fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        self.folder.expand(argument)
    }

    /// Whether anything stands in the folder under this name, as far as can be told.
    pub fn exists(&self, name: &FileName) -> bool {
        !matches!(self.folder.stat(name.as_str()), Err(ShareError::Missing(_)))
    }

    /// Bytes of a file, to tell how far hashing has come; 0 if they cannot be told.
    pub fn size(&self, name: &FileName) -> u64 {
        self.folder.stat(name.as_str()).map_or(0, |stat| stat.size)
    }

    /// Hashes a file (or finds its hash in the cache), ready to be published. Many may be hashed at a time; of large ones,
    /// which take all cores, only one is.
    pub fn hash_file(&self, name: &FileName, progress: &dyn HashProgress) -> Result<NamedContent, ShareError> {
        if progress.interrupted() {
            return Err(ShareError::Interrupted);
        }
        let (file, stamp) = self.folder.open_file(name)?;
        let settled = !stamp.is_racy(SystemTime::now());
        let hash = match self.cache.load(&stamp) {
            Some(outline) => self.recent.keep(outline),
            None => {
                let interrupted = &mut || !progress.interrupted();
                let turn = (group_count(stamp.size) > 1).then(|| self.publishing.acquire(interrupted));
                if matches!(turn, Some(None)) {
                    return Err(ShareError::Interrupted);
                }
                let outline = hash_file(&file, &stamp, &mut |done| {
                    progress.hashed(name, done, stamp.size);
                    !progress.interrupted()
                });
                let outline = outline.map_err(|error| match error {
                    HashError::Changed => ShareError::Changed(name.to_string()),
                    HashError::Interrupted => ShareError::Interrupted,
                    HashError::Io(error) => ShareError::Unreadable(name.to_string(), error),
                })?;
                if settled {
                    self.cache.store(&stamp, &outline);
                }
                self.recent.keep(outline)
            }
        };
        self.registry.prepare(name, HashedState { stamp, hash, settled });
        let content = Content { hash, size: stamp.size, mtime_ms: stamp.modified_ms() };
        Ok(NamedContent { name: name.clone(), content })
    }

    /// From now on this is served, to its audience. Cheap, and harmless to repeat: the file is looked at only when it is
    /// asked for, unless [`hash_file`](Self::hash_file) or [`register_downloaded`](Self::register_downloaded) has done so.
    pub fn published(&self, name: &FileName, content: Content, audience: Audience) {
        self.registry.publish(name, content, audience);
    }

    /// From now on this is not served.
    pub fn withdrawn(&self, name: &FileName) {
        self.registry.withdraw(name);
    }

    /// Until [`end_loading`](Self::end_loading), publications may be told of that [`published`](Self::published) has not
    /// been called for: whoever asks for what is unknown waits. May be nested.
    pub fn begin_loading(&self) {
        self.listing.begin();
    }

    /// See [`begin_loading`](Self::begin_loading).
    pub fn end_loading(&self) {
        self.listing.end();
    }

    /// Forgets all publications (another user logs in).
    pub fn clear(&self) {
        self.registry.clear();
        self.incomplete.clear();
    }

    /// A file that is still arriving can be served as `name`, once that is published with this content: `file` holds the
    /// groups that `verified` says are there. Until [`register_downloaded`](Self::register_downloaded) or
    /// [`drop_incomplete`](Self::drop_incomplete).
    pub fn serve_incomplete(
        &self,
        name: &FileName,
        outline: Arc<GroupHashes>,
        file: Arc<File>,
        verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    ) {
        self.incomplete.begin(name, outline, file, verified);
    }

    /// `name` now stands in the folder, and `file`, through which it was written and verified, is it: nothing needs to be
    /// hashed before it is served. To be called when its times are set and before or after [`published`](Self::published).
    pub fn register_downloaded(&self, name: &FileName, outline: &GroupHashes, file: &File) {
        if let (Ok((_, stamp)), Ok(written)) = (self.folder.open_file(name), FileIdentity::of_file(file))
            && stamp == written
            && stamp.size == outline.size()
        {
            let known = HashedState { stamp, hash: outline.root(), settled: true };
            self.cache.store(&stamp, outline);
            self.recent.keep(outline.clone());
            match self.registry.of(name).filter(|publication| publication.content.hash == known.hash) {
                Some(publication) => publication.set_hashed(known),
                None => self.registry.prepare(name, known),
            }
        }
        self.incomplete.end(name);
    }

    /// Nothing more of `name` arrives, and it is not whole.
    pub fn drop_incomplete(&self, name: &FileName) {
        self.incomplete.end(name);
    }

    /// A new session: tickets are sealed under this key from now on; earlier keys stay valid for `TICKET_KEY_GRACE`.
    pub fn ticket_key(&self, key: &Secret, server_now_ms: u64) {
        lock(&self.tickets).replace(key, server_now_ms, Instant::now());
    }

    /// Uploads that could start now.
    pub fn free_slots(&self) -> u8 {
        self.slots.free()
    }
}

#[cfg(test)]
mod test_support;

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
