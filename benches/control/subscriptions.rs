//! The longest iteration of the event loop while files that everybody waits for or has in a list come and go, and peers
//! too. In CPU time, as `searches`, and in wall time.

use std::time::{Duration, Instant};

use fileshare::internals::common::glob::Pattern;
use fileshare::internals::common::message::{AudienceRef, ClientMessage, NameQuery, Request, ResolvePurpose, Topic};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent};
use fileshare::internals::server::journal::JournalSeq;

use super::searches::{cpu_time, iterate, send};
use super::test_support::{Bench, SessionEnds, percentile, sealed};

const SUBSCRIBERS: usize = 1_000;
/// Subscriptions of each to the same files; the other four are to lists.
const FILES: u8 = 28;
/// Files in one request.
const BATCH: usize = 13;
/// Publications a second.
const RATE: u32 = 1_000;
/// Virtual time.
const SECONDS: u32 = 20;
/// A client subscribes to a list four times a second at most, after as many batches.
const BATCHES_PER_LIST: usize = 19;
/// Datagrams that the loop handles in one iteration.
const BURST: usize = 256;

/// What the iterations took, and how long a datagram waited for the loop.
#[derive(Default)]
struct Iterations {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
    /// When the loop has done what has arrived, in virtual time: an iteration begins there, or later, and takes its wall time.
    busy_until: Option<Instant>,
    longest_wait: Duration,
}

impl Iterations {
    /// Runs `iteration` on what arrived at the present virtual time.
    fn measure(&mut self, bench: &mut Bench, iteration: impl FnOnce(&mut Bench)) {
        let (start, cpu_start) = (Instant::now(), cpu_time());
        iteration(bench);
        let wall = start.elapsed();
        self.cpu.push(cpu_time() - cpu_start);
        self.wall.push(wall);
        let busy_until = self.busy_until.map_or(bench.now, |until| until.max(bench.now)) + wall;
        self.longest_wait = self.longest_wait.max(busy_until - bench.now);
        self.busy_until = Some(busy_until);
    }
}

struct Subscriber {
    ends: SessionEnds,
    number: usize,
    last_id: u64,
}

impl Subscriber {
    fn send(&mut self, bench: &mut Bench, request: Request) {
        self.last_id += 1;
        send(bench, &mut self.ends, self.last_id, request);
    }

    /// What a client sends when its lists have changed: the subscriptions, then the requests for the lists.
    fn list_requests(&self) -> Vec<Request> {
        let pattern = |text: &str| Pattern::parse(text).expect("a pattern");
        let patterns = [pattern("build/*.tar"), pattern("*1*"), pattern(&format!("*{:04}*.tar", self.number))];
        let topics = [Topic::Peers].into_iter().chain(patterns.iter().cloned().map(Topic::Files));
        let subscribe = topics.zip(FILES..).map(|(topic, number)| Request::Subscribe { number, topic });
        let lists = patterns.iter().map(|pattern| Request::Resolve {
            query: NameQuery::for_pattern(pattern),
            purpose: ResolvePurpose::Download,
            cursor: None,
        });
        subscribe.chain([Request::Peers { cursor: None }]).chain(lists).collect()
    }
}

pub fn measure() {
    let mut bench = Bench::new(SUBSCRIBERS + 2 + SECONDS as usize);
    let mut publisher = bench.log_in(SUBSCRIBERS);
    let subscriber = |number| Subscriber { ends: bench.log_in(number), number, last_id: 0 };
    let mut subscribers: Vec<Subscriber> = (0..SUBSCRIBERS).map(subscriber).collect();
    for subscriber in &mut subscribers {
        for number in 0..FILES {
            let topic = Topic::File(name(number.into()));
            subscriber.send(&mut bench, Request::Subscribe { number, topic });
            iterate(&mut bench);
        }
    }
    let mut iterations = Iterations::default();
    let (mut id, mut sent, mut lists) = (0, 0, 0);
    let names: Vec<FileName> = (0..32).map(name).collect();
    // One batch publishes them, the next withdraws them.
    for batch in 0..(RATE * SECONDS) as usize / BATCH {
        bench.now += Duration::from_secs(1) * BATCH as u32 / RATE;
        let (second, batches_left) = (batch * BATCH / RATE as usize, batch * BATCH % RATE as usize);
        let visitor = (batches_left < BATCH).then(|| bench.log_in(SUBSCRIBERS + 1 + second));
        let names: Vec<FileName> = names.iter().cycle().skip(batch / 2 * BATCH).take(BATCH).cloned().collect();
        id += 1;
        let request = if batch % 2 == 0 {
            let content = Content { hash: ContentHash([1; 32]), size: 1, mtime_ms: 0 };
            let files = names.iter().map(|name| NamedContent { name: name.clone(), content });
            Request::Publish { files: files.collect(), audience: AudienceRef::Everyone }
        } else {
            Request::Unpublish { names }
        };
        iterations.measure(&mut bench, |bench| {
            send(bench, &mut publisher, id, request);
            if let Some(mut visitor) = visitor {
                let mut logout = sealed(&mut visitor.client, |text| ClientMessage::Logout.encode(text));
                bench.server.handle_datagram(bench.now, visitor.address, &mut logout, &mut bench.out);
            }
            bench.out.mutations.clear();
            bench.server.handle_durable(JournalSeq(id));
            sent += iterate(bench);
        });
        let changed = subscribers.iter_mut().skip(batch % BATCHES_PER_LIST).step_by(BATCHES_PER_LIST);
        let mut requests: Vec<(&mut Subscriber, Vec<Request>)> = changed
            .map(|subscriber| {
                let requests = subscriber.list_requests();
                (subscriber, requests)
            })
            .collect();
        lists += requests.len() * 4;
        for burst in requests.chunks_mut(BURST / 8) {
            iterations.measure(&mut bench, |bench| {
                for (subscriber, requests) in burst {
                    requests.drain(..).for_each(|request| subscriber.send(bench, request));
                }
                sent += iterate(bench);
            });
        }
        while bench.server.poll_timeout().is_some_and(|due| due <= bench.now) {
            iterations.measure(&mut bench, |bench| sent += iterate(bench));
        }
    }
    let Iterations { mut cpu, mut wall, longest_wait, .. } = iterations;
    let (count, all) = (cpu.len(), cpu.iter().sum::<Duration>() / SECONDS);
    println!(
        "{SUBSCRIBERS} sessions wait for the same {FILES} files and keep lists of peers and of 3 patterns, 1 of them their \
         own; {RATE} files a second come or go, and a peer a second comes and goes: {count} iterations take {:.2?} of CPU \
         time (median), {:.2?} (longest), {all:.1?} a second, and {:.2?} of wall time (99.9 %); a datagram waits \
         {longest_wait:.1?} at most until the loop has handled it; {} lists and {} datagrams a second",
        percentile(&mut cpu, 500),
        percentile(&mut cpu, 1_000),
        percentile(&mut wall, 999),
        lists / SECONDS as usize,
        sent / SECONDS as usize,
    );
}

fn name(number: u32) -> FileName {
    FileName::parse(&format!("build/{number:03}.tar")).expect("a name")
}
