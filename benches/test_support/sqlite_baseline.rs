//! The baseline of the journal: one SQLite table with the same columns, and nothing else.

use std::path::Path;

use rusqlite::Connection;

/// Creates a database with an empty table, with the same durability as the journal.
pub fn open_baseline(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768;
             CREATE TABLE publications (user INTEGER NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL,
                 size INTEGER NOT NULL, mtime_ms INTEGER NOT NULL, audience INTEGER, published_s INTEGER NOT NULL,
                 PRIMARY KEY (user, name)) STRICT, WITHOUT ROWID;",
        )
        .expect("a table");
    connection
}
