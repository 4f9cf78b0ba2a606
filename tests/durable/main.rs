//! No acknowledged change is lost when the real server is killed or its disk is slow, full or locked, and clients recover on
//! their own.
//!
//! Rounds and seeds come from the environment, for `scripts/durability.sh`; the defaults are small.

#![allow(clippy::disallowed_methods, reason = "end-to-end tests are not sans-IO: they read clocks and wait")]

#[path = "../test_support/mod.rs"]
#[allow(dead_code, reason = "shared with the other end-to-end tests; each uses its part")]
mod test_support;

mod disk;
mod headless_client;
mod kill;
mod shell;
mod slow;
