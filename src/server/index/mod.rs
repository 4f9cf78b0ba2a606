//! The index: who publishes what, and what a user may see of it. Rebuilt from the journal at start.
//!
//! Owns names, owners, audiences and the search over them, in memory and interned to integers. Must not know sessions,
//! datagrams or the disk.
//!
//! Lists are read in the order of name ids, and of content groups within a name. Both keep their numbers while the name or
//! the content is published, so a list that changes between two pages still shows every entry that existed throughout
//! exactly once; the id of a removed name can be reused at once.
//!
//! Defended: hidden publications cost steps but no bytes, and a page ends for lack of bytes only before a further *visible*
//! entry, so the entries of a list are the same as if hidden publications did not exist. Not defended: the number of steps
//! (see [`Page::full`]) and the order of the entries, since hidden names have ids too.

mod audiences;
mod names;
mod publications;
mod query;
mod sharded_table;
mod trigrams;
mod usage;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use self::audiences::Audiences;
use self::names::{Names, Published};
use self::publications::{ContentKey, IndexedPublication, PublicationEntry};
use self::usage::OwnerAudiences;
#[cfg(test)]
use self::usage::Usage;
pub use self::usage::UsageChange;
use crate::common::limits::PAGE_MAX_BYTES;
use crate::common::types::{
    Audience, Content, ContentRef, FileName, NamedContent, PublicationsDigest, UserName, UsersDigest,
};

/// Names of the normal form of another that are examined for its availability: any user may publish any number of them.
const EQUIVALENT_NAMES_MAX: usize = 64;

/// An interned user. Valid as long as the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u32);

/// Where a list continues; 0 is the start. It depends on entries that the client may not see, so the core encrypts it
/// before a client gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(pub u64);

/// Part of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Unsorted; may be empty although the list continues.
    pub entries: Vec<T>,
    /// Where the list continues; `None` at its end.
    pub next: Option<Position>,
    /// The page ends because the next entry does not fit, not because the steps are used up. A server that replies only
    /// when this is set or [`next`](Self::next) is `None`, and otherwise continues later with the bytes that are left,
    /// reveals nothing about the number of hidden entries but the time it took.
    pub full: bool,
    pub steps: usize,
}

/// Limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Encoded bytes of the entries of a page. Even the first entry must fit: a new page starts with at least
    /// [`PAGE_MAX_BYTES`], which any entry does.
    pub bytes: usize,
    /// Names and publications examined; a long name that must be folded counts several times. At least one name is
    /// examined, and a name, or one content of it, is always finished: the publications of the last one may exceed the
    /// budget, by a few nanoseconds each.
    pub steps: usize,
}

impl Budget {
    /// One datagram, in at most a few hundred microseconds (measured by `benches/index.rs`).
    pub const PAGE: Self = Self { bytes: PAGE_MAX_BYTES, steps: 4_096 };
}

/// Name → publications → owners.
#[derive(Default)]
pub struct Index {
    owners: Vec<Owner>,
    by_user: HashMap<UserName, OwnerId>,
    /// By owner. Separate from `owners`, since every query reads it for every publication.
    active: Vec<bool>,
    /// By owner, for the same reason.
    user_digests: Vec<UsersDigest>,
    names: Names,
    audiences: Audiences,
    publications: u64,
}

struct Owner {
    user: UserName,
    /// Ids of the names it publishes.
    names: BTreeSet<u32>,
    /// Bytes of these names.
    name_bytes: u64,
    audiences: OwnerAudiences,
    /// Wrapping sum of the fingerprints of its publications.
    digest: u128,
}

impl Index {
    /// Interns a user, inactive at first. Never removed: only for users who have an account or publications.
    pub fn intern_owner(&mut self, user: &UserName) -> OwnerId {
        if let Some(&owner) = self.by_user.get(user) {
            return owner;
        }
        let owner = OwnerId(u32::try_from(self.owners.len()).expect("fewer than 2^32 users"));
        let (names, audiences) = (BTreeSet::new(), OwnerAudiences::default());
        self.owners.push(Owner { user: user.clone(), names, name_bytes: 0, audiences, digest: 0 });
        self.active.push(false);
        self.user_digests.push(UsersDigest::of(user));
        self.by_user.insert(user.clone(), owner);
        owner
    }

    pub fn user(&self, owner: OwnerId) -> &UserName {
        &self.owners[owner.0 as usize].user
    }

