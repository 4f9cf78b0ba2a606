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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const VALUES: usize = 100_000;

    /// A table whose values are their own hashes.
    fn table(values: &[u64]) -> ShardedTable<u64> {
        let mut table = ShardedTable::default();
        values.iter().for_each(|&value| table.insert_unique(value, value, |&value| value));
        table
    }

    fn values() -> Vec<u64> {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        (0..VALUES).map(|_| rng.r#gen()).collect()
    }

    impl<T> ShardedTable<T> {
        fn memory(&self) -> usize {
            self.shards.iter().map(HashTable::allocation_size).sum()
        }
    }

    #[test]
    fn every_part_holds_about_as_much_as_the_others() {
        let table = table(&values());
        let even = VALUES / SHARDS;
        assert!(table.shards.iter().all(|shard| (even / 2..even * 2).contains(&shard.len())));
        // A part grows beside 255 that do not.
        let most = table.shards.iter().map(HashTable::allocation_size).max();
        assert!(most.is_some_and(|most| most * 64 < table.memory()), "{most:?} of {}", table.memory());
    }

    #[test]
    fn memory_is_released_with_the_values_and_not_at_once() {
        let values = values();
        let mut table = table(&values);
        let full = table.memory();
        let (half, most) = (VALUES / 2, VALUES - VALUES / 100);
        let remove = |table: &mut ShardedTable<u64>, values: &[u64]| {
            values.iter().for_each(|&value| table.remove(value, |&other| other == value, |&value| value));
        };
        remove(&mut table, &values[..half]);
        assert_eq!((table.len(), table.memory()), (VALUES - half, full), "half of the values may come back");
        remove(&mut table, &values[half..most]);
        assert!(table.memory() < full / 16, "{} of {full} for a hundredth of the values", table.memory());
        assert!(values[most..].iter().all(|&value| table.find(value, |&other| other == value).is_some()));
        remove(&mut table, &values[most..]);
        assert_eq!((table.len(), table.memory()), (0, 0));
    }

    #[test]
    fn what_was_reserved_for_is_added_without_growing() {
        let mut table = ShardedTable::<u64>::default();
        table.reserve(VALUES, |&value| value);
        let reserved = table.memory();
        assert!((9 * VALUES..36 * VALUES).contains(&reserved), "{reserved} bytes, of 9 a value at least");
        values().into_iter().for_each(|value| table.insert_unique(value, value, |&value| value));
        assert_eq!(table.memory(), reserved);
    }
}
