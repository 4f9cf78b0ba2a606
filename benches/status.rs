//! What the status page costs the sessions: scrapes and hostile connections beside many clients at work.
//!
//! `cargo bench --bench status`; `FILESHARE_BENCH_USERS` sessions (default 10,000), of whom the data file has
//! `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000), send heartbeats, and in turn [`SEARCHES_PER_S`] searches and
//! [`PUBLISHES_PER_S`] publications, which the journal stores. The last [`PROBES`] of them only send heartbeats: their answers
//! are timed. First for `FILESHARE_BENCH_SECONDS` (default 30) without the page, then as long with a scrape of /metrics and of
//! /stats.json, with 250 users, each second, beside [`HOSTILE`] connections: that send a byte a second, send headers
//! without end, send nothing, and send requests and junk one after the other.
//!
//! Prints, for each half, how long the longest turn of the event loop took, how many heartbeats were answered of those that were due
//! and how late, the server's CPU time, and how long searches, publications and scrapes took. Turns are measured in CPU time, so
//! that other programs count for none. Exits with a non-zero status if a turn took over 5 ms, a session was lost, a heartbeat was
//! answered late, or a scrape was not answered.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "status/http.rs"]
mod http;
mod test_support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};

use self::http::{get, harass, scrape};
use self::test_support::{LoadClients, ServerProcess, file, fill, percentile, setting};

const SEARCHES_PER_S: u32 = 500;
const PUBLISHES_PER_S: u32 = 200;
const PROBES: usize = 500;
const HOSTILE: usize = 16;
/// Turns of the event loop above this are counted, seconds: one of [`TURN_BOUNDS`].
const TURN_BOUND: &str = "0.005";
/// Bounds of the histogram on /metrics.
const TURN_BOUNDS: [&str; 11] =
    ["0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.25", "10"];
/// Between two heartbeats of a session, the server's default.
const HEARTBEAT_S: f64 = 2.0;
/// Least part of the heartbeats due that is answered: the first and the last of a session may be outside.
const HEARTBEATS_MIN: f64 = 0.95;
/// Most milliseconds until the answer to a heartbeat: the liveness time is 1 s longer than the time between two.
const LATE_MAX_MS: f64 = 1_000.0;
/// The same for 999 of 1,000.
const LATE_MOST_MS: f64 = 100.0;

/// Milliseconds.
#[derive(Default)]
struct Times {
    searches: Vec<f64>,
    publications: Vec<f64>,
    heartbeats: Vec<f64>,
    scrapes: Vec<f64>,
}

