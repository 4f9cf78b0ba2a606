//! How many instructions the server executes for a heartbeat, a login, a search and a publication, and how many sealing a
//! datagram takes. Unlike a time, that is the same within 1 % in every run and beside any other load.
//!
//! `cargo bench --bench instructions [NAME...]` counts them with valgrind's callgrind, and exits with a non-zero status if
//! one has grown by more than 5 % over `benches/instructions.tsv`. `FILESHARE_WRITE_INSTRUCTIONS=1` before it writes that file
//! anew. Only what [`callgrind_counts`] or [`Bench::serve_login`] runs is counted: the server's core, without its socket and its
//! journal, at one session of [`SESSIONS`] and among [`NAMES`] published names.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "instructions/figures.rs"]
mod figures;
mod test_support;

use std::fs;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::time::Duration;

use fileshare::internals::common::message::{AudienceRef, ClientMessage, Heartbeat, NameQuery, Request};
use fileshare::internals::common::types::RequestId;
use fileshare::internals::server::core::ReceiveBuffer;
use fileshare::internals::server::journal::JournalSeq;

use self::figures::{Figures, complaints, growth_percent, parse};
use self::test_support::{Bench, SessionEnds, file, sealed};

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv");
const SESSIONS: usize = 64;
/// Files in a publish request.
const BATCH: usize = 13;
const NAMES: usize = 780 * BATCH;
/// How often each session sends a heartbeat, or each search is made, where that is counted.
const ROUNDS: usize = 20;
/// Publish requests that are counted. Hash tables have random keys, and so grow at slightly different times: the mean of
/// this many requests is the same within 0.5 %.
const PUBLISH_ROUNDS: usize = 200;
/// What the server lets a session use of its time comes back meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// What is counted: its name; what does it, any number of times, and says how often; the function that callgrind counts.
type Counted = (&'static str, fn() -> usize, &'static str);
const COUNTED: [Counted; 5] = [
    ("heartbeat", heartbeats, "callgrind_counts"),
    ("login", logins, "serve_login"),
    ("publish", publications, "callgrind_counts"),
    ("seal", seals, "callgrind_counts"),
    ("search", searches, "callgrind_counts"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [option, name] = arguments.as_slice()
        && option == "--run"
    {
        let (_, run, _) = COUNTED.iter().find(|(counted, ..)| counted == name).expect("one of the names");
        println!("{}", run());
        return ExitCode::SUCCESS;
    }
    let is_asked = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let measured: Figures = COUNTED
        .iter()
        .filter(|(name, ..)| is_asked(name))
        .map(|counted| (counted.0.to_owned(), count(counted)))
        .collect();
    let mut committed = parse(&fs::read_to_string(FIGURES).expect("committed figures")).expect("names and numbers");
    if std::env::var_os("FILESHARE_WRITE_INSTRUCTIONS").is_some() {
        committed.extend(measured.clone());
        write(&committed);
    }
    committed.retain(|name, _| is_asked(name));
    for (name, &after) in &measured {
        let growth = committed.get(name).map_or(f64::NAN, |&before| growth_percent(before, after));
        println!("{name:10} {after:10} instructions, {growth:+.2} %");
    }
    let complaints = complaints(&committed, &measured);
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one of them under callgrind. Returns the mean number of instructions.
fn count((name, _, function): &Counted) -> u64 {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{function}*"))
        .arg(program)
        .args(["--run", name])
        .output()
        .unwrap_or_else(|error| panic!("valgrind does not start: {error}"));
    let (times, report) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let collected = report.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match (output.status.success(), collected, times.trim().parse::<u64>()) {
        (true, Some(collected), Ok(times)) if collected > 0 => collected / times,
        _ => panic!("{name} was not counted: {report}"),
    }
}

fn write(figures: &Figures) {
    let mut text = "# Instructions of each, on x86-64: cargo bench --bench instructions\n".to_owned();
    figures.iter().for_each(|(name, count)| text += &format!("{name}\t{count}\n"));
    fs::write(FIGURES, text).expect("the committed figures can be written");
}

#[inline(never)]
fn callgrind_counts<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

fn logins() -> usize {
    let mut bench = Bench::new(SESSIONS);
    (0..SESSIONS).for_each(|number| _ = bench.log_in(number));
    SESSIONS
}

fn heartbeats() -> usize {
    let mut bench = Bench::new(SESSIONS);
    let mut ends: Vec<SessionEnds> = (0..SESSIONS).map(|number| bench.log_in(number)).collect();
    for number in 1..=ROUNDS as u32 {
        let message = ClientMessage::Heartbeat(Heartbeat { number, free_slots: 1 });
        for ends in &mut ends {
            let mut datagram = sealed(&mut ends.client, |text| message.encode(text));
            callgrind_counts(|| {
                bench.server.handle_datagram(bench.now, ends.address, &mut datagram, &mut bench.out);
                bench.out.flush(|datagrams| assert_eq!(datagrams.len(), 1));
            });
        }
    }
    ROUNDS * SESSIONS
}

/// Seals and opens the datagram of a heartbeat.
fn seals() -> usize {
    let mut ends = Bench::new(1).log_in(0);
    let mut datagram = Vec::new();
    for number in 1..=ROUNDS as u32 {
        let message = ClientMessage::Heartbeat(Heartbeat { number, free_slots: 1 });
        callgrind_counts(|| {
            ends.client.seal_into(&mut datagram, |text| message.encode(text));
            ends.server.open(&mut datagram).expect("a sealed datagram").len()
        });
    }
    ROUNDS
}

fn publications() -> usize {
    let mut sessions = Sessions::new();
    sessions.publish(NAMES / BATCH, false);
    sessions.publish(PUBLISH_ROUNDS, true);
    PUBLISH_ROUNDS
}

/// Searches with and without regard to case, for what most names have, for what one has and for what none has.
fn searches() -> usize {
    let mut sessions = Sessions::new();
    sessions.publish(NAMES / BATCH, false);
    let needles = ["report", "0000777", "mp4/reports"].map(str::to_owned);
    let queries = needles
        .into_iter()
        .flat_map(|needle| [NameQuery::Substring(needle.clone()), NameQuery::SubstringIgnoreCase(needle)]);
    let queries: Vec<NameQuery> = queries.collect();
    for query in queries.iter().cycle().take(ROUNDS * queries.len()) {
        sessions.request(1, Request::Search { query: query.clone(), cursor: None }, true);
    }
    ROUNDS * queries.len()
}

/// A user who publishes and one who searches.
struct Sessions {
    bench: Bench,
    ends: [SessionEnds; 2],
    /// Requests so far of each.
    requests: [u64; 2],
    batches: usize,
}

impl Sessions {
    fn new() -> Self {
        let mut bench = Bench::new(2);
        let ends = [0, 1].map(|number| bench.log_in(number));
        Self { bench, ends, requests: [0; 2], batches: 0 }
    }

    /// Publishes further batches of files.
    fn publish(&mut self, batches: usize, is_counted: bool) {
        for batch in self.batches..self.batches + batches {
            let files = (batch * BATCH..(batch + 1) * BATCH).map(|number| file(0, number)).collect();
            self.request(0, Request::Publish { files, audience: AudienceRef::Everyone }, is_counted);
        }
        self.batches += batches;
    }

    /// A request with its reply, of which the server's part may be counted.
    fn request(&mut self, member: usize, request: Request, is_counted: bool) {
        let (bench, ends) = (&mut self.bench, &mut self.ends[member]);
        bench.now += PAUSE;
        self.requests[member] += 1;
        let id = RequestId(self.requests[member]);
        let message = ClientMessage::Request { id, lowest_pending: id, pages: 1, request };
        let mut datagram = sealed(&mut ends.client, |text| message.encode(text));
        let mut serve = || {
            bench.server.handle_datagram(bench.now, ends.address, &mut datagram, &mut bench.out);
            bench.server.handle_durable(JournalSeq(self.requests[0]));
            bench.server.run_deferred_work(bench.now, ReceiveBuffer::MayHoldMore, &mut bench.out);
            bench.out.mutations.clear();
            bench.out.flush(|datagrams| assert_eq!(datagrams.len(), 1));
        };
        if is_counted { callgrind_counts(serve) } else { serve() }
    }
}
