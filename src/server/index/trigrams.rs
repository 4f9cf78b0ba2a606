//! Which names hold which three bytes: what narrows a search down before names are compared.
//!
//! One set of trigrams serves three kinds of query. They are taken from the *folded* name (each character lower-cased by
//! itself), so that a search that ignores case and one that does not start from the same candidates: a second set for
//! the name as it is would double the memory and the time to load, to tell apart the few names that differ in case only.
//! And the name is led in by two NUL bytes, which no name can hold, so that a prefix of any length is a run of trigrams
//! too. Candidates are verified against the name; nothing here decides a match.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::Peekable;

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

/// Posting lists looked into for one query: further ones hardly narrow it down.
const LISTS_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Trigrams {
    lists: HashMap<u32, Postings, BuildHasherDefault<Spread>>,
    /// Kept for its memory.
    folded: Vec<u8>,
}

/// Ids of names that hold some trigrams of a needle, rising.
pub(super) enum Candidates<'a> {
    /// No name can match.
    None,
    /// The needle is too short to tell.
    All,
    /// The rarest list, to be looked up in some others.
    Some(Rising<'a>, Vec<&'a Postings>),
}

impl Trigrams {
    pub(super) fn insert(&mut self, name: &str, id: u32) {
        for trigram in take_trigrams(&mut self.folded, name) {
            self.lists.entry(trigram).or_default().insert(id);
        }
    }

    pub(super) fn remove(&mut self, name: &str, id: u32) {
        for trigram in take_trigrams(&mut self.folded, name) {
            if let Entry::Occupied(mut list) = self.lists.entry(trigram) {
                list.get_mut().remove(id);
                if list.get().is_empty() {
                    list.remove();
                }
            }
        }
    }

    /// Names from id `from` on that may contain `needle`, in any case.
    pub(super) fn containing(&self, needle: &str, from: u32) -> Candidates<'_> {
        let mut folded = Vec::new();
        fold(needle, &mut folded);
        self.candidates(&folded, from)
    }

    /// Names from id `from` on that may start with `prefix`, in any case.
    pub(super) fn starting(&self, prefix: &str, from: u32) -> Candidates<'_> {
        if prefix.is_empty() {
            return Candidates::All;
        }
        let mut folded = vec![0, 0];
        fold(prefix, &mut folded);
        self.candidates(&folded, from)
    }

    fn candidates(&self, folded: &[u8], from: u32) -> Candidates<'_> {
        let mut lists = Vec::new();
        for trigram in trigrams(folded) {
            match self.lists.get(&trigram) {
                Some(list) => lists.push((list.len(), list)),
                None => return Candidates::None,
            }
        }
        if lists.is_empty() {
            return Candidates::All;
        }
        if lists.len() > LISTS_MAX {
            lists.select_nth_unstable_by_key(LISTS_MAX, |&(len, _)| len);
            lists.truncate(LISTS_MAX);
        }
        lists.sort_unstable_by_key(|&(len, _)| len);
        let mut lists = lists.into_iter().map(|(_, list)| list);
        let rarest = lists.next().expect("not empty").iter_from(from);
        Candidates::Some(rarest, lists.collect())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }
}

fn take_trigrams<'a>(folded: &'a mut Vec<u8>, name: &str) -> impl Iterator<Item = u32> + 'a {
    folded.clear();
    folded.extend([0, 0]);
    fold(name, folded);
    trigrams(folded)
}

fn trigrams(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.windows(3).map(|three| u32::from_be_bytes([0, three[0], three[1], three[2]]))
}

/// Lower-cases every character by itself, so that the fold of a part is a part of the fold of the whole. That is not so
/// for `str::to_lowercase`, which ends a word in ς but has σ elsewhere; here both are σ.
fn fold(text: &str, out: &mut Vec<u8>) {
    if text.is_ascii() {
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        out[start..].make_ascii_lowercase();
        return;
    }
    for c in text.chars().flat_map(char::to_lowercase) {
        let c = if c == 'ς' { 'σ' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Spreads 24 bits over 64. A keyed hash would guard against names made to collide, but a trigram has too few bits for
/// that to matter, and this is hashed some thirty times a name.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        let mixed = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

const TAIL_MAX: usize = 9;

/// The ids of the names that hold one trigram: a roaring bitmap, and a few ids that are not in it yet. A name touches some
/// thirty lists, each at another place in memory; with the tail beside the bitmap's head most new ids cost one access
/// there instead of three, and a rare trigram none beyond.
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

    use super::{Postings, fold};

    fn folded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        fold(text, &mut out);
        out
    }

    proptest! {
        #[test]
        fn a_part_folds_to_a_part(a in "\\PC{0,4}", b in "[aAΣςσİKkÄß]{0,6}", c in "\\PC{0,4}") {
            let whole = folded(&format!("{a}{b}{c}"));
            prop_assert_eq!(&whole, &[folded(&a), folded(&b), folded(&c)].concat());
            // What is verified when case is ignored is the lower-cased name: it must fold to the same.
            prop_assert_eq!(whole, folded(&format!("{a}{b}{c}").to_lowercase()));
        }
    }

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
