//! Why a data file cannot be used: one line each, which names the file and the remedy.

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
        /// Its process id, from the lock file.
        process: Option<u32>,
    },
    /// Another program holds a lock on the database for longer than the server waits.
    #[error("{} is locked by another program (an open transaction in sqlite3?); end it and start again", display_path(.path))]
    Locked {
        /// The data file.
        path: PathBuf,
    },
    /// Another kind of file.
    #[error("{} is not a fileshare data file ({reason}); it was left as it is", display_path(.path))]
    AnotherFile {
        /// The data file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// A data file that violates the format.
    #[error("{} is damaged ({reason}); it was left as it is: restore a backup", display_path(.path))]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// The first violation.
        reason: String,
    },
    /// Written by a later version of this program.
    #[error("{} was written by a newer server (format {found}, this one knows {known}); it was left as it is", display_path(.path))]
    Newer {
        /// The data file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
        /// The latest version this program knows.
        known: u32,
    },
    /// Cannot be opened, created, read or written.
    #[error("cannot use {}: {reason}", display_path(.path))]
    Unusable {
        /// The data file, or a file beside it.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// The thread could not be started.
    #[error("cannot start the journal thread: {reason}")]
    Thread {
        /// The system's error.
        reason: String,
    },
    /// The store failed while the server ran. Acknowledged mutations are safe; others may be lost.
    #[error("{line}")]
    Failed {
        /// As returned by [`Journal::failed`](super::Journal::failed).
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

    /// Classifies an error of SQLite on opening the file.
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path: path.into() },
            Some(ErrorCode::NotADatabase) => Self::damaged(path, "its header is overwritten"),
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
