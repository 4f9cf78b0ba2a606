//! The shared folder: what is published from it, and the listener that serves it to other clients.
//!
//! * `folder`, `expand`: the folder by capability, and which files an argument means.
//! * `hashing`, `cache`: from bytes to outlines, and not twice.
//! * `published`, `tickets`, `slots`, `rate`: what is shared with whom, and how much of it at once.
//! * `serving`: the decision to serve, made anew for everything that is asked for.
//! * `listener`, `visitor`, `upload`: the TCP side.
//!
//! Must not know about the server, the screen, or how downloads are written.

mod cache;
mod expand;
mod folder;
mod hashing;
mod listener;
mod published;
mod rate;
mod serving;
mod slots;
mod tickets;
mod upload;
mod visitor;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Instant, SystemTime};

use self::cache::{Cache, Recent};
pub use self::expand::is_left_out;
use self::folder::{Folder, Stamp};
use self::hashing::{HashError, hash_file};
pub use self::listener::{Limits, Listener};
use self::published::{Known, Registry};
use self::serving::{Arriving, Listing, Turnstile};
use self::slots::Slots;
use self::tickets::TicketKeys;
use crate::common::content::{Outline, group_count};
use crate::common::crypto::Secret;
use crate::common::message::PublishedFile;
use crate::common::types::{Audience, Content, FileName};

/// Why a local file cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// No such file in the shared folder.
    #[error("{0}: no such file in the shared folder")]
    Missing(String),
    /// A pattern without a match.
    #[error("{0}: no file in the shared folder matches")]
    NoMatch(String),
    /// A folder without a file that could be published.
    #[error("{0}: there is nothing to publish in this folder")]
    Empty(String),
    /// A symbolic link, a FIFO, a device, a socket, or a link on the way to it.
    #[error("{0}: not a regular file or folder")]
    Special(String),
    /// It cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// Its name breaks the rules of published names.
    #[error("{0}: {1}")]
    Name(String, crate::common::types::FileNameError),
    /// Its name is not even text.
    #[error("{0}: a file name must be UTF-8")]
    NotUtf8(String),
    /// It changed while it was read.
    #[error("{0}: changed while it was read; publish it again")]
    Changed(String),
    /// Interrupted by the user.
    #[error("interrupted")]
    Interrupted,
}

/// One argument of `pub`, `unp` or `get` as the shell split it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathArgument {
    /// The text with quotes removed.
    pub text: String,
    /// Whether unquoted `*`, `?` or `[` make it a pattern. Within `pattern` quoted specials are escaped for globset.
    pub pattern: Option<String>,
}

/// What an argument of `pub` means.
#[derive(Debug, Default)]
pub struct Expanded {
    /// The files, sorted, each once.
    pub files: Vec<FileName>,
    /// What stood in the way of others; never empty when there are no files.
    pub errors: Vec<ShareError>,
}

/// Told how far hashing has come.
pub trait HashProgress: Sync {
    /// `done` of `total` bytes of `name` are hashed.
    fn hashed(&self, name: &FileName, done: u64, total: u64);
    /// Whether the user has asked to stop.
    fn interrupted(&self) -> bool;
}

/// The shared folder and what is published from it. One for the whole client, shared by the shell, the listener and the
/// downloads.
pub struct Share {
    folder: Folder,
    cache: Cache,
    recent: Recent,
    registry: Registry,
    arriving: Arriving,
    listing: Listing,
    /// To hash what is asked for, and what is to be published.
    turnstile: Turnstile,
    publishing: Turnstile,
    tickets: Mutex<TicketKeys>,
    slots: Arc<Slots>,
}

impl Share {
    /// Opens the folder by capability. `upload_slots` bounds the uploads that run at once.
    pub fn open(dir: &Path, upload_slots: u8) -> std::io::Result<Arc<Self>> {
        Self::with_cache(dir, upload_slots, Cache::of_user())
    }

