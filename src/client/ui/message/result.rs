//! The results of commands: one type for each command, with the fields of docs/CLI.md.

use serde::{Deserialize, Serialize};

use super::common::{False, ItemFailure, NameFailure, True};
use super::follow::{FollowResult, UnfollowResult};
use super::jobs::{JobCancelled, JobList, JobStarted};
use super::lists::{AvailableFile, FoundFiles, PeerFiles, PeerList, PublishedList};
use crate::client::exit_code::ExitCode;
use crate::common::message::AvailableContent;
use crate::common::types::FileName;

/// Listed after a login. Never grows: scripts depend on the text.
const COMMANDS: [&str; 7] = ["get", "lap", "lpf", "pub", "sch", "unp", "xit"];
/// Why a `wait` has ended without what it waited for.
pub const TIMED_OUT: &str = "Timed out";
/// Why a command before the login fails.
pub const NOT_AUTHENTICATED: &str = "Please authenticate first";

/// One result: a success or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum CommandResult {
    Auth(AuthResult),
    Cancel(JobCancelled),
    Follow(FollowResult),
    Get(GetResult),
    Help(HelpResult),
    Job(JobStarted),
    Jobs(JobList),
    Lap(PeerList),
    Lpf(PublishedList),
    Ls(PeerFiles),
    Pub(PublishResult),
    Sch(FoundFiles),
    Unfollow(UnfollowResult),
    Unp(UnpublishResult),
    Wait(WaitResult),
    Xit(XitResult),
    #[serde(untagged)]
    Failed(CommandFailure),
}

/// A command failed as a whole, or there is no such command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandFailure {
    /// The name of the command, or the first word of a line that is no command.
    pub command: String,
    pub ok: False,
    pub error: String,
    pub code: ExitCode,
}

/// `auth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum AuthResult {
    LoggedIn { ok: True, user: String, commands: Vec<String> },
    Refused(NameFailure),
}

/// `get`, for one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum GetResult {
    /// The file is in the shared folder.
    Saved {
        ok: True,
        /// The published name.
        name: String,
        /// The name in the shared folder.
        saved: String,
        /// Size of the file.
        bytes: u64,
        /// BLAKE3 of the content, in hex.
        hash: String,
        /// The users who sent it, sorted; none if it was there already.
        sources: Vec<String>,
        /// Bytes that an earlier download had left.
        resumed_bytes: u64,
        /// Milliseconds from the start of the download of all files of the command.
        elapsed_ms: u64,
    },
    /// The file exists, and `--on-exists` is `skip`.
    Skipped {
        ok: True,
        name: String,
        skipped: True,
    },
    /// With `-n`: what would be done.
    Planned {
        ok: True,
        name: String,
        action: PlannedAction,
        /// Size of the file.
        bytes: u64,
    },
    Failed(NameFailure),
}

/// What `get` would do with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PlannedAction {
    /// Download it.
    Get,
    /// Leave it: the same content is there, or any, and `--on-exists` is `skip`.
    Skip,
}

/// `help`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HelpResult {
    pub ok: True,
    /// Lines.
    pub text: String,
}

/// `pub`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublishResult {
    /// Whether nothing failed.
    pub ok: bool,
    pub published: Vec<String>,
    pub failed: Vec<ItemFailure>,
    /// Of the first failure.
    pub code: ExitCode,
}

/// `unp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnpublishResult {
    /// Whether nothing failed.
    pub ok: bool,
    pub unpublished: Vec<String>,
    pub failed: Vec<ItemFailure>,
    /// Of the first failure.
    pub code: ExitCode,
}

/// `wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum WaitResult {
    Met {
        ok: True,
        #[serde(flatten)]
        condition: WaitedFor,
    },
    /// It was not met in time, or the jobs have failed.
    Unmet {
        ok: False,
        #[serde(flatten)]
        condition: WaitedFor,
        error: String,
        code: ExitCode,
    },
}

/// What a `wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "for", content = "name", rename_all = "lowercase")]
pub enum WaitedFor {
    /// The user to be active.
    Peer(String),
    /// The user to be gone.
    Gone(String),
    /// The file to be available.
    File(String),
    /// The end of a job, by its number, or of all.
    Job(String),
}

/// `xit`, and the end of input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct XitResult {
    pub ok: True,
}

impl CommandResult {
    /// Logged in.
    pub fn welcome(user: &str) -> Self {
        let commands = COMMANDS.map(str::to_owned).into();
        Self::Auth(AuthResult::LoggedIn { ok: True, user: user.into(), commands })
    }

    /// This command needs a login before it.
    pub fn not_authenticated(command: &str) -> Self {
        Self::failed(command, NOT_AUTHENTICATED, ExitCode::NotAuthenticated)
    }

    pub fn failed(command: &str, error: impl Into<String>, code: ExitCode) -> Self {
        Self::Failed(CommandFailure { command: command.into(), ok: False, error: error.into(), code })
    }

    pub fn published(files: &[FileName], failed: Vec<ItemFailure>) -> Self {
        let (ok, code) = first_failure(&failed);
        Self::Pub(PublishResult { ok, published: names(files), failed, code })
    }

    pub fn unpublished(files: &[FileName], failed: Vec<ItemFailure>) -> Self {
        let (ok, code) = first_failure(&failed);
        Self::Unp(UnpublishResult { ok, unpublished: names(files), failed, code })
    }

    pub fn found_names(files: &[FileName]) -> Self {
        Self::Sch(FoundFiles::Names { ok: True, files: names(files) })
    }

    pub fn found_contents(entries: &[AvailableContent]) -> Self {
        Self::Sch(FoundFiles::Contents { ok: True, files: entries.iter().map(AvailableFile::from).collect() })
    }

    pub fn goodbye() -> Self {
        Self::Xit(XitResult { ok: True })
    }

    /// Whether `--quiet` leaves it out.
    pub fn is_greeting(&self) -> bool {
        matches!(self, Self::Auth(AuthResult::LoggedIn { .. }) | Self::Xit(_))
    }
}

fn names(files: &[FileName]) -> Vec<String> {
    files.iter().map(FileName::to_string).collect()
}

fn first_failure(failed: &[ItemFailure]) -> (bool, ExitCode) {
    (failed.is_empty(), failed.first().map_or(ExitCode::Success, |first| first.code))
}
