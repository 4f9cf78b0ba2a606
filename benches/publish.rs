//! How many publications a second become durable over the network when many clients publish at once, beside the same
//! rows inserted by a loop that does nothing else.
//!
//! `cargo bench --bench publish`; medians of interleaved rounds, in a data file that grows meanwhile.
//! `FILESHARE_BENCH_USERS` sessions (default 1,000) each publish batch after batch, as large as a datagram holds.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "load/bare_sqlite.rs"]
mod bare_sqlite;
mod load;

use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::NamedContent;
use rusqlite::{Connection, params};

use self::bare_sqlite::bare_connection;
use self::load::{Crowd, Place, file, median, setting};

/// Files of a datagram: names of some 30 bytes.
const BATCH: usize = 13;
/// Rows that the bare loop puts into one transaction.
const BARE_BATCH: usize = 13_000;
const ROUNDS: usize = 5;
/// More a second than is reached.
const RATE_MAX: usize = 150_000;

fn main() {
    let (users, seconds) = (setting("FILESHARE_BENCH_USERS", 1_000), setting("FILESHARE_BENCH_SECONDS", 3));
    let mut place = Place::new(users);
    place.start();
    let mut crowd = Crowd::new(place.address(), users);
    crowd.log_in();
    let mut bare = bare_connection(&place.folder().join("bare.db"));
    let mut published = vec![0; users];
    // Made beforehand, so that the load costs little.
    let mut ready: Vec<Vec<Vec<NamedContent>>> = vec![Vec::new(); users];
    let (mut rates, mut shares, mut bare_rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        make_ready(&mut ready, &mut published, seconds);
        let processor = place.processor_s();
        let (files, took) = publish(&mut crowd, &mut ready, Duration::from_secs(seconds as u64));
        let took = took.as_secs_f64();
        rates.push(files as f64 / took);
        shares.push((place.processor_s() - processor) / took);
        bare_rates.push(insert(&mut bare, files, rates.len()));
    }
    let (rate, bare) = (median(rates), median(bare_rates));
    println!("publish: {rate:.0} durable publications a second from {users} sessions, {BATCH} a datagram");
    println!("the server used {:.2} processors meanwhile; the load comes from the same machine", median(shares));
    println!("bare batched inserts of the same rows: {bare:.0} a second; over the network / bare = {:.2}", rate / bare);
}

/// Enough for a rate that is not reached.
fn make_ready(ready: &mut [Vec<Vec<NamedContent>>], published: &mut [usize], seconds: usize) {
    let enough = (seconds * RATE_MAX / BATCH / ready.len()).max(50);
    for (member, (ready, published)) in ready.iter_mut().zip(published).enumerate() {
        while ready.len() < enough {
            ready.push((*published..*published + BATCH).map(|number| file(member, number)).collect());
            *published += BATCH;
        }
    }
}

/// Everyone publishes until the time is over; files acknowledged, and how long that took.
fn publish(crowd: &mut Crowd, ready: &mut [Vec<Vec<NamedContent>>], time: Duration) -> (usize, Duration) {
    let start = Instant::now();
    let (mut files, mut under_way) = (0, 0);
    for (member, ready) in ready.iter_mut().enumerate() {
        under_way += usize::from(next(crowd, member, ready));
    }
    while under_way > 0 {
        for (member, event) in crowd.turn(Duration::from_secs(1)) {
            let Event::RequestFinished { result, .. } = event else { continue };
            assert!(matches!(result, Ok(Response::Published { .. })), "{result:?}");
            files += BATCH;
            under_way -= 1;
            if start.elapsed() < time {
                under_way += usize::from(next(crowd, member, &mut ready[member]));
            }
        }
    }
    (files, start.elapsed())
}

/// Whether there was another batch.
fn next(crowd: &mut Crowd, member: usize, ready: &mut Vec<Vec<NamedContent>>) -> bool {
    let Some(files) = ready.pop() else { return false };
    crowd.act(member, |session, now| session.request(now, Request::Publish { files, audience: AudienceRef::Everyone }));
    true
}

/// As many rows by batched inserts; rows a second.
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
            insert.execute(row).expect("a row goes in");
        }
        drop(insert);
        transaction.commit().expect("a commit");
    }
    rows as f64 / start.elapsed().as_secs_f64()
}
