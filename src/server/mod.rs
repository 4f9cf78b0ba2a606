//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

mod accounts;
pub(crate) mod cli;
pub(crate) mod cookie;
pub(crate) mod core;
pub(crate) mod credentials;
mod cursor;
pub(crate) mod enrolment;
pub(crate) mod event_loop;
mod handshake;
pub(crate) mod index;
pub(crate) mod journal;
mod keys;
pub(crate) mod logging;
mod outbox;
mod rereading;
mod sessions;
mod signals;
mod socket;
pub(crate) mod startup;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throttle;
mod turns;

pub use cli::Action;
pub use startup::{ServerError, enrol, serve};

/// How much threads with much to compute yield to the loop.
const NICENESS: i32 = 10;
