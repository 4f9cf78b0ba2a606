//! The index: who publishes what, and what a user may see of it. Soft: rebuilt from the journal at start.
//!
//! Owns names, owners, audiences and the search over them, all in memory and interned to integers. Must not know about
//! sessions, datagrams or the disk.
//!
//! Lists are walked in the order of name ids, and of content groups within a name. Both stay what they are for as long
//! as the name or the content is published, so a list that changes between two pages still shows whatever was there
//! throughout exactly once, and an id may be given to another name at once. Hidden publications use up steps but never
//! bytes, and a page is only cut for bytes in front of a further *visible* entry: what a list says is the same as if
//! they did not exist. How many steps it took is not, see [`Page::full`], nor is the order: ids are given out to hidden
//! names too.

mod audiences;
mod names;
mod publications;
mod query;
mod trigrams;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use self::audiences::Audiences;
use self::names::Names;
use self::publications::{ContentKey, Member};
use crate::common::limits::PAGE_MAX_BYTES;
use crate::common::types::{
    Audience, Content, ContentHash, ContentRef, FileName, NamedContent, PublicationsDigest, UserName,
};

/// A user who publishes, interned; good for as long as the index lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u32);

/// Where a list goes on; sealed by the core before a client sees it, for it counts what the client may not see.
/// 0 starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(pub u64);

/// Part of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In no particular order; may be empty although there is more.
    pub entries: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
    /// The page ends because the next entry would not fit, not because the steps ran out. A reply sent only when this
    /// is set or [`next`](Self::next) is `None` (otherwise go on later with the bytes that are left) shows nothing of
    /// how much was hidden but the time it took.
    pub full: bool,
    /// Steps of the budget that were taken.
    pub steps: usize,
}

/// How much one call may do.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Encoded bytes of the entries of a page. A first entry that does not fit is not taken either: a new page starts
    /// with at least [`PAGE_MAX_BYTES`], which holds any entry.
    pub bytes: usize,
    /// Names and publications looked at, a long name that has to be folded counting for several; at least one name is
    /// looked at. A name, or one content of it, is always finished: the publications of the last one may exceed the
    /// budget, by a few nanoseconds each.
    pub steps: usize,
}

impl Budget {
    /// One datagram's worth, in a few hundred microseconds at most (measured by `benches/index.rs`).
    pub const PAGE: Self = Self { bytes: PAGE_MAX_BYTES, steps: 4_096 };
}

/// Name → publications → owners.
pub struct Index {
    owners: Vec<Owner>,
    by_user: HashMap<UserName, OwnerId>,
    /// By owner; apart from the rest, since every query reads it for every publication.
    active: Vec<bool>,
    names: Names,
    audiences: Audiences,
    publications: usize,
}

struct Owner {
    user: UserName,
    /// Ids of the names it publishes.
    names: BTreeSet<u32>,
    /// Wrapping sum of the fingerprints of its publications.
    digest: u128,
}

impl Default for Index {
    fn default() -> Self {
        Self::new()
    }
}

impl Index {
    /// Empty.
    pub fn new() -> Self {
        Self {
            owners: Vec::new(),
            by_user: HashMap::new(),
            active: Vec::new(),
            names: Names::default(),
            audiences: Audiences::new(),
            publications: 0,
        }
    }

    /// Interns a user, not active at first. Never forgotten: only for users who have an account or publications.
    pub fn intern_owner(&mut self, user: &UserName) -> OwnerId {
        if let Some(&owner) = self.by_user.get(user) {
            return owner;
        }
        let owner = OwnerId(u32::try_from(self.owners.len()).expect("fewer than 2^32 users"));
        self.owners.push(Owner { user: user.clone(), names: BTreeSet::new(), digest: 0 });
        self.active.push(false);
        self.by_user.insert(user.clone(), owner);
        owner
    }

    /// The user behind an id.
    pub fn user(&self, owner: OwnerId) -> &UserName {
        &self.owners[owner.0 as usize].user
    }

    /// Adds or replaces a publication. `published_s`: seconds since 1970. Publications that share an audience are
    /// fastest added one after the other with the same [`Arc`].
    pub fn publish(&mut self, owner: OwnerId, file: &NamedContent, audience: &Arc<Audience>, published_s: u64) {
        let Content { hash, size, mtime_ms } = file.content;
        let (key, audience) = (ContentKey { hash, size }, self.audiences.acquire(audience));
        let member = Member { owner, audience, mtime_ms, published_s };
        let (id, replaced) = self.names.put(&file.name, key, member);
        let added = self.fingerprint(&file.name, &key, &member);
        let removed = replaced.map_or(0, |(key, member)| self.fingerprint(&file.name, &key, &member));
        match replaced {
            Some((_, old)) => self.audiences.release(old.audience),
            None => self.publications += 1,
        }
        let owner = &mut self.owners[owner.0 as usize];
        owner.names.insert(id);
        owner.digest = owner.digest.wrapping_add(added).wrapping_sub(removed);
    }

