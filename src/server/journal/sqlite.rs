//! The store of the journal: a data file in SQLite, behind a trait so that tests can insert a slow or failing store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngCore;
use rand::rngs::OsRng;
use rusqlite::{
    CachedStatement, Connection, ErrorCode, OpenFlags, OptionalExtension, Row, TransactionBehavior, params,
};
use rustix::process::{Resource, getrlimit};

use super::checkpointer::{Checkpointer, LOG_PAGES_MAX};
use super::data_file::{self, DataFileState, LockFile, Migration};
use super::load::{self, LoadSink, members_text};
use super::{Change, JournalError, Mutation};
use crate::common::escape::{display_path, escape_controls};
use crate::common::types::{Audience, Content, NamedContent, UserName};

/// How long an opening server waits for another program to release its lock on the database.
const OPEN_LOCKED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one try of a write waits for it.
const WRITE_LOCKED_TIMEOUT: Duration = Duration::from_secs(1);
/// SQLite's page size.
const PAGE_BYTES: u32 = 4_096;
/// SQLite's page cache, KiB.
const CACHE_KIB: i32 = 32 << 10;
/// Maximum of cached audience ids; a full cache is emptied.
const AUDIENCE_CACHE_MAX: usize = 4_096;

const DELETE_AUDIENCE: &str = "DELETE FROM audiences WHERE id = ?1";

/// Why no part of a batch was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another program locks the store; the batch can be tried again.
    #[error("{0}")]
    Locked(String),
    /// The disk is full, or the device or the file is broken. Final.
    #[error("{0}")]
    Failed(String),
}

/// Stores batches of mutations, in order.
pub trait Store: Send {
    /// Stores all of `batch` or nothing. Returns when it survives a power cut.
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError>;
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

#[derive(Debug)]
pub struct SqliteStore {
    // Before the lock, so that it is closed first.
    connection: Connection,
    path: PathBuf,
    /// Cached ids of users and audiences. Emptied when a transaction fails, which undoes its inserts.
    users: HashMap<UserName, i64>,
    audiences: HashMap<[u8; 32], i64>,
    /// The number of publications that have each audience, by id.
    audience_uses: HashMap<i64, u64>,
    checkpointer: Checkpointer,
    lock_file: LockFile,
}

impl SqliteStore {
    /// Opens or creates the file, checks it, migrates it to the current version and loads it. Also returns the root
    /// secret.
    pub fn open(path: &Path, sink: &mut dyn LoadSink) -> Result<(Self, [u8; 32]), JournalError> {
        Self::open_with(path, sink, data_file::MIGRATIONS)
    }

    /// [`open`](Self::open) with other versions, for tests.
    pub(super) fn open_with(
        path: &Path,
        sink: &mut dyn LoadSink,
        migrations: &[Migration],
    ) -> Result<(Self, [u8; 32]), JournalError> {
        let path = data_file::resolve(path)?;
        let lock_file = LockFile::acquire(&path)?;
        let state = data_file::check_data_file(&path)?;
        data_file::prepare(&path, state)?;
        let failed = |error: rusqlite::Error| JournalError::from_sqlite(&path, &error);
        let mut connection = connect(&path, migrations).map_err(failed)?;
        if connection.is_readonly("main").map_err(failed)? {
            return Err(JournalError::unusable(&path, "it cannot be written"));
        }
        data_file::migrate(&mut connection, &path, migrations)?;
        let loaded = load::load(&connection, sink).map_err(|error| error.into_journal_error(&path))?;
        let (used, unused): (HashMap<_, _>, HashMap<_, _>) =
            loaded.audience_uses.into_iter().partition(|&(_, uses)| uses > 0);
        delete_audiences(&mut connection, unused.into_keys()).map_err(failed)?;
        connection.release_memory().map_err(failed)?;
        connection.busy_timeout(WRITE_LOCKED_TIMEOUT).map_err(failed)?;
        let checkpointer = Checkpointer::start(&mut connection, &path)?;
        let (users, audiences) = (loaded.users, HashMap::new());
        let store = Self { connection, path, users, audiences, audience_uses: used, checkpointer, lock_file };
        Ok((store, loaded.root_secret))
    }

    pub(super) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    fn write_all(&mut self, batch: &[Mutation]) -> rusqlite::Result<()> {
        let Self { connection, users, audiences, audience_uses, .. } = self;
        if audiences.len() > AUDIENCE_CACHE_MAX {
            audiences.clear();
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut writer = MutationWriter::new(&transaction, users, audiences, audience_uses)?;
        for mutation in batch {
            writer.write(mutation)?;
        }
        let changed_uses = writer.delete_unused()?;
        transaction.commit()?;
        for (id, uses) in changed_uses {
            match uses {
                0 => audience_uses.remove(&id),
                _ => audience_uses.insert(id, uses),
            };
        }
        Ok(())
    }

    /// Whether the database or its log has reached the process's limit on file sizes. SQLite does not tell this error from
    /// others.
    fn is_at_file_size_limit(&self) -> bool {
        let Some(limit) = getrlimit(Resource::Fsize).current else { return false };
        let length = |suffix: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            std::fs::metadata(path).map_or(0, |metadata| metadata.len())
        };
        ["", "-wal"].into_iter().any(|suffix| length(suffix) >= limit)
    }

