//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

#[expect(clippy::disallowed_methods, reason = "these threads are drivers: they give up on a peer in time")]
pub(crate) mod channel;
pub(crate) mod cli;
pub(crate) mod command;
pub(crate) mod commands;
pub(crate) mod console;
pub(crate) mod control;
pub(crate) mod directory;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: the plan in it gets its time as an argument")]
pub(crate) mod download;
pub(crate) mod exit_code;
pub(crate) mod life;
pub(crate) mod net;
mod notices;
pub(crate) mod output;
pub(crate) mod own;
pub(crate) mod password;
pub(crate) mod paths;
pub(crate) mod run;
pub(crate) mod services;
pub(crate) mod session;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: uploads end in time")]
pub(crate) mod share;
pub(crate) mod shell;
pub(crate) mod signals;
pub(crate) mod words;

pub use run::main as run;
