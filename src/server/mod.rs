//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

pub(crate) mod auth;
mod check;
pub(crate) mod cli;
pub(crate) mod core;
mod error;
pub(crate) mod event_loop;
pub(crate) mod fair_queue;
mod histogram;
pub(crate) mod index;
pub(crate) mod journal;
pub(crate) mod logging;
mod port_file;
pub(crate) mod run;
pub(crate) mod signals;
pub(crate) mod socket;
mod status;
#[cfg(test)]
pub(crate) mod test_support;

pub use cli::{Action, getting_started};

pub use crate::common::log_queue::finish as finish_log;
pub use error::ServerError;
pub use run::{forget, print_check, print_record, serve};

/// The `nice` value of the threads that compute in the background, so that the event loop has precedence.
const BACKGROUND_NICENESS: i32 = 10;
