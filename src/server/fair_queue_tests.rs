use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn drain(queue: &mut FairQueue<u8, u32>) -> Vec<u32> {
    std::iter::from_fn(|| queue.pop()).map(|(_, value)| value).collect()
}

#[test]
fn keys_are_served_round_robin() {
    let mut queue = FairQueue::default();
    let positions: Vec<_> = (10..15).map(|value| queue.push(1, value)).collect();
    queue.push(2, 20);
    queue.push(3, 30);
    queue.push(2, 21);
    assert_eq!(queue.remove(1, positions[1]), Some(11));
    assert_eq!(queue.remove(1, positions[1]), None);
    assert_eq!((queue.len(), queue.pop()), (7, Some((1, 10))));
    // A new key goes behind the keys that are in the round.
    queue.push(4, 40);
    assert_eq!(drain(&mut queue), [20, 30, 12, 40, 21, 13, 14]);
    assert!(queue.is_empty() && queue.by_key.is_empty() && queue.round.is_empty());
}

#[test]
fn a_held_key_is_not_served_until_it_is_released() {
    let mut queue = FairQueue::default();
    assert!(!queue.hold(1), "it has no values");
    for (key, value) in [(1, 10), (2, 20), (1, 11)] {
        queue.push(key, value);
    }
    assert!(queue.hold(1) && !queue.hold(1));
    queue.push(1, 12);
    assert_eq!((drain(&mut queue), queue.len(), queue.len_of(1), queue.has_ready()), (vec![20], 3, 3, false));
    queue.push(2, 21);
    queue.release(1);
    queue.release(1);
    assert_eq!(drain(&mut queue), [21, 10, 11, 12]);
    queue.release(1);
    assert!(queue.is_empty() && queue.by_key.is_empty() && queue.round.is_empty());
}

#[test]
fn a_key_without_values_leaves_the_round() {
    let mut queue = FairQueue::default();
    for value in 0..100 {
        let position = queue.push(1, value);
        assert_eq!(queue.remove(1, position), Some(value));
    }
    assert_eq!((queue.len(), queue.by_key.len(), queue.round.len(), queue.pop()), (0, 0, 0, None));
}

#[test]
fn the_longest_queue_loses_its_last_value_to_shorter_queues_only() {
    let mut queue = FairQueue::default();
    for value in [10, 11, 12] {
        queue.push(1, value);
    }
    queue.push(2, 20);
    assert_eq!(queue.evict_from_longest(1), None);
    assert_eq!(queue.evict_from_longest(2), Some(12), "three and one become two and two");
    queue.push(2, 21);
    assert_eq!(queue.evict_from_longest(2), None);
    assert!(queue.evict_from_longest(3).is_some());
    assert_eq!(queue.len(), 3);
    assert!(queue.iter_key(1).eq(&[10, 11]) ^ queue.iter_key(2).eq(&[20, 21]));
}

/// Two lists that every operation scans: all values, oldest first, and the keys of the round, next first.
#[derive(Default)]
struct Model {
    values: Vec<(u8, QueuePosition, u32)>,
    round: Vec<u8>,
    held: BTreeSet<u8>,
}

impl Model {
    fn of(&self, key: u8) -> Vec<u32> {
        self.values.iter().filter(|(of, ..)| *of == key).map(|(.., value)| *value).collect()
    }

    fn push(&mut self, key: u8, position: QueuePosition, value: u32) {
        if self.of(key).is_empty() {
            self.round.push(key);
        }
        self.values.push((key, position, value));
    }

    fn remove(&mut self, at: usize) -> (u8, u32) {
        let (key, _, value) = self.values.remove(at);
        if self.of(key).is_empty() {
            self.round.retain(|of| *of != key);
            self.held.remove(&key);
        }
        (key, value)
    }

    fn pop(&mut self) -> Option<(u8, u32)> {
        let key = *self.round.first()?;
        self.round.rotate_left(1);
        let first = self.values.iter().position(|(of, ..)| *of == key).expect("a key in the round has values");
        Some(self.remove(first))
    }

    fn hold(&mut self, key: u8) -> bool {
        let holds = self.round.contains(&key) && self.held.insert(key);
        self.round.retain(|of| *of != key || !holds);
        holds
    }

    fn release(&mut self, key: u8) {
        if self.held.remove(&key) {
            self.round.push(key);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Push(u8),
    Pop,
    Hold(u8),
    Release(u8),
    /// Of this value, if it is still there.
    Remove(usize),
    Evict(u8),
}

const KEYS: u8 = 5;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..KEYS).prop_map(Op::Push),
        3 => Just(Op::Pop),
        1 => (0..KEYS).prop_map(Op::Hold),
        1 => (0..KEYS).prop_map(Op::Release),
        2 => any::<usize>().prop_map(Op::Remove),
        1 => (0..KEYS).prop_map(Op::Evict),
    ]
}

/// Evicts in both. Which of the longest loses a value is not determined.
fn evict(queue: &mut FairQueue<u8, u32>, model: &mut Model, key: u8) -> Result<(), TestCaseError> {
    let longest = (0..KEYS).map(|key| model.of(key).len()).max().unwrap_or_default();
    let evicted = queue.evict_from_longest(key);
    prop_assert_eq!(evicted.is_some(), model.of(key).len() + 1 < longest);
    if let Some(value) = evicted {
        let at = model.values.iter().position(|(.., of)| *of == value).expect("it was in the queue");
        let of = model.of(model.values[at].0);
        prop_assert_eq!((of.len(), of.last()), (longest, Some(&value)));
        model.remove(at);
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_queue_agrees_with_lists(ops in prop::collection::vec(op(), 0..200)) {
        let (mut queue, mut model, mut pushed) = (FairQueue::default(), Model::default(), Vec::new());
        for (value, op) in (0..).zip(ops) {
            match op {
                Op::Push(key) => {
                    let position = queue.push(key, value);
                    model.push(key, position, value);
                    pushed.push((key, position));
                }
                Op::Pop => prop_assert_eq!(queue.pop(), model.pop()),
                Op::Hold(key) => prop_assert_eq!(queue.hold(key), model.hold(key)),
                Op::Release(key) => {
                    queue.release(key);
                    model.release(key);
                }
                Op::Remove(at) if !pushed.is_empty() => {
                    let (key, position) = pushed[at % pushed.len()];
                    let at = model.values.iter().position(|(_, of, _)| *of == position);
                    prop_assert_eq!(queue.remove(key, position), at.map(|at| model.remove(at).1));
                }
                Op::Remove(_) => {}
                Op::Evict(key) => evict(&mut queue, &mut model, key)?,
            }
            prop_assert_eq!((queue.len(), queue.is_empty()), (model.values.len(), model.values.is_empty()));
            prop_assert_eq!(queue.has_ready(), !model.round.is_empty());
            for key in 0..KEYS {
                let expected = model.of(key);
                prop_assert_eq!((queue.len_of(key), queue.first(key).map(|first| *first.1)), (expected.len(), expected.first().copied()));
                prop_assert!(queue.iter_key(key).eq(&expected));
            }
        }
        (0..KEYS).for_each(|key| queue.release(key));
        (0..KEYS).for_each(|key| model.release(key));
        while let Some(expected) = model.pop() {
            prop_assert_eq!(queue.pop(), Some(expected));
        }
        prop_assert!(queue.is_empty() && queue.by_key.is_empty() && queue.round.is_empty());
    }
}
