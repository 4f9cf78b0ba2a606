//! The journal's queue between the event loop and the thread that stores.

use std::sync::Arc;

pub use fileshare::internals::server::journal::{Change, JournalSeq, Mutation};

mod sqlite {
    pub use fileshare::internals::server::journal::{Store, StoreError};
}

#[path = "../../../src/server/journal/writer.rs"]
mod writer;

use fileshare::internals::common::types::{InstanceId, RequestId, UserName};
use shuttle::thread;

use self::sqlite::{Store, StoreError};
use self::writer::JournalQueue;
use crate::common::sync::{Condvar, Mutex, lock, wait};

/// What is on the disk. Storing takes time; a batch is stored whole.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Vec<u64>>>);

impl Store for Disk {
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError> {
        assert!(!batch.is_empty());
        thread::yield_now();
        lock(&self.0).extend(batch.iter().map(|mutation| mutation.request.0));
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Ok(())
    }
}

fn mutation(number: u64) -> Mutation {
    Mutation {
        user: UserName::parse("hans").unwrap(),
        instance: InstanceId(0),
        request: RequestId(number),
        change: Change::Unpublish { names: Vec::new(), found: 0 },
    }
}

/// What is reported durable is on the disk, each report wakes the event loop, and what was queued before the journal is
/// closed is stored, in order.
fn what_is_durable_is_stored_and_nothing_queued_is_lost() {
    let (disk, queue) = (Disk::default(), Arc::new(JournalQueue::default()));
    let woken = Arc::new((Mutex::new(false), Condvar::new()));
    let waker = Arc::clone(&woken);
    let wake = move || {
        *lock(&waker.0) = true;
        waker.1.notify_one();
    };
    let thread = writer::start(Arc::clone(&queue), Box::new(disk.clone()), Box::new(wake)).unwrap();
    for number in 1..=3 {
        assert_eq!(queue.push(mutation(number)), Ok(JournalSeq(number)));
        let durable = queue.durable().0;
        assert!(lock(&disk.0).len() as u64 >= durable, "{durable} reported durable");
    }
    while queue.durable() < JournalSeq(3) {
        let mut is_woken = lock(&woken.0);
        while !*is_woken {
            is_woken = wait(&woken.1, is_woken);
        }
        *is_woken = false;
    }
    assert_eq!(queue.push(mutation(4)), Ok(JournalSeq(4)));
    queue.close();
    assert!(queue.push(mutation(5)).is_err());
    thread.join().unwrap();
    assert_eq!(*lock(&disk.0), [1, 2, 3, 4]);
    assert_eq!((queue.durable(), queue.failed()), (JournalSeq(4), None));
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![(
        "journal::what_is_durable_is_stored_and_nothing_queued_is_lost",
        what_is_durable_is_stored_and_nothing_queued_is_lost,
    )]
}
