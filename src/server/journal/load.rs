//! Reads the data file: at start, and when users come back whose publications were not wanted then. Checks every row.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::{JournalError, LastMutation, StoredPublication};
use crate::common::rate::{Rate, TokenBucket};
use crate::common::types::{Audience, Content, ContentHash, FileName, InstanceId, NamedContent, RequestId, UserName};

/// Publications between two looks at the clock.
const PROGRESS_EVERY: u64 = 1 << 16;
/// Interval of the log lines while loading.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
const PROGRESS_RATE: Rate = Rate::every(PROGRESS_INTERVAL, 1);

/// Receives what is loaded, in one pass.
pub trait LoadSink {
    /// Called first: the number of publications, wanted or not.
    fn begin(&mut self, _publications: u64) {}
    /// Whether the publications and the last mutation of this user are to be loaded. What others have published is checked,
    /// but takes no memory.
    fn wants(&self, _user: &UserName) -> bool {
        true
    }
    /// One publication. They come user by user, names in byte order.
    fn publication(&mut self, publication: StoredPublication);
    /// One user's last mutation. All of them come after the publications.
    fn last_mutation(&mut self, user: UserName, last: LastMutation);
}

/// The data file is checked, but nothing of it is needed.
pub(super) struct NoSink;

impl LoadSink for NoSink {
    fn wants(&self, _: &UserName) -> bool {
        false
    }
    fn publication(&mut self, _: StoredPublication) {}
    fn last_mutation(&mut self, _: UserName, _: LastMutation) {}
}

/// What the store keeps after loading.
pub(super) struct Loaded {
    pub(super) root_secret: [u8; 32],
    /// Ids in the data file.
    pub(super) users: HashMap<UserName, i64>,
    /// The number of publications that have each audience, by id; 0 for those that a crash of an old server left.
    pub(super) audience_uses: HashMap<i64, u64>,
}

/// Why the data file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row or the file violates a rule of the format.
    #[error("{0}")]
    Malformed(String),
}

impl LoadError {
    pub(super) fn into_journal_error(self, path: &Path) -> JournalError {
        match self {
            Self::Sqlite(error) => JournalError::from_sqlite(path, &error),
            Self::Malformed(reason) => JournalError::damaged(path, reason),
        }
    }
}

pub(super) fn load(connection: &Connection, sink: &mut dyn LoadSink) -> Result<Loaded, LoadError> {
    check_small_tables(connection)?;
    let root_secret = root_secret(connection)?;
    let users = users(connection)?;
    let mut audiences = StoredAudiences::new(connection)?;
    publications(connection, &users, &mut audiences, sink)?;
    last_mutations(connection, &users, sink)?;
    let audience_uses = audiences.stored.into_iter().map(|(id, stored)| (id, stored.uses)).collect();
    let users = users.into_iter().map(|(id, name)| (name, id)).collect();
    Ok(Loaded { root_secret, users, audience_uses })
}

/// Passes on what the wanted users have stored, from a connection beside that of the journal.
pub(super) fn load_wanted(connection: &Connection, sink: &mut dyn LoadSink) -> Result<(), LoadError> {
    // One transaction, so that all tables are of the same moment.
    let transaction = connection.unchecked_transaction()?;
    let users = users(&transaction)?;
    if users.values().any(|user| sink.wants(user)) {
        publications(&transaction, &users, &mut StoredAudiences::new(&transaction)?, sink)?;
        last_mutations(&transaction, &users, sink)?;
    }
    Ok(())
}

/// Checks the small tables with their indexes, which loading does not read. The publications have no index but their
/// primary key, whose order is checked row by row.
fn check_small_tables(connection: &Connection) -> Result<(), LoadError> {
    for table in ["meta", "users", "audiences", "last_mutations"] {
        let check = format!("PRAGMA integrity_check({table})");
        let result: String = connection.query_row(&check, [], |row| row.get(0))?;
        if result != "ok" {
            return Err(LoadError::Malformed(result));
        }
    }
    Ok(())
}

