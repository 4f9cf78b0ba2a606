//! Durable publications per second over the network when many clients publish concurrently, compared with batched inserts
//! of the same rows into bare SQLite.
//!
//! `cargo bench --bench publish`; medians of interleaved rounds, in a growing data file. `FILESHARE_BENCH_USERS` sessions
//! (default 1,000) each publish full datagrams, one after the other.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "test_support/sqlite_baseline.rs"]
mod sqlite_baseline;
mod test_support;

use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::NamedContent;
use rusqlite::{Connection, params};

use self::sqlite_baseline::open_baseline;
use self::test_support::{LoadClients, ServerProcess, file, median, setting};

/// Files in a datagram, with names of about 30 bytes.
const BATCH: usize = 13;
/// Rows in one transaction of the bare loop.
const BARE_BATCH: usize = 13_000;
const ROUNDS: usize = 5;
/// An upper bound of publications per second.
const RATE_MAX: usize = 150_000;

fn main() {
    let (users, seconds) = (setting("FILESHARE_BENCH_USERS", 1_000), setting("FILESHARE_BENCH_SECONDS", 3));
    let mut server = ServerProcess::new(users);
    // The quotas of a user would end a run with few users.
    server.arguments =
        ["--max-files", "100000000", "--max-name-bytes", "10000000000", "--max-files-per-second", "1000000"]
            .map(String::from)
            .to_vec();
    server.start();
    let mut clients = LoadClients::new(server.address(), users);
    clients.log_in();
    let mut bare = open_baseline(&server.directory().join("bare.db"));
    let mut published = vec![0; users];
    // Made beforehand, so that the clients use little CPU time.
    let mut ready: Vec<Vec<Vec<NamedContent>>> = vec![Vec::new(); users];
    let (mut rates, mut shares, mut bare_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        prepare_batches(&mut ready, &mut published, seconds);
        let cpu_s = server.cpu_s();
        let (files, took) = publish(&mut clients, &mut ready, Duration::from_secs(seconds as u64));
        let took = took.as_secs_f64();
        rates.push(files as f64 / took);
        shares.push((server.cpu_s() - cpu_s) / took);
        bare_rates.push(insert(&mut bare, files, rates.len()));
    }
    let (rate, bare) = (median(rates), median(bare_rates));
    println!("publish: {rate:.0} durable publications per second from {users} sessions, {BATCH} in a datagram");
    println!("the server used {:.2} CPUs meanwhile; the clients run on the same machine", median(shares));
    println!(
        "bare batched inserts of the same rows: {bare:.0} per second; over the network / bare = {:.2}",
        rate / bare
    );
}

/// Prepares enough batches for [`RATE_MAX`].
fn prepare_batches(ready: &mut [Vec<Vec<NamedContent>>], published: &mut [usize], seconds: usize) {
    let enough = (seconds * RATE_MAX / BATCH / ready.len()).max(50);
    for (member, (ready, published)) in ready.iter_mut().zip(published).enumerate() {
        while ready.len() < enough {
            ready.push((*published..*published + BATCH).map(|number| file(member, number)).collect());
            *published += BATCH;
        }
    }
}

/// All clients publish for `time`. Returns the number of acknowledged files and the time until the last acknowledgement.
fn publish(clients: &mut LoadClients, ready: &mut [Vec<Vec<NamedContent>>], time: Duration) -> (usize, Duration) {
    let start = Instant::now();
    let (mut files, mut in_flight) = (0, 0);
    for (member, ready) in ready.iter_mut().enumerate() {
        in_flight += usize::from(next(clients, member, ready));
    }
    while in_flight > 0 {
        for (member, event) in clients.poll(Duration::from_secs(1)) {
            let Event::RequestFinished { result, .. } = event else { continue };
            assert!(matches!(result, Ok(Response::Published { .. })), "{result:?}");
            files += BATCH;
            in_flight -= 1;
            if start.elapsed() < time {
                in_flight += usize::from(next(clients, member, &mut ready[member]));
            }
        }
    }
    (files, start.elapsed())
}

/// Publishes the client's next batch. Returns whether there was one.
fn next(clients: &mut LoadClients, member: usize, ready: &mut Vec<Vec<NamedContent>>) -> bool {
    let Some(files) = ready.pop() else { return false };
    clients.with_session(member, |session, now| {
        session.request(now, Request::Publish { files, audience: AudienceRef::Everyone })
    });
    true
}

/// Inserts `rows` rows in batches. Returns rows per second.
fn insert(connection: &mut Connection, rows: usize, round: usize) -> f64 {
    let files: Vec<_> = (0..rows).map(|row| (row % 200, file(row % 200, (round << 24) + row / 200))).collect();
    let start = Instant::now();
    for batch in files.chunks(BARE_BATCH) {
        let transaction = connection.transaction().expect("a transaction");
        let sql = "REPLACE INTO publications VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6)";
        let mut insert = transaction.prepare_cached(sql).expect("SQL");
        for (user, NamedContent { name, content }) in batch {
            let hash = content.hash.0.as_slice();
            let row = params![*user as i64, name.as_str(), hash, content.size as i64, content.mtime_ms, 1_700_000_000];
            insert.execute(row).expect("an insert");
        }
        drop(insert);
        transaction.commit().expect("a commit");
    }
    rows as f64 / start.elapsed().as_secs_f64()
}