    /// Removes a publication; whether it was there.
    pub fn unpublish(&mut self, owner: OwnerId, name: &FileName) -> bool {
        let Some(id) = self.names.find(name) else { return false };
        let Some((key, member)) = self.names.publications_mut(id).remove(owner) else { return false };
        if self.names.publications_mut(id).is_empty() {
            self.names.remove(id);
        }
        let removed = self.fingerprint(name, &key, &member);
        self.audiences.release(member.audience);
        self.publications -= 1;
        let owner = &mut self.owners[owner.0 as usize];
        owner.names.remove(&id);
        owner.digest = owner.digest.wrapping_sub(removed);
        true
    }

    /// Whether the owner's files are offered: it is active and its account exists.
    pub fn set_active(&mut self, owner: OwnerId, active: bool) {
        self.active[owner.0 as usize] = active;
    }

    /// Sum over the owner's publications: BLAKE3 of each one's name, content hash, size, modification time and audience,
    /// cut to 128 bits, added up without regard to order.
    pub fn digest(&self, owner: OwnerId) -> PublicationsDigest {
        PublicationsDigest(self.owners[owner.0 as usize].digest.to_be_bytes())
    }

    /// One of the owner's own publications with its audience.
    pub fn publication(&self, owner: OwnerId, name: &FileName) -> Option<(Content, &Audience)> {
        let (key, member) = self.names.publications(self.names.find(name)?)?.of(owner)?;
        Some((key.content(member.mtime_ms), self.audiences.audience(member.audience)))
    }

    /// Before many publications are loaded: new names stay out of the search structure, which makes up nearly half of
    /// the time, until [`index_pending`](Self::index_pending) has caught up. Meanwhile every search finds them all the same, by looking
    /// at each.
    pub fn defer_indexing(&mut self) {
        self.names.defer();
    }

    /// Room for so many more publications, so that nothing has to be moved while they are added.
    pub fn reserve(&mut self, publications: usize) {
        self.names.reserve(publications);
    }

    /// Takes up to so many deferred names into the search structure, at one to two microseconds each; whether more are left.
    /// To be called now and then after [`defer_indexing`](Self::defer_indexing) until none are.
    pub fn index_pending(&mut self, most: usize) -> bool {
        self.names.settle(most)
    }

    /// Publications of all owners.
    pub fn publication_count(&self) -> usize {
        self.publications
    }

    /// Publications of one owner.
    pub fn owned_count(&self, owner: OwnerId) -> usize {
        self.owners[owner.0 as usize].names.len()
    }

    /// The active owners other than the asker that publish this content under this name visibly to the asker; at most
    /// `most`, starting at a publication chosen by `spread` so that load spreads, and looking no further than it takes to
    /// find so many. Whoever tells another size for the same hash is not among them.
    pub fn sources(&self, asker: OwnerId, file: &ContentRef, most: usize, spread: u64) -> Vec<OwnerId> {
        let Some(publications) = self.names.find(&file.name).and_then(|id| self.names.publications(id)) else {
            return Vec::new();
        };
        let members = publications.members_of(&ContentKey { hash: file.hash, size: file.size });
        let start = usize::try_from(spread % (members.len() as u64).max(1)).expect("below a length");
        let mut sight = self.sight(asker);
        let (first, rest) = members.split_at(start);
        let visible = rest.iter().chain(first).filter(|member| sight.sees(member));
        visible.map(|member| member.owner).take(most).collect()
    }

    /// For `get --share`: who may see what the asker fetched: everyone if any visible publication of this name and hash
    /// is open, else one such audience with its owner in place of the asker. `None`: no such publication is visible.
    pub fn inherited_audience(&self, asker: OwnerId, name: &FileName, hash: ContentHash) -> Option<Audience> {
        let publications = self.names.publications(self.names.find(name)?)?;
        let mut sight = self.sight(asker);
        let mut found = None;
        for member in publications.groups_of(hash).flat_map(|(_, members)| members) {
            if !sight.sees(member) {
                continue;
            }
            match self.audiences.audience(member.audience) {
                Audience::Everyone => return Some(Audience::Everyone),
                Audience::Only(users) => found = found.or(Some((member.owner, users))),
            }
        }
        let (owner, users) = found?;
        let others = users.iter().filter(|user| *user != self.user(asker)).cloned();
        Some(Audience::only(others.chain([self.user(owner).clone()]).collect()))
    }

    fn fingerprint(&self, name: &FileName, key: &ContentKey, member: &Member) -> u128 {
        // Hashed in one go: for so few bytes, setting up a `Hasher` would cost more than hashing.
        let mut bytes = Vec::with_capacity(8 + name.as_str().len() + 32 + 8 + 8 + 32);
        bytes.extend((name.as_str().len() as u64).to_be_bytes());
        bytes.extend(name.as_str().as_bytes());
        bytes.extend(key.hash.0);
        bytes.extend(key.size.to_be_bytes());
        bytes.extend(member.mtime_ms.to_be_bytes());
        bytes.extend(self.audiences.fingerprint(member.audience));
        u128::from_be_bytes(*blake3::hash(&bytes).as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
