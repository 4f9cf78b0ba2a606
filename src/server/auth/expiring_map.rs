//! A map whose entries are found by key and, for expiry, by time without a scan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Entries ordered by key, each with the instant at which it expires. An expired entry stays until it is popped.
pub struct ExpiringMap<K, V> {
    by_key: BTreeMap<K, (Instant, V)>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Clone + Ord, V> ExpiringMap<K, V> {
    /// Adds or replaces an entry; returns the value it had.
    pub fn insert(&mut self, key: K, expires: Instant, value: V) -> Option<V> {
        let replaced = self.by_key.insert(key.clone(), (expires, value));
        if let Some((earlier, _)) = &replaced {
            self.by_time.remove(&(*earlier, key.clone()));
        }
        self.by_time.insert((expires, key));
        replaced.map(|(_, value)| value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (key, (expires, value)) = self.by_key.remove_entry(key)?;
        self.by_time.remove(&(expires, key));
        Some(value)
    }

    /// Removes the entry that expires first, if it has expired by `now`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<(K, V)> {
        if self.next_expiry()? <= now { self.pop_first() } else { None }
    }

    /// Removes the entry that expires first.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let (_, key) = self.by_time.pop_first()?;
        let (_, value) = self.by_key.remove(&key)?;
        Some((key, value))
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.by_key.get_mut(key).map(|(_, value)| value)
    }

    pub fn expiry(&self, key: &K) -> Option<Instant> {
        self.by_key.get(key).map(|(expires, _)| *expires)
    }

    pub fn next_expiry(&self) -> Option<Instant> {
        self.by_time.first().map(|(expires, _)| *expires)
    }

    pub fn last_expiry(&self) -> Option<Instant> {
        self.by_time.last().map(|(expires, _)| *expires)
    }

    /// Keys from `first` on in their order, each with its expiry.
    pub fn range_from(&self, first: K) -> impl Iterator<Item = (&K, Instant)> + Clone {
        self.by_key.range(first..).map(|(key, (expires, _))| (key, *expires))
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        debug_assert_eq!(self.by_key.len(), self.by_time.len());
        self.by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::test_support::origin;

    #[test]
    fn entries_expire_in_the_order_of_time_and_a_replaced_one_at_its_new_time() {
        let at = |seconds| origin() + Duration::from_secs(seconds);
        let mut map = ExpiringMap::default();
        for (key, expires) in [("a", 3), ("b", 1), ("c", 2), ("d", 2)] {
            assert_eq!(map.insert(key, at(expires), expires), None);
        }
        assert_eq!(map.insert("b", at(4), 40), Some(1));
        assert_eq!((map.next_expiry(), map.last_expiry(), map.expiry(&"b")), (Some(at(2)), Some(at(4)), Some(at(4))));
        assert_eq!(map.remove(&"d"), Some(2));
        assert_eq!(map.pop_expired(at(1)), None);
        assert_eq!(map.pop_expired(at(2)), Some(("c", 2)));
        assert!(map.range_from("b").eq([(&"b", at(4))]));
        let all: Vec<_> = std::iter::from_fn(|| map.pop_expired(at(9))).collect();
        assert_eq!((all, map.len(), map.next_expiry()), (vec![("a", 3), ("b", 40)], 0, None));
    }
}
