//! Audiences, interned: publications that share one hold a number, and the users stand in memory once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::common::types::Audience;

/// An interned audience; good while a publication uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AudienceId(u32);

impl AudienceId {
    /// [`Audience::Everyone`], always there.
    pub(super) const EVERYONE: Self = Self(0);
}

pub(super) struct Audiences {
    slots: Vec<Slot>,
    by_fingerprint: HashMap<[u8; 32], AudienceId>,
    free: Vec<AudienceId>,
    /// The last one acquired: a long audience is hashed once for all files of a batch. Holding the `Arc` keeps its
    /// address from being used again.
    last: Option<(Arc<Audience>, AudienceId)>,
}

struct Slot {
    audience: Arc<Audience>,
    fingerprint: [u8; 32],
    uses: usize,
}

impl Audiences {
    pub(super) fn new() -> Self {
        let everyone = Arc::new(Audience::Everyone);
        let fingerprint = fingerprint(&everyone);
        Self {
            slots: vec![Slot { audience: everyone, fingerprint, uses: 1 }],
            by_fingerprint: HashMap::from([(fingerprint, AudienceId::EVERYONE)]),
            free: Vec::new(),
            last: None,
        }
    }

    /// Interns the audience for one more publication.
    pub(super) fn acquire(&mut self, audience: &Arc<Audience>) -> AudienceId {
        if **audience == Audience::Everyone {
            return AudienceId::EVERYONE;
        }
        let id = match &self.last {
            Some((last, id)) if Arc::ptr_eq(last, audience) => *id,
            _ => self.intern(audience),
        };
        self.slots[id.0 as usize].uses += 1;
        id
    }

    /// One publication less uses it.
    pub(super) fn release(&mut self, id: AudienceId) {
        if id == AudienceId::EVERYONE {
            return;
        }
        let everyone = Arc::clone(&self.slots[0].audience);
        let slot = &mut self.slots[id.0 as usize];
        slot.uses -= 1;
        if slot.uses == 0 {
            slot.audience = everyone;
            self.by_fingerprint.remove(&slot.fingerprint);
            self.free.push(id);
            self.last.take_if(|(_, last)| *last == id);
        }
    }

    pub(super) fn audience(&self, id: AudienceId) -> &Audience {
        &self.slots[id.0 as usize].audience
    }

    /// BLAKE3 of the audience.
    pub(super) fn fingerprint(&self, id: AudienceId) -> &[u8; 32] {
        &self.slots[id.0 as usize].fingerprint
    }

    fn intern(&mut self, audience: &Arc<Audience>) -> AudienceId {
        let fingerprint = fingerprint(audience);
        let id = match self.by_fingerprint.get(&fingerprint) {
            Some(&id) => id,
            None => self.add(Slot { audience: Arc::clone(audience), fingerprint, uses: 0 }),
        };
        self.last = Some((Arc::clone(audience), id));
        id
    }

    fn add(&mut self, slot: Slot) -> AudienceId {
        let fingerprint = slot.fingerprint;
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id.0 as usize] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                AudienceId(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 audiences"))
            }
        };
        self.by_fingerprint.insert(fingerprint, id);
        id
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_fingerprint.len()
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
