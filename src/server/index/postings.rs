//! One posting list: the ids of the names that hold a trigram.
//!
//! A roaring bitmap, and a few ids that are not in it yet. A name touches some thirty lists, each somewhere else in memory;
//! kept beside the bitmap's head, most new ids cost one access there instead of three, and a rare trigram none beyond.

use std::iter::Peekable;

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

const TAIL_MAX: usize = 9;

#[derive(Default)]
pub(super) struct Postings {
    bitmap: RoaringBitmap,
    /// The first `tail_len` are ids that are not in the bitmap, in no order.
    tail: [u32; TAIL_MAX],
    tail_len: u32,
}

impl Postings {
    /// Adds an id that is not there, or was the last one added.
    pub(super) fn insert(&mut self, id: u32) {
        if self.tail().last() == Some(&id) {
            return;
        }
        if self.tail_len as usize == TAIL_MAX {
            // Not `try_push`: it looks for the largest id, which takes long in a dense list.
            for id in self.tail {
                self.bitmap.insert(id);
            }
            self.tail_len = 0;
        }
        self.tail[self.tail_len as usize] = id;
        self.tail_len += 1;
    }

    pub(super) fn remove(&mut self, id: u32) {
        match self.tail().iter().position(|&other| other == id) {
            Some(at) => {
                self.tail_len -= 1;
                self.tail[at] = self.tail[self.tail_len as usize];
            }
            None => {
                self.bitmap.remove(id);
            }
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.tail().contains(&id) || self.bitmap.contains(id)
    }

    pub(super) fn len(&self) -> u64 {
        self.bitmap.len() + u64::from(self.tail_len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail_len == 0 && self.bitmap.is_empty()
    }

    /// The ids from `from` on, rising.
    pub(super) fn iter_from(&self, from: u32) -> Rising<'_> {
        let mut bitmap = self.bitmap.iter();
        bitmap.advance_to(from);
        let mut tail: Vec<_> = self.tail().iter().copied().filter(|&id| id >= from).collect();
        tail.sort_unstable();
        Rising { bitmap: bitmap.peekable(), tail: tail.into_iter().peekable() }
    }

    fn tail(&self) -> &[u32] {
        &self.tail[..self.tail_len as usize]
    }
}

pub(super) struct Rising<'a> {
    bitmap: Peekable<Iter<'a>>,
    tail: Peekable<std::vec::IntoIter<u32>>,
}

impl Iterator for Rising<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bitmap = self.bitmap.peek();
        self.tail.next_if(|id| bitmap.is_none_or(|next| id < next)).or_else(|| self.bitmap.next())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Postings;

    proptest! {
        #[test]
        fn a_list_is_a_set(changes in prop::collection::vec((0..60_u32, any::<bool>()), 0..200), from in 0..70_u32) {
            let (mut list, mut model) = (Postings::default(), BTreeSet::new());
            for (id, add) in changes {
                match add {
                    true if model.insert(id) => {
                        list.insert(id);
                        list.insert(id); // A name may hold a trigram twice.
                    }
                    false if model.remove(&id) => list.remove(id),
                    _ => {}
                }
                prop_assert_eq!((list.len(), list.is_empty()), (model.len() as u64, model.is_empty()));
            }
            prop_assert!((0..70).all(|id| list.contains(id) == model.contains(&id)));
            prop_assert!(list.iter_from(from).eq(model.range(from..).copied()));
        }
    }
}
