//! A set of chunk groups, as peers report it: one bit a group, lowest first.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GroupSet(Vec<u64>);

impl GroupSet {
    /// Reads the wire form.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        Self(bytes.chunks(8).map(word).collect())
    }

    pub fn contains(&self, group: u32) -> bool {
        self.0.get(group as usize / 64).is_some_and(|word| word & 1 << (group % 64) != 0)
    }

    pub fn remove(&mut self, group: u32) {
        if let Some(word) = self.0.get_mut(group as usize / 64) {
            *word &= !(1 << (group % 64));
        }
    }
}
