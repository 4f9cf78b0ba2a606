//! Why the server does not start, or had to stop: one line each.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;

use super::auth::credentials::CredentialsError;
use super::journal::JournalError;
use crate::common::escape::display_path;
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::types::UserName;

/// Why the server does not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot listen on {listen}: {source}{}", next_step(source))]
    Listen { listen: SocketAddr, source: io::Error },
    #[error("cannot serve the status page at {address}: {source}{}", next_step(source))]
    StatusPage { address: SocketAddr, source: io::Error },
    #[error("{user} is in the credentials in {}: remove the line first", display_path(.path))]
    StillListed { user: UserName, path: PathBuf },
    #[error("cannot write the port to {}: {source}", display_path(.path))]
    PortFile { path: PathBuf, source: io::Error },
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The readiness line or the record could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot read the password: {0}")]
    PasswordInput(io::Error),
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes, does not start with \"$fileshare$\" and is one line")]
    Password,
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "; another server may run there: choose another port, or 0 for a free one",
        ErrorKind::AddrNotAvailable => "; an address of this machine is needed",
        ErrorKind::PermissionDenied => "; ports from 1024 on are for everyone",
        _ => "",
    }
}
