//! What commands tell their user: the lines of `--json` (docs/CLI.md, docs/json-schema.json), of which text is a rendering.
//!
//! No streams, no decisions. Fields are added, never renamed or given another meaning.

mod common;
mod event;
mod follow;
mod jobs;
mod lists;
mod result;
mod text;

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use crate::client::exit_code::ExitCode;
use crate::common::escape::escape_json_controls;

pub use common::{False, ItemFailure, NameFailure, True};
pub use event::{EventKind, EventMessage};
pub use follow::{FollowResult, UnfollowResult};
pub use jobs::{JobCancelled, JobList, JobStarted, ListedJob, ListedUpload};
pub use lists::{
    AvailableFile, FoundFiles, OwnFile, OwnFileState, PeerDetails, PeerFiles, PeerList, PublishedList, SharedFile,
};
pub use result::{
    AuthResult, CommandFailure, CommandResult, GetResult, HelpResult, NOT_AUTHENTICATED, PlannedAction, PublishResult,
    TIMED_OUT, UnpublishResult, WaitResult, WaitedFor, XitResult,
};

/// One line of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Message {
    /// The command it belongs to. Absent if it belongs to none: an event of `--events`, or a note of a background thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// The number of the job, watch or follow it belongs to. Absent if it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    #[serde(flatten)]
    pub body: MessageBody,
}

impl Message {
    /// One that belongs to no job.
    pub fn new(id: Option<CommandId>, body: MessageBody) -> Self {
        Self { id, job: None, body }
    }

    /// One JSON object, without a line end.
    pub fn to_json(&self) -> String {
        escape_json_controls(&serde_json::to_string(self).expect("it has no maps with other keys than strings"))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MessageBody {
    Result(CommandResult),
    /// The last message of every command.
    End(CommandEnd),
    Progress(FileProgress),
    Event(EventMessage),
    Note(Note),
}

/// Names a command: as its input line does, or else a number counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum CommandId {
    Number(serde_json::Number),
    Text(String),
}

impl Display for CommandId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl From<u64> for CommandId {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

/// An input line of `--json` that is not a plain command.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputLine {
    #[serde(default)]
    pub id: Option<CommandId>,
    /// A command line. May hold a password.
    pub command: zeroize::Zeroizing<String>,
}

/// The end of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandEnd {
    /// As in its results: the name of the command, which for `exit`, `quit` and `stop` is `xit`, for `?` is `help` and for
    /// `get -o -` is `cat`; the first word of a line that is no command; empty for a line that could not be read.
    pub command: String,
    /// Whether nothing failed.
    pub ok: bool,
    /// The exit status of the first failure.
    pub code: ExitCode,
    /// Milliseconds from the line to this end.
    pub elapsed_ms: u64,
}

/// Bytes of a file that are done: downloaded and verified, or hashed. At most ten a second for each file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileProgress {
    pub name: String,
    /// Bytes of this file.
    pub done: u64,
    pub total: u64,
    /// Bytes a second since the last progress of this file.
    pub rate: u64,
    /// Bytes of all files of the command.
    pub command_done: u64,
    pub command_total: u64,
}

/// What text mode writes to stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Note {
    /// One line, not escaped.
    pub text: String,
    pub level: NoteLevel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum NoteLevel {
    /// The reason of a failure.
    Error,
    /// `-q` leaves it out.
    Info,
}

#[cfg(test)]
#[path = "../message_tests.rs"]
mod tests;
