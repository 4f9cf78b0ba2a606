//! What the journal is measured beside: one SQLite table of its shape, with nothing around it.

use std::path::Path;

use rusqlite::Connection;

/// A new database with an empty table, as durable as the journal.
pub fn bare_connection(path: &Path) -> Connection {
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
