//! A server and clients inside the process of a test, for programs that use the share.
//!
//! [`TestServer::start`] serves on a free port of 127.0.0.1, [`TestServer::client`] logs a user in with an empty folder of
//! its own. The methods of [`TestClient`] run the commands of the `client` program and return their results; a failure is
//! the [`CommandError`] with the exit status that the program has. [`TestClient::begin`] runs one in the background, and
//! [`TestClient::events`] tells what happens. Nothing needs a sleep: `wait_...` methods end when it is so. Everything ends and is deleted when it is dropped.
//! Any number of servers and clients may run in one process.
//!
//! Enable the feature `testkit` in a dev-dependency:
//!
//! ```toml
//! [dev-dependencies]
//! fileshare = { version = "0.1", features = ["testkit"] }
//! ```
//!
//! ```
//! use std::time::Duration;
//! use fileshare::testkit::TestServer;
//!
//! let server = TestServer::start(&[("hans", "falcon*solo"), ("yoda", "wise@!man")])?;
//! let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
//! hans.write("report.pdf", b"content")?;
//! hans.publish(&["report.pdf"])?;
//! yoda.wait_file("report.pdf", Duration::from_secs(5))?;
//! assert_eq!(yoda.search("port")?, ["report.pdf"]);
//! let saved = yoda.get("report.pdf")?;
//! assert_eq!((saved.bytes, saved.sources), (7, vec!["hans".to_owned()]));
//! assert_eq!(yoda.read("report.pdf")?, b"content");
//! # Ok::<(), fileshare::testkit::TestkitError>(())
//! ```

mod arguments;
mod client;
mod events;
mod job;
mod outcome;
mod server;

use std::io;

pub use client::{SavedFile, TestClient};
pub use events::TestEvents;
pub use job::TestJob;
pub use server::TestServer;

pub use crate::client::ExitCode;
pub use crate::client::StartupError;
/// The messages of the commands, with all types in them.
pub mod message {
    pub use crate::client::follow::Followed;
    pub use crate::client::jobs::JobKind;
    pub use crate::client::ui::message::*;
}

pub use crate::client::ui::message::{
    AvailableFile, CommandResult, EventKind, FileProgress, JobList, ListedJob, Message, MessageBody, Note, OwnFile,
    SharedFile,
};
use crate::common::opaque::KeyStretching;
pub use crate::server::ServerError;

/// Cheap: the passwords of a kit are written in a test, and its server listens on the loopback address alone.
const STRETCHING: KeyStretching = KeyStretching::Insecure;

/// A command has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{command}: {reason} (exit status {})", *.code as u8)]
pub struct CommandError {
    /// The first word of the command line.
    pub command: String,
    /// The reason of the first failure.
    pub reason: String,
    /// The exit status that the `client` program would have.
    pub code: ExitCode,
}

/// Why the kit could not do what a test asked for.
#[derive(Debug, thiserror::Error)]
pub enum TestkitError {
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The server does not start, or has ended with an error.
    #[error("the server: {0}")]
    Server(#[from] ServerError),
    #[error("the client: {0}")]
    Client(#[from] StartupError),
    /// The temporary files of the kit.
    #[error(transparent)]
    Io(#[from] io::Error),
}
