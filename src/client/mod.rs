//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

pub(crate) mod app;
mod backoff;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: they give up on a peer in time")]
pub(crate) mod channel;
pub(crate) mod cli;
pub(crate) mod commands;
pub(crate) mod control;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: the plan in it gets its time as an argument")]
pub(crate) mod download;
pub(crate) mod exit_code;
mod notices;
pub(crate) mod publications;
pub(crate) mod services;
pub(crate) mod session;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: uploads end in time")]
pub(crate) mod share;
pub(crate) mod shell;
pub(crate) mod ui;

pub use app::main as run;
