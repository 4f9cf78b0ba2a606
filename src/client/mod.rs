//! A client: the shell a person or a script talks to, the session with the server, the listener that serves peers, and
//! the downloads. Never imports `server`.

pub mod channel;
pub mod control;
pub mod directory;
pub mod download;
pub mod exit_code;
pub mod session;
pub mod share;
