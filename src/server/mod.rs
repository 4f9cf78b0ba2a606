//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

mod accounts;
pub(crate) mod auth;
pub(crate) mod cli;
pub(crate) mod cookie;
pub(crate) mod core;
mod cursor;
pub(crate) mod event_loop;
mod handshake;
pub(crate) mod index;
mod io;
pub(crate) mod journal;
mod keys;
pub(crate) mod logging;
mod outbox;
pub(crate) mod run;
mod sessions;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throttle;
mod turns;

pub use cli::Action;
pub use run::{ServerError, print_record, serve};

/// The `nice` value of the threads that compute in the background, so that the event loop has precedence.
const BACKGROUND_NICENESS: i32 = 10;