    fn with_cache(dir: &Path, upload_slots: u8, cache: Cache) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            folder: Folder::open(dir)?,
            cache,
            recent: Recent::default(),
            registry: Registry::default(),
            arriving: Arriving::default(),
            listing: Listing::default(),
            turnstile: Turnstile::default(),
            publishing: Turnstile::default(),
            tickets: Mutex::default(),
            slots: Arc::new(Slots::new(upload_slots)),
        }))
    }

    /// The files that an argument of `pub` means: itself, what the pattern matches, or everything in the folder (`.` is
    /// the shared folder itself). Hidden entries, unfinished parts, `credentials.txt` and `fileshare.db*` are left out of
    /// patterns and folders; links and special files are left out of folders and patterns and refused by name.
    pub fn expand(&self, argument: &PathArgument) -> Expanded {
        self.folder.expand(argument)
    }

    /// Whether anything stands in the folder under this name, as far as can be told.
    pub fn is_taken(&self, name: &FileName) -> bool {
        !matches!(self.folder.kind(name.as_str()), Err(ShareError::Missing(_)))
    }

    /// Bytes of a file, to tell how far hashing has come; 0 if they cannot be told.
    pub fn size(&self, name: &FileName) -> u64 {
        self.folder.size(name)
    }

    /// Hashes a file (or finds its hash in the cache), ready to be published. Many may be hashed at a time; of large ones,
    /// which take all cores, only one is.
    pub fn prepare(&self, name: &FileName, progress: &dyn HashProgress) -> Result<PublishedFile, ShareError> {
        if progress.interrupted() {
            return Err(ShareError::Interrupted);
        }
        let (file, stamp) = self.folder.open_file(name)?;
        let settled = stamp.is_settled(SystemTime::now());
        let hash = match self.cache.load(&stamp) {
            Some(outline) => self.recent.keep(outline),
            None => {
                let interrupted = &mut || !progress.interrupted();
                let turn = (group_count(stamp.size) > 1).then(|| self.publishing.enter(interrupted));
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
        self.registry.prepare(name, Known { stamp, hash, settled });
        let content = Content { hash, size: stamp.size, mtime_ms: stamp.modified_ms() };
        Ok(PublishedFile { name: name.clone(), content })
    }

    /// From now on this is served, to its audience. Cheap, and harmless to repeat: the file is looked at only when it is
    /// asked for, unless [`prepare`](Self::prepare) or [`downloaded`](Self::downloaded) has done so.
    pub fn published(&self, name: &FileName, content: Content, audience: Audience) {
        self.registry.publish(name, content, audience);
    }

    /// From now on this is not served.
    pub fn withdrawn(&self, name: &FileName) {
        self.registry.withdraw(name);
    }

    /// Until [`list_ends`](Self::list_ends), publications may be told of that [`published`](Self::published) has not
    /// been called for: whoever asks for what is unknown waits. May be nested.
    pub fn list_begins(&self) {
        self.listing.begin();
    }

    /// See [`list_begins`](Self::list_begins).
    pub fn list_ends(&self) {
        self.listing.end();
    }

    /// Forgets all publications (another user logs in).
    pub fn clear(&self) {
        self.registry.clear();
        self.arriving.clear();
    }

    /// A file that is still arriving can be served as `name`, once that is published with this content: `file` holds the
    /// groups that `verified` says are there. Until [`downloaded`](Self::downloaded) or
    /// [`gave_up`](Self::gave_up).
    pub fn arriving(
        &self,
        name: &FileName,
        outline: Arc<Outline>,
        file: Arc<File>,
        verified: Arc<dyn Fn(u32) -> bool + Send + Sync>,
    ) {
        self.arriving.begin(name, outline, file, verified);
    }

    /// `name` now stands in the folder, and `file`, through which it was written and verified, is it: nothing needs to be
    /// hashed before it is served. To be called when its times are set and before or after [`published`](Self::published).
    pub fn downloaded(&self, name: &FileName, outline: &Outline, file: &File) {
        if let (Ok((_, stamp)), Ok(written)) = (self.folder.open_file(name), Stamp::of_file(file))
            && stamp == written
            && stamp.size == outline.size()
        {
            let known = Known { stamp, hash: outline.root(), settled: true };
            self.cache.store(&stamp, outline);
            self.recent.keep(outline.clone());
            match self.registry.of(name).filter(|publication| publication.content.hash == known.hash) {
                Some(publication) => publication.learn(known),
                None => self.registry.prepare(name, known),
            }
        }
        self.arriving.end(name);
    }

    /// Nothing more of `name` arrives, and it is not whole.
    pub fn gave_up(&self, name: &FileName) {
        self.arriving.end(name);
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

/// A thread that panicked has left nothing half-done behind any of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
