//! The decision to serve, made for every chunk group anew: unpublishing and changes of the file take effect in the middle
//! of a transfer.
//!
//! Defended: a ticket, however valid, reaches only what is published now, under that name, with that content, to that
//! downloader, and unchanged since it was hashed. A file with another identity is hashed again before a byte of it is
//! sent.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select, tick};

use super::UploadService;
use crate::client::direct;
use crate::client::download::IncompleteFile;
use crate::client::files::{FileIdentity, HashError};
use crate::client::publications::Publication;
use crate::client::transport::TransportError;
use crate::common::chunk_tree::{GroupHash, GroupHashes, group_count};
use crate::common::peer_message::RefusalReason;
use crate::common::sync::read;
use crate::common::threads;
use crate::common::types::{ContentRef, FileName, UserName};

/// A downloader waits this long for the list of publications: as long as the client waits for the server.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadEnd {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the downloader violated the protocol: {0}")]
    Violation(&'static str),
    #[error("the downloader requested nothing for too long")]
    Idle,
    #[error("the slot of an idle downloader was needed for another")]
    Preempted,
    #[error("the client is shutting down")]
    ShuttingDown,
}

/// Why a content is not served.
#[derive(Debug)]
pub(super) enum ServeError {
    /// The downloader gets the reason; the connection continues.
    Refused(RefusalReason),
    /// The connection ends.
    Closed(UploadEnd),
}

impl From<RefusalReason> for ServeError {
    fn from(reason: RefusalReason) -> Self {
        Self::Refused(reason)
    }
}

impl From<UploadEnd> for ServeError {
    fn from(end: UploadEnd) -> Self {
        Self::Closed(end)
    }
}

impl From<TransportError> for ServeError {
    fn from(error: TransportError) -> Self {
        Self::Closed(error.into())
    }
}

/// Waits for slow work while the downloader is kept informed.
pub(super) struct KeepAlive<'a> {
    /// Disconnects when the client shuts down.
    pub(super) shutdown: &'a Receiver<std::convert::Infallible>,
    pub(super) interval: Duration,
    /// Informs the downloader; called every `interval`.
    pub(super) send: &'a mut dyn FnMut() -> Result<(), TransportError>,
}

impl KeepAlive<'_> {
    /// Waits for a value; `None` when `receiver` is disconnected. After `timeout` the content is refused.
    fn wait<T>(&mut self, receiver: &Receiver<T>, timeout: Option<Duration>) -> Result<Option<T>, ServeError> {
        let (timed_out, ticks) = (timeout.map_or_else(never, after), tick(self.interval));
        loop {
            select! {
                recv(receiver) -> value => return Ok(value.ok()),
                recv(self.shutdown) -> _ => return Err(UploadEnd::ShuttingDown.into()),
                recv(timed_out) -> _ => return Err(RefusalReason::Unreadable.into()),
                recv(ticks) -> _ => (self.send)()?,
            }
        }
    }
}

/// A content that may be served, and where its bytes are.
pub(super) struct OpenContent {
    publication: Arc<Publication>,
    backing: Backing,
}

enum Backing {
    Complete {
        file: Arc<File>,
        identity: FileIdentity,
        /// Once it is known.
        is_passable: OnceCell<bool>,
    },
    /// This client is downloading the file itself.
    Incomplete(Arc<IncompleteFile>),
}

impl OpenContent {
    pub(super) fn has_group(&self, group: u32) -> bool {
        match &self.backing {
            Backing::Complete { .. } => true,
            Backing::Incomplete(incomplete) => incomplete.serves(group),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.backing, Backing::Complete { .. })
    }

    /// The file, if it may be passed to another process: it was opened for reading alone, is complete, and
    /// [its file system is local](direct::is_passable).
    pub(super) fn passable_file(&self) -> Option<&Arc<File>> {
        match &self.backing {
            Backing::Complete { file, is_passable, .. } => {
                Some(file).filter(|file| *is_passable.get_or_init(|| direct::is_passable(file)))
            }
            Backing::Incomplete(_) => None,
        }
    }

    /// Whether the file is what was opened: what was read of a file that has changed meanwhile must not be sent.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.backing {
            Backing::Complete { file, identity, .. } => FileIdentity::of_file(file).is_ok_and(|now| now == *identity),
            Backing::Incomplete(_) => true,
        }
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), RefusalReason> {
        let file = match &self.backing {
            Backing::Complete { file, .. } => file,
            Backing::Incomplete(incomplete) => incomplete.file(),
        };
        file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RefusalReason::Changed,
            _ => RefusalReason::Unreadable,
        })
    }
}

impl UploadService {
    /// Opens what `grant` allows `downloader` to download. Hashes the file first if its hash is not known.
    pub(super) fn open_content(
        &self,
        grant: &ContentRef,
        downloader: &UserName,
        keep_alive: &mut KeepAlive<'_>,
    ) -> Result<OpenContent, ServeError> {
        let mut publication = self.publications.lookup_granted(grant, downloader);
        if publication.is_none() {
            if let Some(ended) = self.publications.loading() {
                keep_alive.wait(&ended, Some(LIST_TIMEOUT))?;
            }
            // The list may also have been completed between the look-up and the question whether it is loading.
            publication = self.publications.lookup_granted(grant, downloader);
        }
        let is_allowed = self.files.private_names().allow(&grant.name);
        let publication = publication.filter(|_| is_allowed).ok_or(RefusalReason::NotShared)?;
        if let Some(incomplete) = self.incomplete_file(grant) {
            return Ok(OpenContent { publication, backing: Backing::Incomplete(incomplete) });
        }
        let (file, identity) = self.files.dir().open_file(&grant.name).map_err(|error| {
            log::debug!("cannot open a published file: {error}");
            RefusalReason::Unreadable
        })?;
        if identity.size != grant.size {
            return Err(RefusalReason::Changed.into());
        }
        let hash = match self.files.cached_content_hash(&identity) {
            Some(hash) => hash,
            None => self.hash(&file, &identity, keep_alive)?.root(),
        };
        if hash != grant.hash {
            return Err(RefusalReason::Changed.into());
        }
        let is_passable = OnceCell::new();
        Ok(OpenContent { publication, backing: Backing::Complete { file: Arc::new(file), identity, is_passable } })
    }

