//! How 1,000,000 published names slow down a RESOLVE request, the first step of `get`, for a name and for a directory: at a
//! server whose other users have published nothing, and at the same server after they have.
//!
//! `cargo bench --bench names`; `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000) of `FILESHARE_BENCH_USERS` (default
//! 100), all online. With `FILESHARE_BENCH_HOLD` set, the server then keeps running until the end of stdin, with the sample
//! users in its credentials, and the bench prints its address: `scripts/acceptance-transfers.sh names` measures whole programs.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, ResolvePurpose, Response};
use fileshare::internals::common::types::{FileName, NamedContent};

use self::test_support::{LoadClients, ServerProcess, file, median, setting};

/// Files in a datagram, with names of about 30 bytes.
const BATCH: usize = 13;
const ROUNDS: usize = 2_000;
/// Files of the resolved directory.
const DIRECTORY_FILES: usize = 100;
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/credentials.txt");

fn main() {
    let publications = setting("FILESHARE_BENCH_PUBLICATIONS", 1_000_000);
    let users = setting("FILESHARE_BENCH_USERS", 100);
    let is_held = std::env::var_os("FILESHARE_BENCH_HOLD").is_some();
    // Two more users: the owner of the resolved files, and the requester.
    let (owner, requester) = (users, users + 1);
    let mut server = ServerProcess::new(users + 2);
    server.arguments =
        ["--ephemeral", "--max-files", "100000000", "--max-files-per-second", "1000000"].map(String::from).to_vec();
    admit_sample_users(&server);
    server.start();
    let mut clients = LoadClients::new(server.address(), users + 2);
    clients.log_in();
    // With names like those of the other files.
    let directory = format!("reports {owner:05}/");
    let wanted: Vec<_> =
        (0..DIRECTORY_FILES).map(|number| renamed(number, &format!("{directory}report-{number:07}.pdf"))).collect();
    for files in wanted.chunks(BATCH) {
        publish(&mut clients, owner, files.to_vec());
        await_published(&mut clients, 1, |_| None);
    }
    let queries =
        [("a name", NameQuery::Exact(wanted[0].name.clone())), ("a directory of 100", NameQuery::Prefix(directory))];
    let alone = queries.clone().map(|(_, query)| time(&mut clients, requester, &query));
    let start = Instant::now();
    fill(&mut clients, users, publications);
    let took = start.elapsed().as_secs_f64();
    println!("{publications} names published by {users} users in {took:.1} s");
    for ((label, query), alone) in queries.iter().zip(alone) {
        let among = time(&mut clients, requester, query);
        println!("resolving {label}: {alone:.3} ms without them, {among:.3} ms with them, {:.2} times", among / alone);
    }
    if is_held {
        println!("listening on {}", server.address());
        hold(&mut clients);
    }
}

fn admit_sample_users(server: &ServerProcess) {
    let sample = fs::read(SAMPLE).expect("the sample credentials");
    let mut file =
        OpenOptions::new().append(true).open(server.directory().join("credentials.txt")).expect("the credentials file");
    file.write_all(&sample).expect("a file can be written");
}

fn renamed(number: usize, name: &str) -> NamedContent {
    NamedContent { name: FileName::parse(name).expect("a plain name"), ..file(usize::MAX, number) }
}

fn publish(clients: &mut LoadClients, member: usize, files: Vec<NamedContent>) {
    clients.with_session(member, |session, now| {
        session.request(now, Request::Publish { files, audience: AudienceRef::Everyone })
    });
}

/// Waits for `in_flight` acknowledgements. `next` returns the next files of a client after each of its own.
fn await_published(
    clients: &mut LoadClients,
    mut in_flight: usize,
    mut next: impl FnMut(usize) -> Option<Vec<NamedContent>>,
) {
    while in_flight > 0 {
        for (member, event) in clients.poll(Duration::from_secs(1)) {
            let Event::RequestFinished { result, .. } = event else { panic!("{member}: {event:?}") };
            assert!(matches!(result, Ok(Response::Published { .. })), "{result:?}");
            match next(member) {
                Some(files) => publish(clients, member, files),
                None => in_flight -= 1,
            }
        }
    }
}

fn fill(clients: &mut LoadClients, users: usize, publications: usize) {
    let share = |member| publications / users + usize::from(member < publications % users);
    let mut published = vec![0; users];
    let mut batch = |member: usize| {
        let first = published[member];
        let end = share(member).min(first + BATCH);
        published[member] = end;
        (first < end).then(|| (first..end).map(|number| file(member, number)).collect())
    };
    let mut in_flight = 0;
    for member in 0..users {
        if let Some(files) = batch(member) {
            publish(clients, member, files);
            in_flight += 1;
        }
    }
    await_published(clients, in_flight, batch);
}

/// The median time from the request to the last page of the response, milliseconds.
fn time(clients: &mut LoadClients, requester: usize, query: &NameQuery) -> f64 {
    median((0..ROUNDS).map(|_| resolve(clients, requester, query)).collect())
}

fn resolve(clients: &mut LoadClients, requester: usize, query: &NameQuery) -> f64 {
    let start = Instant::now();
    let mut cursor = None;
    loop {
        let request = Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor };
        clients.with_session(requester, |session, now| session.request(now, request));
        let next = loop {
            match clients.poll(Duration::from_secs(1)).pop() {
                Some((_, Event::RequestFinished { result: Ok(Response::Contents { next, .. }), .. })) => break next,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        };
        match next {
            Some(next) => cursor = Some(next),
            None => return start.elapsed().as_secs_f64() * 1e3,
        }
    }
}

/// Keeps all clients online until the end of stdin.
fn hold(clients: &mut LoadClients) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            clients.poll(Duration::from_millis(200));
        }
    });
}
