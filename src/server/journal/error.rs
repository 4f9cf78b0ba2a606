//! Why a data file cannot be used: one line each, that names the file and what to do.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::common::escape::{display_path, escape_controls};

/// Why the data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another server holds the lock.
    #[error("{} is in use by another server{}", display_path(.path), holder(*.process))]
    InUse {
        /// The data file.
        path: PathBuf,
        /// Its process id, as it wrote it into the lock file.
        process: Option<u32>,
    },
    /// Another program holds a lock on the database for longer than the server waits.
    #[error("{} is locked by another program (an open transaction in sqlite3?); end it and start again", display_path(.path))]
    Locked {
        /// The data file.
        path: PathBuf,
    },
    /// Something else stands under that name.
    #[error("{} is not a fileshare data file ({reason}); it was left as it is", display_path(.path))]
    NotOurs {
        /// The data file.
        path: PathBuf,
        /// What it looks like.
        reason: String,
    },
    /// Ours, but not whole.
    #[error("{} is damaged ({reason}); it was left as it is: restore a backup", display_path(.path))]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Written by a later version of this program.
    #[error("{} was written by a newer server (format {found}, this one knows {known}); it was left as it is", display_path(.path))]
    Newer {
        /// The data file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version this program knows.
        known: u32,
    },
    /// Cannot be opened, created, read or written.
    #[error("cannot use {}: {reason}", display_path(.path))]
    Unusable {
        /// The data file, or the file beside it that is the trouble.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The thread could not be started.
    #[error("cannot start the journal thread: {reason}")]
    Thread {
        /// What the system says.
        reason: String,
    },
    /// The store failed while the server ran; what was acknowledged is safe, what was not may be lost.
    #[error("{line}")]
    Failed {
        /// The same line that [`Journal::failed`](super::Journal::failed) gives.
        line: String,
    },
}

impl JournalError {
    pub(super) fn unusable(path: &Path, reason: impl ToString) -> Self {
        Self::Unusable { path: path.into(), reason: escape_controls(&reason.to_string()).to_string() }
    }

    pub(super) fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.into(), reason: escape_controls(&reason.to_string()).to_string() }
    }

    /// What SQLite's error means for a file that is being opened.
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path: path.into() },
            Some(ErrorCode::NotADatabase) => Self::damaged(path, "its beginning is overwritten"),
            Some(ErrorCode::DatabaseCorrupt) => Self::damaged(path, error),
            // A table or column that should be there: SQLITE_ERROR.
            Some(ErrorCode::Unknown) => Self::damaged(path, error),
            Some(_) => Self::unusable(path, error),
            None => Self::damaged(path, error),
        }
    }
}

fn holder(process: Option<u32>) -> String {
    process.map_or(String::new(), |id| format!(" (process {id})"))
}
