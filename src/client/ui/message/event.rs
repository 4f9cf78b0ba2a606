//! The events of `events` and `--events`.

use serde::{Deserialize, Serialize};

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventMessage {
    /// Counts the events that are emitted, from 1.
    pub seq: u64,
    /// RFC 3339 in UTC, with milliseconds.
    pub time: String,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What has happened, with what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    PeerJoined {
        user: String,
    },
    PeerLeft {
        user: String,
    },
    /// Someone else who is active serves it to this user.
    FileAvailable {
        name: String,
    },
    FileGone {
        name: String,
    },
    UploadStarted {
        name: String,
        /// Who downloads it.
        user: String,
    },
    UploadFinished {
        name: String,
        user: String,
        /// Bytes that were sent.
        bytes: u64,
    },
    DownloadFinished {
        name: String,
        ok: bool,
    },
    ConnectionLost,
    Reconnected,
    /// The server had lost publications, which were published again.
    Resynced {
        files: u64,
    },
    LoggedOut,
}
