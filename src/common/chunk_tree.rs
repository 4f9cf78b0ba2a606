//! The BLAKE3 tree over the chunk groups of a content, so that each group can be verified on its own.
//!
//! A content is split into *chunk groups* of [`group_bytes`] bytes; each is a complete subtree of the BLAKE3 tree.
//! [`GroupHashes`] lists the chaining values of these subtrees (what bao calls an outboard). Merged they give the root
//! hash, the one that `b3sum` prints. Each group is then verified against its own hash, in any order and from any source.
//!
//! Defended: a source that serves other bytes is detected at its first wrong group, and group hashes that do not merge to
//! the root hash are rejected before any group is requested. No files and no sockets here.

use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::limits::{GROUP_MIN_BYTES, GROUPS_MAX};
use super::types::ContentHash;

/// The hash of one chunk group: its subtree's chaining value, or the root hash if it is the only group.
pub type GroupHash = [u8; 32];

/// Bytes of every chunk group but the last, in a content of `size` bytes: 1 MiB, doubled until at most [`GROUPS_MAX`]
/// groups cover it.
pub fn group_bytes(size: u64) -> u64 {
    let mut bytes = GROUP_MIN_BYTES;
    while size.div_ceil(bytes) > GROUPS_MAX {
        bytes *= 2;
    }
    bytes
}

/// The number of groups in a content of `size` bytes. An empty content has one empty group.
pub fn group_count(size: u64) -> u32 {
    let count = size.div_ceil(group_bytes(size)).max(1);
    u32::try_from(count).expect("at most GROUPS_MAX")
}

/// The byte range of group `index`. Empty for an index past the end.
pub fn group_range(size: u64, index: u32) -> Range<u64> {
    let bytes = group_bytes(size);
    let start = u64::from(index).saturating_mul(bytes).min(size);
    start..start.saturating_add(bytes).min(size)
}

/// Hashes one group incrementally.
pub struct GroupHasher {
    hasher: Hasher,
    is_only: bool,
}

impl GroupHasher {
    /// For group `index` of a content of `size` bytes.
    pub fn new(size: u64, index: u32) -> Self {
        let is_only = group_count(size) == 1;
        let mut hasher = Hasher::new();
        if !is_only {
            hasher.set_input_offset(u64::from(index) * group_bytes(size));
        }
        Self { hasher, is_only }
    }

    /// Adds the next bytes of the group. The caller adds no more than the group has.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    pub fn finish(&self) -> GroupHash {
        if self.is_only { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() }
    }
}

#[cfg(test)]
pub fn hash_group(size: u64, index: u32, bytes: &[u8]) -> GroupHash {
    let mut hasher = GroupHasher::new(size, index);
    hasher.update(bytes);
    hasher.finish()
}

/// The group hashes of one content. They merge to its root hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupHashes {
    size: u64,
    root: ContentHash,
    groups: Vec<GroupHash>,
}

impl GroupHashes {
    /// From the hashes of all groups of a local content. `None` if their number does not fit the size.
    pub fn from_groups(size: u64, groups: Vec<GroupHash>) -> Option<Self> {
        if groups.len() as u64 != u64::from(group_count(size)) {
            return None;
        }
        let root = match groups.as_slice() {
            [only] => *only,
            all => merge_root(all),
        };
        Some(Self { size, root: ContentHash(root), groups })
    }

    /// Verifies group hashes received from a peer. `None` unless they merge to `root`.
    pub fn verify(root: ContentHash, size: u64, groups: Vec<GroupHash>) -> Option<Self> {
        Self::from_groups(size, groups).filter(|hashes| hashes.root == root)
    }

    /// Of a content with a single group, whose hash is the root hash. `None` if `size` takes more groups.
    pub fn from_single_group(root: ContentHash, size: u64) -> Option<Self> {
        Self::from_groups(size, vec![root.0])
    }

