//! A value that no debug output, log or panic shows.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A key or a token that travels: on the wire and in use as if it stood there by itself, and never shown. What stays in
/// one place is in a `Zeroizing`, which does not show what it holds either.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Redacted<T>(pub T);

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl<T> From<T> for Redacted<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Redacted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(test)]
#[path = "redacted_tests.rs"]
mod tests;
