//! The client: a shell over a session with the server, downloads from other clients, and a listener that serves them.
//! Never imports `server`.
//!
//! From the top down; a module uses those below it, never those above:
//!
//! * `app` constructs and connects everything; `cli` is the command line as typed.
//! * `attach`: commands of other processes of this user, over a Unix socket.
//! * `shell`: where command lines come from and what they mean.
//! * `commands`: what each command does; `ui`: what the user sees of it.
//! * `engine`: one client without input and output, which is all of the following.
//! * `publications`, `control`, `upload`, `download`: the user's own publications, requests to the server, serving peers,
//!   downloading from peers.
//! * `control_folder`, `direct`: the sockets that processes of this user find each other at, and open files passed over them.
//! * `jobs`, `jobs_by_key`: what goes on in the background, by number, and by what it is about.
//! * `watch`: folders whose changes are published as they happen.
//! * `events`: what happens, for programs that follow it.
//! * `session`, `transport`, `files`: the sans-IO protocol with the server, encrypted TCP with a peer, the shared folder.

pub(crate) mod app;
mod attach;
mod backoff;
mod cancel;
pub(crate) mod cli;
pub(crate) mod commands;
pub(crate) mod control;
mod control_folder;
pub(crate) mod direct;
pub(crate) mod download;
mod ending;
pub(crate) mod engine;
pub(crate) mod events;
pub(crate) mod exit_code;
#[expect(clippy::disallowed_methods, reason = "drivers: whether a hash can be stored depends on the clock")]
pub(crate) mod files;
pub(crate) mod follow;
pub(crate) mod jobs;
pub(crate) mod jobs_by_key;
pub(crate) mod publications;
pub(crate) mod session;
pub(crate) mod shell;
#[expect(clippy::disallowed_methods, reason = "drivers: they give up on a peer after a timeout")]
pub(crate) mod transport;
pub(crate) mod ui;
pub(crate) mod upload;
pub(crate) mod watch;

pub use self::app::run as run_client;
pub use self::cli::Options;
pub use self::engine::StartupError;
pub use self::exit_code::ExitCode;
pub use crate::common::log_queue::finish as finish_log;
