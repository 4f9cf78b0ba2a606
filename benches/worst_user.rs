//! A registered user who does the worst that he can for a minute, beside honest users: what that costs the server and them.
//!
//! `cargo bench --bench worst_user`. Eight honest users publish, search, resolve and list, one command every 20 ms each on
//! average (at random times, after the one before has ended): first for a tenth of `FILESHARE_BENCH_SECONDS` (default 60)
//! alone, then as long beside the attacker, ten times. The attacker has one session, as every user; it floods with
//! mutations, audiences, searches and subscriptions at once:
//!
//! * it publishes names of random characters, so that every quota is used up and the search structure is as large as
//!   possible, and unpublishes and publishes some again and again;
//! * it publishes one name for an audience that grows by a name each time;
//! * it sends as many searches, lists and subscriptions to the files of the honest users as a session may have pending.
//!
//! What is compared is the time from a request to its response, at the honest users' sockets: all that the server lets them
//! wait for, its disk included, and no work of a client program that would hide it. Honest users who kept the server busy
//! by themselves would hide it too; so they pause. The attacker and the honest users run on other
//! machines: here the attacker gets what nobody else wants of the CPUs (the scheduling policy `SCHED_IDLE`), and the honest
//! users get a CPU as soon as a response arrives (`SCHED_FIFO`); otherwise Linux often wakes them on the CPU on which the
//! server works, which first ends its time slice of up to 3 ms. Other programs delay the server: run it on a quiet machine.
//!
//! Prints each figure beside its limit; exits with a non-zero status if one is exceeded.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod test_support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::Event;
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, ResolvePurpose, Response, Topic};
use fileshare::internals::common::types::{FileName, NamedContent, UserName};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rustix::thread::gettid;

use self::test_support::{LoadClients, ServerProcess, file, percentile, setting};

const HONEST: usize = 8;
/// Files that each honest user has at first.
const HONEST_FILES: usize = 2_000;
const BATCH: usize = 13;
/// Mean time between two commands of an honest user.
const PAUSE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Turns without and with the attack.
const TURNS: u32 = 10;
/// Bytes of the attacker's names: with these, 250,000 names take 32 MiB.
const NAME_BYTES: usize = 134;
/// Members in one part of an audience, and of the growing one at most.
const PART: usize = 15;
const GROWING_MAX: usize = 300;
/// The key under which the growing audience is staged.
const GROWING: u32 = 0;
/// Queries of the attacker in flight; a session may have 32.
const QUERIES: usize = 31;
/// Of the attacker; the most that a session may have.
const SUBSCRIPTIONS: u8 = 32;

const FILE_MAX: u64 = 200 << 20;
const MEMORY_MAX: u64 = 300 << 20;
const START_MAX: Duration = Duration::from_secs(2);
const SLOWDOWN_MAX: f64 = 2.0;

/// The commands of honest users.
const COMMANDS: [&str; 4] = ["pub", "sch", "get", "lap"];

