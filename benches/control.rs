//! The cost of control messages: a login and a heartbeat at the server, with and without sealing; the memory of a session;
//! heartbeats per CPU, beside a bare echo; the longest iteration of the event loop during expensive searches and with many subscribers; the
//! latency of `lap` and `sch`, on an idle server and on one whose disk takes 2 s for a sync.
//!
//! `cargo bench --bench control [-- sessions]`, all or one; `FILESHARE_BENCH_USERS` sessions (default 10,000). The slow disk needs
//! `strace`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "control/core.rs"]
mod core;
#[path = "control/heartbeats.rs"]
mod heartbeats;
#[path = "control/searches.rs"]
mod searches;
#[path = "control/subscriptions.rs"]
mod subscriptions;
mod test_support;

use std::process::Command;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};

use self::test_support::{LoadClients, ServerProcess, file, percentile, record, setting};

/// Round trips measured of each kind.
const ROUND_TRIPS: usize = 2_000;
/// How long heartbeats are measured.
const WATCH: Duration = Duration::from_secs(6);
/// The time of a sync on the slow disk, microseconds.
const SYNC_US: u32 = 2_000_000;

fn main() {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    if std::env::args().any(|argument| argument == "sessions") {
        return sessions(users);
    }
    core::measure(users);
    heartbeats::measure();
    searches::measure();
    subscriptions::measure();
    sessions(users);
    latency();
    slow_disk();
}

/// A server process with all users logged in, with frequent heartbeats.
fn sessions(users: usize) {
    const HEARTBEAT_S: f64 = 0.25;
    let mut server = ServerProcess::new(users);
    server.arguments =
        ["--ephemeral", "--heartbeat", &HEARTBEAT_S.to_string(), "--liveness", "5"].map(String::from).into();
    server.start();
    let mut clients = LoadClients::new(server.address(), users);
    let (memory, cpu_s) = (server.memory_bytes(), server.cpu_s());
    clients.log_in();
    let login_us = (server.cpu_s() - cpu_s) * 1e6 / users as f64;
    println!("login over the network: {login_us:.0} µs of the server's CPU time, including heartbeats meanwhile");
    // Each client sends two heartbeats: the server drops the state of the logins.
    poll_for(&mut clients, Duration::from_secs(1));
    let session_bytes = server.memory_bytes().saturating_sub(memory) / users as u64;
    println!("memory: {session_bytes} bytes a session");
    record("memory", "session", users, session_bytes as f64);
    let (sent, cpu_s) = (clients.sent(), server.cpu_s());
    let took = poll_for(&mut clients, WATCH).as_secs_f64();
    // Counted, not derived from the interval: late clients send fewer.
    let rate = (clients.sent() - sent) as f64 / took;
    let busy = (server.cpu_s() - cpu_s) / took;
    println!(
        "heartbeats: {rate:.0} a second take {:.0} % of a CPU; one CPU handles {:.0} a second, {:.0} peers at 2 s",
        busy * 100.0,
        rate / busy,
        rate / busy * 2.0,
    );
    record("peers", "heartbeat", users, busy / rate * 1e6);
}

fn poll_for(clients: &mut LoadClients, time: Duration) -> Duration {
    let start = Instant::now();
    while start.elapsed() < time {
        for (member, event) in clients.poll(Duration::from_millis(100)) {
            assert!(!matches!(event, Event::ConnectionLost | Event::LoggedOut), "{member}: {event:?}");
        }
    }
    start.elapsed()
}

fn queries() -> [(&'static str, Request); 2] {
    let query = NameQuery::Substring("report".into());
    [("lap", Request::Peers { cursor: None }), ("sch", Request::Search { query, cursor: None })]
}

/// The latency of consecutive requests.
fn latency() {
    let mut server = ServerProcess::new(3);
    server.start();
    let mut clients = LoadClients::new(server.address(), 3);
    clients.log_in();
    publish(&mut clients, 0);
    wait(&mut clients, 0);
    for (label, request) in queries() {
        let mut times: Vec<f64> = (0..ROUND_TRIPS).map(|_| round_trip(&mut clients, 1, &request)).collect();
        let (half, p99) = (percentile(&mut times, 500), percentile(&mut times, 990));
        println!("{label}: {half:.2} ms (median), {p99:.2} ms (99 %), client included");
    }
}

/// The latency of requests while a publication waits for a sync.
fn slow_disk() {
    if Command::new("strace").arg("-V").output().is_err() {
        return println!("a slow disk: not measured, strace is not installed");
    }
    let mut server = ServerProcess::new(3);
    server.start();
    server.stop();
    let inject = format!("fsync,fdatasync:delay_enter={SYNC_US}");
    // With -D strace runs as a grandchild, so that the spawned process is the server itself.
    let wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"];
    let inject = format!("inject={inject}");
    let wrapper: Vec<&str> = wrapper.into_iter().chain([inject.as_str()]).collect();
    server.start_under(&wrapper);
    let mut clients = LoadClients::new(server.address(), 3);
    clients.log_in();
    let (mut times, mut syncs, start) = (Vec::new(), Vec::new(), Instant::now());
    while syncs.len() < 4 {
        let published = Instant::now();
        publish(&mut clients, 0);
        let mut stored = false;
        while !stored {
            for (_, request) in queries() {
                let requested = Instant::now();
                clients.with_session(1, |session, now| session.request(now, request));
                let mut replied = false;
                while !replied {
                    for (member, event) in clients.poll(Duration::from_secs(1)) {
                        assert!(!matches!(event, Event::ConnectionLost | Event::Started { .. }), "{member}: {event:?}");
                        stored |= member == 0;
                        replied |= member == 1;
                    }
                }
                times.push(requested.elapsed().as_secs_f64() * 1e3);
            }
            let pause = Instant::now();
            while pause.elapsed() < Duration::from_millis(10) {
                stored |= clients.poll(Duration::from_millis(2)).iter().any(|(member, _)| *member == 0);
            }
        }
        syncs.push(published.elapsed().as_secs_f64());
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

fn publish(clients: &mut LoadClients, member: usize) {
    let files = (0..13).map(|number| file(member, number)).collect();
    clients.with_session(member, |session, now| {
        session.request(now, Request::Publish { files, audience: AudienceRef::Everyone })
    });
}

fn wait(clients: &mut LoadClients, client: usize) -> Response {
    loop {
        for (member, event) in clients.poll(Duration::from_secs(1)) {
            if let Event::RequestFinished { result, .. } = event
                && member == client
            {
                return result.expect("a response");
            }
        }
    }
}

/// The time from request to response, milliseconds.
fn round_trip(clients: &mut LoadClients, member: usize, request: &Request) -> f64 {
    let start = Instant::now();
    clients.with_session(member, |session, now| session.request(now, request.clone()));
    wait(clients, member);
    start.elapsed().as_secs_f64() * 1e3
}