    /// Every error but a lock is final.
    fn classify_error(&self, error: &rusqlite::Error) -> StoreError {
        let path = display_path(&self.path);
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::Locked(format!("{path} is locked by another program"))
            }
            Some(ErrorCode::DiskFull) => StoreError::Failed(format!("cannot store in {path}: no room left")),
            Some(ErrorCode::SystemIoFailure) if self.is_at_file_size_limit() => {
                StoreError::Failed(format!("cannot store in {path}: no room left below the limit of `ulimit -f`"))
            }
            _ => StoreError::Failed(format!("cannot store in {path}: {}", escape_controls(&error.to_string()))),
        }
    }
}

impl Store for SqliteStore {
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError> {
        self.write_all(batch).map_err(|error| {
            self.users.clear();
            self.audiences.clear();
            self.classify_error(&error)
        })
    }

    /// Copies the write-ahead log into the database. While another program reads, the log stays, which is no failure:
    /// everything in it is durable.
    fn close(self: Box<Self>) -> Result<(), StoreError> {
        let checkpoint = self.connection.pragma_query_value(None, "wal_checkpoint", |_| Ok(()));
        match checkpoint.map_err(|error| self.classify_error(&error)) {
            Ok(()) | Err(StoreError::Locked(_)) => {}
            Err(failed) => return Err(failed),
        }
        let Self { connection, path, checkpointer, lock_file: _lock_file, .. } = *self;
        let closed = connection.close().map_err(|(_, error)| {
            StoreError::Failed(format!("cannot close {}: {}", display_path(&path), escape_controls(&error.to_string())))
        });
        checkpointer.join();
        closed
    }
}

/// Opens a connection whose commits are durable, and fills an empty database.
fn connect(path: &Path, migrations: &[Migration]) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(OPEN_LOCKED_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Enabled by default in this build of SQLite. Loading checks the references.
    connection.pragma_update(None, "foreign_keys", false)?;
    // The file is empty: new, or rolled back by SQLite after a crash during its creation.
    let pages: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        let mut root_secret = [0; 32];
        OsRng.fill_bytes(&mut root_secret);
        data_file::create(&mut connection, migrations, &root_secret)?;
    }
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A large transaction makes the log larger; the next one truncates it.
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_PAGES_MAX * PAGE_BYTES, |_| Ok(()))?;
    Ok(connection)
}

/// Reads the root secret of a data file that exists, without its lock.
pub(super) fn read_root_secret(path: &Path) -> Result<[u8; 32], JournalError> {
    let path = data_file::resolve(path)?;
    if data_file::check_data_file(&path)? == DataFileState::Missing {
        return Err(JournalError::unusable(&path, "there is no data file; the server creates it when it starts"));
    }
    let connection = open_read_only(&path)?;
    load::root_secret(&connection).map_err(|error| error.into_journal_error(&path))
}

/// See [`Journal::read_users`](super::Journal::read_users). SQLite alone opens and closes the file, which keeps its locks.
pub(super) fn read_users(path: &Path, sink: &mut dyn LoadSink) -> Result<(), JournalError> {
    let path = data_file::resolve(path)?;
    let connection = open_read_only(&path)?;
    load::load_wanted(&connection, sink).map_err(|error| error.into_journal_error(&path))
}

pub(super) fn open_read_only(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).and_then(|connection| {
        connection.busy_timeout(OPEN_LOCKED_TIMEOUT)?;
        Ok(connection)
    });
    connection.map_err(|error| JournalError::from_sqlite(path, &error))
}

fn delete_audiences(connection: &mut Connection, ids: impl ExactSizeIterator<Item = i64>) -> rusqlite::Result<()> {
    if ids.len() == 0 {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for id in ids {
        transaction.execute(DELETE_AUDIENCE, [id])?;
    }
    transaction.commit()
}

/// Writes mutations in one transaction.
struct MutationWriter<'a> {
    connection: &'a Connection,
    users: &'a mut HashMap<UserName, i64>,
    audiences: &'a mut HashMap<[u8; 32], i64>,
    /// Before this transaction.
    audience_uses: &'a HashMap<i64, u64>,
    /// Those that this transaction has changed.
    changed_uses: HashMap<i64, u64>,
    stored: CachedStatement<'a>,
    publish: CachedStatement<'a>,
    unpublish: CachedStatement<'a>,
    last_mutation: CachedStatement<'a>,
}

