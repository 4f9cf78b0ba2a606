//! FairQueue: lines of what waits, a line a network, served one after the other.
//!
//! Defended: whoever fills its own line delays itself alone. Whatever is taken out is gone at once, so that nothing stale
//! is ever passed over. Must not know what waits.

use std::collections::{BTreeMap, HashMap};

use crate::common::net::AddressPrefix;

/// Where something stands in its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// See the module.
pub struct FairQueue<T> {
    lines: HashMap<AddressPrefix, Line<T>>,
    /// Whose turn comes when.
    order: BTreeMap<Place, AddressPrefix>,
    next: u64,
    len: usize,
}

struct Line<T> {
    turn: Place,
    waiting: BTreeMap<Place, T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: BTreeMap::new(), next: 0, len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// Lines something up; the place is good for taking it out again.
    pub fn push(&mut self, from: AddressPrefix, what: T) -> Place {
        let place = self.place();
        let line = self.lines.entry(from).or_insert_with(|| {
            self.order.insert(place, from);
            Line { turn: place, waiting: BTreeMap::new() }
        });
        line.waiting.insert(place, what);
        self.len += 1;
        place
    }

    /// The first of the line whose turn it is, which then queues up behind the others.
    pub fn pop(&mut self) -> Option<(AddressPrefix, T)> {
        let (turn, from) = self.order.pop_first()?;
        let place = self.place();
        let line = self.lines.get_mut(&from).expect("a line that has a turn");
        debug_assert_eq!(line.turn, turn);
        line.turn = place;
        self.order.insert(place, from);
        let first = *line.waiting.first_key_value().expect("a line is never empty").0;
        self.remove(from, first).map(|what| (from, what))
    }

    /// Takes something out of its line.
    pub fn remove(&mut self, from: AddressPrefix, place: Place) -> Option<T> {
        let line = self.lines.get_mut(&from)?;
        let what = line.waiting.remove(&place)?;
        self.len -= 1;
        if line.waiting.is_empty() {
            self.order.remove(&line.turn);
            self.lines.remove(&from);
        }
        Some(what)
    }

    /// Makes room in the longest line, at its end, for something that comes into a line shorter than that one will be:
    /// whether there was such a line. Looks at all lines.
    pub fn evict_from_longest(&mut self, from: AddressPrefix) -> bool {
        let own = self.line(from).count();
        let longest = self.lines.iter().max_by_key(|(_, line)| line.waiting.len());
        let Some((&longest, line)) = longest.filter(|(_, line)| own + 1 < line.waiting.len()) else { return false };
        let last = *line.waiting.last_key_value().expect("a line is never empty").0;
        self.remove(longest, last).is_some()
    }

    /// A network's line.
    pub fn line(&self, from: AddressPrefix) -> impl Iterator<Item = &T> {
        self.lines.get(&from).into_iter().flat_map(|line| line.waiting.values())
    }

    /// How much waits in all lines.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&mut self) -> Place {
        self.next += 1;
        Place(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::net::AddressPrefix;
    use crate::server::test_support::address;

    fn host(number: u8) -> AddressPrefix {
        AddressPrefix::of(address(&format!("192.0.2.{number}:1")).ip())
    }

    fn drain(turns: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).map(|(_, what)| what).collect()
    }

    #[test]
    fn lines_take_turns() {
        let mut turns = FairQueue::default();
        let places: Vec<_> = (10..15).map(|what| turns.push(host(1), what)).collect();
        turns.push(host(2), 20);
        turns.push(host(3), 30);
        turns.push(host(2), 21);
        assert_eq!(turns.remove(host(1), places[1]), Some(11));
        assert_eq!(turns.remove(host(1), places[1]), None);
        assert_eq!((turns.len(), turns.pop()), (7, Some((host(1), 10))));
        // Who comes back comes behind those who wait.
        turns.push(host(4), 40);
        assert_eq!(drain(&mut turns), [20, 30, 12, 40, 21, 13, 14]);
        assert!(turns.is_empty() && turns.lines.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn a_line_that_is_emptied_keeps_no_turn() {
        let mut turns = FairQueue::default();
        for what in 0..100 {
            let place = turns.push(host(1), what);
            assert_eq!(turns.remove(host(1), place), Some(what));
        }
        assert_eq!((turns.len(), turns.lines.len(), turns.order.len(), turns.pop()), (0, 0, 0, None));
    }

    #[test]
    fn room_is_made_at_the_end_of_the_longest_line_and_for_shorter_ones_alone() {
        let mut turns = FairQueue::default();
        for what in [10, 11, 12] {
            turns.push(host(1), what);
        }
        turns.push(host(2), 20);
        assert!(!turns.evict_from_longest(host(1)));
        assert!(turns.evict_from_longest(host(2)), "three and one become two and two");
        turns.push(host(2), 21);
        assert!(!turns.evict_from_longest(host(2)));
        assert!(turns.evict_from_longest(host(3)));
        assert_eq!(turns.len(), 3);
        assert!(turns.line(host(1)).eq(&[10, 11]) ^ turns.line(host(2)).eq(&[20, 21]));
    }
}
