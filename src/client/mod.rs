//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

pub mod channel;
pub mod cli;
pub mod command;
pub mod commands;
pub mod console;
pub mod control;
pub mod directory;
pub mod download;
pub mod exit_code;
pub mod life;
pub mod net;
pub mod output;
pub mod own;
pub mod password;
pub mod paths;
pub mod run;
pub mod services;
pub mod session;
pub mod share;
pub mod shell;
pub mod signals;
pub mod words;
