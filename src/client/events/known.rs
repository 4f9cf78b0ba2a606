//! What a client knows of a list that it asks for again and again, and what has changed in it.

use std::collections::BTreeMap;

use crate::common::types::{ContentHash, FileName, UserName, UsersDigest};

/// An entry of a list: a peer, or one content under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListEntry {
    Peer(UserName),
    File { name: FileName, hash: ContentHash, size: u64 },
}

/// The entries of a list; of a file's content, with the users who publish it.
pub type ListEntries = BTreeMap<ListEntry, UsersDigest>;

/// What has changed, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct ListDifference<'a> {
    pub new: Vec<&'a ListEntry>,
    pub gone: Vec<&'a ListEntry>,
}

/// What is known after the list has arrived. Entries that it lacks have gone only if it `is_complete`.
pub fn merge(known: &ListEntries, list: ListEntries, is_complete: bool) -> ListEntries {
    if is_complete { list } else { known.clone().into_iter().chain(list).collect() }
}

/// Nothing has changed where only the users have.
pub fn difference<'a>(before: &'a ListEntries, after: &'a ListEntries) -> ListDifference<'a> {
    let lacked_by = |list: &'a ListEntries| move |entry: &&ListEntry| !list.contains_key(entry);
    ListDifference {
        new: after.keys().filter(lacked_by(before)).collect(),
        gone: before.keys().filter(lacked_by(after)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(names: &[&str]) -> ListEntries {
        names.iter().map(|name| (ListEntry::Peer(UserName::parse(name).unwrap()), UsersDigest(0))).collect()
    }

    #[test]
    fn an_entry_has_gone_only_if_a_complete_list_lacks_it() {
        let known = peers(&["a", "b"]);
        assert_eq!(merge(&known, peers(&["c"]), false), peers(&["a", "b", "c"]));
        assert_eq!(merge(&known, peers(&["b", "c"]), true), peers(&["b", "c"]));
        let (before, after) = (peers(&["a", "b"]), peers(&["b", "c"]));
        let ListDifference { new, gone } = difference(&before, &after);
        assert!(new.into_iter().eq(peers(&["c"]).keys()) && gone.into_iter().eq(peers(&["a"]).keys()));
        let of_others = before.keys().map(|entry| (entry.clone(), UsersDigest(1))).collect();
        assert_eq!(difference(&before, &of_others), difference(&before, &before));
        assert_eq!(merge(&before, of_others.clone(), false), of_others);
    }
}
