//! The trigram index: which names hold which three bytes, to narrow a search down before names are compared.
//!
//! One set of trigrams serves three kinds of query. Trigrams are taken from the *folded* name (`case_fold`), so that a
//! search with and one without case start from the same candidates: a second set for the unchanged names would double
//! the memory and the time to load, to distinguish the few names that differ in case only. Two NUL bytes, which no name
//! holds, precede the name, so that a prefix of any length is a sequence of trigrams too. The caller compares every
//! candidate with the query; nothing here decides a match.

use std::iter::{Chain, Flatten};
use std::option;

use roaring::RoaringBitmap;
use roaring::bitmap::Iter;

use super::sharded_table::ShardedTable;
use crate::common::case_fold::{fold, fold_into};

/// Posting lists used for one query. Further ones hardly reduce the candidates.
const LISTS_MAX: usize = 4;

#[derive(Default)]
pub(super) struct Trigrams {
    postings: ShardedTable<PostingList>,
    /// A buffer.
    folded: Vec<u8>,
}

struct PostingList {
    trigram: u32,
    ids: NameIds,
}

/// The ids of the names that hold a trigram; not empty.
pub(super) enum NameIds {
    /// Without an allocation: of the trigrams of random names, most occur once.
    One(u32),
    Many(RoaringBitmap),
}

pub(super) type NameIdsIter<'a> = Chain<option::IntoIter<u32>, Flatten<option::IntoIter<Iter<'a>>>>;

/// Names that hold some trigrams of a needle.
pub(super) enum Candidates<'a> {
    /// No name matches.
    None,
    /// The needle is shorter than a trigram.
    All,
    /// The names that hold the rarest trigram; a match is in all of the other lists too.
    Rarest(&'a NameIds, Vec<&'a NameIds>),
}

impl NameIds {
    pub(super) fn contains(&self, id: u32) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Many(ids) => ids.contains(id),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::One(_) => 1,
            Self::Many(ids) => ids.len(),
        }
    }

    /// The ids from `from` on, ascending.
    pub(super) fn iter_from(&self, from: u32) -> NameIdsIter<'_> {
        let (one, many) = match self {
            Self::One(id) => (Some(*id).filter(|id| *id >= from), None),
            Self::Many(ids) => {
                let mut ids = ids.iter();
                ids.advance_to(from);
                (None, Some(ids))
            }
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, id: u32) {
        match self {
            Self::One(one) if *one == id => {}
            Self::One(one) => *self = Self::Many([*one, id].into_iter().collect()),
            Self::Many(ids) => _ = ids.insert(id),
        }
    }

    /// Returns whether no id is left.
    fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Many(ids) => {
                ids.remove(id);
                ids.is_empty()
            }
        }
    }
}

impl Trigrams {
    pub(super) fn insert(&mut self, name: &str, id: u32) {
        for trigram in trigrams_of_name(&mut self.folded, name) {
            let hash = hash_of(trigram);
            match self.postings.find_mut(hash, |list| list.trigram == trigram) {
                Some(list) => list.ids.insert(id),
                None => {
                    let list = PostingList { trigram, ids: NameIds::One(id) };
                    self.postings.insert_unique(hash, list, |list| hash_of(list.trigram));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str, id: u32) {
        for trigram in trigrams_of_name(&mut self.folded, name) {
            let (hash, is_trigram) = (hash_of(trigram), |list: &PostingList| list.trigram == trigram);
            if self.postings.find_mut(hash, is_trigram).is_some_and(|list| list.ids.remove(id)) {
                self.postings.remove(hash, is_trigram, |list| hash_of(list.trigram));
            }
        }
    }

    /// Names that may contain `needle`, in any case.
    pub(super) fn containing(&self, needle: &str) -> Candidates<'_> {
        self.candidates(&fold(needle))
    }

    /// Names that may start with `prefix`, in any case.
    pub(super) fn starting_with(&self, prefix: &str) -> Candidates<'_> {
        if prefix.is_empty() {
            return Candidates::All;
        }
        let mut folded = vec![0, 0];
        fold_into(prefix, &mut folded);
        self.candidates(&folded)
    }

    fn candidates(&self, folded: &[u8]) -> Candidates<'_> {
        let mut lists = Vec::new();
        for trigram in trigrams(folded) {
            match self.postings.find(hash_of(trigram), |list| list.trigram == trigram) {
                Some(list) => lists.push((list.ids.len(), &list.ids)),
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
        Candidates::Rarest(lists.next().expect("not empty"), lists.collect())
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
fn hash_of(trigram: u32) -> u64 {
    let mixed = u64::from(trigram).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trigrams_of_texts_are_spread_over_all_parts_of_the_table() {
        let mut counts = [0; 256];
        for text in 0..30_u32.pow(3) {
            let [first, second, third] = [text / 900, text / 30 % 30, text % 30].map(|at| at + u32::from(b'a'));
            counts[(hash_of(first << 16 | second << 8 | third) >> 48) as usize % 256] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
