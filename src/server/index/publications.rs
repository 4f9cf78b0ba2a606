//! The publications of one name, grouped by content. Most names have one owner, whose publication is stored inline.

use std::collections::HashMap;

use super::OwnerId;
use super::audiences::AudienceId;
use crate::common::types::{Content, ContentHash};

/// From this number of publications on, owners and contents are found by hash instead of a scan.
const LOOKUP_FROM: usize = 16;

/// Identifies a content among those of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ContentKey {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
}

impl ContentKey {
    pub(super) fn content(&self, mtime_ms: i64) -> Content {
        Content { hash: self.hash, size: self.size, mtime_ms }
    }
}

/// A publication without its name and content.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicationEntry {
    pub(super) owner: OwnerId,
    pub(super) audience: AudienceId,
    pub(super) mtime_ms: i64,
    /// Seconds since 1970.
    pub(super) published_s: u64,
}

/// A publication without its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexedPublication {
    pub(super) key: ContentKey,
    pub(super) entry: PublicationEntry,
}

#[derive(Clone, Copy)]
pub(super) struct ContentGroup<'a> {
    pub(super) key: &'a ContentKey,
    /// May be empty.
    pub(super) entries: &'a [PublicationEntry],
}

/// At least one publication while its name is in the index. A group keeps its number while its content is published.
pub(super) enum Publications {
    /// One, in group 0.
    One(IndexedPublication),
    Many(Box<ManyPublications>),
}

#[derive(Default)]
pub(super) struct ManyPublications {
    groups: Vec<StoredGroup>,
    /// Groups without entries.
    vacant: Vec<u32>,
    len: usize,
    lookup: Option<Lookup>,
}

struct StoredGroup {
    key: ContentKey,
    entries: Vec<PublicationEntry>,
}

#[derive(Default)]
struct Lookup {
    by_owner: HashMap<OwnerId, EntryLocation>,
    by_content: HashMap<ContentKey, u32>,
}

#[derive(Clone, Copy)]
struct EntryLocation {
    group: u32,
    /// Index of the entry in its group.
    place: u32,
}

impl Publications {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.len == 0)
    }

    /// One more than the largest group number.
    pub(super) fn group_end(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Many(many) => many.groups.len() as u32,
        }
    }

    /// The group with this number, below [`group_end`](Self::group_end).
    pub(super) fn group(&self, group: u32) -> ContentGroup<'_> {
        match self {
            Self::One(one) => ContentGroup { key: &one.key, entries: std::slice::from_ref(&one.entry) },
            Self::Many(many) => {
                let StoredGroup { key, entries } = &many.groups[group as usize];
                ContentGroup { key, entries }
            }
        }
    }

    pub(super) fn of_content(&self, content: &ContentKey) -> &[PublicationEntry] {
        match self {
            Self::One(one) if one.key == *content => std::slice::from_ref(&one.entry),
            Self::One(_) => &[],
            Self::Many(many) => many.find_group(content).map_or(&[], |group| &many.groups[group as usize].entries),
        }
    }

    pub(super) fn of_owner(&self, owner: OwnerId) -> Option<IndexedPublication> {
        match self {
            Self::One(one) => (one.entry.owner == owner).then_some(*one),
            Self::Many(many) => {
                let location = many.find(owner)?;
                let group = &many.groups[location.group as usize];
                Some(IndexedPublication { key: group.key, entry: group.entries[location.place as usize] })
            }
        }
    }

    /// Adds the publication, or replaces the one of the same owner, which is returned. The same content keeps its age: who
    /// publishes it again must not become younger than others that publish under this name.
    pub(super) fn insert(&mut self, mut publication: IndexedPublication) -> Option<IndexedPublication> {
        match self {
            Self::One(one) if one.entry.owner == publication.entry.owner => {
                if one.key == publication.key {
                    publication.entry.published_s = one.entry.published_s;
                }
                Some(std::mem::replace(one, publication))
            }
            Self::One(one) => {
                let mut many = ManyPublications::default();
                many.attach(*one);
                many.attach(publication);
                *self = Self::Many(Box::new(many));
                None
            }
            Self::Many(many) => many.insert(publication),
        }
    }

    /// Removes and returns the publication of this owner.
    pub(super) fn remove(&mut self, owner: OwnerId) -> Option<IndexedPublication> {
        match self {
            Self::One(one) if one.entry.owner == owner => {
                let removed = *one;
                *self = Self::Many(Box::default());
                Some(removed)
            }
            Self::One(_) => None,
            Self::Many(many) => {
                let removed = many.find(owner).map(|location| many.detach(location));
                if let (1, Some(StoredGroup { key, entries })) = (many.len, many.groups.first())
                    && let &[entry] = &entries[..]
                {
                    *self = Self::One(IndexedPublication { key: *key, entry });
                }
                removed
            }
        }
    }
}

impl ManyPublications {
    fn find(&self, owner: OwnerId) -> Option<EntryLocation> {
        if let Some(lookup) = &self.lookup {
            return lookup.by_owner.get(&owner).copied();
        }
        (0..).zip(&self.groups).find_map(|(group, StoredGroup { entries, .. })| {
            let place = entries.iter().position(|entry| entry.owner == owner)? as u32;
            Some(EntryLocation { group, place })
        })
    }

    fn find_group(&self, key: &ContentKey) -> Option<u32> {
        if let Some(lookup) = &self.lookup {
            return lookup.by_content.get(key).copied();
        }
        let is_match = |group: &StoredGroup| group.key == *key && !group.entries.is_empty();
        self.groups.iter().position(is_match).map(|group| group as u32)
    }