    /// Whether [`open_content`](Self::open_content) need not hash the file first.
    pub(super) fn is_hash_known(&self, name: &FileName) -> bool {
        let identity = self.files.dir().identify(name.as_str());
        identity.is_ok_and(|(_, identity)| self.files.cached_content_hash(&identity).is_some())
    }

    /// Whether what was opened may still be served as it is. If not, [`open_content`](Self::open_content) opens it anew or
    /// returns the reason.
    pub(super) fn is_still_valid(&self, open: &OpenContent, name: &FileName) -> bool {
        let is_same = self.publications.get(name).is_some_and(|now| Arc::ptr_eq(&now, &open.publication));
        is_same
            && match &open.backing {
                Backing::Complete { .. } => open.is_unchanged(),
                Backing::Incomplete(incomplete) => {
                    read(&self.incomplete).get(name).is_some_and(|now| Arc::ptr_eq(now, incomplete))
                }
            }
    }

    /// The group hashes of an open content.
    pub(super) fn group_hashes(
        &self,
        open: &OpenContent,
        keep_alive: &mut KeepAlive<'_>,
    ) -> Result<Arc<GroupHashes>, ServeError> {
        match &open.backing {
            Backing::Incomplete(incomplete) => Ok(incomplete.outline().clone()),
            Backing::Complete { file, identity, .. } => {
                let root = open.publication.content.hash;
                let hashes = match self.files.cached_group_hashes(identity, root) {
                    Some(hashes) => hashes,
                    None => self.hash(file, identity, keep_alive)?,
                };
                if hashes.root() == root { Ok(hashes) } else { Err(RefusalReason::Changed.into()) }
            }
        }
    }

    fn incomplete_file(&self, grant: &ContentRef) -> Option<Arc<IncompleteFile>> {
        read(&self.incomplete).get(&grant.name).filter(|file| file.outline().root() == grant.hash).cloned()
    }

    /// Hashes a file. One large file is hashed at a time, since it takes all cores.
    fn hash(
        &self,
        file: &File,
        identity: &FileIdentity,
        keep_alive: &mut KeepAlive<'_>,
    ) -> Result<Arc<GroupHashes>, ServeError> {
        if group_count(identity.size) == 1 {
            return Ok(self.files.hash_open_file(file, identity, &mut |_| ControlFlow::Continue(()))?);
        }
        let _permit = self.hash_lock.acquire(keep_alive)?;
        // Another upload may have hashed the file meanwhile.
        let cached = self.files.cached_content_hash(identity);
        if let Some(hashes) = cached.and_then(|root| self.files.cached_group_hashes(identity, root)) {
            return Ok(hashes);
        }
        let is_cancelled = &AtomicBool::new(false);
        let mut on_progress = move |_| match is_cancelled.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        thread::scope(|scope| {
            let (sender, hashed) = bounded(1);
            let work = move || sender.send(self.files.hash_open_file(file, identity, &mut on_progress));
            let waited = threads::spawn_scoped(scope, "hash", work)
                .inspect_err(|error| log::error!("cannot hash a file to serve: {error}"))
                .map_err(|_| ServeError::Refused(RefusalReason::Unreadable))
                .and_then(|_| keep_alive.wait(&hashed, None));
            is_cancelled.store(true, Ordering::Relaxed);
            waited?.map_or(Err(RefusalReason::Unreadable.into()), |hashed| Ok(hashed?))
        })
    }
}

impl From<HashError> for ServeError {
    fn from(error: HashError) -> Self {
        Self::Refused(match error {
            HashError::Changed => RefusalReason::Changed,
            HashError::Interrupted | HashError::Io(_) => RefusalReason::Unreadable,
        })
    }
}

/// A lock that can be waited for along with other events.
pub(super) struct HashLock {
    permits: Receiver<()>,
    release: Sender<()>,
}

/// Holds the [`HashLock`] until dropped.
pub(super) struct HashPermit<'a>(&'a HashLock);

impl Default for HashLock {
    fn default() -> Self {
        let (release, permits) = bounded(1);
        release.send(()).expect("the receiver exists");
        Self { permits, release }
    }
}

impl HashLock {
    /// Takes the permit, which must be free.
    #[cfg(test)]
    pub(super) fn acquire_now(&self) -> HashPermit<'_> {
        self.permits.try_recv().map(|()| HashPermit(self)).expect("the permit is free")
    }

    fn acquire(&self, keep_alive: &mut KeepAlive<'_>) -> Result<HashPermit<'_>, ServeError> {
        keep_alive.wait(&self.permits, None).map(|_| HashPermit(self))
    }
}

impl Drop for HashPermit<'_> {
    fn drop(&mut self) {
        let _ = self.0.release.try_send(());
    }
}

/// Cuts group hashes into parts that fit one message each: the index of a part's first hash, and its hashes.
pub(super) fn message_parts(hashes: &GroupHashes, part_max: usize) -> impl Iterator<Item = (u32, &[GroupHash])> {
    let first = move |part: usize| u32::try_from(part * part_max).expect("at most GROUPS_MAX groups");
    hashes.groups().chunks(part_max).enumerate().map(move |(part, hashes)| (first(part), hashes))
}
