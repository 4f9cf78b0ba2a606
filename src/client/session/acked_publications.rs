//! What this client has published and not withdrawn since it logged in, as the server acknowledged it.
//!
//! Owns the comparison with what the server still has after a reconnect. Must not send anything: see
//! [`repair`](super::resync). Whatever is uncertain is left out, so that nothing withdrawn is ever brought back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::handshake_keys::SessionParams;
use crate::common::message::{AudienceRef, Request, Response};
use crate::common::types::{Content, FileName, PublicationsDigest, UserName};

/// Who may see a publication, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shown {
    Everyone,
    Inherited,
    Only(Arc<[UserName]>),
}

/// One acknowledged publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub content: Content,
    pub shown: Shown,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    entries: BTreeMap<FileName, Entry>,
    /// The server's last word on all publications of the user; `None` when something was given up half-way.
    digest: Option<PublicationsDigest>,
    /// The audience staged last, as far as acknowledged.
    staged: Option<(u32, Vec<UserName>)>,
}

impl Ledger {
    /// A first login, or another run has changed things meanwhile: nothing that counts was acknowledged to us.
    pub fn begin(&mut self, welcome: &SessionParams) {
        *self = Self { digest: Some(welcome.digest), ..Self::default() };
    }

    /// After a reconnect: whether the server may have lost something of ours.
    pub fn may_have_lost(&self, welcome: &SessionParams) -> bool {
        !self.entries.is_empty() && self.digest != Some(welcome.digest)
    }

    /// The server's state as welcomed is what counts from now on.
    pub fn accept(&mut self, digest: PublicationsDigest) {
        self.digest = Some(digest);
    }

    /// Everything acknowledged and not withdrawn.
    pub fn entries(&self) -> &BTreeMap<FileName, Entry> {
        &self.entries
    }

    /// A mutation is being sent: until it is answered nothing is certain about the names in it.
    pub fn mutation_started(&mut self, request: &Request) {
        match request {
            Request::Publish { files, .. } => files.iter().for_each(|file| self.forget(&file.name)),
            Request::Unpublish { names } => names.iter().for_each(|name| self.forget(name)),
            _ => {}
        }
    }

    /// A request was answered.
    pub fn answered(&mut self, request: &Request, response: &Response) {
        match (request, response) {
            (Request::Publish { files, audience }, Response::Published { digest }) => {
                self.digest = Some(*digest);
                let Some(shown) = self.shown_to(*audience) else { return };
                for file in files {
                    self.entries.insert(file.name.clone(), Entry { content: file.content, shown: shown.clone() });
                }
            }
            (Request::Unpublish { .. }, Response::Unpublished { digest, .. }) => self.digest = Some(*digest),
            (Request::StageAudience { key, part, users }, Response::AudienceStaged) => self.staged(*key, *part, users),
            _ => {}
        }
    }

    /// A mutation that the server may have seen ended without an answer.
    pub fn gave_up(&mut self, request: &Request) {
        if request.is_mutation() {
            self.digest = None;
        }
    }

    fn forget(&mut self, name: &FileName) {
        self.entries.remove(name);
    }

    fn staged(&mut self, key: u32, part: u16, users: &[UserName]) {
        match &mut self.staged {
            Some((staged_key, staged)) if *staged_key == key && part > 0 => staged.extend_from_slice(users),
            staged => *staged = Some((key, users.to_vec())),
        }
    }

    fn shown_to(&self, audience: AudienceRef) -> Option<Shown> {
        match (audience, &self.staged) {
            (AudienceRef::Everyone, _) => Some(Shown::Everyone),
            (AudienceRef::Inherited, _) => Some(Shown::Inherited),
            (AudienceRef::Staged(key), Some((staged, users))) if key == *staged => {
                Some(Shown::Only(users.as_slice().into()))
            }
            (AudienceRef::Staged(_), _) => None,
        }
    }
}
