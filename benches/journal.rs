//! Durable publications per second through the journal, compared with batched inserts into bare SQLite; and the time to
//! load a large data file.
//!
//! `cargo bench --bench journal`; the numbers are medians of interleaved rounds. The directory is
//! `FILESHARE_BENCH_DIR` (default: the system's temporary directory), the size of the large file
//! `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000).

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "test_support/sqlite_baseline.rs"]
mod sqlite_baseline;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fileshare::internals::common::types::{
    Content, ContentHash, FileName, InstanceId, NamedContent, RequestId, UserName,
};
use fileshare::internals::server::journal::{
    Change, Journal, JournalSeq, LastMutation, LoadSink, Mutation, StoredPublication,
};
use rusqlite::{Connection, params};

use self::sqlite_baseline::open_baseline;

/// Files of a typical PUBLISH datagram.
const FILES: u64 = 13;
/// Publishing users.
const USERS: u64 = 10_000;
/// Mutations of a round.
const MUTATIONS: u64 = 30_000;
/// Mutations in one transaction of the bare loop.
const BARE_BATCH: usize = 1_000;
/// Interleaved rounds.
const ROUNDS: usize = 5;

#[derive(Default)]
struct CountingSink(u64);

impl LoadSink for CountingSink {
    fn publication(&mut self, publication: StoredPublication) {
        // Read every publication, as an index does, but store none.
        self.0 += u64::from(publication.file.content.size < u64::MAX);
    }
    fn last_mutation(&mut self, _user: UserName, _last: LastMutation) {}
}

/// Mutation `number` of round `round`: users publish in turn, each into its own directory.
fn mutation(round: u64, number: u64) -> Mutation {
    let user = UserName::parse(&format!("user{:05}", number % USERS)).expect("a valid name");
    let file = |i| NamedContent {
        name: FileName::parse(&format!("round {round}/batch {:05}/file {i:02}.bin", number / USERS)).expect("valid"),
        content: Content { hash: ContentHash([(number % 251) as u8; 32]), size: number, mtime_ms: 1_700_000_000_000 },
    };
    let files = (0..FILES).map(file).collect();
    let change = Change::Publish { files, audience: Arc::default(), published_s: 1_700_000_000 };
    Mutation { user, instance: InstanceId(round), request: RequestId(number), change }
}

fn open(path: &Path) -> (Journal, u64, mpsc::Receiver<()>) {
    let (sender, wakes) = mpsc::channel();
    let mut count = CountingSink::default();
    let journal = Journal::open(path, &mut count, Box::new(move || sender.send(()).unwrap_or_default()));
    (journal.unwrap_or_else(|error| panic!("{error}")), count.0, wakes)
}

/// Pushes all mutations and waits until they are durable.
fn push_all(journal: &mut Journal, wakes: &mpsc::Receiver<()>, mutations: &[Mutation]) -> Duration {
    let work = mutations.to_vec();
    let start = Instant::now();
    let mut last = JournalSeq(0);
    for mutation in work {
        last = loop {
            match journal.push(mutation.clone()) {
                Ok(seq) => break seq,
                Err(_) => wakes.recv().expect("the thread runs"),
            }
        };
    }
    while journal.durable() < last {
        assert_eq!(journal.failed(), None);
        wakes.recv().expect("the thread runs");
    }
    start.elapsed()
}

/// Inserts the same rows in a loop without users, last mutations and threads.
fn bare(connection: &mut Connection, mutations: &[Mutation]) -> Duration {
    let work = mutations.to_vec();
    let start = Instant::now();
    for batch in work.chunks(BARE_BATCH) {
        let transaction = connection.transaction().expect("a transaction");
        let mut insert =
            transaction.prepare_cached("REPLACE INTO publications VALUES (?1, ?2, ?3, ?4, ?5, NULL, ?6)").expect("SQL");
        for mutation in batch {
            let Change::Publish { files, published_s, .. } = &mutation.change else { continue };
            let user: i64 = mutation.user.as_str()[4..].parse().expect("a number");
            for NamedContent { name, content } in files {
                let hash = content.hash.0.as_slice();
                let row =
                    params![user, name.as_str(), hash, content.size as i64, content.mtime_ms, *published_s as i64];
                insert.execute(row).expect("an insert");
            }
        }
        drop(insert);
        transaction.commit().expect("a commit");
    }
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    let directory = match std::env::var_os("FILESHARE_BENCH_DIR") {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let directory = directory.expect("a temporary directory");
    let publications: u64 =
        std::env::var("FILESHARE_BENCH_PUBLICATIONS").map_or(1_000_000, |n| n.parse().expect("a number"));

    let path = directory.path().join("large.db");
    let (mut journal, _, wakes) = open(&path);
    let mutations: Vec<_> = (0..publications.div_ceil(FILES)).map(|number| mutation(0, number)).collect();
    let time = push_all(&mut journal, &wakes, &mutations);
    println!("filling: {} publications in {:.2} s", mutations.len() as u64 * FILES, time.as_secs_f64());
    drop(mutations);
    journal.close().unwrap_or_else(|error| panic!("{error}"));

    let mut loads = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let (journal, count, _) = open(&path);
        loads.push(start.elapsed());
        assert!(count >= publications);
        drop(journal);
    }
    println!("loading: {publications} publications of {USERS} users in {:.2} s", median(loads));

    let (mut journal, _, wakes) = open(&path);
    let mut connection = open_baseline(&directory.path().join("bare.db"));
    let filling: Vec<_> = (0..publications.div_ceil(FILES)).map(|number| mutation(0, number)).collect();
    bare(&mut connection, &filling);
    drop(filling);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS as u64 {
        let mutations: Vec<_> = (0..MUTATIONS).map(|number| mutation(round, number)).collect();
        ours.push(push_all(&mut journal, &wakes, &mutations));
        theirs.push(bare(&mut connection, &mutations));
    }
    let rows = (MUTATIONS * FILES) as f64;
    let (ours, theirs) = (rows / median(ours), rows / median(theirs));
    println!("journal: {ours:.0} durable publications per second, with {publications} others stored");
    println!("bare batched inserts: {theirs:.0} per second; journal / bare = {:.2}", ours / theirs);
}