fn main() -> ExitCode {
    let seconds = setting("FILESHARE_BENCH_SECONDS", 60) as u32;
    schedule(&["--reset-on-fork", "--fifo", "--pid", "1"], "the honest users wait for CPU time");
    let mut server = ServerProcess::new(HONEST + 1);
    server.start();
    let mut clients = LoadClients::new(server.address(), HONEST);
    clients.log_in();
    let mut honest = HonestUsers::new();
    honest.fill(&mut clients);
    let turn = Duration::from_secs(seconds.into()) / TURNS;
    let (mut alone, mut beside) = (Times::default(), Times::default());
    let (mut memory, mut attacker) = (0, Attacker::new());
    let (is_attacking, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| attacker.run(server.address(), &is_attacking, &is_over));
        for _ in 0..TURNS {
            run(&mut clients, &mut honest, turn, &mut alone);
            is_attacking.store(true, Ordering::Relaxed);
            run(&mut clients, &mut honest, turn, &mut beside);
            is_attacking.store(false, Ordering::Relaxed);
            memory = memory.max(server.memory_bytes());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    println!(
        "in {seconds} s the attacker had {} mutations stored, {} refused, {} searches answered; it has {} publications",
        attacker.done,
        attacker.refused,
        attacker.searches,
        attacker.published.len()
    );
    let file_bytes: u64 = ["", "-wal", "-shm"].iter().map(|suffix| length(&server.data(), suffix)).sum();
    server.kill();
    let start = server.start();
    let after = server.memory_bytes();
    let mut ok = check("data file and log, MB", file_bytes as f64 / 1e6, FILE_MAX as f64 / 1e6);
    ok &= check("server's memory, MB", memory as f64 / 1e6, MEMORY_MAX as f64 / 1e6);
    ok &= check("server's memory after its next start, MB", after as f64 / 1e6, MEMORY_MAX as f64 / 1e6);
    ok &= check("next start, s", start.as_secs_f64(), START_MAX.as_secs_f64());
    for (kind, command) in COMMANDS.iter().enumerate() {
        let (alone, beside) = (&mut alone.0[kind], &mut beside.0[kind]);
        let (before, during) = (percentile(alone, 990), percentile(beside, 990));
        println!(
            "{command}: 99th percentile {before:.2} ms alone, {during:.2} ms beside the attacker; medians {:.2} and {:.2} ms; {} and {} commands",
            percentile(alone, 500),
            percentile(beside, 500),
            alone.len(),
            beside.len()
        );
        ok &= check(&format!("{command}: 99th percentile beside the attacker / alone"), during / before, SLOWDOWN_MAX);
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sets the scheduling policy of this thread; prints what follows if that is not possible.
fn schedule(policy: &[&str], otherwise: &str) {
    let thread = gettid().as_raw_nonzero().to_string();
    let done = Command::new("chrt").args(policy).arg(&thread).status();
    if !done.is_ok_and(|status| status.success()) {
        println!("chrt {}: not possible: {otherwise}", policy.join(" "));
    }
}

fn check(what: &str, figure: f64, limit: f64) -> bool {
    let is_within = figure <= limit;
    println!("{}{what}: {figure:.2}, limit {limit:.2}", if is_within { "" } else { "EXCEEDED: " });
    is_within
}

fn length(path: &Path, suffix: &str) -> u64 {
    fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |metadata| metadata.len())
}

/// Milliseconds of each command, by kind.
#[derive(Default)]
struct Times([Vec<f64>; COMMANDS.len()]);

/// Runs the honest users for `time`, and then until nothing of theirs is in flight.
fn run(clients: &mut LoadClients, honest: &mut HonestUsers, time: Duration, times: &mut Times) {
    let end = Instant::now() + time;
    // When each one's next command begins; `None` while one is in flight.
    let mut next: Vec<_> = (0..HONEST).map(|_| Some(Instant::now() + honest.pause())).collect();
    loop {
        let now = Instant::now();
        for (user, next) in next.iter_mut().enumerate() {
            if now < end && next.take_if(|next| *next <= now).is_some() {
                honest.begin(clients, user);
            }
        }
        if now >= end && next.iter().all(Option::is_some) {
            return;
        }
        let wait = next.iter().flatten().min().map_or(TIMEOUT, |next| (*next).min(end) - now);
        for (user, event) in clients.poll(wait) {
            let (kind, took) = honest.on_response(user, &response(event));
            times.0[kind].push(took.as_secs_f64() * 1e3);
            next[user] = Some(Instant::now() + honest.pause());
        }
    }
}

fn response(event: Event) -> Response {
    match event {
        Event::RequestFinished { result: Ok(response), .. } => response,
        other => panic!("{other:?}"),
    }
}

/// Users who run one command after the other.
struct HonestUsers {
    rng: ChaCha20Rng,
    /// The kind and the begin of each one's command.
    commands: Vec<(usize, Instant)>,
}

impl HonestUsers {
    fn new() -> Self {
        Self { rng: ChaCha20Rng::seed_from_u64(3), commands: vec![(0, Instant::now()); HONEST] }
    }

    /// The time between two commands of a user: exponentially distributed, as independent events are.
    fn pause(&mut self) -> Duration {
        PAUSE.mul_f64(-self.rng.gen_range(f64::EPSILON..1.0).ln())
    }

    fn fill(&mut self, clients: &mut LoadClients) {
        for user in 0..HONEST {
            for first in (0..HONEST_FILES).step_by(BATCH) {
                publish(clients, user, (first..first + BATCH).map(|number| file(user, number)).collect());
                while !clients
                    .poll(Duration::from_secs(1))
                    .iter()
                    .any(|(_, e)| matches!(e, Event::RequestFinished { .. }))
                {}
            }
        }
    }

    fn begin(&mut self, clients: &mut LoadClients, user: usize) {
        let kind = self.rng.gen_range(0..COMMANDS.len());
        self.commands[user] = (kind, Instant::now());
        let other = (user + 1) % HONEST;
        let NamedContent { name, .. } = file(other, self.rng.gen_range(0..HONEST_FILES));
        match COMMANDS[kind] {
            // A new content under an old name.
            "pub" => {
                let mut changed = file(user, self.rng.gen_range(0..HONEST_FILES));
                changed.content.hash.0 = self.rng.r#gen();
                publish(clients, user, vec![changed]);
            }
            "sch" => {
                let needle = name.as_str()[name.as_str().len() - 9..].to_owned();
                send(clients, user, Request::Search { query: NameQuery::Substring(needle), cursor: None });
            }
            "get" => send(
                clients,
                user,
                Request::Resolve { query: NameQuery::Exact(name), purpose: ResolvePurpose::Download, cursor: None },
            ),
            _ => send(clients, user, Request::Peers { cursor: None }),
        }
    }

    /// The kind and the time of the command that the response ends.
    fn on_response(&self, user: usize, response: &Response) -> (usize, Duration) {
        match response {
            Response::Contents { entries, next: None } => assert_eq!(entries.len(), 1),
            Response::SearchResults { names, next: None } => assert!(!names.is_empty()),
            Response::Published { .. } | Response::Peers { next: None, .. } => {}
            other => panic!("user {user}: {other:?}"),
        }
        let (kind, begun) = self.commands[user];
        (kind, begun.elapsed())
    }
}

/// See the module's documentation.
struct Attacker {
    rng: ChaCha20Rng,
    /// Characters of one to four bytes.
    characters: Vec<char>,
    published: Vec<FileName>,
    /// The members of the growing audience that are staged.
    staged: usize,
    /// What follows the staging in flight.
    after_staging: Option<Request>,
    step: u64,
    /// Of mutations and audiences, and of searches.
    in_flight: (usize, usize),
    done: u64,
    refused: u64,
    searches: u64,
}

impl Attacker {
    fn new() -> Self {
        let ranges = ['!'..='~', '¡'..='ӿ', '一'..='鿿', '\u{10000}'..='\u{1ffff}'];
        let printable = |c: &char| !matches!(c, '/' | '\\') && FileName::parse(&c.to_string()).is_ok();
        let characters = ranges.into_iter().flat_map(|range| range.filter(printable).take(2_000)).collect();
        Self {
            rng: ChaCha20Rng::seed_from_u64(4),
            characters,
            published: Vec::new(),
            staged: 0,
            after_staging: None,
            step: 0,
            in_flight: (0, 0),
            done: 0,
            refused: 0,
            searches: 0,
        }
    }

    /// Attacks while `is_attacking`, until `is_over`.
    fn run(&mut self, server: SocketAddr, is_attacking: &AtomicBool, is_over: &AtomicBool) {
        schedule(&["--idle", "--pid", "0"], "the attacker takes CPU time from the others");
        let mut clients = LoadClients::from(server, HONEST, 1);
        clients.log_in();
        while !is_over.load(Ordering::Relaxed) {
            let attacks = is_attacking.load(Ordering::Relaxed);
            if attacks && self.in_flight == (0, 0) {
                self.mutate(&mut clients);
                (0..QUERIES).for_each(|_| self.search(&mut clients));
            }
            for (_, event) in clients.poll(Duration::from_millis(10)) {
                self.on_response(&mut clients, &response(event), !attacks);
            }
        }
    }

    fn on_response(&mut self, clients: &mut LoadClients, response: &Response, is_over: bool) {
        let is_query =
            matches!(response, Response::SearchResults { .. } | Response::Contents { .. } | Response::Subscribed(_));
        if is_query {
            self.in_flight.1 -= 1;
            self.searches += 1;
        } else {
            self.in_flight.0 -= 1;
            self.done += u64::from(matches!(response, Response::Published { .. } | Response::Unpublished { .. }));
            self.refused += u64::from(matches!(response, Response::OverQuota { .. }));
        }
        match self.after_staging.take_if(|_| *response == Response::AudienceStaged) {
            Some(request) => self.send_mutation(clients, request),
            None if is_over => {}
            None if is_query => self.search(clients),
            None => self.mutate(clients),
        }
    }

    fn mutate(&mut self, clients: &mut LoadClients) {
        self.step += 1;
        // Seldom, because members of new audiences count for the rate, which is better spent on names.
        match (self.step % 128, self.step % 32) {
            // The audience of one name grows.
            (0, _) => {
                self.staged = if self.staged + PART > GROWING_MAX { 0 } else { self.staged };
                let users = (self.staged..self.staged + PART).map(|number| member(number as u64)).collect();
                let part = (self.staged / PART) as u16;
                self.staged += PART;
                self.stage(clients, GROWING, part, users, vec![named("growing", self.step)]);
            }
            // A small audience that no other publication has. The growing one begins anew: a session stages one at a time.
            (64, _) if self.step > 8_192 => {
                self.staged = 0;
                let users = (0..PART).map(|_| member(self.rng.r#gen())).collect();
                let files = self.random_files(1);
                self.stage(clients, self.step as u32, 0, users, files);
            }
            (_, 1) if self.published.len() > 1_000 => {
                let at = self.rng.gen_range(0..self.published.len() - 4);
                let names = self.published.drain(at..at + 4).collect();
                self.send_mutation(clients, Request::Unpublish { names });
            }
            _ => {
                let files = self.random_files(5);
                self.send_mutation(clients, Request::Publish { files, audience: AudienceRef::Everyone });
            }
        }
    }

    fn stage(
        &mut self,
        clients: &mut LoadClients,
        key: u32,
        part: u16,
        users: Vec<UserName>,
        files: Vec<NamedContent>,
    ) {
        self.after_staging = Some(Request::Publish { files, audience: AudienceRef::Staged(key) });
        self.send_mutation(clients, Request::StageAudience { key, part, users });
    }

    fn send_mutation(&mut self, clients: &mut LoadClients, request: Request) {
        self.in_flight.0 += 1;
        send(clients, 0, request);
    }

    fn random_files(&mut self, count: usize) -> Vec<NamedContent> {
        let files: Vec<_> = (0..count).map(|_| named(&self.random_text(NAME_BYTES), self.rng.r#gen())).collect();
        self.published.extend(files.iter().map(|file| file.name.clone()));
        files
    }

    fn random_text(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes - 4 {
            text.push(*self.characters.choose(&mut self.rng).expect("characters"));
        }
        text
    }

    fn search(&mut self, clients: &mut LoadClients) {
        self.in_flight.1 += 1;
        let query = match self.rng.gen_range(0..6) {
            0 => {
                let name = file(self.rng.gen_range(0..HONEST), self.rng.gen_range(0..HONEST_FILES)).name;
                let number = self.rng.gen_range(0..SUBSCRIPTIONS);
                return send(clients, 0, Request::Subscribe { number, topic: Topic::File(name) });
            }
            // All names are compared, and none matches.
            1 => NameQuery::SubstringIgnoreCase("qz".into()),
            2 => NameQuery::Substring(String::new()),
            // Few names match, but the trigrams of many do.
            3 => NameQuery::Substring("reports/report".into()),
            4 => NameQuery::SubstringIgnoreCase("s 0000".into()),
            _ => NameQuery::SubstringIgnoreCase(self.random_text(500)),
        };
        let request = match self.rng.r#gen() {
            true => Request::Search { query, cursor: None },
            false => Request::Resolve { query, purpose: ResolvePurpose::List, cursor: None },
        };
        send(clients, 0, request);
    }
}

fn named(name: &str, seed: u64) -> NamedContent {
    let name = FileName::parse(name).expect("printable characters");
    NamedContent { name, ..file(HONEST, seed as usize) }
}

/// A name of the greatest length.
fn member(number: u64) -> UserName {
    UserName::parse(&format!("{number:064}")).expect("digits")
}

fn publish(clients: &mut LoadClients, user: usize, files: Vec<NamedContent>) {
    send(clients, user, Request::Publish { files, audience: AudienceRef::Everyone });
}

fn send(clients: &mut LoadClients, user: usize, request: Request) {
    clients.with_session(user, |session, now| session.request(now, request));
}
