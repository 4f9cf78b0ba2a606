//! What a million published names cost someone who asks for one: the first question of `get`, for a name and for a
//! folder, at a server whose other users have published nothing and at the same server when they have.
//!
//! `cargo bench --bench names`; `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000) of `FILESHARE_BENCH_USERS` (default
//! 100), all of them here. With `FILESHARE_BENCH_HOLD` set, the server then stays, with the sample users among those who
//! may join, and its address is printed, until the input ends: `scripts/acceptance-transfers.sh names` measures whole programs.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod load;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, ResolvePurpose, Response};
use fileshare::internals::common::types::{FileName, NamedContent};

use self::load::{Crowd, Place, file, median, setting};

/// Files of a datagram: names of some 30 bytes.
const BATCH: usize = 13;
const ROUNDS: usize = 2_000;
/// Files of the folder that is asked for.
const FOLDER: usize = 100;
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/credentials.txt");

fn main() {
    let publications = setting("FILESHARE_BENCH_PUBLICATIONS", 1_000_000);
    let users = setting("FILESHARE_BENCH_USERS", 100);
    let is_held = std::env::var_os("FILESHARE_BENCH_HOLD").is_some();
    // Two more: one who has what is asked for, and one who asks.
    let (owner, asker) = (users, users + 1);
    let mut place = Place::new(users + 2);
    place.arguments = vec!["--ephemeral".into()];
    admit_sample_users(&place);
    place.start();
    let mut crowd = Crowd::new(place.address(), users + 2);
    crowd.log_in();
    // Named like all the others.
    let folder = format!("reports {owner:05}/");
    let wanted: Vec<_> =
        (0..FOLDER).map(|number| renamed(number, &format!("{folder}report-{number:07}.pdf"))).collect();
    for files in wanted.chunks(BATCH) {
        publish(&mut crowd, owner, files.to_vec());
        settle(&mut crowd, 1, |_| None);
    }
    let questions =
        [("a name", NameQuery::Exact(wanted[0].name.clone())), ("a folder of 100", NameQuery::Prefix(folder))];
    let alone = questions.clone().map(|(_, query)| time(&mut crowd, asker, &query));
    let start = Instant::now();
    fill(&mut crowd, users, publications);
    let took = start.elapsed().as_secs_f64();
    println!("{publications} names published by {users} users in {took:.1} s");
    for ((label, query), alone) in questions.iter().zip(alone) {
        let among = time(&mut crowd, asker, query);
        println!("asking for {label}: {alone:.3} ms alone, {among:.3} ms among them, {:.2} times", among / alone);
    }
    if is_held {
        println!("listening on {}", place.address());
        hold(&mut crowd);
    }
}

fn admit_sample_users(place: &Place) {
    let sample = fs::read(SAMPLE).expect("the sample credentials");
    let mut file = OpenOptions::new().append(true).open(place.folder().join("credentials.txt")).expect("our own file");
    file.write_all(&sample).expect("a file can be written");
}

fn renamed(number: usize, name: &str) -> NamedContent {
    NamedContent { name: FileName::parse(name).expect("a plain name"), ..file(usize::MAX, number) }
}

fn publish(crowd: &mut Crowd, member: usize, files: Vec<NamedContent>) {
    crowd.act(member, |session, now| session.request(now, Request::Publish { files, audience: AudienceRef::Everyone }));
}

/// Waits for so many acknowledgements; `next` gives whoever got one the next files.
fn settle(crowd: &mut Crowd, mut under_way: usize, mut next: impl FnMut(usize) -> Option<Vec<NamedContent>>) {
    while under_way > 0 {
        for (member, event) in crowd.turn(Duration::from_secs(1)) {
            let Event::RequestFinished { result, .. } = event else { panic!("{member}: {event:?}") };
            assert!(matches!(result, Ok(Response::Published { .. })), "{result:?}");
            match next(member) {
                Some(files) => publish(crowd, member, files),
                None => under_way -= 1,
            }
        }
    }
}

fn fill(crowd: &mut Crowd, users: usize, publications: usize) {
    let share = |member| publications / users + usize::from(member < publications % users);
    let mut published = vec![0; users];
    let mut batch = |member: usize| {
        let first = published[member];
        let end = share(member).min(first + BATCH);
        published[member] = end;
        (first < end).then(|| (first..end).map(|number| file(member, number)).collect())
    };
    let mut under_way = 0;
    for member in 0..users {
        if let Some(files) = batch(member) {
            publish(crowd, member, files);
            under_way += 1;
        }
    }
    settle(crowd, under_way, batch);
}

/// Milliseconds from the question to the last page of its answer, median.
fn time(crowd: &mut Crowd, asker: usize, query: &NameQuery) -> f64 {
    median((0..ROUNDS).map(|_| resolve(crowd, asker, query)).collect())
}

fn resolve(crowd: &mut Crowd, asker: usize, query: &NameQuery) -> f64 {
    let start = Instant::now();
    let mut cursor = None;
    loop {
        let request = Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor };
        crowd.act(asker, |session, now| session.request(now, request));
        let next = loop {
            match crowd.turn(Duration::from_secs(1)).pop() {
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

/// Keeps everyone online until the input ends.
fn hold(crowd: &mut Crowd) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            crowd.turn(Duration::from_millis(200));
        }
    });
}
