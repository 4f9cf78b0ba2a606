//! What the status page costs the sessions: scrapes and hostile connections beside many clients at work.
//!
//! `cargo bench --bench status`; `FILESHARE_BENCH_USERS` sessions (default 10,000) send heartbeats, and one after the other
//! a search, [`SEARCHES_PER_S`]. First for `FILESHARE_BENCH_SECONDS` (default 20) without the page, then as
//! long with a scrape of /metrics each second beside [`HOSTILE`] connections: that send a byte a second, send headers
//! without end, send nothing, and send requests and junk one after the other.
//!
//! Prints, for each half, how long the longest turn of the event loop took, the server's CPU time, how many heartbeats were answered
//! of those that were due, and how long searches and scrapes took. A turn's wall time is at least its CPU time; so that it is hardly
//! more, the server runs under SCHED_FIFO where that is permitted (root), so that nothing else takes its CPU in the middle of a
//! turn. Exits with a non-zero status if a turn took over 5 ms, a session was lost, or a heartbeat or a scrape was not answered;
//! without SCHED_FIFO, one turn in a thousand may take longer. Beside other load, `chrt -r 5` before the bench keeps the sessions
//! going too.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{NameQuery, Request};

use self::test_support::{LoadClients, ServerProcess, percentile, setting};

const SEARCHES_PER_S: u32 = 500;
const HOSTILE: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(10);
/// One byte of a slow request.
const BYTE_PAUSE: Duration = Duration::from_secs(1);
const HEADER_BYTES: usize = 1 << 20;
/// Turns of the event loop above this are counted, seconds: one of [`TURN_BOUNDS`].
const TURN_BOUND: &str = "0.005";
/// Bounds of the histogram on /metrics.
const TURN_BOUNDS: [&str; 11] =
    ["0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.25", "10"];
/// Between two heartbeats of a session, the server's default.
const HEARTBEAT_S: f64 = 2.0;
/// Least part of the heartbeats due that is answered.
const HEARTBEATS_MIN: f64 = 0.95;

