//! What can happen, with the names that programs see.

use serde::{Deserialize, Serialize};

use crate::client::exit_code::ExitCode;

/// What has happened, with what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// Another user is active.
    PeerJoined {
        user: String,
    },
    PeerLeft {
        user: String,
    },
    /// Someone else who is active serves a content to this user under this name: for the first time, or another content.
    FileAvailable {
        name: String,
        /// Of the content. Absent if the name was waited for, by `wait` or `get --wait`.
        #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
        content: Option<EventContent>,
    },
    /// Nobody serves any content under this name any more.
    FileGone {
        name: String,
    },
    /// A user has begun to download a file from this client.
    UploadStarted {
        user: String,
        name: String,
        /// Size of the file.
        bytes: u64,
    },
    UploadFinished {
        user: String,
        name: String,
        /// What the user has got of the file from this client.
        bytes: u64,
        /// Whether that is all that the user asked for.
        ok: bool,
    },
    /// A download of this client has ended.
    DownloadFinished {
        /// The published name.
        name: String,
        /// The name in the shared folder. Absent if it was not saved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saved: Option<String>,
        /// Size of the file.
        bytes: u64,
        ok: bool,
        /// The exit status that a `get` of this file alone has.
        code: ExitCode,
    },
    /// The server has been silent for the liveness time; the client reconnects.
    ConnectionLost,
    Reconnected,
    /// The server had lost publications, which were published again.
    Resynced {
        files: u64,
    },
    /// The server has ended the session for good: the credentials have changed, or the user is active elsewhere.
    LoggedOut,
}

/// A content that has become available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventContent {
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub hash: String,
}

impl EventKind {
    /// Its columns as text: the name of the event, and what it is about.
    pub fn columns(&self) -> Vec<String> {
        let columns: Vec<&dyn ToString> = match self {
            Self::PeerJoined { user } => vec![&"peer_joined", user],
            Self::PeerLeft { user } => vec![&"peer_left", user],
            Self::FileAvailable { name, content: None } => vec![&"file_available", name],
            Self::FileAvailable { name, content: Some(EventContent { bytes, hash }) } => {
                vec![&"file_available", name, bytes, hash]
            }
            Self::FileGone { name } => vec![&"file_gone", name],
            Self::UploadStarted { user, name, bytes } => vec![&"upload_started", name, user, bytes],
            Self::UploadFinished { user, name, bytes, ok } => {
                vec![&"upload_finished", name, user, bytes, if *ok { &"ok" } else { &"failed" }]
            }
            Self::DownloadFinished { name, bytes, ok, .. } => {
                vec![&"download_finished", name, bytes, if *ok { &"ok" } else { &"failed" }]
            }
            Self::ConnectionLost => vec![&"connection_lost"],
            Self::Reconnected => vec![&"reconnected"],
            Self::Resynced { files } => vec![&"resynced", files],
            Self::LoggedOut => vec![&"logged_out"],
        };
        columns.into_iter().map(ToString::to_string).collect()
    }
}
