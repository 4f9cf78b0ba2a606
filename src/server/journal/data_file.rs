//! The data file: its lock, the checks before SQLite opens it, its tables and their versions.
//!
//! The lock is an exclusive `flock` on `<data>.lock`, a file of its own: closing any descriptor of the database itself
//! would drop the locks that SQLite holds on it (POSIX advisory locks belong to the process). The lock file stays when
//! the server exits; removing it would let two servers lock two files of the same name.
//!
//! The file holds our application id (`application_id`) and the version of its tables (`user_version`). Version *n* becomes
//! *n + 1* by one entry of [`MIGRATIONS`], in one transaction with the version: a crash leaves one or the other. Unknown
//! versions are rejected. Released migrations are never changed; new ones are appended.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};
use rustix::fs::OFlags;

use super::JournalError;
use crate::common::escape::display_path;

/// Only its owner reads and writes the data file: it holds the server's root secret.
const MODE: u32 = 0o600;
/// The first bytes of an SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Offset of the application id in the header of an SQLite file, big-endian.
const APPLICATION_ID_OFFSET: usize = 68;
/// Size of the header of an SQLite file.
const HEADER_BYTES: usize = 100;

/// What is at the path of the data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataFileState {
    /// Nothing, or a file of zero bytes.
    Missing,
    /// A file with our application id, or the remains of one whose creation was interrupted by a crash.
    DataFile,
}

/// The lock of a data file, held until dropped.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
}

/// The path with all links resolved, so that two names of one file share one lock. The file need not exist.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, JournalError> {
    let resolved = match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            let name = path.file_name().ok_or_else(|| JournalError::unusable(path, "not the name of a file"))?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            folder.canonicalize().map(|folder| folder.join(name))
        }
        found => found,
    };
    resolved.map_err(|error| JournalError::unusable(path, error))
}

impl LockFile {
    /// Locks the data file at a resolved path. The error names the process that holds the lock.
    pub(super) fn acquire(path: &Path) -> Result<Self, JournalError> {
        let lock_path = with_suffix(path, ".lock");
        let unusable = |error: std::io::Error| JournalError::unusable(&lock_path, error);
        // Links are not followed: an attacker could use one to make the server write into another file.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE);
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
        let mut file = options.open(&lock_path).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::InUse { path: path.into(), process: holder_process(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        file.set_permissions(Permissions::from_mode(MODE)).map_err(unusable)?;
        file.set_len(0).and_then(|()| file.rewind()).map_err(unusable)?;
        // Only for the error line of another server; the lock itself counts.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Self { file })
    }
}

impl Drop for LockFile {
    /// Unlocks explicitly: closing would not release the lock while a child process that is being forked holds a copy of
    /// the descriptor.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn holder_process(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Checks what is at the path, under the lock. Rejects a file of another program before SQLite opens it, and a missing data
/// file whose write-ahead log exists: a new data file would lose what the log holds.
///
/// Opens and closes the database, which drops no locks here: SQLite has not opened it yet.
pub(super) fn check_data_file(path: &Path) -> Result<DataFileState, JournalError> {
    let len = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(metadata) => {
            let reason = match metadata.file_type() {
                kind if kind.is_dir() => "a folder",
                kind if kind.is_fifo() || kind.is_socket() => "a pipe or socket",
                _ => "not a regular file",
            };
            return Err(JournalError::AnotherFile { path: path.into(), reason: reason.into() });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(JournalError::unusable(path, error)),
    };
    if len == 0 {
        let log = with_suffix(path, "-wal");
        if log.symlink_metadata().is_ok() {
            let reason = format!("it is empty or gone, but {} is there", display_path(&log));
            return Err(JournalError::damaged(path, reason));
        }
        return Ok(DataFileState::Missing);
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let read = File::open(path).and_then(|file| file.take(HEADER_BYTES as u64).read_to_end(&mut header));
    read.map_err(|error| JournalError::unusable(path, error))?;
    let id = header
        .get(APPLICATION_ID_OFFSET..APPLICATION_ID_OFFSET + 4)
        .map(|id| i32::from_be_bytes(id.try_into().unwrap()));
    // A power cut during creation can leave a file without its header, and SQLite's rollback journal, with which SQLite
    // restores the empty file. A data file has a rollback journal at no other time.
    if header.len() == HEADER_BYTES && header.iter().all(|&byte| byte == 0) && with_suffix(path, "-journal").exists() {
        return Ok(DataFileState::DataFile);
    }
    let reason = match id {
        _ if !header.starts_with(MAGIC) => "not an SQLite database",
        None => "cut off in its header",
        Some(APPLICATION_ID) => return Ok(DataFileState::DataFile),
        Some(_) => "another program's SQLite database",
    };
    Err(JournalError::AnotherFile { path: path.into(), reason: reason.into() })
}

/// Creates a missing file, and limits the access to the data file and the files that SQLite creates beside it (with the
/// mode of the data file) to their owner, independent of the umask.
pub(super) fn prepare(path: &Path, state: DataFileState) -> Result<(), JournalError> {
    let unusable = |error: std::io::Error| JournalError::unusable(path, error);
    if state == DataFileState::Missing {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(path);
        let file = file.map_err(unusable)?;
        file.set_permissions(Permissions::from_mode(MODE)).and_then(|()| file.sync_all()).map_err(unusable)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        return File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable);
    }
    for path in [path.to_path_buf(), with_suffix(path, "-wal"), with_suffix(path, "-shm")] {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&path, Permissions::from_mode(MODE))
                .map_err(|error| JournalError::unusable(&path, format!("others can read it, and {error}")))?;
            log::warn!("{} could be read by others; its mode is now 0600", display_path(&path));
        }
    }
    Ok(())
}

/// The path with `suffix` appended to its file name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The application id of a data file in the header of SQLite: "fshr".
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"fshr");