fn main() -> ExitCode {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let time = Duration::from_secs(setting("FILESHARE_BENCH_SECONDS", 20) as u64);
    let status = free_address();
    let mut server = ServerProcess::new(users);
    server.arguments = vec!["--status".into(), status.to_string()];
    let is_real_time = Command::new("chrt").args(["-f", "10", "true"]).status().is_ok_and(|status| status.success());
    if is_real_time {
        server.start_under(&["chrt", "-f", "10"]);
    } else {
        println!("without SCHED_FIFO: turns that other programs interrupted count as long");
        server.start();
    }
    let mut clients = LoadClients::new(server.address(), users);
    clients.log_in();
    let over = &AtomicBool::new(false);
    let mut is_ok = true;
    for hostile in [0, HOSTILE] {
        let (before, cpu_s) = (scrape(status).expect("the page answers"), server.cpu_s());
        let (mut searches, mut scrapes) = (Vec::new(), Vec::new());
        scope(|scope| {
            for number in 0..hostile {
                scope.spawn(move || harass(status, number, over));
            }
            let scraper = (hostile > 0).then(|| scope.spawn(|| scrape_each_second(status, over)));
            searches = work(&mut clients, time);
            over.store(hostile > 0, Ordering::Relaxed);
            scrapes.extend(scraper.into_iter().flat_map(|scraper| scraper.join().expect("all scrapes are answered")));
        });
        let cpu_s = server.cpu_s() - cpu_s;
        let metrics = scrape(status).expect("the page answers");
        println!("{hostile} hostile connections, {} scrapes:", scrapes.len());
        println!("  {cpu_s:.1} s of CPU time in {} s", time.as_secs());
        print_times("searches", &mut searches);
        print_times("scrapes", &mut scrapes);
        is_ok &= check(&before, &metrics, users, time, is_real_time);
    }
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `times` in milliseconds.
fn print_times(what: &str, times: &mut [f64]) {
    if !times.is_empty() {
        let [median, most, longest] = [500, 990, 1_000].map(|per_mille| percentile(times, per_mille));
        println!("  {} {what}, median {median:.2} ms, 99 % {most:.2} ms, longest {longest:.2} ms", times.len());
    }
}

/// Prints what happened between two scrapes, and returns whether it is as it must be.
fn check(
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
    users: usize,
    time: Duration,
    is_real_time: bool,
) -> bool {
    let counted = |name: &str| after[name] - before[name];
    let turns = counted("fileshare_loop_turn_seconds_count");
    let within = |bound: &str| counted(&format!("fileshare_loop_turn_seconds_bucket{{le=\"{bound}\"}}"));
    let holds_all = TURN_BOUNDS.iter().find(|bound| within(bound) == turns);
    let long = turns - within(TURN_BOUND);
    println!(
        "  {turns} turns, the longest within {} s, {long} above {TURN_BOUND} s",
        holds_all.unwrap_or(&"more than 10")
    );
    let due = users as f64 * time.as_secs_f64() / HEARTBEAT_S;
    let heartbeats = counted("fileshare_requests_total{kind=\"heartbeat\",result=\"ok\"}");
    let lost = users as f64 - after["fileshare_sessions"];
    println!(
        "  {heartbeats} heartbeats answered of {due} due, {lost} of {users} sessions lost, {} datagrams dropped by the kernel",
        counted("fileshare_kernel_drops_total")
    );
    let long_allowed = if is_real_time { 0.0 } else { turns / 1_000.0 };
    // The first and the last heartbeat of a session may be outside.
    lost == 0.0 && long <= long_allowed && heartbeats >= HEARTBEATS_MIN * due
}

/// Lets the sessions work. Returns how long searches took, milliseconds.
fn work(clients: &mut LoadClients, time: Duration) -> Vec<f64> {
    let (start, mut sent, mut times) = (Instant::now(), 0, Vec::new());
    let mut begun = vec![start; clients.len()];
    while start.elapsed() < time {
        let next = start + sent * Duration::from_secs(1) / SEARCHES_PER_S;
        for (client, event) in clients.poll(next.saturating_duration_since(Instant::now())) {
            match event {
                Event::RequestFinished { result: Ok(_), .. } => times.push(begun[client].elapsed().as_secs_f64() * 1e3),
                other => panic!("{client}: {other:?}"),
            }
        }
        if Instant::now() >= next {
            let client = sent as usize % clients.len();
            begun[client] = Instant::now();
            search(clients, client);
            sent += 1;
        }
    }
    times
}

fn search(clients: &mut LoadClients, client: usize) {
    let query = NameQuery::SubstringIgnoreCase("report".into());
    clients.with_session(client, |session, now| session.request(now, Request::Search { query, cursor: None }));
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket")
}

/// Milliseconds that each took.
fn scrape_each_second(status: SocketAddr, over: &AtomicBool) -> Vec<f64> {
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let start = Instant::now();
        scrape(status).expect("the page answers");
        times.push(start.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_secs(1).saturating_sub(start.elapsed()));
    }
    times
}

fn scrape(status: SocketAddr) -> io::Result<BTreeMap<String, f64>> {
    let mut stream = connect(status)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let body = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?.1;
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    Ok(samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect())
}

fn connect(status: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(status)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Connects again and again; the server closes what takes too long or is none.
fn harass(status: SocketAddr, number: usize, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let _ = connect(status).and_then(|stream| match number % 4 {
            0 => send_slowly(stream, over),
            1 => send_huge_header(stream),
            2 => wait_for_close(stream, over),
            _ => send_junk(stream),
        });
        sleep(Duration::from_millis(10));
    }
}

fn send_slowly(mut stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
    for byte in b"GET /metrics HTTP/1.1\r\n".iter().cycle() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        stream.write_all(&[*byte])?;
        sleep(BYTE_PAUSE);
    }
    Ok(())
}

fn send_huge_header(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    stream.write_all(&vec![b'x'; HEADER_BYTES])
}

fn wait_for_close(mut stream: TcpStream, over: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    while !over.load(Ordering::Relaxed) {
        match stream.read(&mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    Ok(())
}

fn send_junk(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n\x00\xff junk\r\n\r\n".repeat(100))?;
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}
