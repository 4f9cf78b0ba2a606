//! The exit codes of the client (docs/CLI.md, "Exit statuses"). Never renumbered.

use std::io;

use serde::{Deserialize, Serialize};

/// The result of a command, and of the client. A number in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(into = "u8", try_from = "u8")]
#[cfg_attr(test, schemars(with = "u8"))]
#[repr(u8)]
pub enum ExitCode {
    /// The command did everything it was asked to do.
    Success = 0,
    /// An error in the client.
    Internal = 1,
    /// The command line, or a command, is invalid.
    Usage = 2,
    /// The server does not answer, or speaks another protocol version.
    Unreachable = 3,
    /// Not logged in, or the login was refused.
    NotAuthenticated = 4,
    /// No such file is published.
    NotFound = 5,
    /// A transfer failed; running the command again resumes it.
    TransferFailed = 6,
    /// No source served content that matches the published hash.
    HashMismatch = 7,
    /// A local file is missing, unreadable, or exists.
    LocalFile = 8,
    /// The disk is full, or the user's quota at the server.
    DiskFull = 9,
    /// A `wait` has ended without what it waited for.
    TimedOut = 124,
    /// SIGINT.
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}

/// The status for an error of a local file or stream.
impl From<&io::Error> for ExitCode {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Self::DiskFull,
            _ => Self::LocalFile,
        }
    }
}

impl From<ExitCode> for u8 {
    fn from(code: ExitCode) -> Self {
        code as Self
    }
}

impl TryFrom<u8> for ExitCode {
    type Error = UnknownExitCode;

    fn try_from(number: u8) -> Result<Self, UnknownExitCode> {
        Self::ALL.into_iter().find(|&code| code as u8 == number).ok_or(UnknownExitCode(number))
    }
}

/// The client has no exit code of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no exit status of a client")]
pub struct UnknownExitCode(u8);

impl ExitCode {
    const ALL: [Self; 14] = [
        Self::Success,
        Self::Internal,
        Self::Usage,
        Self::Unreachable,
        Self::NotAuthenticated,
        Self::NotFound,
        Self::TransferFailed,
        Self::HashMismatch,
        Self::LocalFile,
        Self::DiskFull,
        Self::TimedOut,
        Self::HungUp,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// Whether nothing failed.
    pub fn is_success(self) -> bool {
        self == Self::Success
    }

    pub fn first_failure(self, later: Self) -> Self {
        if self.is_success() { later } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_never_change() {
        let all = [
            (ExitCode::Success, 0),
            (ExitCode::Internal, 1),
            (ExitCode::Usage, 2),
            (ExitCode::Unreachable, 3),
            (ExitCode::NotAuthenticated, 4),
            (ExitCode::NotFound, 5),
            (ExitCode::TransferFailed, 6),
            (ExitCode::HashMismatch, 7),
            (ExitCode::LocalFile, 8),
            (ExitCode::DiskFull, 9),
            (ExitCode::TimedOut, 124),
            (ExitCode::HungUp, 129),
            (ExitCode::Interrupted, 130),
            (ExitCode::Terminated, 143),
        ];
        for (code, number) in all {
            assert_eq!((code as u8, ExitCode::try_from(number)), (number, Ok(code)));
        }
        assert_eq!(all.map(|(code, _)| code), ExitCode::ALL);
        assert_eq!(ExitCode::try_from(10), Err(UnknownExitCode(10)));
    }

    #[test]
    fn the_first_failure_is_kept() {
        assert_eq!(ExitCode::Success.first_failure(ExitCode::NotFound), ExitCode::NotFound);
        assert_eq!(ExitCode::NotFound.first_failure(ExitCode::DiskFull), ExitCode::NotFound);
        assert_eq!(ExitCode::NotFound.first_failure(ExitCode::Success), ExitCode::NotFound);
    }
}
