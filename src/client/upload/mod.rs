//! Serves published files to other clients over TCP.
//!
//! * `listener`, `pending`: accepting connections, and those that are not authenticated yet.
//! * `upload`: one connection of a downloader.
//! * `serve`: the decision to serve, made for every chunk group anew.
//! * `registry`: what is published, to which audience.
//! * `limits`: how much is served at once, how fast, and to whom.
//!
//! Must not know about the server, the screen, or how downloads are written.

mod limits;
mod listener;
mod pending;
mod registry;
mod serve;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use self::limits::{TicketKeys, UploadSlots};
pub use self::listener::Listener;
use self::registry::{LoadGate, Registry};
use self::serve::HashLock;
use crate::client::download::IncompleteFile;
use crate::client::files::SharedFiles;
use crate::common::crypto::Secret;
use crate::common::sync::{lock, write};
use crate::common::ticket::{TicketError, TransferTicket};
use crate::common::types::{Audience, Content, FileName};

/// What this client serves to others. One for the whole client, shared by the shell, the listener and the downloads.
pub struct UploadService {
    files: Arc<SharedFiles>,
    registry: Registry,
    load_gate: LoadGate,
    incomplete: RwLock<HashMap<FileName, Arc<IncompleteFile>>>,
    hash_lock: HashLock,
    ticket_keys: Mutex<TicketKeys>,
    slots: Arc<UploadSlots>,
}

impl UploadService {
    /// `upload_slots`: most uploads that run at once.
    pub fn new(files: Arc<SharedFiles>, upload_slots: u8) -> Arc<Self> {
        Arc::new(Self {
            files,
            registry: Registry::default(),
            load_gate: LoadGate::default(),
            incomplete: RwLock::default(),
            hash_lock: HashLock::default(),
            ticket_keys: Mutex::default(),
            slots: Arc::new(UploadSlots::new(upload_slots)),
        })
    }

    /// Serves a publication to its audience from now on. Does not read the file: it is examined when it is requested.
    pub fn published(&self, name: &FileName, content: Content, audience: Audience) {
        self.registry.publish(name, content, audience);
    }

    /// Stops serving a publication.
    pub fn withdrawn(&self, name: &FileName) {
        self.registry.withdraw(name);
    }

    /// Until [`end_loading`](Self::end_loading), the server may know publications that this service does not: requests for
    /// unknown files wait instead of being refused. Calls can be nested.
    pub fn begin_loading(&self) {
        self.load_gate.begin();
    }

    /// See [`begin_loading`](Self::begin_loading).
    pub fn end_loading(&self) {
        self.load_gate.end();
    }

    /// Stops serving everything: another user logs in.
    pub fn clear(&self) {
        self.registry.clear();
        write(&self.incomplete).clear();
    }

    /// Serves the verified groups of a file that is being downloaded as `name`, once that is published with this content.
    /// Until [`register_downloaded`](Self::register_downloaded) or [`drop_incomplete`](Self::drop_incomplete).
    pub fn serve_incomplete(&self, name: &FileName, incomplete: &Arc<IncompleteFile>) {
        write(&self.incomplete).insert(name.clone(), incomplete.clone());
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
mod test_support;

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
