//! What a client knows of a list that it asks for again and again, and what has changed since the last time.

use std::collections::BTreeSet;

/// The entries of a list as far as they are known.
#[derive(Debug)]
pub struct KnownList<T> {
    entries: BTreeSet<T>,
}

impl<T> Default for KnownList<T> {
    fn default() -> Self {
        Self { entries: BTreeSet::new() }
    }
}

/// What has changed, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct ListDifference<T> {
    pub new: Vec<T>,
    pub gone: Vec<T>,
}

impl<T: Ord + Clone> KnownList<T> {
    pub fn entries(&self) -> &BTreeSet<T> {
        &self.entries
    }

    /// Takes in the list as it is now. Entries that it lacks have gone only if it `is_complete`.
    pub fn update(&mut self, list: BTreeSet<T>, is_complete: bool) -> ListDifference<T> {
        let new = list.difference(&self.entries).cloned().collect();
        let gone = match is_complete {
            true => self.entries.difference(&list).cloned().collect(),
            false => Vec::new(),
        };
        self.entries.extend(list);
        gone.iter().for_each(|entry| _ = self.entries.remove(entry));
        ListDifference { new, gone }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_gone_only_if_a_complete_list_lacks_it() {
        let mut known = KnownList::default();
        let difference = |new: &[u8], gone: &[u8]| ListDifference { new: new.into(), gone: gone.into() };
        assert_eq!(known.update([2, 1].into(), true), difference(&[1, 2], &[]));
        assert_eq!(known.update([3].into(), false), difference(&[3], &[]));
        assert_eq!(known.update([1, 3, 4].into(), true), difference(&[4], &[2]));
        assert_eq!(known.entries(), &[1, 3, 4].into());
    }
}
