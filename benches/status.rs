//! What the status page costs the sessions: scrapes and hostile connections beside many clients at work.
//!
//! `cargo bench --bench status`; `FILESHARE_BENCH_USERS` sessions (default 10,000) send heartbeats, and one after the other
//! a search, [`SEARCHES_PER_S`]. First for `FILESHARE_BENCH_SECONDS` (default 20) without the page, then as
//! long with a scrape of /metrics each second beside [`HOSTILE`] connections: that send a byte a second, send headers
//! without end, send nothing, and send requests and junk one after the other.
//!
//! Prints how many turns of the event loop were short (wall time, so run it on a quiet machine), the server's CPU time, and
//! how long scrapes took. Exits with a non-zero status if a session was lost, a scrape failed, or more than one turn in a
//! thousand took over 5 ms.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
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
/// Turns of the event loop above this are counted, seconds: a bound of the histogram on /metrics.
const TURN_BOUND: &str = "0.005";

fn main() -> ExitCode {
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let time = Duration::from_secs(setting("FILESHARE_BENCH_SECONDS", 20) as u64);
    let status = free_address();
    let mut server = ServerProcess::new(users);
    server.arguments = vec!["--status".into(), status.to_string()];
    server.start();
    let mut clients = LoadClients::new(server.address(), users);
    clients.log_in();
    let over = &AtomicBool::new(false);
    let (mut searches, mut cpu_s, mut scrapes) = ([0; 2], [0.0; 2], Vec::new());
    for hostile in [0, HOSTILE] {
        let phase = usize::from(hostile > 0);
        let before = server.cpu_s();
        scope(|scope| {
            for number in 0..hostile {
                scope.spawn(move || harass(status, number, over));
            }
            let scraper = (hostile > 0).then(|| scope.spawn(|| scrape_each_second(status, over)));
            searches[phase] = work(&mut clients, time);
            over.store(hostile > 0, Ordering::Relaxed);
            scrapes.extend(scraper.into_iter().flat_map(|scraper| scraper.join().expect("all scrapes are answered")));
        });
        cpu_s[phase] = server.cpu_s() - before;
    }
    report(&scrape(status).expect("the page answers"), users, searches, cpu_s, &mut scrapes)
}

fn report(
    metrics: &BTreeMap<String, f64>,
    users: usize,
    searches: [u64; 2],
    cpu_s: [f64; 2],
    scrapes: &mut [f64],
) -> ExitCode {
    let turns = metrics["fileshare_loop_turn_seconds_count"];
    let short = metrics[&format!("fileshare_loop_turn_seconds_bucket{{le=\"{TURN_BOUND}\"}}")];
    println!("{turns} turns of the event loop, {:.4} % within {TURN_BOUND} s", 100.0 * short / turns);
    println!(
        "without and with the page: {} and {} searches, {:.1} and {:.1} s of CPU time",
        searches[0], searches[1], cpu_s[0], cpu_s[1]
    );
    println!(
        "{} scrapes, median {:.2} ms, longest {:.2} ms",
        scrapes.len(),
        percentile(scrapes, 500),
        percentile(scrapes, 1_000)
    );
    let lost = users as f64 - metrics["fileshare_sessions"];
    println!(
        "{lost} of {users} sessions lost, {} datagrams dropped by the kernel",
        metrics["fileshare_kernel_drops_total"]
    );
    if lost == 0.0 && (turns - short) / turns <= 0.001 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets the sessions work. Returns the number of searches answered.
fn work(clients: &mut LoadClients, time: Duration) -> u64 {
    let (start, mut sent, mut answered) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        let next = start + sent * Duration::from_secs(1) / SEARCHES_PER_S;
        for (client, event) in clients.poll(next.saturating_duration_since(Instant::now())) {
            match event {
                Event::RequestFinished { result: Ok(_), .. } => answered += 1,
                other => panic!("{client}: {other:?}"),
            }
        }
        if Instant::now() >= next {
            search(clients, sent as usize % clients.len());
            sent += 1;
        }
    }
    answered
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
