//! The time until all clients have resumed after a server restart: many sessions at one address, each with publications and
//! with one more in flight when the server is killed.
//!
//! `cargo bench --bench resume`; `FILESHARE_BENCH_USERS` sessions (default 10,000).

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::FileName;

use self::test_support::{LoadClients, ServerProcess, file, median, setting};

const ROUNDS: usize = 3;
/// The bench fails when the clients have not resumed after this time.
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let mut server = ServerProcess::new(users);
    server.start();
    let mut clients = LoadClients::new(server.address(), users);
    let start = Instant::now();
    clients.log_in();
    println!("login: {users} sessions in {:.1} s", start.elapsed().as_secs_f64());
    let (mut times, mut published) = (Vec::new(), 0);
    for round in 1..=ROUNDS {
        (0..users).for_each(|member| publish(&mut clients, member, published));
        published += 1;
        // The server is killed with about half of the requests in flight.
        let (mut acknowledged, killed) = (collect(&mut clients, users / 2), Instant::now());
        server.kill();
        let start = server.start();
        let ready = Instant::now();
        let (mut resumed, mut lost) = (BTreeSet::new(), 0);
        while resumed.len() < users || acknowledged < users {
            assert!(
                ready.elapsed() < TIMEOUT,
                "{} clients resumed, {acknowledged} publications acknowledged",
                resumed.len()
            );
            for (member, event) in clients.poll(Duration::from_secs(1)) {
                match event {
                    Event::Started { resumed: true, .. } => drop(resumed.insert(member)),
                    Event::RequestFinished { result: Ok(Response::Published { .. }), .. } => acknowledged += 1,
                    Event::ConnectionLost => lost += 1,
                    other => panic!("{member}: {other:?}"),
                }
            }
        }
        let took = ready.elapsed();
        times.push(took.as_secs_f64());
        println!(
            "round {round}: ready {:.2} s after the kill (start {:.2} s); all {users} clients resumed with all \
             requests acknowledged {:.2} s later; {lost} reported a lost connection",
            (ready - killed).as_secs_f64(),
            start.as_secs_f64(),
            took.as_secs_f64(),
        );
        check(&mut clients, published);
    }
    println!("resume: {users} sessions resumed in {:.2} s (median), no publication lost", median(times));
}

fn publish(clients: &mut LoadClients, member: usize, number: usize) {
    let files = vec![file(member, number)];
    clients.with_session(member, |session, now| {
        session.request(now, Request::Publish { files, audience: AudienceRef::Everyone })
    });
}

/// Waits for at least `wanted` acknowledgements and returns their number.
fn collect(clients: &mut LoadClients, wanted: usize) -> usize {
    let (mut acknowledged, start) = (0, Instant::now());
    while acknowledged < wanted {
        assert!(start.elapsed() < TIMEOUT, "{acknowledged} of {wanted} are acknowledged");
        for (member, event) in clients.poll(Duration::from_secs(1)) {
            match event {
                Event::RequestFinished { result: Ok(Response::Published { .. }), .. } => acknowledged += 1,
                Event::ConnectionLost | Event::Started { .. } => {}
                other => panic!("{member}: {other:?}"),
            }
        }
    }
    acknowledged
}

/// All clients list their publications.
fn check(clients: &mut LoadClients, published: usize) {
    let mut listed = 0;
    for number in 0..clients.len() {
        clients.with_session(number, |session, now| {
            session.request(now, Request::OwnPublications { user_initiated: false, cursor: None })
        });
        // At most 200 at a time: the responses of all clients would overflow the socket buffers.
        while number + 1 - listed > 200 || (number + 1 == clients.len() && listed < clients.len()) {
            for (member, event) in clients.poll(Duration::from_secs(1)) {
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
