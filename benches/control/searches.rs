//! The longest iteration of the event loop during bursts of searches over expensive names: the worst delay of a heartbeat.
//! Measured in CPU time, so that other load on the machine does not count.

use std::time::Duration;

use fileshare::internals::common::message::{AudienceRef, ClientMessage, NameQuery, Request};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent, RequestId};
use fileshare::internals::server::core::ReceiveBuffer;
use fileshare::internals::server::journal::JournalSeq;
use rustix::time::{ClockId, clock_gettime};

use super::test_support::{Bench, SessionEnds, percentile, sealed};

/// Names of about 490 bytes without an ASCII letter.
const NAMES: usize = 16_384;
/// Datagrams that the loop handles in one iteration.
const BURST: usize = 256;
const BURSTS: usize = 4;

pub fn measure() {
    let mut bench = Bench::new(2);
    let (mut publisher, mut client) = (bench.log_in(0), bench.log_in(1));
    let component = "É".repeat(120);
    for number in 1..=NAMES as u64 {
        let name = FileName::parse(&format!("{component}/{component}/{number:06}")).expect("a name");
        let content = Content { hash: ContentHash([1; 32]), size: 1, mtime_ms: 0 };
        let files = vec![NamedContent { name, content }];
        // Within the session's share of the server's time.
        bench.now += Duration::from_millis(1);
        send(&mut bench, &mut publisher, number, Request::Publish { files, audience: AudienceRef::Everyone });
        bench.server.handle_durable(JournalSeq(number));
        iterate(&mut bench);
    }
    let mut id = 0;
    for (label, query) in [
        ("of two letters, ignoring case", NameQuery::SubstringIgnoreCase("qz".into())),
        ("of two letters", NameQuery::Substring("qz".into())),
        ("that match all", NameQuery::Substring("É/É".into())),
        ("of 500 bytes", NameQuery::SubstringIgnoreCase(component.repeat(2))),
    ] {
        let mut iterations = Vec::new();
        for _ in 0..BURSTS {
            let start = cpu_time();
            for _ in 0..BURST {
                id += 1;
                send(&mut bench, &mut client, id, Request::Search { query: query.clone(), cursor: None });
            }
            iterate(&mut bench);
            iterations.push(cpu_time() - start);
            // The session has used up its share of the server's time: it waits until it has some again.
            while let Some(due) = bench.server.poll_timeout().filter(|due| *due < bench.now + Duration::from_secs(60)) {
                bench.now = due.max(bench.now);
                let start = cpu_time();
                iterate(&mut bench);
                iterations.push(cpu_time() - start);
            }
        }
        let all = iterations.iter().sum::<Duration>() / BURSTS as u32;
        let (half, longest) = (percentile(&mut iterations, 500), percentile(&mut iterations, 1_000));
        println!(
            "bursts of {BURST} searches {label}: an iteration takes {half:.2?} (median), {longest:.2?} (longest); a burst {all:.1?}"
        );
    }
}

/// Seals a request as a client does and passes it to the core. The sealing counts in the measurement.
pub fn send(bench: &mut Bench, ends: &mut SessionEnds, id: u64, request: Request) {
    let message = ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), pages: 1, request };
    let mut datagram = sealed(&mut ends.client, |text| message.encode(text));
    bench.server.handle_datagram(bench.now, ends.address, &mut datagram, &mut bench.out);
}

/// The CPU time of this thread.
pub fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("not negative")
}

/// One iteration without a datagram. Returns how many datagrams were sent.
pub fn iterate(bench: &mut Bench) -> usize {
    bench.server.run_deferred_work(bench.now, ReceiveBuffer::MayHoldMore, &mut bench.out);
    bench.out.mutations.clear();
    let mut sent = 0;
    bench.out.flush(|datagrams| sent += datagrams.len());
    sent
}
