//! Reading the whole data file at start, checking every row on the way.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{JournalError, LastMutation, StoredPublication};
use crate::common::types::{Audience, Content, ContentHash, FileName, InstanceId, NamedContent, RequestId, UserName};

/// How many publications go by between two calls of [`LoadSink::progress`].
const PROGRESS_EVERY: u64 = 1 << 16;

/// What is read at start, in one pass.
pub trait LoadSink {
    /// One publication. They come user by user, names in byte order.
    fn publication(&mut self, publication: StoredPublication);
    /// One user's last mutation. All of them come after the publications.
    fn last_mutation(&mut self, user: UserName, last: LastMutation);
    /// `done` of `total` publications are read; called at the start and now and then.
    fn progress(&mut self, done: u64, total: u64);
}

/// What the store goes on with.
pub(super) struct Loaded {
    pub(super) root_secret: [u8; 32],
    pub(super) users: HashMap<UserName, i64>,
    /// Audiences that no publication has any more.
    pub(super) unused_audiences: Vec<i64>,
}

/// What is wrong with the file.
pub(super) enum LoadError {
    Sqlite(rusqlite::Error),
    Row(String),
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl LoadError {
    pub(super) fn into_journal_error(self, path: &Path) -> JournalError {
        match self {
            Self::Sqlite(error) => JournalError::from_sqlite(path, &error),
            Self::Row(reason) => JournalError::damaged(path, reason),
        }
    }
}

pub(super) fn load(connection: &Connection, into: &mut dyn LoadSink) -> Result<Loaded, LoadError> {
    check_small_tables(connection)?;
    let root_secret = root_secret(connection)?;
    let users = users(connection)?;
    let audiences = audiences(connection)?;
    let used = publications(connection, &users, &audiences, into)?;
    last_mutations(connection, &users, into)?;
    let unused_audiences = audiences.into_keys().filter(|id| !used.contains(id)).collect();
    let users = users.into_iter().map(|(id, name)| (name, id)).collect();
    Ok(Loaded { root_secret, users, unused_audiences })
}

/// The tables beside the publications, with their indexes, which loading would not read. The publications have no
/// index besides their own order, which is checked row by row.
fn check_small_tables(connection: &Connection) -> Result<(), LoadError> {
    for table in ["meta", "users", "audiences", "last_mutations"] {
        let check = format!("PRAGMA integrity_check({table})");
        let verdict: String = connection.query_row(&check, [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(LoadError::Row(verdict));
        }
    }
    Ok(())
}

fn root_secret(connection: &Connection) -> Result<[u8; 32], LoadError> {
    let secret = connection.query_row("SELECT value FROM meta WHERE key = 'root_secret'", [], |row| row.get(0));
    match secret {
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(LoadError::Row("its root secret is missing".into())),
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

fn audiences(connection: &Connection) -> Result<HashMap<i64, Arc<Audience>>, LoadError> {
    let mut audiences = HashMap::new();
    let mut statement = connection.prepare("SELECT id, members FROM audiences")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let members = text(row.get_ref(1)?).and_then(parse_members);
        let members = members.ok_or_else(|| LoadError::Row(format!("audience {id} cannot be read")))?;
        audiences.insert(id, Arc::new(members));
    }
    Ok(audiences)
}

/// An audience as it is stored: names in order, separated by single spaces. `None`: everyone.
pub(super) fn members_text(audience: &Audience) -> Option<String> {
    match audience {
        Audience::Everyone => None,
        Audience::Only(users) => Some(users.iter().map(UserName::as_str).collect::<Vec<_>>().join(" ")),
    }
}

fn parse_members(text: &str) -> Option<Audience> {
    let names = text.split(' ').filter(|_| !text.is_empty());
    let users = names.map(|name| UserName::parse(name).ok()).collect::<Option<Vec<_>>>()?;
    users.is_sorted_by(|a, b| a < b).then_some(Audience::Only(users))
}

/// Reads all publications and returns which audiences they have.
fn publications(
    connection: &Connection,
    users: &HashMap<i64, UserName>,
    audiences: &HashMap<i64, Arc<Audience>>,
    into: &mut dyn LoadSink,
) -> Result<HashSet<i64>, LoadError> {
    let total: i64 = connection.query_row("SELECT count(*) FROM publications", [], |row| row.get(0))?;
    let total = total as u64;
    into.progress(0, total);
    let everyone = Arc::new(Audience::Everyone);
    let mut used = HashSet::new();
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
            Some((id, ..)) if id >= user_id => return Err(LoadError::Row("its publications are out of order".into())),
            _ => {
                let user = users.get(&user_id).cloned();
                user.ok_or_else(|| LoadError::Row(format!("a publication of user {user_id}, who is not there")))?
            }
        };
        last = Some((user_id, user.clone(), name.clone()));
        let audience = match row.get::<_, Option<i64>>(5)? {
            None => &everyone,
            Some(id) => {
                used.insert(id);
                let audience = audiences.get(&id);
                audience
                    .ok_or_else(|| LoadError::Row(format!("a publication for audience {id}, which is not there")))?
            }
        };
        let hash = row.get_ref(2)?.as_blob().ok().and_then(|hash| hash.try_into().ok());
        let hash = ContentHash(hash.ok_or_else(|| LoadError::Row(format!("a hash of {user} has the wrong size")))?);
        let content = Content { hash, size: row.get::<_, i64>(3)? as u64, mtime_ms: row.get(4)? };
        let file = NamedContent { name, content };
        let published_s = row.get::<_, i64>(6)? as u64;
        into.publication(StoredPublication { user, file, audience: Arc::clone(audience), published_s });
        done += 1;
        if done % PROGRESS_EVERY == 0 {
            into.progress(done, total);
        }
    }
    if done != total {
        return Err(LoadError::Row(format!("{done} of its {total} publications can be read")));
    }
    Ok(used)
}

fn last_mutations(
    connection: &Connection,
    users: &HashMap<i64, UserName>,
    into: &mut dyn LoadSink,
) -> Result<(), LoadError> {
    let mut statement = connection.prepare("SELECT user, run, request, found FROM last_mutations")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let user = users.get(&id).ok_or_else(|| LoadError::Row(format!("a change by user {id}, who is not there")))?;
        let last = LastMutation {
            run: InstanceId(row.get::<_, i64>(1)? as u64),
            request: RequestId(row.get::<_, i64>(2)? as u64),
            found: row.get::<_, Option<i64>>(3)?.map(|found| found as u64),
        };
        into.last_mutation(user.clone(), last);
    }
    Ok(())
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    value.as_str().ok()
}

/// A name that keeps its rules, or what is wrong with it. The name itself stays out of the message: it may be anything.
fn parsed<T, E: std::fmt::Display>(
    value: ValueRef<'_>,
    parse: impl Fn(&str) -> Result<T, E>,
    what: impl Fn() -> String,
) -> Result<T, LoadError> {
    let text = text(value).ok_or_else(|| LoadError::Row(format!("{} has a name that is no text", what())))?;
    parse(text).map_err(|error| LoadError::Row(format!("{}: {error}", what())))
}