    /// Adds or replaces a publication. `published_s`: seconds since 1970. Publications that share an audience are added
    /// fastest one after the other with the same [`Arc`].
    pub fn publish(&mut self, owner: OwnerId, file: &NamedContent, audience: &Arc<Audience>, published_s: u64) {
        let Content { hash, size, mtime_ms } = file.content;
        let entry = PublicationEntry { owner, audience: self.audiences.acquire(audience), mtime_ms, published_s };
        let publication = IndexedPublication { key: ContentKey { hash, size }, entry };
        let Published { id, replaced } = self.names.publish(&file.name, publication);
        let added = self.fingerprint(&file.name, &publication);
        let removed = replaced.map_or(0, |replaced| self.fingerprint(&file.name, &replaced));
        let owner = &mut self.owners[owner.0 as usize];
        owner.audiences.acquire(entry.audience, &self.audiences);
        match replaced {
            Some(replaced) => {
                owner.audiences.release(replaced.entry.audience, &self.audiences);
                self.audiences.release(replaced.entry.audience);
            }
            None => {
                self.publications += 1;
                owner.names.insert(id);
                owner.name_bytes += file.name.as_str().len() as u64;
            }
        }
        owner.digest = owner.digest.wrapping_add(added).wrapping_sub(removed);
    }

    /// Removes a publication. Returns whether it existed.
    pub fn unpublish(&mut self, owner: OwnerId, name: &FileName) -> bool {
        let Some(id) = self.names.find(name) else { return false };
        let Some(publication) = self.names.publications_mut(id).remove(owner) else { return false };
        if self.names.publications_mut(id).is_empty() {
            self.names.remove(id);
        }
        let removed = self.fingerprint(name, &publication);
        self.publications -= 1;
        let owner = &mut self.owners[owner.0 as usize];
        owner.audiences.release(publication.entry.audience, &self.audiences);
        self.audiences.release(publication.entry.audience);
        owner.names.remove(&id);
        owner.name_bytes -= name.as_str().len() as u64;
        owner.digest = owner.digest.wrapping_sub(removed);
        true
    }

    /// Of all owners, active or not.
    pub fn publication_count(&self) -> u64 {
        self.publications
    }

    /// Whether queries show the owner's publications: when it has a session.
    pub fn set_active(&mut self, owner: OwnerId, active: bool) {
        self.active[owner.0 as usize] = active;
    }

    /// Whether queries show the owner's publications.
    pub fn is_active(&self, owner: OwnerId) -> bool {
        self.active[owner.0 as usize]
    }

    pub fn find_owner(&self, user: &UserName) -> Option<OwnerId> {
        self.by_user.get(user).copied()
    }

    /// The names that the owner publishes, with their ids, from an id on.
    pub fn names_of(&self, owner: OwnerId, from: u32) -> impl Iterator<Item = (u32, &FileName)> {
        let ids = self.owners[owner.0 as usize].names.range(from..);
        ids.filter_map(|&id| Some((id, &self.names.name(id)?.text)))
    }

    /// Whether another active owner publishes this name, or one of the same normal form, visible to the requester; and the
    /// names and publications examined.
    pub fn is_available(&self, requester: OwnerId, name: &FileName) -> (bool, usize) {
        let mut visibility = self.visibility(requester);
        let mut steps = 1;
        let equivalent = self.names.equivalent(name, 0).take(EQUIVALENT_NAMES_MAX);
        let is_available = self.names.find(name).into_iter().chain(equivalent).any(|id| {
            steps += 1;
            let publications = self.names.publications(id).expect("a name that was found");
            let mut entries = (0..publications.group_end()).flat_map(|group| publications.group(group).entries);
            entries.any(|entry| {
                steps += 1;
                visibility.is_visible(entry)
            })
        });
        (is_available, steps)
    }

    /// The sum, in any order, over the owner's publications: BLAKE3 of the name, content hash, size, modification time and
    /// audience of each, cut to 128 bits.
    pub fn digest(&self, owner: OwnerId) -> PublicationsDigest {
        PublicationsDigest(self.owners[owner.0 as usize].digest.to_be_bytes())
    }

    pub fn publication(&self, owner: OwnerId, name: &FileName) -> Option<(Content, &Audience)> {
        let IndexedPublication { key, entry } = self.names.publications(self.names.find(name)?)?.of_owner(owner)?;
        Some((key.content(entry.mtime_ms), self.audiences.audience(entry.audience)))
    }

