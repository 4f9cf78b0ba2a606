//! The trigram index: which names hold which three bytes, to narrow a search down before names are compared.
//!
//! One set of trigrams serves three kinds of query. Trigrams are taken from the *folded* name (each character lower-cased
//! by itself), so that a search with and one without case start from the same candidates: a second set for the unchanged
//! names would double the memory and the time to load, to distinguish the few names that differ in case only. Two NUL
//! bytes, which no name holds, precede the name, so that a prefix of any length is a sequence of trigrams too. The caller
//! compares every candidate with the query; nothing here decides a match.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

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
        let mut folded = Vec::new();
        fold(needle, &mut folded);
        self.candidates(&folded, from)
    }

    /// Names with ids from `from` on that may start with `prefix`, in any case.
    pub(super) fn starting_with(&self, prefix: &str, from: u32) -> Candidates<'_> {
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
    fold(name, folded);
    trigrams(folded)
}

fn trigrams(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.windows(3).map(|three| u32::from_be_bytes([0, three[0], three[1], three[2]]))
}

/// Lower-cases every character by itself, so that the fold of a part is part of the fold of the whole. `str::to_lowercase`
/// does not: it gives ς at the end of a word and σ elsewhere; here both are σ.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fold;

    fn folded(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        fold(text, &mut out);
        out
    }

    proptest! {
        #[test]
        fn the_fold_of_a_part_is_part_of_the_fold(a in "\\PC{0,4}", b in "[aAΣςσİKkÄß]{0,6}", c in "\\PC{0,4}") {
            let whole = folded(&format!("{a}{b}{c}"));
            prop_assert_eq!(&whole, &[folded(&a), folded(&b), folded(&c)].concat());
            // A search that ignores case compares lower-cased names, which must fold to the same.
            prop_assert_eq!(whole, folded(&format!("{a}{b}{c}").to_lowercase()));
        }
    }
}
