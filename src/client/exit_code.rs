//! The exit statuses of the client (the contract's section 4). Never renumbered.

/// How a command, and in the end the program, came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All that was asked is done.
    Success = 0,
    /// A bug of ours.
    Internal = 1,
    /// The command line, or a command, is not understood.
    Usage = 2,
    /// The server does not answer, or speaks another protocol version.
    Unreachable = 3,
    /// Not logged in, or the login was refused.
    NotAuthenticated = 4,
    /// No such file is published.
    NotFound = 5,
    /// A transfer broke off; running the same again resumes it.
    TransferFailed = 6,
    /// Every source served something else than what was published.
    HashMismatch = 7,
    /// A local file is missing, unreadable, or in the way.
    LocalFile = 8,
    /// The disk is full.
    DiskFull = 9,
    /// SIGINT.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        (code as u8).into()
    }
}
