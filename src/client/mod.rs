//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

#[expect(clippy::disallowed_methods, reason = "these threads are drivers: they give up on a peer in time")]
pub mod channel;
pub mod cli;
pub mod command;
pub mod commands;
pub mod console;
pub mod control;
pub mod directory;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: the plan in it gets its time as an argument")]
pub mod download;
pub mod exit_code;
pub mod life;
pub mod net;
mod notices;
pub mod output;
pub mod own;
pub mod password;
pub mod paths;
pub mod run;
pub mod services;
pub mod session;
#[expect(clippy::disallowed_methods, reason = "these threads are drivers: uploads end in time")]
pub mod share;
pub mod shell;
pub mod signals;
pub mod words;
