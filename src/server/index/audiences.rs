//! Interned audiences: publications that share one hold its id, and its users are in memory once.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::common::types::Audience;

/// An interned audience. Valid while a publication uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AudienceId(u32);

impl AudienceId {
    /// [`Audience::Everyone`], which is never released.
    pub(super) const EVERYONE: Self = Self(0);
}

pub(super) struct Audiences {
    interned: Slab<InternedAudience>,
    by_fingerprint: HashMap<[u8; 32], AudienceId>,
    /// The last one acquired: the audience of a batch of files is hashed once. The `Arc` held here keeps its address from
    /// being reused.
    last: Option<(Arc<Audience>, AudienceId)>,
}

struct InternedAudience {
    audience: Arc<Audience>,
    fingerprint: [u8; 32],
    uses: usize,
}

impl Default for Audiences {
    fn default() -> Self {
        let mut audiences = Self { interned: Slab::new(), by_fingerprint: HashMap::new(), last: None };
        let everyone = audiences.intern(&Arc::new(Audience::Everyone));
        debug_assert_eq!(everyone, AudienceId::EVERYONE);
        audiences
    }
}

impl Audiences {
    /// Interns the audience for one more publication.
    pub(super) fn acquire(&mut self, audience: &Arc<Audience>) -> AudienceId {
        if **audience == Audience::Everyone {
            return AudienceId::EVERYONE;
        }
        let id = self.last_id(audience).unwrap_or_else(|| self.intern(audience));
        self.interned[id.0 as usize].uses += 1;
        id
    }

    /// The id of an audience that a publication has.
    pub(super) fn find(&self, audience: &Arc<Audience>) -> Option<AudienceId> {
        if **audience == Audience::Everyone {
            return Some(AudienceId::EVERYONE);
        }
        self.last_id(audience).or_else(|| self.by_fingerprint.get(&fingerprint(audience)).copied())
    }

    fn last_id(&self, audience: &Arc<Audience>) -> Option<AudienceId> {
        self.last.as_ref().filter(|(last, _)| Arc::ptr_eq(last, audience)).map(|&(_, id)| id)
    }

    /// Called when a publication no longer uses the audience; the last use removes it.
    pub(super) fn release(&mut self, id: AudienceId) {
        if id == AudienceId::EVERYONE {
            return;
        }
        let interned = &mut self.interned[id.0 as usize];
        interned.uses -= 1;
        if interned.uses == 0 {
            let removed = self.interned.remove(id.0 as usize);
            self.by_fingerprint.remove(&removed.fingerprint);
            self.last.take_if(|(_, last)| *last == id);
        }
    }

    pub(super) fn audience(&self, id: AudienceId) -> &Audience {
        self.shared(id)
    }

    pub(super) fn shared(&self, id: AudienceId) -> &Arc<Audience> {
        &self.interned[id.0 as usize].audience
    }

    /// BLAKE3 of the audience.
    pub(super) fn fingerprint(&self, id: AudienceId) -> &[u8; 32] {
        &self.interned[id.0 as usize].fingerprint
    }

    fn intern(&mut self, audience: &Arc<Audience>) -> AudienceId {
        let fingerprint = fingerprint(audience);
        let id = *self.by_fingerprint.entry(fingerprint).or_insert_with(|| {
            let key = self.interned.insert(InternedAudience { audience: Arc::clone(audience), fingerprint, uses: 0 });
            AudienceId(u32::try_from(key).expect("fewer than 2^32 audiences"))
        });
        self.last = Some((Arc::clone(audience), id));
        id
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.interned.len()
    }
}

fn fingerprint(audience: &Audience) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    match audience {
        Audience::Everyone => hasher.update(b"everyone"),
        Audience::Only(users) => {
            hasher.update(b"only");
            // No user name holds a newline.
            for user in users {
                hasher.update(user.as_str().as_bytes()).update(b"\n");
            }
            &mut hasher
        }
    };
    *hasher.finalize().as_bytes()
}
