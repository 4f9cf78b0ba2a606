//! How long it takes until every client is back after a server restart: many sessions at one address, each with
//! publications and one more under way when the server is killed.
//!
//! `cargo bench --bench resume`; `FILESHARE_BENCH_USERS` sessions (default 10,000).

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod load;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::FileName;

use self::load::{Crowd, Place, file, median, setting};

const ROUNDS: usize = 3;
/// A crowd that is not back after so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let mut place = Place::new(users);
    place.start();
    let mut crowd = Crowd::new(place.address(), users);
    let start = Instant::now();
    crowd.log_in();
    println!("login: {users} sessions in {:.1} s", start.elapsed().as_secs_f64());
    let (mut times, mut published) = (Vec::new(), 0);
    for round in 1..=ROUNDS {
        (0..users).for_each(|member| publish(&mut crowd, member, published));
        published += 1;
        // Killed with about half of them under way.
        let (mut acknowledged, killed) = (collect(&mut crowd, users / 2), Instant::now());
        place.kill();
        let start = place.start();
        let ready = Instant::now();
        let (mut back, mut told) = (BTreeSet::new(), 0);
        while back.len() < users || acknowledged < users {
            assert!(
                ready.elapsed() < PATIENCE,
                "{} are back, {acknowledged} publications are acknowledged",
                back.len()
            );
            for (member, event) in crowd.turn(Duration::from_secs(1)) {
                match event {
                    Event::Started { resumed: true, .. } => drop(back.insert(member)),
                    Event::RequestFinished { result: Ok(Response::Published { .. }), .. } => acknowledged += 1,
                    Event::ConnectionLost => told += 1,
                    other => panic!("{member}: {other:?}"),
                }
            }
        }
        let took = ready.elapsed();
        times.push(took.as_secs_f64());
        println!(
            "round {round}: ready {:.2} s after the kill (start {:.2} s); all {users} are back and everything is \
             acknowledged {:.2} s later; {told} were told that the connection was lost",
            (ready - killed).as_secs_f64(),
            start.as_secs_f64(),
            took.as_secs_f64(),
        );
        check(&mut crowd, published);
    }
    println!("resume: {users} sessions back in {:.2} s (median), no publication lost", median(times));
}

fn publish(crowd: &mut Crowd, member: usize, number: usize) {
    let files = vec![file(member, number)];
    crowd.act(member, |session, now| session.request(now, Request::Publish { files, audience: AudienceRef::Everyone }));
}

/// Waits for so many acknowledgements; how many came.
fn collect(crowd: &mut Crowd, wanted: usize) -> usize {
    let (mut acknowledged, start) = (0, Instant::now());
    while acknowledged < wanted {
        assert!(start.elapsed() < PATIENCE, "{acknowledged} of {wanted} are acknowledged");
        for (member, event) in crowd.turn(Duration::from_secs(1)) {
            match event {
                Event::RequestFinished { result: Ok(Response::Published { .. }), .. } => acknowledged += 1,
                Event::ConnectionLost | Event::Started { .. } => {}
                other => panic!("{member}: {other:?}"),
            }
        }
    }
    acknowledged
}

/// Everyone lists what is published.
fn check(crowd: &mut Crowd, published: usize) {
    let mut listed = 0;
    for asked in 0..crowd.len() {
        crowd.act(asked, |session, now| {
            session.request(now, Request::OwnPublications { user_initiated: false, cursor: None })
        });
        // A few at a time: all at once would be more than the sockets hold.
        while asked + 1 - listed > 200 || (asked + 1 == crowd.len() && listed < crowd.len()) {
            for (member, event) in crowd.turn(Duration::from_secs(1)) {
                let Event::RequestFinished { result, .. } = event else { continue };
                let Ok(Response::OwnPublications { entries, next: None }) = result else {
                    panic!("{member}: {result:?}")
                };
                let names: BTreeSet<FileName> = entries.into_iter().map(|entry| entry.name).collect();
                let expected = (0..published).map(|number| file(member, number).name).collect();
                assert_eq!(names, expected, "{member}");
                listed += 1;
            }
        }
    }
}
