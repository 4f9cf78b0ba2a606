//! (see the helper's work)
