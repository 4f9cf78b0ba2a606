//! What decides in a simulation: bytes of an input while there are any, and then a random generator.

use std::vec;

use rand::distributions::{Distribution, Standard};
use rand::{Error, Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

/// A source of decisions. Each decision takes two bytes of the input, so that a fuzzer that changes two bytes changes one
/// decision.
pub struct Choices {
    input: vec::IntoIter<u8>,
    rng: ChaCha20Rng,
}

impl Choices {
    /// Decisions of the random generator alone.
    pub fn from_seed(seed: u64) -> Self {
        Self { input: vec::IntoIter::default(), rng: ChaCha20Rng::seed_from_u64(seed) }
    }

    /// Decisions of the input, then random ones that are always the same.
    pub fn from_input(input: &[u8]) -> Self {
        let mut choices = Self::from_seed(0);
        choices.feed(input);
        choices
    }

    /// A random source of its own.
    pub fn split(&mut self) -> Self {
        Self { input: vec::IntoIter::default(), rng: ChaCha20Rng::from_seed(self.arbitrary()) }
    }

    /// The next decisions are those of this input.
    pub fn feed(&mut self, input: &[u8]) {
        self.input = Vec::from(input).into_iter();
    }

    /// What is left of the input.
    pub fn rest(self) -> Vec<u8> {
        self.input.collect()
    }

    /// A random value that decides nothing, such as a key or a hash: it takes no bytes of the input.
    pub fn arbitrary<T>(&mut self) -> T
    where
        Standard: Distribution<T>,
    {
        self.rng.r#gen()
    }
}

impl RngCore for Choices {
    fn next_u32(&mut self) -> u32 {
        match (self.input.next(), self.input.next()) {
            // A decision among few follows from the high bits.
            (Some(high), Some(low)) => u32::from_be_bytes([high, low, 0, 0]) | self.rng.next_u32() >> 16,
            _ => self.rng.next_u32(),
        }
    }

    fn next_u64(&mut self) -> u64 {
        match (self.input.next(), self.input.next()) {
            (Some(high), Some(low)) => u64::from_be_bytes([high, low, 0, 0, 0, 0, 0, 0]) | self.rng.next_u64() >> 16,
            _ => self.rng.next_u64(),
        }
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.rng.fill_bytes(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.rng.try_fill_bytes(bytes)
    }
}
