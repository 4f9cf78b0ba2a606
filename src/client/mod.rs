//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

pub(crate) mod app;
mod backoff;
pub(crate) mod cli;
pub(crate) mod commands;
pub(crate) mod control;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: the plan in it gets its time as an argument")]
pub(crate) mod download;
pub(crate) mod exit_code;
#[expect(clippy::disallowed_methods, reason = "drivers: whether a hash can be stored depends on the clock")]
pub(crate) mod files;
pub(crate) mod publications;
pub(crate) mod session;
pub(crate) mod shell;
#[expect(clippy::disallowed_methods, reason = "drivers: they give up on a peer after a timeout")]
pub(crate) mod transport;
pub(crate) mod ui;
#[expect(clippy::disallowed_methods, reason = "drivers: uploads end after a timeout")]
pub(crate) mod upload;

pub use self::app::{StartupError, run as run_client};
pub use self::cli::Options;
pub use self::exit_code::ExitCode;
