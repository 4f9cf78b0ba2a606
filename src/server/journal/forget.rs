//! Deletes what a user has published (`--forget`), while no server uses the data file.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::JournalError;
use super::data_file::{self, DataFileState};
use super::load::NoSink;
use super::sqlite::{SqliteStore, Store};
use crate::common::types::UserName;

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    pub publications: u64,
    /// By which the data file is smaller now.
    pub bytes: u64,
}

/// Deletes the user's publications, and the audiences that no other publication has. The user's name and last mutation
/// stay: a client that returns must not repeat a request that was executed.
pub(super) fn forget(path: &Path, user: &UserName) -> Result<Forgotten, JournalError> {
    let path = data_file::resolve(path)?;
    if data_file::check_data_file(&path)? == DataFileState::Missing {
        return Err(JournalError::unusable(&path, "there is no data file"));
    }
    let (mut store, _) = SqliteStore::open(&path, &mut NoSink)?;
    let len = || fs::metadata(&path).map_or(0, |metadata| metadata.len());
    let before = len();
    let failed = |error| JournalError::from_sqlite(&path, &error);
    let publications = delete(store.connection_mut(), user).map_err(failed)?;
    // Otherwise the file would keep its size for later publications.
    let vacuum = store.connection_mut().execute_batch("VACUUM");
    vacuum.map_err(|error| {
        JournalError::unusable(
            &path,
            format!("{publications} publications are deleted, but it keeps its size: {error}"),
        )
    })?;
    Box::new(store).close().map_err(|error| JournalError::Failed { line: error.to_string() })?;
    Ok(Forgotten { publications, bytes: before.saturating_sub(len()) })
}

/// Returns the number of publications.
fn delete(connection: &mut Connection, user: &UserName) -> rusqlite::Result<u64> {
    let transaction = connection.transaction()?;
    let publications = transaction
        .execute("DELETE FROM publications WHERE user = (SELECT id FROM users WHERE name = ?1)", [user.as_str()])?;
    transaction.execute(
        "DELETE FROM audiences WHERE id NOT IN (SELECT audience FROM publications WHERE audience IS NOT NULL)",
        [],
    )?;
    transaction.commit()?;
    Ok(publications as u64)
}
