//! A hash table in parts, so that no insertion waits while a large table grows: each part grows at another time.

use hashbrown::HashTable;

/// Of the hash, bits that the parts themselves do not use.
const SHARD_SHIFT: u32 = 48;
const SHARDS: usize = 256;

/// The caller computes the hashes, as for [`HashTable`].
pub(super) struct ShardedTable<T> {
    shards: Box<[HashTable<T>]>,
}

impl<T> Default for ShardedTable<T> {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect() }
    }
}

impl<T> ShardedTable<T> {
    pub(super) fn find(&self, hash: u64, is_match: impl FnMut(&T) -> bool) -> Option<&T> {
        self.shards[shard(hash)].find(hash, is_match)
    }

    pub(super) fn find_mut(&mut self, hash: u64, is_match: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.shards[shard(hash)].find_mut(hash, is_match)
    }

    /// Adds a value that is not in the table.
    pub(super) fn insert_unique(&mut self, hash: u64, value: T, hash_of: impl Fn(&T) -> u64) {
        self.shards[shard(hash)].insert_unique(hash, value, hash_of);
    }

    /// Removes a value, and releases memory that the table no longer needs.
    pub(super) fn remove(&mut self, hash: u64, is_match: impl FnMut(&T) -> bool, hash_of: impl Fn(&T) -> u64) {
        let shard = &mut self.shards[shard(hash)];
        if let Ok(entry) = shard.find_entry(hash, is_match) {
            entry.remove();
        }
        // At a quarter, so that memory is not released and allocated again around one size.
        if shard.len() < shard.capacity() / 4 {
            shard.shrink_to(shard.len() * 2, hash_of);
        }
    }

    /// Allocates for `additional` values with evenly distributed hashes.
    pub(super) fn reserve(&mut self, additional: usize, hash_of: impl Fn(&T) -> u64) {
        for shard in &mut self.shards {
            shard.reserve(additional / SHARDS, &hash_of);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(HashTable::len).sum()
    }
}

fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}
