//! Values that `Debug` does not show, and so no log or panic either.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// A key or token inside a message. Encoded and used like the plain value. (A secret outside messages is a `Zeroizing`,
/// which does not show its value either.)
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
