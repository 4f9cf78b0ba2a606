//! What the server acknowledged in this session: which names are published, and which are withdrawn.
//!
//! Owns the decision whether the server may have lost something by a reconnect. Must not send anything: see
//! [`resync`](super::resync). Names with an unknown state are left out, so that nothing withdrawn is published again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::publishing::PublishAudience;
use crate::common::handshake_keys::SessionParams;
use crate::common::message::{AudienceRef, Request, Response};
use crate::common::types::{Audience, Content, FileName, NamedContent, PublicationsDigest, UserName};

/// Withdrawn names that are remembered.
const WITHDRAWN_MAX: usize = 100_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AckedPublication {
    pub content: Content,
    /// As requested: what an inherited audience is, only the server knows.
    pub audience: Arc<PublishAudience>,
}

/// The acknowledged publications of one session.
#[derive(Default)]
pub(super) struct AckedPublications {
    entries: BTreeMap<FileName, AckedPublication>,
    /// Withdrawn, and not published since.
    withdrawn: BTreeSet<FileName>,
    /// The digest of all publications of the user that the server sent last; `None` after a mutation without a reply.
    digest: Option<PublicationsDigest>,
    /// The audience staged last.
    staged: Option<AckedAudience>,
    /// The audience of the pending PUBLISH. Another may be staged before its reply arrives.
    requested_audience: Option<Arc<PublishAudience>>,
    /// What was known of the pending mutation's names.
    before_mutation: Vec<(FileName, KnownState)>,
}

enum KnownState {
    Published(AckedPublication),
    Withdrawn,
}

/// A staged audience, as far as its parts are acknowledged.
struct AckedAudience {
    key: u32,
    users: Vec<UserName>,
}

impl AckedPublications {
    /// Forgets everything: the user has logged in, or another instance of the client has changed the publications.
    pub fn reset(&mut self, params: &SessionParams) {
        *self = Self { digest: Some(params.digest), ..Self::default() };
    }

    /// After a reconnect: whether the server may have lost what it acknowledged.
    pub fn may_be_lost(&self, params: &SessionParams) -> bool {
        let knows_nothing = self.entries.is_empty() && self.withdrawn.is_empty() && self.before_mutation.is_empty();
        !knows_nothing && self.digest != Some(params.digest)
    }

    /// Takes the digest that the server sent on a reconnect.
    pub fn set_digest(&mut self, digest: PublicationsDigest) {
        self.digest = Some(digest);
    }

    pub fn entries(&self) -> &BTreeMap<FileName, AckedPublication> {
        &self.entries
    }

    /// Whether the server has acknowledged that this name is withdrawn, and not published it since.
    pub fn is_withdrawn(&self, name: &FileName) -> bool {
        self.withdrawn.contains(name)
    }

    /// A mutation is being sent: the state of its names is unknown until the reply.
    pub fn on_mutation_started(&mut self, request: &Request) {
        self.before_mutation.clear();
        match request {
            Request::Publish { files, audience } => {
                self.requested_audience = self.audience(audience);
                for NamedContent { name, .. } in files {
                    self.set_unknown(name);
                    let withdrawn = self.withdrawn.take(name);
                    self.before_mutation.extend(withdrawn.map(|name| (name, KnownState::Withdrawn)));
                }
            }
            Request::Unpublish { names } => names.iter().for_each(|name| self.set_unknown(name)),
            _ => {}
        }
    }

    fn set_unknown(&mut self, name: &FileName) {
        let published = self.entries.remove_entry(name);
        self.before_mutation.extend(published.map(|(name, known)| (name, KnownState::Published(known))));
    }

    /// The server has refused the pending mutation, and changed nothing.
    fn restore_known(&mut self) {
        for (name, known) in self.before_mutation.drain(..) {
            match known {
                KnownState::Published(publication) => _ = self.entries.insert(name, publication),
                KnownState::Withdrawn => _ = self.withdrawn.insert(name),
            }
        }
    }

    /// The server has replied to a request.
    pub fn on_response(&mut self, request: &Request, response: &Response) {
        match (request, response) {
            (Request::Publish { files, .. }, Response::Published { digest }) => {
                self.digest = Some(*digest);
                self.before_mutation.clear();
                let Some(audience) = self.requested_audience.take() else { return };
                for file in files {
                    let entry = AckedPublication { content: file.content, audience: Arc::clone(&audience) };
                    self.entries.insert(file.name.clone(), entry);
                }
            }
            (Request::Unpublish { names }, Response::Unpublished { digest, published_mask }) => {
                self.digest = Some(*digest);
                self.before_mutation.clear();
                let were_published = names.iter().zip(0..).filter(|(_, bit)| published_mask & (1 << bit) != 0);
                self.withdrawn.extend(were_published.map(|(name, _)| name.clone()));
                while self.withdrawn.len() > WITHDRAWN_MAX {
                    self.withdrawn.pop_first();
                }
            }
            (Request::StageAudience { key, part, users }, Response::AudienceStaged) => {
                self.on_staged(*key, *part, users)
            }
            (Request::Publish { .. } | Request::Unpublish { .. }, _) => self.restore_known(),
            _ => {}
        }
    }

    /// A request that the server may have received has ended without a reply.
    pub fn on_abandoned(&mut self, request: &Request) {
        if request.is_mutation() {
            self.digest = None;
            self.before_mutation.clear();
        }
    }

    fn on_staged(&mut self, key: u32, part: u16, users: &[UserName]) {
        match &mut self.staged {
            Some(staged) if staged.key == key && part > 0 => staged.users.extend_from_slice(users),
            staged => *staged = Some(AckedAudience { key, users: users.to_vec() }),
        }
    }

    /// The users that it names, if they are known.
    fn audience(&self, audience: &AudienceRef) -> Option<Arc<PublishAudience>> {
        let audience = match (audience, &self.staged) {
            (AudienceRef::Everyone, _) => PublishAudience::Audience(Audience::Everyone),
            (AudienceRef::Inherited { owners }, _) => PublishAudience::Inherited(owners.clone()),
            (AudienceRef::Staged(key), Some(staged)) if *key == staged.key => {
                PublishAudience::Audience(Audience::Only(staged.users.clone()))
            }
            (AudienceRef::Staged(_), _) => return None,
        };
        Some(Arc::new(audience))
    }
}
