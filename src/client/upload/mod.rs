//! Serves published files to other clients over TCP.
//!
//! * `listener`, `pending`: accepting connections, and those that are not authenticated yet.
//! * `connection`: one connection of a downloader.
//! * `serve`: the decision to serve, made for every chunk group anew.
//! * `slots`: how much is served at once, and whose turn it is.
//! * `direct`: open files in place of their bytes, for downloaders of this user on this host.
//! * `reports`: uploads as events.
//! * `active`: who fetches what now.
//! * `limits`: how fast, and to whom.
//!
//! Must not know about the server, the screen, or how downloads are written.

mod active;
#[expect(clippy::disallowed_methods, reason = "a driver: it gives up on a silent peer")]
mod connection;
mod direct;
mod limits;
#[expect(clippy::disallowed_methods, reason = "a driver: it drops connections after a timeout")]
mod listener;
mod pending;
mod reports;
mod serve;
mod slots;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Instant;

use self::active::ActiveUploads;
pub use self::active::UploadProgress;
use self::direct::DirectOffers;
pub use self::limits::{LIMIT_RATE_MIN, slots_within};
use self::limits::{RateLimiter, TicketKeys};
pub use self::listener::Listener;
use self::listener::RunningUpload;
use self::serve::HashLock;
use self::slots::UploadSlots;
use crate::client::download::IncompleteFile;
use crate::client::events::EventBus;
use crate::client::files::SharedFiles;
use crate::client::publications::OwnPublications;
use crate::common::crypto::Secret;
use crate::common::sync::{lock, read, write};
use crate::common::ticket::{TicketError, TransferTicket};
use crate::common::types::{ContentRef, FileName};

/// What this client serves to others. One for the whole client, shared by the shell, the listener and the downloads.
pub struct UploadService {
    files: Arc<SharedFiles>,
    publications: Arc<OwnPublications>,
    incomplete: RwLock<HashMap<FileName, Arc<IncompleteFile>>>,
    hash_lock: HashLock,
    ticket_keys: Mutex<TicketKeys>,
    slots: Arc<UploadSlots>,
    /// Of all listeners: those to end are looked for when a user is refused a slot.
    running: Mutex<Vec<RunningUpload>>,
    events: Arc<EventBus>,
    active: ActiveUploads,
    direct: DirectOffers,
    on_changed: OnceLock<ChangedCallback>,
    /// Of all listeners together.
    rate_limiter: OnceLock<Arc<RateLimiter>>,
}

/// Called with the name of a published file that is not what was published any more.
type ChangedCallback = Box<dyn Fn(&FileName) + Send + Sync>;

impl UploadService {
    /// `upload_slots`: most uploads that run at once.
    pub fn new(files: Arc<SharedFiles>, upload_slots: u8) -> Arc<Self> {
        Arc::new(Self {
            files,
            publications: Arc::default(),
            incomplete: RwLock::default(),
            hash_lock: HashLock::default(),
            ticket_keys: Mutex::default(),
            slots: Arc::new(UploadSlots::new(upload_slots)),
            running: Mutex::default(),
            events: Arc::default(),
            active: ActiveUploads::default(),
            direct: DirectOffers::default(),
            on_changed: OnceLock::new(),
            rate_limiter: OnceLock::new(),
        })
    }

    /// The user's own publications, which are what this service serves.
    pub fn publications(&self) -> &Arc<OwnPublications> {
        &self.publications
    }

    /// Where uploads are reported, and what else happens to this client.
    pub fn events(&self) -> &Arc<EventBus> {
        &self.events
    }

    /// Who fetches what now, by user and name.
    pub fn active(&self) -> Vec<UploadProgress> {
        self.active.all()
    }

    /// `on_changed` is called, by threads of uploads, when a published file was found changed: once for each publication. It
    /// must not block.
    pub fn set_on_changed(&self, on_changed: impl Fn(&FileName) + Send + Sync + 'static) {
        let _ = self.on_changed.set(Box::new(on_changed));
    }

    fn report_changed(&self, grant: &ContentRef) {
        let publication =
            self.publications.get(&grant.name).filter(|publication| publication.content.hash == grant.hash);
        let is_new = publication.is_some_and(|publication| !publication.is_reported_changed.swap(true, Relaxed));
        if let Some(on_changed) = self.on_changed.get().filter(|_| is_new) {
            on_changed(&grant.name);
        }
    }

    /// Serves the verified groups of a file that is being downloaded as `name`, once that is published with this content.
    /// Until [`register_downloaded`](Self::register_downloaded) or [`drop_incomplete`](Self::drop_incomplete).
    pub fn serve_incomplete(&self, name: &FileName, incomplete: &Arc<IncompleteFile>) {
        write(&self.incomplete).insert(name.clone(), incomplete.clone());
    }

    /// Whether a file is served that is being downloaded as `name`.
    pub fn serves_incomplete(&self, name: &FileName) -> bool {
        read(&self.incomplete).contains_key(name)
    }

    /// `name` is complete: this download was verified and renamed to it, and its times are set. It is served without being
    /// hashed.
    pub fn register_downloaded(&self, name: &FileName, downloaded: &IncompleteFile) {
        self.files.set_downloaded(name, downloaded.outline(), downloaded.file());
        self.drop_incomplete(name);
    }

    /// The download of `name` has ended.
    pub fn drop_incomplete(&self, name: &FileName) {
        write(&self.incomplete).remove(name);
    }

    /// Sets the key of tickets at the start of a session. Earlier keys stay valid for `TICKET_KEY_GRACE`.
    #[expect(clippy::disallowed_methods, reason = "a key is valid for a time after its successor")]
    pub fn set_ticket_key(&self, key: &Secret, server_now_ms: u64) {
        lock(&self.ticket_keys).rotate(key, server_now_ms, Instant::now());
    }

    /// Number of uploads that could start now.
    pub fn free_slots(&self) -> u8 {
        self.slots.free()
    }

    fn open_ticket(&self, sealed: &[u8], now: Instant) -> Result<TransferTicket, TicketError> {
        lock(&self.ticket_keys).open(sealed, now)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test waits for a condition")]
mod test_support;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "whether a hash can be stored depends on the clock")]
#[path = "service_tests.rs"]
mod tests;
