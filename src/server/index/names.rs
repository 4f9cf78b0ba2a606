//! Published names: a slab by id, a table by text, and the trigrams. A name is present while a user publishes it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use roaring::RoaringBitmap;

use super::publications::{IndexedPublication, Publications};
use super::sharded_table::ShardedTable;
use super::trigrams::Trigrams;
use crate::common::normal_form::normal_form;
use crate::common::types::FileName;

#[derive(Default)]
pub(super) struct Names {
    /// By id. Not the crate `slab`: ids stay dense, since the smallest free one is used first.
    names: Vec<Option<Name>>,
    /// The ids by the hash of the text, which only `names` holds: a small table, since a start with many names waits mostly
    /// for the memory of this table.
    by_text: ShardedTable<u32>,
    hash_keys: RandomState,
    /// Those ids whose names are not in their normal form, by it. Not in `by_text`: one user may publish any number of names
    /// of one form, and every lookup would pass them.
    variants: BTreeSet<(Box<str>, u32)>,
    /// Ids without a name; never the largest id.
    free: RoaringBitmap,
    trigrams: Trigrams,
    /// Ids from here on are not in the trigrams; `None`: all are.
    indexed_up_to: Option<u32>,
}

pub(super) struct Name {
    pub(super) text: FileName,
    pub(super) publications: Publications,
}

/// What [`Names::publish`] did.
pub(super) struct Published {
    pub(super) id: u32,
    /// The owner's previous publication of the name.
    pub(super) replaced: Option<IndexedPublication>,
}

impl Names {
    pub(super) fn find(&self, text: &FileName) -> Option<u32> {
        self.find_hashed(text, self.hash_keys.hash_one(text))
    }

    fn find_hashed(&self, text: &FileName, hash: u64) -> Option<u32> {
        let is_text = |&id: &u32| self.name(id).is_some_and(|name| name.text == *text);
        self.by_text.find(hash, is_text).copied()
    }

    /// The ids from `from` on, ascending, of the names of the same normal form.
    pub(super) fn equivalent(&self, text: &FileName, from: u32) -> impl Iterator<Item = u32> + use<'_> {
        let form = normal_form(text.as_str());
        let normal = FileName::parse(&form).ok().and_then(|form| self.find(&form)).filter(|&id| id >= from);
        let split = normal.unwrap_or(from);
        let key = |id| (Box::from(&*form), id);
        let (before, after) =
            (self.variants.range(key(from)..key(split)), self.variants.range(key(split)..=key(u32::MAX)));
        before.map(|(_, id)| *id).chain(normal).chain(after.map(|(_, id)| *id))
    }

    pub(super) fn name(&self, id: u32) -> Option<&Name> {
        self.names.get(id as usize)?.as_ref()
    }

    pub(super) fn publications(&self, id: u32) -> Option<&Publications> {
        Some(&self.name(id)?.publications)
    }

    /// Of a name that is present.
    pub(super) fn publications_mut(&mut self, id: u32) -> &mut Publications {
        &mut self.names[id as usize].as_mut().expect("a name that was found").publications
    }

    /// Adds or replaces a publication, and adds the name if it is new.
    pub(super) fn publish(&mut self, text: &FileName, publication: IndexedPublication) -> Published {
        let hash = self.hash_keys.hash_one(text);
        if let Some(id) = self.find_hashed(text, hash) {
            return Published { id, replaced: self.publications_mut(id).insert(publication) };
        }
        let id = match self.free.min() {
            Some(id) => {
                self.free.remove(id);
                id
            }
            None => {
                self.names.push(None);
                u32::try_from(self.names.len() - 1).expect("fewer than 2^32 names")
            }
        };
        if id < self.indexed_up_to() {
            self.trigrams.insert(text.as_str(), id);
        }
        if let Cow::Owned(form) = normal_form(text.as_str()) {
            self.variants.insert((form.into(), id));
        }
        self.names[id as usize] = Some(Name { text: text.clone(), publications: Publications::One(publication) });
        self.by_text.insert_unique(hash, id, hash_of_id(&self.names, &self.hash_keys));
        Published { id, replaced: None }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(name) = self.names[id as usize].take() else { return };
        let hash = self.hash_keys.hash_one(&name.text);
        self.by_text.remove(hash, |&other| other == id, hash_of_id(&self.names, &self.hash_keys));
        if id < self.indexed_up_to() {
            self.trigrams.remove(name.text.as_str(), id);
        }
        if let Cow::Owned(form) = normal_form(name.text.as_str()) {
            self.variants.remove(&(form.into(), id));
        }
        self.free.insert(id);
        while matches!(self.names.last(), Some(None)) {
            self.names.pop();
            self.free.remove(self.end());
        }
        // At a quarter, so that memory is not released and allocated again around one size.
        if self.names.len() < self.names.capacity() / 4 {
            self.names.shrink_to(self.names.len() * 2);
        }
    }

    pub(super) fn reserve(&mut self, names: usize) {
        self.names.reserve(names);
        self.by_text.reserve(names, hash_of_id(&self.names, &self.hash_keys));
    }

    /// See [`Index::defer_indexing`](super::Index::defer_indexing).
    pub(super) fn defer_indexing(&mut self) {
        self.indexed_up_to.get_or_insert(self.names.len() as u32);
    }

    /// Adds at most `limit` deferred ids to the trigrams.
    pub(super) fn index_pending(&mut self, limit: usize) {
        let Some(from) = self.indexed_up_to else { return };
        let to = self.end().min(from.saturating_add(u32::try_from(limit).unwrap_or(u32::MAX)));
        for id in from..to {
            if let Some(name) = &self.names[id as usize] {
                self.trigrams.insert(name.text.as_str(), id);
            }
        }
        self.indexed_up_to = (to < self.end()).then_some(to);
    }

    pub(super) fn has_pending(&self) -> bool {
        self.indexed_up_to.is_some()
    }

    /// A search must look at every id from here on.
    pub(super) fn indexed_up_to(&self) -> u32 {
        self.indexed_up_to.unwrap_or(u32::MAX)
    }

    /// One more than the largest id.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.names.len()).expect("fewer than 2^32 names")
    }

    pub(super) fn trigrams(&self) -> &Trigrams {
        &self.trigrams
    }

    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.names.is_empty()
            && self.by_text.len() == 0
            && self.free.is_empty()
            && self.variants.is_empty()
            && self.trigrams.len() == 0
    }
}