    pub fn root(&self) -> ContentHash {
        self.root
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn groups(&self) -> &[GroupHash] {
        &self.groups
    }

    /// The hash of group `index`. `None` past the end.
    pub fn group(&self, index: u32) -> Option<&GroupHash> {
        self.groups.get(index as usize)
    }
}

/// Splits as BLAKE3 does: the left subtree has the largest power of two smaller than the whole.
fn split(groups: &[GroupHash]) -> (&[GroupHash], &[GroupHash]) {
    let left = groups.len().next_power_of_two() / 2;
    groups.split_at(left)
}

fn merge_root(groups: &[GroupHash]) -> GroupHash {
    let (left, right) = split(groups);
    *merge_subtrees_root(&merge(left), &merge(right), Mode::Hash).as_bytes()
}

fn merge(groups: &[GroupHash]) -> GroupHash {
    match groups {
        [only] => *only,
        all => {
            let (left, right) = split(all);
            merge_subtrees_non_root(&merge(left), &merge(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn bytes(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at / 7 + at / 1_000_003) as u8).collect()
    }

    fn hash_groups(bytes: &[u8]) -> GroupHashes {
        let size = bytes.len() as u64;
        let of = |index| {
            let range = group_range(size, index);
            hash_group(size, index, &bytes[range.start as usize..range.end as usize])
        };
        GroupHashes::from_groups(size, (0..group_count(size)).map(of).collect()).unwrap()
    }

    #[test]
    fn the_group_hashes_merge_to_the_hash_of_the_whole() {
        for size in [0, 1, 1024, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 5, 4 * MIB, 5 * MIB, 7 * MIB + 1_025] {
            let bytes = bytes(size);
            let hashes = hash_groups(&bytes);
            assert_eq!(hashes.root().0, *blake3::hash(&bytes).as_bytes(), "{size} bytes");
            // Known from the root alone, so that a small file is not read again for it.
            let single = (size <= MIB).then_some(hashes.clone());
            assert_eq!(GroupHashes::from_single_group(hashes.root(), size), single, "{size} bytes");
        }
    }

    #[test]
    fn a_wrong_group_or_size_is_detected() {
        let bytes = bytes(3 * MIB);
        let good = hash_groups(&bytes);
        let mut groups = good.groups().to_vec();
        assert!(GroupHashes::verify(good.root(), 3 * MIB, groups.clone()).is_some());
        assert!(GroupHashes::verify(good.root(), 3 * MIB + 1, groups.clone()).is_none(), "wrong count");
        groups.swap(0, 1);
        assert!(GroupHashes::verify(good.root(), 3 * MIB, groups).is_none());
        assert_ne!(
            hash_group(3 * MIB, 1, &bytes[..MIB as usize]),
            good.groups()[1],
            "the position is part of the hash"
        );
    }

    #[test]
    fn groups_cover_every_size_within_the_maximum() {
        for size in [0, 1, MIB, 64 << 30, (64 << 30) + 1, 1 << 50, u64::MAX] {
            let count = group_count(size);
            assert!(u64::from(count) <= GROUPS_MAX);
            assert_eq!(group_range(size, count - 1).end, size);
            assert!(group_range(size, count).is_empty());
        }
        assert_eq!(group_bytes(64 << 30), MIB);
        assert_eq!(group_bytes((64 << 30) + 1), 2 * MIB);
        assert_eq!(group_range(3 * MIB + 5, 3), 3 * MIB..3 * MIB + 5);
    }

    #[test]
    fn larger_groups_merge_as_well() {
        // Three groups of 2 MiB each, as a content beyond 64 GiB would have them, against the plain hash.
        let bytes = bytes(5 * MIB);
        let cut = |range: Range<usize>| {
            let mut hasher = Hasher::new();
            hasher.set_input_offset(range.start as u64).update(&bytes[range]);
            hasher.finalize_non_root()
        };
        let two = 2 * MIB as usize;
        let groups = [cut(0..two), cut(two..2 * two), cut(2 * two..bytes.len())];
        assert_eq!(merge_root(&groups), *blake3::hash(&bytes).as_bytes());
    }
}
