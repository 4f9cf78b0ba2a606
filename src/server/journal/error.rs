//! Why a data file cannot be used: one line each, which names the file and the remedy.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::common::escape::{display_path, escape_controls};

/// `path` is the data file, or the file beside it that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("{} is in use by another server{}", display_path(.path), holder(*.process))]
    InUse { path: PathBuf, process: Option<u32> },
    /// Another program holds a lock on the database for longer than the server waits.
    #[error("{} is locked by another program (an open transaction in sqlite3?); end it and start again", display_path(.path))]
    Locked { path: PathBuf },
    #[error("{} is not a fileshare data file ({reason}); it was left as it is", display_path(.path))]
    AnotherFile { path: PathBuf, reason: String },
    #[error("{} is damaged ({reason}); it was left as it is: restore a backup", display_path(.path))]
    Damaged { path: PathBuf, reason: String },
    #[error("{} was written by a newer server (format {found}, this one knows {known}); it was left as it is", display_path(.path))]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("cannot use {}: {reason}", display_path(.path))]
    Unusable { path: PathBuf, reason: String },
    #[error("cannot start the journal thread: {reason}")]
    Thread { reason: String },
    /// The store failed while the server ran. Acknowledged mutations are safe; others may be lost.
    #[error("{line}")]
    Failed { line: String },
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
            // `Unknown` is SQLITE_ERROR: a table or column that should be there is missing.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) | None => Self::damaged(path, error),
            Some(_) => Self::unusable(path, error),
        }
    }
}

fn holder(process: Option<u32>) -> String {
    process.map_or(String::new(), |id| format!(" (process {id})"))
}