pub(super) fn root_secret(connection: &Connection) -> Result<[u8; 32], LoadError> {
    let secret = connection.query_row("SELECT value FROM meta WHERE key = 'root_secret'", [], |row| row.get(0));
    match secret {
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(LoadError::Malformed("its root secret is missing".into())),
        secret => Ok(secret?),
    }
}

fn users(connection: &Connection) -> Result<HashMap<i64, UserName>, LoadError> {
    let mut users = HashMap::new();
    let mut statement = connection.prepare("SELECT id, name FROM users")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        users.insert(id, parsed(row.get_ref(1)?, UserName::parse, || format!("user {id}"))?);
    }
    Ok(users)
}

/// The stored audiences. One is read at its first use, so that those without use cost no memory.
struct StoredAudiences<'a> {
    members: Statement<'a>,
    stored: HashMap<i64, StoredAudience>,
    /// Equal names of all audiences share their text.
    names: HashSet<UserName>,
}

#[derive(Default)]
struct StoredAudience {
    uses: u64,
    audience: Option<Arc<Audience>>,
}

impl<'a> StoredAudiences<'a> {
    fn new(connection: &'a Connection) -> Result<Self, LoadError> {
        let mut ids = connection.prepare("SELECT id FROM audiences")?;
        let stored =
            ids.query_map([], |row| Ok((row.get(0)?, StoredAudience::default())))?.collect::<Result<_, _>>()?;
        let members = connection.prepare("SELECT members FROM audiences WHERE id = ?1")?;
        Ok(Self { members, stored, names: HashSet::new() })
    }

    /// The audience of one more publication; `None`: it is not wanted.
    fn acquire(&mut self, id: i64, is_wanted: bool) -> Result<Option<Arc<Audience>>, LoadError> {
        let Some(stored) = self.stored.get_mut(&id) else {
            return Err(LoadError::Malformed(format!("a publication for the unknown audience {id}")));
        };
        stored.uses += 1;
        if !is_wanted {
            return Ok(None);
        }
        if let Some(audience) = &stored.audience {
            return Ok(Some(Arc::clone(audience)));
        }
        let mut rows = self.members.query([id])?;
        let text = rows.next()?.and_then(|row| row.get_ref(0).ok()?.as_str().ok());
        let users = text.and_then(|text| parse_members(text, &mut self.names));
        let users = users.ok_or_else(|| LoadError::Malformed(format!("audience {id} cannot be read")))?;
        Ok(Some(Arc::clone(stored.audience.insert(Arc::new(Audience::Only(users))))))
    }
}

/// The stored form of an audience: sorted names, separated by single spaces. `None`: everyone.
pub(super) fn members_text(audience: &Audience) -> Option<String> {
    match audience {
        Audience::Everyone => None,
        Audience::Only(users) => Some(users.iter().map(UserName::as_str).collect::<Vec<_>>().join(" ")),
    }
}

fn parse_members(text: &str, names: &mut HashSet<UserName>) -> Option<Vec<UserName>> {
    let mut interned = |name: &str| {
        if let Some(known) = names.get(name) {
            return Some(known.clone());
        }
        let name = UserName::parse(name).ok()?;
        names.insert(name.clone());
        Some(name)
    };
    let users: Vec<_> = text.split(' ').filter(|_| !text.is_empty()).map(&mut interned).collect::<Option<_>>()?;
    users.is_sorted_by(|a, b| a < b).then_some(users)
}

