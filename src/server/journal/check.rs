//! Reads a data file as a starting server does, and changes nothing (`--check`).
//!
//! Usually a connection, even one that only reads, creates the index of the write-ahead log, or rebuilds it after a crash. If
//! no program has the file open, it is therefore read without locks and with an index in memory.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};
use rustix::process::{Flock, FlockType, fcntl_getlk};

use super::data_file::{self, DataFileState, MIGRATIONS, with_suffix};
use super::load::{self, NoSink};
use super::{JournalError, sqlite};
use crate::common::escape::display_path;

/// SQLite's file access without locks.
const WITHOUT_LOCKS: &str = "unix-none";

/// See [`Journal::check`](super::Journal::check).
pub(super) fn check(path: &Path) -> Result<Option<String>, JournalError> {
    let path = data_file::resolve(path)?;
    let state = data_file::check_data_file(&path)?;
    check_access(&path)?;
    // Its creation was interrupted: the server undoes it and creates the file again.
    let is_unfinished = with_suffix(&path, "-journal").exists();
    if state == DataFileState::Missing || is_unfinished {
        return Ok(None);
    }
    let is_open = is_open_elsewhere(&path)?;
    let loaded = load(&path, is_open);
    // A server that started meanwhile may have changed what was being read.
    if loaded.is_err() && !is_open && is_open_elsewhere(&path)? {
        load(&path, true)?;
    } else {
        loaded?;
    }
    let is_private = fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 == 0);
    Ok((!is_private).then(|| format!("{} can be read by others; the server makes its mode 0600", display_path(&path))))
}

/// Whether this user could write everything that the server writes.
fn check_access(path: &Path) -> Result<(), JournalError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let denied = |path: &Path, error: rustix::io::Errno| JournalError::unusable(path, std::io::Error::from(error));
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| denied(folder, error))?;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = with_suffix(path, suffix);
        if path.symlink_metadata().is_ok() {
            access(&path, Access::READ_OK | Access::WRITE_OK).map_err(|error| denied(&path, error))?;
        }
    }
    Ok(())
}

/// Whether another process has a database in this mode open: SQLite keeps a shared lock on it. Asking takes no lock.
fn is_open_elsewhere(path: &Path) -> Result<bool, JournalError> {
    let unusable = |error: std::io::Error| JournalError::unusable(path, error);
    let file = File::open(path).map_err(unusable)?;
    let held = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock)).map_err(|error| unusable(error.into()))?;
    Ok(held.is_some())
}

fn load(path: &Path, is_open: bool) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| JournalError::from_sqlite(path, &error);
    let connection = if is_open { sqlite::open_read_only(path)? } else { open_unlocked(path).map_err(failed)? };
    // One transaction, so that all tables are of the same moment.
    let transaction = connection.unchecked_transaction().map_err(failed)?;
    if data_file::format_version(&transaction, path, MIGRATIONS)? < MIGRATIONS.len() as u32 {
        // To be migrated: what this program reads is not there yet.
        return Ok(());
    }
    load::load(&transaction, &mut NoSink).map_err(|error| error.into_journal_error(path))?;
    Ok(())
}

fn open_unlocked(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, WITHOUT_LOCKS)?;
    // The index of the log stays in memory.
    connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::server::journal::Journal;

    /// The names of the files in a folder, with what is in them.
    fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn a_data_file_is_checked_without_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let open = || Journal::open(&path, &mut NoSink, Box::new(|| ())).unwrap();
        assert_eq!(Journal::check(&path).unwrap(), None, "missing: the server creates it");
        assert!(files(folder.path()).is_empty());
        let journal = open();
        assert_eq!(Journal::check(&path).unwrap(), None, "while a server uses it");
        journal.close().unwrap();
        fs::remove_file(with_suffix(&path, ".lock")).unwrap();
        let before = files(folder.path());
        assert_eq!(Journal::check(&path).unwrap(), None);
        assert_eq!(files(folder.path()), before);

        for (mode, is_private) in [(0o600, true), (0o400, true), (0o604, false), (0o640, false), (0o620, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let warning = Journal::check(&path).unwrap();
            assert_eq!(warning.is_none(), is_private, "{mode:o}");
            assert!(warning.is_none_or(|line| line.contains("data.db can be read by others")));
        }

        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("DELETE FROM meta").unwrap();
        connection.close().unwrap();
        let damage = Journal::check(&path).unwrap_err().to_string();
        assert!(damage.contains("its root secret is missing"), "{damage}");

        // What a crash during the creation leaves: the server undoes it.
        fs::write(&path, &before[0].1[..8_192]).unwrap();
        Journal::check(&path).unwrap_err();
        fs::write(with_suffix(&path, "-journal"), b"").unwrap();
        assert_eq!(Journal::check(&path).unwrap(), None);
        fs::remove_file(with_suffix(&path, "-journal")).unwrap();
        let missing = folder.path().join("none").join("data.db");
        assert!(Journal::check(&missing).unwrap_err().to_string().contains("No such file"));
    }
}
