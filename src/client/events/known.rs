//! What a client knows of a list that it asks for again and again, and what has changed in it.

use std::collections::BTreeSet;

use crate::common::types::{ContentHash, FileName, UserName};

/// An entry of a list: a peer, or one content under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListEntry {
    Peer(UserName),
    File { name: FileName, hash: ContentHash, size: u64 },
}

/// What has changed, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct ListDifference<'a> {
    pub new: Vec<&'a ListEntry>,
    pub gone: Vec<&'a ListEntry>,
}

/// What is known after the list has arrived. Entries that it lacks have gone only if it `is_complete`.
pub fn merge(known: &BTreeSet<ListEntry>, list: BTreeSet<ListEntry>, is_complete: bool) -> BTreeSet<ListEntry> {
    if is_complete { list } else { known | &list }
}

pub fn difference<'a>(before: &'a BTreeSet<ListEntry>, after: &'a BTreeSet<ListEntry>) -> ListDifference<'a> {
    ListDifference { new: after.difference(before).collect(), gone: before.difference(after).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(names: &[&str]) -> BTreeSet<ListEntry> {
        names.iter().map(|name| ListEntry::Peer(UserName::parse(name).unwrap())).collect()
    }

    #[test]
    fn an_entry_has_gone_only_if_a_complete_list_lacks_it() {
        let known = peers(&["a", "b"]);
        assert_eq!(merge(&known, peers(&["c"]), false), peers(&["a", "b", "c"]));
        assert_eq!(merge(&known, peers(&["b", "c"]), true), peers(&["b", "c"]));
        let (before, after) = (peers(&["a", "b"]), peers(&["b", "c"]));
        let ListDifference { new, gone } = difference(&before, &after);
        assert!(new.into_iter().eq(&peers(&["c"])) && gone.into_iter().eq(&peers(&["a"])));
    }
}
