//! What control costs: a login and a heartbeat at the server, with and without sealing; a session's memory; how many
//! heartbeats one processor carries; how long a turn of the loop gets while somebody asks for long searches; how long `lap` and `sch` take, at rest and over a disk that takes 2 s for a sync.
//!
//! `cargo bench --bench control`; `FILESHARE_BENCH_USERS` sessions (default 10,000). The slow disk needs `strace`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "control/core.rs"]
mod core;
mod load;
#[path = "control/searches.rs"]
mod searches;

use std::process::Command;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};

use self::load::{Crowd, Place, file, percentile, setting};

/// Round trips measured of each kind.
const ROUND_TRIPS: usize = 2_000;
/// How long heartbeats are watched.
const WATCH: Duration = Duration::from_secs(6);
/// What the slow disk takes for a sync, microseconds.
const SYNC_US: u32 = 2_000_000;

fn main() {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    core::measure(users);
    searches::measure();
    sessions(users);
    latency();
    slow_disk();
}

/// The real server with everyone logged in and reporting often.
fn sessions(users: usize) {
    const HEARTBEAT_S: f64 = 0.25;
    let mut place = Place::new(users);
    place.arguments =
        ["--ephemeral", "--heartbeat", &HEARTBEAT_S.to_string(), "--liveness", "5"].map(String::from).into();
    place.start();
    let mut crowd = Crowd::new(place.address(), users);
    let (memory, processor) = (place.memory(), place.processor_s());
    crowd.log_in();
    let login_us = (place.processor_s() - processor) * 1e6 / users as f64;
    println!("login over the network: {login_us:.0} µs of the server's processor, heartbeats meanwhile included");
    // Everyone is heard twice: what the login needed is forgotten.
    turn_for(&mut crowd, Duration::from_secs(1));
    println!("memory: {} bytes a session", place.memory().saturating_sub(memory) / users as u64);
    let processor = place.processor_s();
    let took = turn_for(&mut crowd, WATCH).as_secs_f64();
    let busy = (place.processor_s() - processor) / took;
    let rate = users as f64 / HEARTBEAT_S;
    println!(
        "heartbeats: {rate:.0} a second take {:.0} % of a processor; one carries {:.0} a second, {:.0} peers at 2 s",
        busy * 100.0,
        rate / busy,
        rate / busy * 2.0,
    );
}

fn turn_for(crowd: &mut Crowd, time: Duration) -> Duration {
    let start = Instant::now();
    while start.elapsed() < time {
        for (member, event) in crowd.turn(Duration::from_millis(100)) {
            assert!(!matches!(event, Event::ConnectionLost | Event::LoggedOut), "{member}: {event:?}");
        }
    }
    start.elapsed()
}

fn queries() -> [(&'static str, Request); 2] {
    let query = NameQuery::Substring("report".into());
    [("lap", Request::Peers { cursor: None }), ("sch", Request::Search { query, cursor: None })]
}

/// Asks one after the other.
fn latency() {
    let mut place = Place::new(3);
    place.start();
    let mut crowd = Crowd::new(place.address(), 3);
    crowd.log_in();
    publish(&mut crowd, 0);
    wait(&mut crowd, 0);
    for (label, request) in queries() {
        let mut times: Vec<f64> = (0..ROUND_TRIPS).map(|_| round_trip(&mut crowd, 1, &request)).collect();
        let (half, most) = (percentile(&mut times, 500), percentile(&mut times, 990));
        println!("{label}: {half:.2} ms (median), {most:.2} ms (99 %), client included");
    }
}

/// The same while a publication waits for a sync.
fn slow_disk() {
    if Command::new("strace").arg("-V").output().is_err() {
        return println!("a slow disk: not measured, strace is not here");
    }
    let mut place = Place::new(3);
    place.start();
    place.stop();
    let inject = format!("fsync,fdatasync:delay_enter={SYNC_US}");
    // As a grandchild, so that the process started is the server itself.
    let wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    let inject = format!("inject={inject}");
    let wrapper: Vec<&str> = wrapper.into_iter().chain([inject.as_str()]).collect();
    place.start_under(&wrapper);
    let mut crowd = Crowd::new(place.address(), 3);
    crowd.log_in();
    let (mut times, mut syncs, start) = (Vec::new(), Vec::new(), Instant::now());
    while syncs.len() < 4 {
        let begun = Instant::now();
        publish(&mut crowd, 0);
        let mut stored = false;
        while !stored {
            for (_, request) in queries() {
                let asked = Instant::now();
                crowd.act(1, |session, now| session.request(now, request));
                let mut answered = false;
                while !answered {
                    for (member, event) in crowd.turn(Duration::from_secs(1)) {
                        assert!(!matches!(event, Event::ConnectionLost | Event::Started { .. }), "{member}: {event:?}");
                        stored |= member == 0;
                        answered |= member == 1;
                    }
                }
                times.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_millis(10) {
                stored |= crowd.turn(Duration::from_millis(2)).iter().any(|(member, _)| *member == 0);
            }
        }
        syncs.push(begun.elapsed().as_secs_f64());
    }
    println!(
        "a slow disk: publications took {:.1} to {:.1} s; meanwhile {} times lap and sch took {:.2} ms (median), \
         {:.2} ms (99 %), {:.2} ms (longest); no session was lost in {:.0} s",
        percentile(&mut syncs, 0),
        percentile(&mut syncs, 1_000),
        times.len(),
        percentile(&mut times, 500),
        percentile(&mut times, 990),
        percentile(&mut times, 1_000),
        start.elapsed().as_secs_f64(),
    );
}

fn publish(crowd: &mut Crowd, member: usize) {
    let files = (0..13).map(|number| file(member, number)).collect();
    crowd.act(member, |session, now| session.request(now, Request::Publish { files, audience: AudienceRef::Everyone }));
}

fn wait(crowd: &mut Crowd, asked: usize) -> Response {
    loop {
        for (member, event) in crowd.turn(Duration::from_secs(1)) {
            if let Event::RequestFinished { result, .. } = event
                && member == asked
            {
                return result.expect("an answer");
            }
        }
    }
}

/// Milliseconds.
fn round_trip(crowd: &mut Crowd, member: usize, request: &Request) -> f64 {
    let start = Instant::now();
    crowd.act(member, |session, now| session.request(now, request.clone()));
    wait(crowd, member);
    start.elapsed().as_secs_f64() * 1e3
}
