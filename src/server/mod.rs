//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

mod accounts;
pub mod cli;
pub mod cookie;
pub mod core;
pub mod credentials;
mod cursor;
pub mod enrolment;
pub mod event_loop;
mod handshake;
pub mod index;
pub mod journal;
mod keys;
pub mod logging;
mod outbox;
mod rereading;
mod sessions;
mod signals;
mod socket;
pub mod startup;
#[cfg(test)]
pub(crate) mod testing;
pub mod throttle;
mod turns;

/// How much threads with much to compute yield to the loop.
const NICENESS: i32 = 10;
