//! How long the real server takes from its start to `listening on` with a full data file, and what it weighs then.
//!
//! `cargo bench --bench start`; the median of several starts. `FILESHARE_BENCH_PUBLICATIONS` (default 1,000,000) of
//! `FILESHARE_BENCH_USERS` (default 10,000), the folder in `FILESHARE_BENCH_DIR`.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod load;

use std::sync::{Arc, mpsc};

use fileshare::internals::common::types::{InstanceId, RequestId, UserName};
use fileshare::internals::server::journal::{Change, Journal, LastMutation, LoadSink, Mutation, StoredPublication};

use self::load::{Place, file, median, setting, user};

/// Files of one mutation: what a PUBLISH datagram usually holds.
const BATCH: usize = 13;
const ROUNDS: usize = 7;

struct Nothing;

impl LoadSink for Nothing {
    fn publication(&mut self, _publication: StoredPublication) {}
    fn last_mutation(&mut self, _user: UserName, _last: LastMutation) {}
}

fn main() {
    let publications = setting("FILESHARE_BENCH_PUBLICATIONS", 1_000_000);
    let users = setting("FILESHARE_BENCH_USERS", 10_000);
    let mut place = Place::new(users);
    fill(&place, users, publications);
    let (mut starts, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        place.stop();
        starts.push(place.start().as_secs_f64());
        processor.push(place.processor_s());
    }
    println!(
        "start: {publications} publications of {users} users, ready after {:.2} s (from {:.2} to {:.2})",
        median(starts.clone()),
        starts.iter().copied().fold(f64::MAX, f64::min),
        starts.iter().copied().fold(0.0, f64::max),
    );
    println!("of it {:.2} s of processor time, on up to two threads", median(processor));
    let at_ready = place.memory();
    // Names are taken into the search structure afterwards, in the background.
    let mut before = place.processor_s();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = place.processor_s();
        if now - before < 0.05 {
            break println!("search structure complete: {now:.2} s of processor time in all");
        }
        before = now;
    }
    println!("memory: {} MiB when ready, {} MiB then", at_ready >> 20, place.memory() >> 20);
}

/// Through the journal, users by turns as it would come about.
fn fill(place: &Place, users: usize, publications: usize) {
    let (sender, wakes) = mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap_or_default());
    let mut journal = Journal::open(&place.data(), &mut Nothing, wake).expect("a new data file");
    for number in 0..publications.div_ceil(BATCH) {
        let owner = number % users;
        let first = number / users * BATCH;
        let left = (publications - number * BATCH).min(BATCH);
        let files = (first..first + left).map(|number| file(owner, number)).collect();
        let change = Change::Publish { files, audience: Arc::default(), published_s: 1_700_000_000 };
        let mutation =
            Mutation { user: user(owner), run: InstanceId(1), request: RequestId(number as u64 + 1), change };
        while journal.push(mutation.clone()).is_err() {
            wakes.recv().expect("the journal's thread lives");
        }
    }
    journal.close().expect("everything is stored");
}
