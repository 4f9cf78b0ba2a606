//! What there is one of at a time, until the client ends: its control socket, which each login opens anew.

use crate::common::sync::{Mutex, lock};

/// One thing or none.
pub(super) struct Replaceable<T>(Mutex<ReplaceableState<T>>);

struct ReplaceableState<T> {
    current: Option<T>,
    has_ended: bool,
}

impl<T> Default for Replaceable<T> {
    fn default() -> Self {
        Self(Mutex::new(ReplaceableState { current: None, has_ended: false }))
    }
}

impl<T> Replaceable<T> {
    /// Drops what is there, and then puts what `make` makes in its place. Makes nothing after [`end`](Self::end).
    pub(super) fn replace<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        let mut state = lock(&self.0);
        state.current = None;
        if !state.has_ended {
            state.current = Some(make()?);
        }
        Ok(())
    }

    /// Drops what is there.
    pub(super) fn clear(&self) {
        lock(&self.0).current = None;
    }

    /// The same for good.
    pub(super) fn end(&self) {
        let mut state = lock(&self.0);
        (state.current, state.has_ended) = (None, true);
    }
}