fn main() -> ExitCode {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let publications = setting("FILESHARE_BENCH_PUBLICATIONS", 1_000_000);
    let time = Duration::from_secs(setting("FILESHARE_BENCH_SECONDS", 30) as u64);
    let status = free_address();
    let mut server = ServerProcess::new(users);
    fill(&server, users, publications);
    server.arguments = vec!["--status".into(), status.to_string(), "--status-users".into()];
    server.start();
    let probes = PROBES.min(users / 2);
    let mut clients = LoadClients::new(server.address(), users - probes);
    let mut probes = LoadClients::from(server.address(), users - probes, probes);
    clients.log_in();
    probes.log_in();
    let (mut halves, mut published) = (Vec::new(), publications);
    for hostile in [0, HOSTILE] {
        let over = &AtomicBool::new(false);
        let (before, cpu_s) = (scrape(status).expect("the page answers"), server.cpu_s());
        let mut times = Times::default();
        scope(|scope| {
            for number in 0..hostile {
                scope.spawn(move || harass(status, number, over));
            }
            let scraper = (hostile > 0).then(|| scope.spawn(|| scrape_each_second(status, over)));
            let prober = scope.spawn(|| probe(&mut probes, over));
            {
                // Also when a panic ends the work: otherwise the other threads would go on.
                let _end = EndOnDrop(over);
                work(&mut clients, time, &mut published, &mut times);
            }
            times.heartbeats = prober.join().expect("heartbeats are answered");
            times.scrapes = scraper.map(|scraper| scraper.join().expect("scrapes are answered")).unwrap_or_default();
        });
        let cpu = (server.cpu_s() - cpu_s) / time.as_secs_f64() * 100.0;
        let mut figures = Figures::new(&before, &scrape(status).expect("the page answers"), users, time);
        figures.rows.push(("CPU time, % of one core".into(), cpu));
        let (latest, most) = figures.add_times("heartbeats of idle sessions", &mut times.heartbeats);
        figures.is_ok &= latest <= LATE_MAX_MS && most <= LATE_MOST_MS;
        figures.add_times("searches", &mut times.searches);
        figures.add_times("publications", &mut times.publications);
        figures.add_times("scrapes", &mut times.scrapes);
        halves.push(figures);
    }
    report(&halves);
    if halves.iter().all(|figures| figures.is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What one half has shown: names with their values, and whether they are as they must be.
struct Figures {
    rows: Vec<(String, f64)>,
    is_ok: bool,
}

impl Figures {
    /// Between two scrapes of `users` sessions.
    fn new(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, users: usize, time: Duration) -> Self {
        let counted = |name: &str| after[name] - before[name];
        let turns = counted("fileshare_loop_turn_cpu_seconds_count");
        let within = |bound: &str| counted(&format!("fileshare_loop_turn_cpu_seconds_bucket{{le=\"{bound}\"}}"));
        let holds_all = TURN_BOUNDS.iter().find(|bound| within(bound) == turns).copied();
        let (long, due) = (turns - within(TURN_BOUND), users as f64 * time.as_secs_f64() / HEARTBEAT_S);
        let answered = counted("fileshare_requests_total{kind=\"heartbeat\",result=\"ok\"}") / due;
        let lost = users as f64 - after["fileshare_sessions"];
        let rows = [
            ("turns of the event loop", turns),
            (
                "longest turn within, ms of CPU time",
                holds_all.map_or(f64::INFINITY, |bound| bound.parse::<f64>().expect("a number") * 1e3),
            ),
            ("turns above 5 ms of CPU time", long),
            ("sessions lost", lost),
            ("heartbeats answered, % of those due", answered * 100.0),
            ("datagrams dropped by the kernel", counted("fileshare_kernel_drops_total")),
            ("commits to the data file", counted("fileshare_journal_commit_seconds_count")),
        ];
        let rows = rows.map(|(what, value)| (what.to_owned(), value)).into();
        Self { rows, is_ok: lost == 0.0 && long == 0.0 && answered >= HEARTBEATS_MIN }
    }

    /// Returns the longest, and 999 of 1,000.
    fn add_times(&mut self, what: &str, times: &mut [f64]) -> (f64, f64) {
        let [most, longest] =
            [999, 1_000].map(|per_mille| if times.is_empty() { 0.0 } else { percentile(times, per_mille) });
        self.rows.push((format!("{what}: answers"), times.len() as f64));
        self.rows.push((format!("{what}: 99.9 % within, ms"), most));
        self.rows.push((format!("{what}: the longest, ms"), longest));
        (longest, most)
    }
}

/// Sets a flag when it is dropped.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Prints the figures of both halves, and writes them for `scripts/plot.py`.
fn report(halves: &[Figures]) {
    let round = |value: f64| (value * 100.0).round() / 100.0;
    let mut table = String::from("what,without requests,with scrapes and hostile connections\n");
    for (at, (what, first)) in halves[0].rows.iter().enumerate() {
        let (first, second) = (round(*first), round(halves[1].rows[at].1));
        println!("{what:45} {first:>12} {second:>12}");
        table += &format!("\"{what}\",{first},{second}\n");
    }
    if let Some(folder) = std::env::var_os("FILESHARE_BENCH_CSV") {
        std::fs::write(Path::new(&folder).join("status.csv"), table).expect("a folder for figures");
    }
}

/// Lets the sessions work: each asks for one thing at a time.
fn work(clients: &mut LoadClients, time: Duration, published: &mut usize, times: &mut Times) {
    let (start, mut sent) = (Instant::now(), 0);
    let mut begun = vec![start; clients.len()];
    while start.elapsed() < time {
        let next = start + sent * Duration::from_secs(1) / (SEARCHES_PER_S + PUBLISHES_PER_S);
        for (client, event) in clients.poll(next.saturating_duration_since(Instant::now())) {
            let times = match event {
                Event::RequestFinished { result: Ok(Response::Published { .. }), .. } => &mut times.publications,
                Event::RequestFinished { result: Ok(Response::SearchResults { .. }), .. } => &mut times.searches,
                other => panic!("{client}: {other:?}"),
            };
            times.push(begun[client].elapsed().as_secs_f64() * 1e3);
        }
        if Instant::now() >= next {
            let client = sent as usize % clients.len();
            begun[client] = Instant::now();
            let publishes = |requests: u32| requests * PUBLISHES_PER_S / (SEARCHES_PER_S + PUBLISHES_PER_S);
            let request = if publishes(sent + 1) > publishes(sent) {
                *published += 1;
                Request::Publish { files: vec![file(client, *published)], audience: AudienceRef::Everyone }
            } else {
                Request::Search { query: NameQuery::SubstringIgnoreCase("report".into()), cursor: None }
            };
            clients.with_session(client, |session, now| session.request(now, request));
            sent += 1;
        }
    }
}

/// How long the answers to heartbeats took, milliseconds.
fn probe(clients: &mut LoadClients, over: &AtomicBool) -> Vec<f64> {
    clients.take_round_trips();
    while !over.load(Ordering::Relaxed) {
        assert!(clients.poll(Duration::from_millis(100)).is_empty(), "nothing is asked for");
    }
    clients.take_round_trips().iter().map(|time| time.as_secs_f64() * 1e3).collect()
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket")
}

/// Milliseconds that each took.
fn scrape_each_second(status: SocketAddr, over: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let second = Instant::now();
        for path in ["/metrics", "/stats.json"] {
            let start = Instant::now();
            get(status, path).expect("the page answers");
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        sleep(Duration::from_secs(1).saturating_sub(second.elapsed()));
    }
    times
}
