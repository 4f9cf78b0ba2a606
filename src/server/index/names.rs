//! Published names: a slab by id, a table by text, and the trigrams. A name is present while a user publishes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use roaring::RoaringBitmap;

use super::publications::{IndexedPublication, Publications};
use super::trigrams::Trigrams;
use crate::common::types::FileName;

#[derive(Default)]
pub(super) struct Names {
    /// By id. Not the crate `slab`: ids stay dense, since the smallest free one is used first.
    names: Vec<Option<Name>>,
    by_text: HashMap<FileName, u32>,
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
        self.by_text.get(text).copied()
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
        let vacant = match self.by_text.entry(text.clone()) {
            Entry::Occupied(known) => {
                let id = *known.get();
                return Published { id, replaced: self.publications_mut(id).insert(publication) };
            }
            Entry::Vacant(vacant) => vacant,
        };
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
        vacant.insert(id);
        if id < self.indexed_up_to() {
            self.trigrams.insert(text.as_str(), id);
        }
        self.names[id as usize] = Some(Name { text: text.clone(), publications: Publications::One(publication) });
        Published { id, replaced: None }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(name) = self.names[id as usize].take() else { return };
        if id < self.indexed_up_to() {
            self.trigrams.remove(name.text.as_str(), id);
        }
        self.by_text.remove(&name.text);
        self.free.insert(id);
        while matches!(self.names.last(), Some(None)) {
            self.names.pop();
            self.free.remove(self.end());
        }
        // At a quarter, so that memory is not released and allocated again around one size.
        if self.names.len() < self.names.capacity() / 4 {
            self.names.shrink_to(self.names.len() * 2);
            self.by_text.shrink_to(self.by_text.len() * 2);
        }
    }

    pub(super) fn reserve(&mut self, names: usize) {
        self.names.reserve(names);
        self.by_text.reserve(names);
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
        self.names.is_empty() && self.by_text.is_empty() && self.free.is_empty() && self.trigrams.len() == 0
    }
}
