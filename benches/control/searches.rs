//! The longest turn of the loop while one user bursts searches, over names made to cost most: what a heartbeat that comes
//! at the worst moment waits for. In time of the processor, since the longest of thousands is else whatever else the
//! machine did.

use std::time::Duration;

use fileshare::internals::common::message::{AudienceRef, ClientMessage, NameQuery, Request};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent, RequestId};
use fileshare::internals::server::journal::JournalSeq;
use rustix::time::{ClockId, clock_gettime};

use super::core::{Bench, Ends, sealed};
use super::load::percentile;

/// Names of some 490 bytes without an ASCII letter.
const NAMES: usize = 16_384;
/// Datagrams that the loop takes in one turn.
const BURST: usize = 256;
const BURSTS: usize = 4;

/// See the module.
pub fn measure() {
    let mut bench = Bench::new(2);
    let (mut publisher, mut asker) = (bench.log_in(0), bench.log_in(1));
    let component = "É".repeat(120);
    for number in 1..=NAMES as u64 {
        let name = FileName::parse(&format!("{component}/{component}/{number:06}")).expect("a name");
        let content = Content { hash: ContentHash([1; 32]), size: 1, mtime_ms: 0 };
        let files = vec![NamedContent { name, content }];
        ask(&mut bench, &mut publisher, number, Request::Publish { files, audience: AudienceRef::Everyone });
        bench.server.handle_durable(bench.now, JournalSeq(number), &mut bench.out);
        turn(&mut bench);
    }
    let mut id = 0;
    for (label, query) in [
        ("of two letters, ignoring case", NameQuery::SubstringIgnoreCase("qz".into())),
        ("of two letters", NameQuery::Substring("qz".into())),
        ("that match all", NameQuery::Substring("É/É".into())),
        ("of 500 bytes", NameQuery::SubstringIgnoreCase(component.repeat(2))),
    ] {
        let mut turns = Vec::new();
        for _ in 0..BURSTS {
            let start = processor();
            for _ in 0..BURST {
                id += 1;
                ask(&mut bench, &mut asker, id, Request::Search { query: query.clone(), cursor: None });
            }
            turn(&mut bench);
            turns.push(processor() - start);
            while bench.server.poll_timeout().is_some_and(|due| due <= bench.now) {
                let start = processor();
                turn(&mut bench);
                turns.push(processor() - start);
            }
        }
        let all = turns.iter().sum::<Duration>() / BURSTS as u32;
        let (half, longest) = (percentile(&mut turns, 500), percentile(&mut turns, 1_000));
        println!(
            "bursts of {BURST} searches {label}: a turn takes {half:.2?} (median), {longest:.2?} (longest); a burst {all:.1?}"
        );
    }
}

/// As a client sends it, and into the core; sealing it is part of what is measured.
fn ask(bench: &mut Bench, ends: &mut Ends, id: u64, request: Request) {
    let message = ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), request };
    let mut datagram = sealed(&mut ends.client, |text| message.encode(text));
    bench.server.handle_datagram(bench.now, ends.address, &mut datagram, &mut bench.out);
}

/// This thread's time of the processor.
fn processor() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it counts up from nothing")
}

fn turn(bench: &mut Bench) {
    bench.server.run_deferred_work(bench.now, false, &mut bench.out);
    bench.out.mutations.clear();
    bench.out.flush(|_, bytes| assert!(!bytes.is_empty()));
}
