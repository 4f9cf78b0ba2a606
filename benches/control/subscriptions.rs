//! The longest iteration of the event loop while files that everybody waits for come and go. In CPU time, as `searches`.

use std::time::Duration;

use fileshare::internals::common::message::{AudienceRef, Request, Topic};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent};
use fileshare::internals::server::journal::JournalSeq;

use super::core::{Bench, SessionEnds};
use super::searches::{cpu_time, iterate, send};
use super::test_support::percentile;

const SUBSCRIBERS: usize = 1_000;
/// Subscriptions of each, all to the same files.
const TOPICS: u8 = 32;
/// Files in one request.
const BATCH: usize = 13;
/// Publications a second.
const RATE: u32 = 1_000;
/// Virtual time.
const SECONDS: u32 = 20;

pub fn measure() {
    let mut bench = Bench::new(SUBSCRIBERS + 1);
    let mut publisher = bench.log_in(SUBSCRIBERS);
    let mut subscribers: Vec<SessionEnds> = (0..SUBSCRIBERS).map(|number| bench.log_in(number)).collect();
    for ends in &mut subscribers {
        for number in 0..TOPICS {
            let request = Request::Subscribe { number, topic: Topic::File(name(number.into())) };
            send(&mut bench, ends, u64::from(number) + 1, request);
            iterate(&mut bench);
        }
    }
    let mut iterations = Vec::new();
    let (mut id, mut reports) = (0, 0);
    let names: Vec<FileName> = (0..TOPICS.into()).map(name).collect();
    // One batch publishes them, the next withdraws them.
    for batch in 0..RATE * SECONDS / BATCH as u32 {
        bench.now += Duration::from_secs(1) * BATCH as u32 / RATE;
        let names: Vec<FileName> = names.iter().cycle().skip(batch as usize / 2 * BATCH).take(BATCH).cloned().collect();
        id += 1;
        let request = if batch % 2 == 0 {
            let content = Content { hash: ContentHash([1; 32]), size: 1, mtime_ms: 0 };
            let files = names.iter().map(|name| NamedContent { name: name.clone(), content });
            Request::Publish { files: files.collect(), audience: AudienceRef::Everyone }
        } else {
            Request::Unpublish { names }
        };
        let start = cpu_time();
        send(&mut bench, &mut publisher, id, request);
        bench.out.mutations.clear();
        bench.server.handle_durable(JournalSeq(id), &mut bench.out);
        reports += iterate(&mut bench);
        iterations.push(cpu_time() - start);
        while bench.server.poll_timeout().is_some_and(|due| due <= bench.now) {
            let start = cpu_time();
            reports += iterate(&mut bench);
            iterations.push(cpu_time() - start);
        }
    }
    let all = iterations.iter().sum::<Duration>() / SECONDS;
    let p999 = percentile(&mut iterations, 999);
    println!(
        "{SUBSCRIBERS} sessions wait for the same {TOPICS} files, of which {RATE} a second come or go: {} iterations take \
         {:.2?} (median), {p999:.2?} (99.9 %), {:.2?} (longest), {all:.1?} a second; {} reports a second",
        iterations.len(),
        percentile(&mut iterations, 500),
        percentile(&mut iterations, 1_000),
        reports / SECONDS as usize,
    );
}

fn name(number: u32) -> FileName {
    FileName::parse(&format!("build/{number:03}.tar")).expect("a name")
}
