//! The trigram index: which names hold which three bytes, to narrow a search down before names are compared.
//!
//! One set of trigrams serves three kinds of query. Trigrams are taken from the *folded* name (`case_fold`), so that a
//! search with and one without case start from the same candidates: a second set for the unchanged names would double
//! the memory and the time to load, to distinguish the few names that differ in case only. Two NUL bytes, which no name
//! holds, precede the name, so that a prefix of any length is a sequence of trigrams too. The caller compares every
//! candidate with the query; nothing here decides a match.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

use crate::common::case_fold::{fold, fold_into};

/// Posting lists used for one query. Further ones hardly reduce the candidates.
const LISTS_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Trigrams {
    /// The posting list of each trigram: the ids of the names that hold it.
    postings: HashMap<u32, RoaringBitmap, BuildHasherDefault<TrigramHasher>>,
    /// A buffer.
    folded: Vec<u8>,
}

/// Names that hold some trigrams of a needle.
pub(super) enum Candidates<'a> {
    /// No name matches.
    None,
    /// The needle is shorter than a trigram.
    All,
    /// Ids of the rarest trigram, ascending; a match is in all of the other lists too.
    Rarest(Iter<'a>, Vec<&'a RoaringBitmap>),
}

impl Trigrams {
    pub(super) fn insert(&mut self, name: &str, id: u32) {
        for trigram in trigrams_of_name(&mut self.folded, name) {
            self.postings.entry(trigram).or_default().insert(id);
        }
    }

    pub(super) fn remove(&mut self, name: &str, id: u32) {
        for trigram in trigrams_of_name(&mut self.folded, name) {
            if let Entry::Occupied(mut list) = self.postings.entry(trigram) {
                list.get_mut().remove(id);
                if list.get().is_empty() {
                    list.remove();
                }
            }
        }
    }

    /// Names with ids from `from` on that may contain `needle`, in any case.
    pub(super) fn containing(&self, needle: &str, from: u32) -> Candidates<'_> {
        self.candidates(&fold(needle), from)
    }

    /// Names with ids from `from` on that may start with `prefix`, in any case.
    pub(super) fn starting_with(&self, prefix: &str, from: u32) -> Candidates<'_> {
        if prefix.is_empty() {
            return Candidates::All;
        }
        let mut folded = vec![0, 0];
        fold_into(prefix, &mut folded);
        self.candidates(&folded, from)
    }

    fn candidates(&self, folded: &[u8], from: u32) -> Candidates<'_> {
        let mut lists = Vec::new();
        for trigram in trigrams(folded) {
            match self.postings.get(&trigram) {
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
        let mut rarest = lists.next().expect("not empty").iter();
        rarest.advance_to(from);
        Candidates::Rarest(rarest, lists.collect())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.postings.len()
    }
}

fn trigrams_of_name<'a>(folded: &'a mut Vec<u8>, name: &str) -> impl Iterator<Item = u32> + 'a {
    folded.clear();
    folded.extend([0, 0]);
    fold_into(name, folded);
    trigrams(folded)
}

fn trigrams(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.windows(3).map(|three| u32::from_be_bytes([0, three[0], three[1], three[2]]))
}

/// Spreads the 24 bits of a trigram over 64. A keyed hash would resist names that are made to collide, but a trigram has
/// too few bits for that to matter, and about thirty are hashed per name.
#[derive(Default)]
struct TrigramHasher(u64);

impl Hasher for TrigramHasher {
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
