//! A fair queue: one FIFO per key (a network, a session), served round robin.
//!
//! Defended: a key that floods its own FIFO delays only itself. A removed value is gone at once; `pop` never skips stale
//! entries.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Where a value is in the queue; needed to remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePosition(u64);

/// A queue of values, fair to keys. See the module.
pub struct FairQueue<K, V> {
    by_key: HashMap<K, SubQueue<V>>,
    /// The next round: every key with values that is not held, once.
    round: BTreeMap<QueuePosition, K>,
    last_position: u64,
    len: usize,
}

/// The FIFO of one key; never empty.
struct SubQueue<V> {
    /// `None`: the key is held.
    in_round: Option<QueuePosition>,
    values: BTreeMap<QueuePosition, V>,
}

impl<K, V> Default for FairQueue<K, V> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), round: BTreeMap::new(), last_position: 0, len: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> FairQueue<K, V> {
    /// Appends a value to the FIFO of `key`.
    pub fn push(&mut self, key: K, value: V) -> QueuePosition {
        let position = self.next_position();
        let queue = self.by_key.entry(key).or_insert_with(|| {
            self.round.insert(position, key);
            SubQueue { in_round: Some(position), values: BTreeMap::new() }
        });
        queue.values.insert(position, value);
        self.len += 1;
        position
    }

    /// Removes the first value of the next key in the round.
    pub fn pop(&mut self) -> Option<(K, V)> {
        let (_, key) = self.round.pop_first()?;
        let behind_all = self.next_position();
        let queue = self.by_key.get_mut(&key).expect("a key in the round has a queue");
        queue.in_round = Some(behind_all);
        self.round.insert(behind_all, key);
        let first = *queue.values.first_key_value().expect("a queue is never empty").0;
        self.remove(key, first).map(|value| (key, value))
    }

    /// Leaves the key out of the round until [`release`](Self::release). `false`: it has no values, or is held already.
    pub fn hold(&mut self, key: K) -> bool {
        let position = self.by_key.get_mut(&key).and_then(|queue| queue.in_round.take());
        position.is_some_and(|position| self.round.remove(&position).is_some())
    }

    /// Puts a held key that has values at the end of the round.
    pub fn release(&mut self, key: K) {
        let position = self.next_position();
        if let Some(queue) = self.by_key.get_mut(&key)
            && queue.in_round.is_none()
        {
            queue.in_round = Some(position);
            self.round.insert(position, key);
        }
    }

    /// Whether a key with values is not held.
    pub fn has_ready(&self) -> bool {
        !self.round.is_empty()
    }

    /// Removes one value, if it is still in the queue.
    pub fn remove(&mut self, key: K, position: QueuePosition) -> Option<V> {
        let queue = self.by_key.get_mut(&key)?;
        let value = queue.values.remove(&position)?;
        self.len -= 1;
        if queue.values.is_empty() {
            queue.in_round.iter().for_each(|position| _ = self.round.remove(position));
            self.by_key.remove(&key);
        }
        Some(value)
    }

    /// Removes the last value of the longest FIFO, to make space for one more value of `key`. `None`: no FIFO is longer
    /// than that of `key` would become. Visits all FIFOs.
    pub fn evict_from_longest(&mut self, key: K) -> Option<V> {
        let own = self.len_of(key);
        let (&longest, queue) = self.by_key.iter().max_by_key(|(_, queue)| queue.values.len())?;
        let last = *queue.values.last_key_value().expect("a queue is never empty").0;
        if own + 1 < queue.values.len() { self.remove(longest, last) } else { None }
    }

    /// The values of one key, in order.
    pub fn iter_key(&self, key: K) -> impl Iterator<Item = &V> {
        self.by_key.get(&key).into_iter().flat_map(|queue| queue.values.values())
    }

    /// The same, to change them.
    pub fn iter_key_mut(&mut self, key: K) -> impl Iterator<Item = &mut V> {
        self.by_key.get_mut(&key).into_iter().flat_map(|queue| queue.values.values_mut())
    }

    /// The first value of one key.
    pub fn first(&self, key: K) -> Option<(QueuePosition, &V)> {
        let (position, value) = self.by_key.get(&key)?.values.first_key_value()?;
        Some((*position, value))
    }

    /// How many values one key has.
    pub fn len_of(&self, key: K) -> usize {
        self.by_key.get(&key).map_or(0, |queue| queue.values.len())
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn next_position(&mut self) -> QueuePosition {
        self.last_position += 1;
        QueuePosition(self.last_position)
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