/// Reads all publications.
fn publications(
    connection: &Connection,
    users: &HashMap<i64, UserName>,
    audiences: &mut StoredAudiences<'_>,
    sink: &mut dyn LoadSink,
) -> Result<(), LoadError> {
    let total: i64 = connection.query_row("SELECT count(*) FROM publications", [], |row| row.get(0))?;
    let total = total as u64;
    sink.begin(total);
    let mut progress = progress_lines(now());
    let everyone = Arc::new(Audience::Everyone);
    let mut is_wanted = false;
    let mut last: Option<(i64, UserName, FileName)> = None;
    let mut statement = connection.prepare(
        "SELECT user, name, hash, size, mtime_ms, audience, published_s FROM publications ORDER BY user, name",
    )?;
    let mut rows = statement.query([])?;
    let mut done = 0;
    while let Some(row) = rows.next()? {
        let user_id: i64 = row.get(0)?;
        let name = parsed(row.get_ref(1)?, FileName::parse, || format!("publication {done}"))?;
        let user = match last {
            Some((id, user, before)) if id == user_id && before < name => user,
            Some((id, ..)) if id >= user_id => {
                return Err(LoadError::Malformed("its publications are out of order".into()));
            }
            _ => {
                let user = users.get(&user_id).cloned();
                let user =
                    user.ok_or_else(|| LoadError::Malformed(format!("a publication of the unknown user {user_id}")))?;
                is_wanted = sink.wants(&user);
                user
            }
        };
        last = Some((user_id, user.clone(), name.clone()));
        let audience = match row.get::<_, Option<i64>>(5)? {
            None => is_wanted.then(|| Arc::clone(&everyone)),
            Some(id) => audiences.acquire(id, is_wanted)?,
        };
        let hash = row.get_ref(2)?.as_blob().ok().and_then(|hash| hash.try_into().ok());
        let hash =
            ContentHash(hash.ok_or_else(|| LoadError::Malformed(format!("a hash of {user} has the wrong size")))?);
        let content = Content { hash, size: row.get::<_, i64>(3)? as u64, mtime_ms: row.get(4)? };
        let file = NamedContent { name, content };
        let published_s = row.get::<_, i64>(6)? as u64;
        if let Some(audience) = audience {
            sink.publication(StoredPublication { user, file, audience, published_s });
        }
        done += 1;
        if done % PROGRESS_EVERY == 0 && progress.try_take(now(), PROGRESS_RATE).is_ok() {
            log::info!("loading: {done} of {total} publications");
        }
    }
    if done != total {
        return Err(LoadError::Malformed(format!("{done} of its {total} publications can be read")));
    }
    Ok(())
}

fn last_mutations(
    connection: &Connection,
    users: &HashMap<i64, UserName>,
    sink: &mut dyn LoadSink,
) -> Result<(), LoadError> {
    let mut statement = connection.prepare("SELECT user, run, request, found FROM last_mutations")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let user =
            users.get(&id).ok_or_else(|| LoadError::Malformed(format!("a mutation of the unknown user {id}")))?;
        if !sink.wants(user) {
            continue;
        }
        let last = LastMutation {
            instance: InstanceId(row.get::<_, i64>(1)? as u64),
            request: RequestId(row.get::<_, i64>(2)? as u64),
            found: row.get::<_, Option<i64>>(3)?.map(|found| found as u64),
        };
        sink.last_mutation(user.clone(), last);
    }
    Ok(())
}

/// Parses a name. The message of an error does not quote the name, which may hold any text.
fn parsed<T, E: std::fmt::Display>(
    value: ValueRef<'_>,
    parse: impl Fn(&str) -> Result<T, E>,
    what: impl Fn() -> String,
) -> Result<T, LoadError> {
    let text = value.as_str().map_err(|_| LoadError::Malformed(format!("{} has a name that is not text", what())))?;
    parse(text).map_err(|error| LoadError::Malformed(format!("{}: {error}", what())))
}

/// The bucket of the log lines of a load that takes long: empty at `start`.
fn progress_lines(start: Instant) -> TokenBucket {
    TokenBucket::full_at(start + PROGRESS_INTERVAL)
}

#[expect(clippy::disallowed_methods, reason = "only log lines depend on it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_load_is_logged_once_a_second() {
        let start = now();
        let mut progress = progress_lines(start);
        let at_ms = |ms| start + Duration::from_millis(ms);
        let logged: Vec<u64> =
            (0..40).map(|at| at * 100).filter(|&ms| progress.try_take(at_ms(ms), PROGRESS_RATE).is_ok()).collect();
        assert_eq!(logged, [1_000, 2_000, 3_000]);
    }
}
