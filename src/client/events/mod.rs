//! What happens to this client, for programs that follow it.
//!
//! * `known`: what is known of a list, and what has changed in it.

mod known;

pub use self::known::{KnownList, ListDifference};
