//! Published names: a slab by id, a table by text, and the trigrams. A name is here while somebody publishes it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use roaring::RoaringBitmap;

use super::publications::{ContentKey, Member, Publications};
use super::trigrams::Trigrams;
use crate::common::types::FileName;

#[derive(Default)]
pub(super) struct Names {
    slots: Vec<Option<Name>>,
    by_text: HashMap<FileName, u32>,
    /// Slots without a name; none is the last. The smallest is used first, which keeps ids dense.
    free: RoaringBitmap,
    trigrams: Trigrams,
    /// Ids from here on are not in the trigrams yet; `None`: all are.
    settled_to: Option<u32>,
}

pub(super) struct Name {
    pub(super) text: FileName,
    pub(super) publications: Publications,
}

impl Names {
    pub(super) fn find(&self, text: &FileName) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    pub(super) fn name(&self, id: u32) -> Option<&Name> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn publications(&self, id: u32) -> Option<&Publications> {
        Some(&self.name(id)?.publications)
    }

    /// Of a name that is there.
    pub(super) fn publications_mut(&mut self, id: u32) -> &mut Publications {
        &mut self.slots[id as usize].as_mut().expect("a name that was found").publications
    }

    /// Adds or replaces a publication, and the name if need be; its id, and what was replaced.
    pub(super) fn put(
        &mut self,
        text: &FileName,
        key: ContentKey,
        member: Member,
    ) -> (u32, Option<(ContentKey, Member)>) {
        let vacant = match self.by_text.entry(text.clone()) {
            Entry::Occupied(known) => {
                let id = *known.get();
                return (id, self.publications_mut(id).put(key, member));
            }
            Entry::Vacant(vacant) => vacant,
        };
        let id = match self.free.min() {
            Some(id) => {
                self.free.remove(id);
                id
            }
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 names")
            }
        };
        vacant.insert(id);
        if self.is_settled(id) {
            self.trigrams.insert(text.as_str(), id);
        }
        self.slots[id as usize] = Some(Name { text: text.clone(), publications: Publications::one(key, member) });
        (id, None)
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(name) = self.slots[id as usize].take() else { return };
        if self.is_settled(id) {
            self.trigrams.remove(name.text.as_str(), id);
        }
        self.by_text.remove(&name.text);
        self.free.insert(id);
        while matches!(self.slots.last(), Some(None)) {
            self.slots.pop();
            self.free.remove(self.end());
        }
        // A quarter, so that memory is not given back and asked for again around one size.
        if self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
            self.by_text.shrink_to(self.by_text.len() * 2);
        }
    }

    pub(super) fn reserve(&mut self, names: usize) {
        self.slots.reserve(names);
        self.by_text.reserve(names);
    }

    /// From now on new ids at the end stay out of the trigrams, until [`settle`](Self::settle) has caught up.
    pub(super) fn defer(&mut self) {
        self.settled_to.get_or_insert(self.slots.len() as u32);
    }

    /// Takes up to so many ids into the trigrams; whether more are left.
    pub(super) fn settle(&mut self, most: usize) -> bool {
        let Some(from) = self.settled_to else { return false };
        let to = self.end().min(from.saturating_add(u32::try_from(most).unwrap_or(u32::MAX)));
        for id in from..to {
            if let Some(name) = &self.slots[id as usize] {
                self.trigrams.insert(name.text.as_str(), id);
            }
        }
        self.settled_to = (to < self.end()).then_some(to);
        self.settled_to.is_some()
    }

    /// Ids from here on must be looked at one by one.
    pub(super) fn settled_to(&self) -> u32 {
        self.settled_to.unwrap_or(u32::MAX)
    }

    fn is_settled(&self, id: u32) -> bool {
        id < self.settled_to()
    }

    /// One more than the largest id.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.slots.len()).expect("fewer than 2^32 names")
    }

    pub(super) fn trigrams(&self) -> &Trigrams {
        &self.trigrams
    }

    #[cfg(test)]
    pub(super) fn is_clear(&self) -> bool {
        self.slots.is_empty() && self.by_text.is_empty() && self.free.is_empty() && self.trigrams.len() == 0
    }
}
