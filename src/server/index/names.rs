//! Published names: a slab by id, a table by text, and the trigrams. A name is here while somebody publishes it.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::publications::Publications;
use super::trigrams::Trigrams;
use crate::common::types::FileName;

#[derive(Default)]
pub(super) struct Names {
    slots: Vec<Option<Name>>,
    by_text: HashMap<FileName, u32>,
    /// Slots without a name; none is the last. The smallest is used first, which keeps ids dense.
    free: RoaringBitmap,
    trigrams: Trigrams,
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

    /// Adds a name that is not there.
    pub(super) fn insert(&mut self, text: FileName, publications: Publications) -> u32 {
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
        self.trigrams.insert(text.as_str(), id);
        self.by_text.insert(text.clone(), id);
        self.slots[id as usize] = Some(Name { text, publications });
        id
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(name) = self.slots[id as usize].take() else { return };
        self.trigrams.remove(name.text.as_str(), id);
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