    fn insert(&mut self, publication: IndexedPublication) -> Option<IndexedPublication> {
        let IndexedPublication { key, mut entry } = publication;
        let found = self.find(entry.owner);
        if let Some(location) = found
            && let group = &mut self.groups[location.group as usize]
            && group.key == key
        {
            let stored = &mut group.entries[location.place as usize];
            entry.published_s = stored.published_s;
            let old = std::mem::replace(stored, entry);
            return Some(IndexedPublication { key, entry: old });
        }
        let replaced = found.map(|location| self.detach(location));
        self.attach(publication);
        replaced
    }

    fn attach(&mut self, publication: IndexedPublication) {
        let IndexedPublication { key, entry } = publication;
        let group = self.find_group(&key).unwrap_or_else(|| self.add_group(key));
        let entries = &mut self.groups[group as usize].entries;
        // Exact while small: of the names with several owners, most have two.
        if entries.len() < 2 {
            entries.reserve_exact(1);
        }
        entries.push(entry);
        let location = EntryLocation { group, place: (entries.len() - 1) as u32 };
        self.len += 1;
        match &mut self.lookup {
            Some(lookup) => {
                lookup.by_owner.insert(entry.owner, location);
                lookup.by_content.insert(key, group);
            }
            None if self.len >= LOOKUP_FROM => self.lookup = Some(self.build_lookup()),
            None => {}
        }
    }

    fn detach(&mut self, location: EntryLocation) -> IndexedPublication {
        let StoredGroup { key, entries } = &mut self.groups[location.group as usize];
        let (key, entry) = (*key, entries.swap_remove(location.place as usize));
        if let Some(lookup) = &mut self.lookup {
            lookup.by_owner.remove(&entry.owner);
            if let Some(moved) = entries.get(location.place as usize) {
                lookup.by_owner.insert(moved.owner, location);
            }
        }
        if entries.is_empty() {
            *entries = Vec::new();
            self.vacant.push(location.group);
            if let Some(lookup) = &mut self.lookup {
                lookup.by_content.remove(&key);
            }
        }
        self.len -= 1;
        if self.len < LOOKUP_FROM / 2 {
            self.lookup = None;
        }
        IndexedPublication { key, entry }
    }

    fn add_group(&mut self, key: ContentKey) -> u32 {
        let group = StoredGroup { key, entries: Vec::new() };
        if let Some(vacant) = self.vacant.pop() {
            self.groups[vacant as usize] = group;
            return vacant;
        }
        if self.groups.len() < 2 {
            self.groups.reserve_exact(1);
        }
        self.groups.push(group);
        (self.groups.len() - 1) as u32
    }

    fn build_lookup(&self) -> Lookup {
        let mut lookup = Lookup::default();
        for (group, StoredGroup { key, entries }) in (0..).zip(&self.groups) {
            if !entries.is_empty() {
                lookup.by_content.insert(*key, group);
            }
            for (place, entry) in (0..).zip(entries) {
                lookup.by_owner.insert(entry.owner, EntryLocation { group, place });
            }
        }
        lookup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_publication_takes_72_bytes() {
        // Most of a million names have one publication.
        assert!(size_of::<Publications>() <= 72, "{}", size_of::<Publications>());
    }

    /// A publication by this owner of a content of its own.
    fn publication(owner: u32) -> IndexedPublication {
        let key = ContentKey { hash: ContentHash([1; 32]), size: owner.into() };
        let (owner, audience) = (OwnerId(owner), AudienceId::EVERYONE);
        IndexedPublication { key, entry: PublicationEntry { owner, audience, mtime_ms: 2, published_s: 3 } }
    }

    #[test]
    fn many_owners_are_found_by_hash_and_few_take_no_more_memory_than_before() {
        let has_lookup = |publications: &Publications| match publications {
            Publications::One(_) => false,
            Publications::Many(many) => many.lookup.is_some(),
        };
        let mut publications = Publications::One(publication(0));
        for owner in 1..20 {
            publications.insert(publication(owner));
            assert_eq!(has_lookup(&publications), owner + 1 >= 16, "of {} owners", owner + 1);
        }
        for owner in 0..20 {
            assert_eq!(has_lookup(&publications), owner <= 12, "{} owners are left", 20 - owner);
            assert!(publications.of_owner(OwnerId(owner)).is_some_and(|found| found.key.size == u64::from(owner)));
            assert!(publications.remove(OwnerId(owner)).is_some() && publications.of_owner(OwnerId(owner)).is_none());
        }
        assert!(publications.is_empty());
    }

    #[test]
    fn the_publications_of_two_owners_take_no_spare_memory() {
        for is_same in [true, false] {
            let mut other = publication(1);
            if is_same {
                other.key = publication(0).key;
            }
            let mut publications = Publications::One(publication(0));
            publications.insert(other);
            let Publications::Many(many) = &publications else { panic!("of two owners") };
            assert!(many.groups.capacity() <= 2, "{} groups", many.groups.capacity());
            assert_eq!(many.groups.iter().map(|group| group.entries.capacity()).sum::<usize>(), 2);
        }
    }

    #[test]
    fn a_name_that_is_published_ever_anew_takes_no_more_memory() {
        let mut publications = Publications::One(publication(0));
        for owner in 1..1_000 {
            publications.insert(publication(owner));
            assert_eq!(publications.group_end(), 2, "the group of a removed content is taken again");
            publications.remove(OwnerId(owner - 1));
        }
    }
}
