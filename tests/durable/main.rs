//! Nothing acknowledged is ever lost: the real server is killed, its disk is slow, full or locked, and the clients carry
//! on by themselves.
//!
//! Rounds and seeds come from the environment, for `scripts/durability.sh`; an ordinary run has a few of each.

#![allow(clippy::disallowed_methods, reason = "these tests stand outside the cores: they may read clocks and wait")]

#[path = "../test_support/mod.rs"]
#[allow(dead_code, reason = "shared with the other end-to-end tests; each uses its part")]
mod test_support;

mod disk;
mod headless_client;
mod kill;
mod shell;
mod slow;