/// The hash of the text of a name that is present.
fn hash_of_id(names: &[Option<Name>], hash_keys: &RandomState) -> impl Fn(&u32) -> u64 {
    |&id| hash_keys.hash_one(&names[id as usize].as_ref().expect("a name in the table").text)
}

#[cfg(test)]
mod tests {
    use super::super::OwnerId;
    use super::super::audiences::AudienceId;
    use super::super::publications::{ContentKey, PublicationEntry};
    use super::*;
    use crate::common::types::ContentHash;

    const NAMES: u32 = 10_000;

    fn publish(names: &mut Names, number: u32) -> u32 {
        let key = ContentKey { hash: ContentHash([1; 32]), size: 2 };
        let (owner, audience) = (OwnerId(0), AudienceId::EVERYONE);
        let entry = PublicationEntry { owner, audience, mtime_ms: 3, published_s: 4 };
        names.publish(&FileName::parse(&format!("{number}")).unwrap(), IndexedPublication { key, entry }).id
    }

    #[test]
    fn memory_is_released_with_the_names_and_not_at_once() {
        let mut names = Names::default();
        (0..NAMES).for_each(|number| assert_eq!(publish(&mut names, number), number));
        let full = names.names.capacity();
        (NAMES / 2..NAMES).for_each(|id| names.remove(id));
        assert_eq!((names.end(), names.names.capacity()), (NAMES / 2, full), "half of the names may come back");
        let first = (0..NAMES / 2).rev().find(|&id| {
            names.remove(id);
            names.names.capacity() < full
        });
        let left = first.expect("memory is released") as usize;
        assert!(left < full / 4 && left > full / 5, "{left} of {full}");
        assert_eq!(names.names.capacity(), left * 2);
        (0..left as u32).rev().for_each(|id| names.remove(id));
        assert!(names.is_clear() && names.names.capacity() < 4);
    }

    #[test]
    fn what_was_reserved_for_is_published_without_growing() {
        let mut names = Names::default();
        names.reserve(NAMES as usize);
        let reserved = names.names.capacity();
        (0..NAMES).for_each(|number| _ = publish(&mut names, number));
        assert!(names.names.capacity() == reserved && reserved < 2 * NAMES as usize);
    }

    #[test]
    fn deferred_names_are_indexed_so_many_at_a_time() {
        let mut names = Names::default();
        publish(&mut names, 0);
        names.defer_indexing();
        (1..10).for_each(|number| _ = publish(&mut names, number));
        names.defer_indexing();
        for (limit, up_to) in [(0, 1), (3, 4), (3, 7), (2, 9)] {
            names.index_pending(limit);
            assert_eq!((names.indexed_up_to(), names.has_pending()), (up_to, true));
        }
        names.index_pending(1);
        assert!(!names.has_pending());
    }
}