    /// The same, with the audience to keep.
    pub fn version(&self, owner: OwnerId, name: &FileName) -> Option<(Content, Arc<Audience>)> {
        let IndexedPublication { key, entry } = self.names.publications(self.names.find(name)?)?.of_owner(owner)?;
        Some((key.content(entry.mtime_ms), Arc::clone(self.audiences.shared(entry.audience))))
    }

    /// Called before many publications are loaded: new names stay out of the trigram index, which takes nearly half of the
    /// time, until [`index_pending`](Self::index_pending) has caught up. Until then every search also examines each name
    /// that is not indexed yet.
    pub fn defer_indexing(&mut self) {
        self.names.defer_indexing();
    }

    /// Reserves memory for this many more publications, so that adding them moves nothing.
    pub fn reserve(&mut self, publications: usize) {
        self.names.reserve(publications);
    }

    /// Adds at most `limit` deferred names to the trigram index, in one to two microseconds each.
    pub fn index_pending(&mut self, limit: usize) {
        self.names.index_pending(limit);
    }

    /// Whether [`index_pending`](Self::index_pending) has more to do.
    pub fn has_pending(&self) -> bool {
        self.names.has_pending()
    }

    /// The active owners other than the requester that publish this content under this name, visible to the requester; at
    /// most `limit`. The search starts at a publication selected by `spread`, so that load is spread, and ends when `limit`
    /// are found. An owner that reports another size for the same hash is not among them.
    pub fn sources(&self, requester: OwnerId, file: &ContentRef, limit: usize, spread: u64) -> Vec<OwnerId> {
        let Some(publications) = self.names.find(&file.name).and_then(|id| self.names.publications(id)) else {
            return Vec::new();
        };
        let entries = publications.of_content(&ContentKey { hash: file.hash, size: file.size });
        let start = usize::try_from(spread % (entries.len() as u64).max(1)).expect("below a length");
        let mut visibility = self.visibility(requester);
        let (first, rest) = entries.split_at(start);
        let visible = rest.iter().chain(first).filter(|entry| visibility.is_visible(entry));
        visible.map(|entry| entry.owner).take(limit).collect()
    }

    /// For `get --share`: the audience of a copy of what these owners publish, in steps for every user examined. Only users
    /// who may see the publication of each owner are in it, so that no owner can open the file of another; the requester is
    /// not. `None`: one of the publications is not visible to the requester, or nobody else may see all of them.
    pub fn inherited_audience(
        &self,
        requester: OwnerId,
        owners: &[UserName],
        file: &NamedContent,
        steps: &mut usize,
    ) -> Option<Audience> {
        let publications = self.names.publications(self.names.find(&file.name)?)?;
        let key = ContentKey { hash: file.content.hash, size: file.content.size };
        let mut visibility = self.visibility(requester);
        let mut common: Option<Vec<UserName>> = None;
        for owner in owners {
            let publication = publications.of_owner(*self.by_user.get(owner)?)?;
            if publication.key != key || !visibility.is_visible(&publication.entry) {
                return None;
            }
            let Audience::Only(users) = self.audiences.audience(publication.entry.audience) else { continue };
            *steps += users.len();
            match &mut common {
                None => common = Some(users.iter().chain([owner]).cloned().collect()),
                Some(common) => common.retain(|user| user == owner || users.binary_search(user).is_ok()),
            }
        }
        let Some(mut users) = common else { return Some(Audience::Everyone) };
        users.retain(|user| user != self.user(requester));
        (!users.is_empty()).then(|| Audience::only(users))
    }

    fn fingerprint(&self, name: &FileName, publication: &IndexedPublication) -> u128 {
        let IndexedPublication { key, entry } = publication;
        // Hashed in one call: for this few bytes, a `Hasher` would cost more than the hash.
        let mut bytes = Vec::with_capacity(8 + name.as_str().len() + 32 + 8 + 8 + 32);
        bytes.extend((name.as_str().len() as u64).to_be_bytes());
        bytes.extend(name.as_str().as_bytes());
        bytes.extend(key.hash.0);
        bytes.extend(key.size.to_be_bytes());
        bytes.extend(entry.mtime_ms.to_be_bytes());
        bytes.extend(self.audiences.fingerprint(entry.audience));
        u128::from_be_bytes(*blake3::hash(&bytes).as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model_tests;