impl<'a> MutationWriter<'a> {
    fn new(
        connection: &'a Connection,
        users: &'a mut HashMap<UserName, i64>,
        audiences: &'a mut HashMap<[u8; 32], i64>,
        audience_uses: &'a HashMap<i64, u64>,
    ) -> rusqlite::Result<Self> {
        let stored = "SELECT audience, hash, size, published_s FROM publications WHERE user = ?1 AND name = ?2";
        let unpublish = "DELETE FROM publications WHERE user = ?1 AND name = ?2 RETURNING audience";
        Ok(Self {
            connection,
            users,
            audiences,
            audience_uses,
            changed_uses: HashMap::new(),
            stored: connection.prepare_cached(stored)?,
            publish: connection.prepare_cached("REPLACE INTO publications VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?,
            unpublish: connection.prepare_cached(unpublish)?,
            last_mutation: connection.prepare_cached("REPLACE INTO last_mutations VALUES (?1, ?2, ?3, ?4)")?,
        })
    }

    fn write(&mut self, mutation: &Mutation) -> rusqlite::Result<()> {
        let user = self.user(&mutation.user)?;
        let found = match &mutation.change {
            Change::Publish { files, audience, published_s } => {
                let audience = self.audience(audience)?;
                for file in files {
                    self.publish(user, file, audience, *published_s as i64)?;
                }
                None
            }
            Change::Unpublish { names, found } => {
                for name in names {
                    let removed =
                        self.unpublish.query_row(params![user, name.as_str()], |row| row.get(0)).optional()?;
                    self.release(removed.flatten());
                }
                Some(*found as i64)
            }
        };
        self.last_mutation.execute(params![user, mutation.instance.0 as i64, mutation.request.0 as i64, found])?;
        Ok(())
    }

    fn publish(
        &mut self,
        user: i64,
        file: &NamedContent,
        audience: Option<i64>,
        published_s: i64,
    ) -> rusqlite::Result<()> {
        let NamedContent { name, content: Content { hash, size, mtime_ms } } = file;
        let (hash, size) = (hash.0.as_slice(), *size as i64);
        let replaced = |row: &Row<'_>| {
            let is_same_content = row.get_ref(1)?.as_blob() == Ok(hash) && row.get::<_, i64>(2)? == size;
            Ok((row.get(0)?, if is_same_content { row.get(3)? } else { published_s }))
        };
        let replaced = self.stored.query_row(params![user, name.as_str()], replaced).optional()?;
        let (replaced_audience, published_s) = replaced.unwrap_or((None, published_s));
        self.publish.execute(params![user, name.as_str(), hash, size, mtime_ms, audience, published_s])?;
        if let Some(id) = audience {
            *self.uses_mut(id) += 1;
        }
        self.release(replaced_audience);
        Ok(())
    }

    /// A publication no longer has this audience.
    fn release(&mut self, audience: Option<i64>) {
        if let Some(id) = audience {
            let uses = self.uses_mut(id);
            *uses = uses.saturating_sub(1);
        }
    }

    fn uses_mut(&mut self, audience: i64) -> &mut u64 {
        let before = self.audience_uses;
        self.changed_uses.entry(audience).or_insert_with(|| before.get(&audience).copied().unwrap_or(0))
    }

    /// Deletes the audiences whose last use this transaction has removed. Returns the number of uses of those that it has
    /// changed.
    fn delete_unused(self) -> rusqlite::Result<HashMap<i64, u64>> {
        let mut delete = self.connection.prepare_cached(DELETE_AUDIENCE)?;
        for (id, _) in self.changed_uses.iter().filter(|&(_, &uses)| uses == 0) {
            delete.execute([id])?;
            self.audiences.retain(|_, cached| cached != id);
        }
        Ok(self.changed_uses)
    }

    fn user(&mut self, user: &UserName) -> rusqlite::Result<i64> {
        if let Some(&id) = self.users.get(user) {
            return Ok(id);
        }
        let mut known = self.connection.prepare_cached("SELECT id FROM users WHERE name = ?1")?;
        let id = match known.query_row([user.as_str()], |row| row.get(0)).optional()? {
            Some(id) => id,
            None => self.connection.prepare_cached("INSERT INTO users (name) VALUES (?1)")?.insert([user.as_str()])?,
        };
        self.users.insert(user.clone(), id);
        Ok(id)
    }

    fn audience(&mut self, audience: &Audience) -> rusqlite::Result<Option<i64>> {
        let Some(members) = members_text(audience) else { return Ok(None) };
        let hash = *blake3::hash(members.as_bytes()).as_bytes();
        if let Some(&id) = self.audiences.get(&hash) {
            return Ok(Some(id));
        }
        let mut known = self.connection.prepare_cached("SELECT id FROM audiences WHERE hash = ?1")?;
        let id = match known.query_row([hash.as_slice()], |row| row.get(0)).optional()? {
            Some(id) => id,
            None => {
                let insert = "INSERT INTO audiences (hash, members) VALUES (?1, ?2)";
                self.connection.prepare_cached(insert)?.insert(params![hash.as_slice(), members])?
            }
        };
        self.audiences.insert(hash, id);
        Ok(Some(id))
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