/// SQL that changes the tables from one version to the next.
pub(super) type Migration = &'static str;

/// The migrations from nothing to the current version.
pub(super) const MIGRATIONS: &[Migration] = &[VERSION_1];

/// * `meta`: `root_secret`, 32 random bytes, generated with the file.
/// * `users`: names by id; a name stays when its account is removed.
/// * `audiences`: members sorted, separated by single spaces; `hash` is BLAKE3 of that text, so that the same audience
///   is stored once.
/// * `publications`: `audience` is NULL for everyone; `size` is an unsigned 64-bit number stored in a signed one.
/// * `last_mutations`: `run` is the client instance; `found` is NULL for a PUBLISH; `run`, `request` and `found` are
///   unsigned as `size` is.
const VERSION_1: Migration = "
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

/// Fills an empty database: the application id, the tables and the root secret, in one transaction. Called before the
/// write-ahead log is enabled, so that the application id is in the data file itself.
pub(super) fn create(
    connection: &mut Connection,
    migrations: &[Migration],
    root_secret: &[u8; 32],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    for migration in migrations {
        transaction.execute_batch(migration)?;
    }
    transaction.execute("INSERT INTO meta VALUES ('root_secret', ?1)", [root_secret.as_slice()])?;
    transaction.pragma_update(None, "user_version", migrations.len() as u32)?;
    transaction.commit()
}

/// Migrates an existing data file to the last version of `migrations`.
pub(super) fn migrate(connection: &mut Connection, path: &Path, migrations: &[Migration]) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| JournalError::from_sqlite(path, &error);
    let found = format_version(connection, path, migrations)?;
    for (migration, next) in migrations.iter().zip(1..).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        transaction.pragma_update(None, "user_version", next).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        log::info!("{}: migrated to format {next}", display_path(path));
    }
    Ok(())
}

/// The version of an existing data file, which this program knows.
pub(super) fn format_version(
    connection: &Connection,
    path: &Path,
    migrations: &[Migration],
) -> Result<u32, JournalError> {
    let failed = |error: rusqlite::Error| JournalError::from_sqlite(path, &error);
    let known = migrations.len() as u32;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    match found {
        0 => Err(JournalError::damaged(path, "it has no format version")),
        found if found > known => Err(JournalError::Newer { path: path.into(), found, known }),
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_released_although_a_child_that_is_forked_holds_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.db");
        let lock = LockFile::acquire(&path).unwrap();
        let copy = lock.file.try_clone().unwrap();
        let error = LockFile::acquire(&path).unwrap_err();
        assert!(matches!(error, JournalError::InUse { process: Some(process), .. } if process == std::process::id()));
        drop(lock);
        LockFile::acquire(&path).unwrap();
        drop(copy);
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("data.db"), folder.path().join("other"));
        fs::write(&other, "kept").unwrap();
        std::os::unix::fs::symlink(&other, with_suffix(&path, ".lock")).unwrap();
        let error = LockFile::acquire(&path).unwrap_err().to_string();
        assert!(error.starts_with("cannot use ") && error.contains("data.db.lock"), "{error}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }

    #[test]
    fn the_file_need_not_exist_but_its_folder_and_the_target_of_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let (file, link) = (real.join("file"), real.join("link"));
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("none", &link).unwrap();
        assert_eq!(resolve(&real.join("new.db")).unwrap(), real.join("new.db"));
        for path in [link.clone(), file.join("data.db"), real.join("none/data.db")] {
            assert!(matches!(resolve(&path), Err(JournalError::Unusable { .. })), "{path:?}");
        }
        fs::rename(&file, real.join("none")).unwrap();
        assert_eq!(resolve(&link).unwrap(), real.join("none"), "two names of one file share one lock");
    }

    #[test]
    fn what_is_no_file_is_called_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let kinds = [
            (folder.path(), "a folder"),
            (&socket, "a pipe or socket"),
            (&fifo, "a pipe or socket"),
            (Path::new("/dev/null"), "not a regular file"),
        ];
        for (path, kind) in kinds {
            match check_data_file(path).unwrap_err() {
                JournalError::AnotherFile { reason, .. } => assert_eq!(reason, kind),
                other => panic!("{other}"),
            }
        }
    }
}
