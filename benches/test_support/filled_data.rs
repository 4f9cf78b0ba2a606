//! A data file with many publications.

use std::sync::{Arc, mpsc};

use fileshare::internals::common::types::{InstanceId, RequestId, UserName};
use fileshare::internals::server::journal::{Change, Journal, LastMutation, LoadSink, Mutation, StoredPublication};

use super::{ServerProcess, file, user};

/// Files of one mutation: a typical PUBLISH datagram.
const BATCH: usize = 13;

struct NoSink;

impl LoadSink for NoSink {
    fn publication(&mut self, _publication: StoredPublication) {}
    fn last_mutation(&mut self, _user: UserName, _last: LastMutation) {}
}

/// Fills the data file through the journal, with the users in turn.
pub fn fill(server: &ServerProcess, users: usize, publications: usize) {
    let (sender, wakes) = mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap_or_default());
    let mut journal = Journal::open(&server.data(), &mut NoSink, wake).expect("a new data file");
    for number in 0..publications.div_ceil(BATCH) {
        let owner = number % users;
        let first = number / users * BATCH;
        let left = (publications - number * BATCH).min(BATCH);
        let files = (first..first + left).map(|number| file(owner, number)).collect();
        let change = Change::Publish { files, audience: Arc::default(), published_s: 1_700_000_000 };
        let mutation =
            Mutation { user: user(owner), instance: InstanceId(1), request: RequestId(number as u64 + 1), change };
        while journal.push(mutation.clone()).is_err() {
            wakes.recv().expect("the journal's thread runs");
        }
    }
    journal.close().expect("everything is stored");
}
