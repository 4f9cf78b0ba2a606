//! What the data file looks like, and how an older one becomes a newer one.
//!
//! The file carries our mark (`application_id`) and the version of its tables (`user_version`). Version *n* becomes
//! *n + 1* by one step of [`STEPS`], in one transaction with the version itself: a crash leaves the old or the new. A
//! version that this program does not know is refused. Steps are never changed once released, only added.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::JournalError;

/// "fshr": marks an SQLite file as ours.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"fshr");

/// One step forward.
pub(super) type Step = &'static str;

/// The steps from nothing to the current version.
pub(super) const STEPS: &[Step] = &[VERSION_1];

/// * `meta`: `root_secret`, 32 random bytes made with the file.
/// * `users`: names interned; a name stays when the account goes.
/// * `audiences`: members sorted, separated by single spaces; `hash` is BLAKE3 of that text, so that the same audience
///   is stored once.
/// * `publications`: `audience` is NULL for everyone; `size` is an unsigned 64-bit number kept in a signed one.
/// * `last_mutations`: `found` is NULL for a PUBLISH; `run`, `request` and `found` are unsigned as `size` is.
const VERSION_1: Step = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE audiences (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, members TEXT NOT NULL) STRICT;
CREATE TABLE publications (
    user INTEGER NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ms INTEGER NOT NULL,
    audience INTEGER REFERENCES audiences (id),
    published_s INTEGER NOT NULL,
    PRIMARY KEY (user, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE last_mutations (
    user INTEGER PRIMARY KEY REFERENCES users (id),
    run INTEGER NOT NULL,
    request INTEGER NOT NULL,
    found INTEGER
) STRICT;
";

/// Fills an empty database: the mark, the tables and the root secret appear in one transaction or not at all. Called
/// before the write-ahead log is turned on, so that the mark is in the file itself from then on.
pub(super) fn create(connection: &mut Connection, steps: &[Step], root_secret: &[u8; 32]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.execute("INSERT INTO meta VALUES ('root_secret', ?1)", [root_secret.as_slice()])?;
    transaction.pragma_update(None, "user_version", steps.len() as u32)?;
    transaction.commit()
}

/// Brings the tables of an existing data file to the version that `steps` lead to.
pub(super) fn migrate(connection: &mut Connection, path: &Path, steps: &[Step]) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| JournalError::from_sqlite(path, &error);
    let known = steps.len() as u32;
    let found = version(connection).map_err(failed)?;
    if found == 0 {
        return Err(JournalError::damaged(path, "it has no format version"));
    }
    if found > known {
        return Err(JournalError::Newer { path: path.into(), found, known });
    }
    for (step, next) in steps.iter().zip(1..).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", next).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        log::info!("{}: brought to format {next}", crate::common::escape::display_path(path));
    }
    Ok(())
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
