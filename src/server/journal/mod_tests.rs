//! The thread and its queue over stores made for the occasion.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use super::writer::{QUEUE_MAX_BYTES, QUEUE_MAX_MUTATIONS};
use super::*;
use crate::common::types::{Content, ContentHash};

fn mutation(request: u64) -> Mutation {
    let content = Content { hash: ContentHash([1; 32]), size: 2, mtime_ms: 3 };
    let files = vec![NamedContent { name: FileName::parse("a/b").unwrap(), content }];
    let change = Change::Publish { files, audience: Arc::default(), published_s: 4 };
    Mutation { user: UserName::parse("hans").unwrap(), instance: InstanceId(1), request: RequestId(request), change }
}

/// Tells the test what it is asked to write, and does what the test answers.
struct Puppet {
    batches: Sender<Vec<u64>>,
    answers: Receiver<Result<(), StoreError>>,
}

impl Store for Puppet {
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError> {
        self.batches.send(batch.iter().map(|mutation| mutation.request.0).collect()).unwrap();
        self.answers.recv().unwrap()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.batches.send(Vec::new()).unwrap();
        self.answers.recv().unwrap()
    }
}

struct Stage {
    journal: Journal,
    batches: Receiver<Vec<u64>>,
    answers: Sender<Result<(), StoreError>>,
    wakes: Receiver<()>,
}

fn stage() -> Stage {
    let (batch_sender, batches) = mpsc::channel();
    let (answers, answer_receiver) = mpsc::channel();
    let (wake_sender, wakes) = mpsc::channel();
    let store = Box::new(Puppet { batches: batch_sender, answers: answer_receiver });
    let wake = Box::new(move || wake_sender.send(()).unwrap());
    Stage { journal: Journal::with_store(store, [7; 32], wake).unwrap(), batches, answers, wakes }
}

#[test]
fn what_waits_is_written_together_and_only_then_durable() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    assert_eq!(journal.root_secret(), [7; 32]);
    assert_eq!(journal.push(mutation(1)), Ok(JournalSeq(1)));
    assert_eq!(batches.recv().unwrap(), [1]);
    // The store is slow; the loop is not.
    for request in 2..=5 {
        assert_eq!(journal.push(mutation(request)), Ok(JournalSeq(request)));
    }
    assert_eq!(journal.durable(), JournalSeq(0));
    assert!(wakes.try_recv().is_err());
    answers.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(1));
    assert_eq!(batches.recv().unwrap(), [2, 3, 4, 5]);
    assert_eq!(journal.durable(), JournalSeq(1));
    answers.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(5));
    answers.send(Ok(())).unwrap();
    assert!(journal.close().is_ok());
}

#[test]
fn a_failed_write_is_never_reported_durable_and_nothing_follows_it() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    journal.push(mutation(1)).unwrap();
    batches.recv().unwrap();
    journal.push(mutation(2)).unwrap();
    answers.send(Err(StoreError::Failed("cannot store in x: no room left".into()))).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.failed().as_deref(), Some("cannot store in x: no room left"));
    assert_eq!(journal.durable(), JournalSeq(0));
    assert_eq!(journal.push(mutation(3)), Err(QueueFull));
    // The store is gone with its thread: nothing more was written.
    assert!(batches.recv().is_err());
    let error = journal.close().unwrap_err();
    assert_eq!(error.to_string(), "cannot store in x: no room left");
}

#[test]
fn a_fault_in_the_thread_is_a_failure_and_not_silence() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    // The puppet panics when nobody answers.
    drop(answers);
    journal.push(mutation(1)).unwrap();
    batches.recv().unwrap();
    wakes.recv().unwrap();
    assert!(journal.failed().is_some() && journal.durable() == JournalSeq(0));
}

#[test]
fn a_locked_store_is_asked_again_with_the_same_batch() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    journal.push(mutation(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(batches.recv().unwrap(), [1]);
        answers.send(Err(StoreError::Locked("x is locked".into()))).unwrap();
    }
    assert_eq!(batches.recv().unwrap(), [1]);
    assert!(journal.failed().is_none() && journal.durable() == JournalSeq(0));
    answers.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(1));
    answers.send(Ok(())).unwrap();
    journal.close().unwrap();
}

#[test]
fn a_closing_journal_gives_up_on_a_store_that_stays_locked() {
    let Stage { mut journal, batches, answers, wakes: _wakes } = stage();
    journal.push(mutation(1)).unwrap();
    for _ in 0..100 {
        answers.send(Err(StoreError::Locked("x is locked".into()))).unwrap();
    }
    let line = journal.close().unwrap_err().to_string();
    assert_eq!(line, "x is locked; 1 changes could not be stored");
    assert!(batches.iter().all(|batch| batch == [1]));
}

#[test]
fn closing_writes_what_waits() {
    let Stage { mut journal, batches, answers, wakes: _wakes } = stage();
    journal.push(mutation(1)).unwrap();
    assert_eq!(batches.recv().unwrap(), [1]);
    journal.push(mutation(2)).unwrap();
    for _ in 0..3 {
        answers.send(Ok(())).unwrap();
    }
    journal.close().unwrap();
    assert_eq!(batches.iter().collect::<Vec<_>>(), [vec![2], vec![]]);
}

#[test]
fn the_queue_is_bounded_by_mutations() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    journal.push(mutation(1)).unwrap();
    assert_eq!(batches.recv().unwrap(), [1]);
    for request in 2..=QUEUE_MAX_MUTATIONS {
        journal.push(mutation(request)).unwrap();
    }
    // What is being written counts: it takes memory too.
    assert_eq!(journal.push(mutation(0)), Err(QueueFull));
    answers.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    let next = journal.push(mutation(0)).unwrap();
    assert_eq!(next, JournalSeq(QUEUE_MAX_MUTATIONS + 1), "a refused mutation takes no number");
    for _ in 0..3 {
        answers.send(Ok(())).unwrap();
    }
    journal.close().unwrap();
}

#[test]
fn the_queue_is_bounded_by_bytes() {
    let Stage { mut journal, batches, answers, wakes } = stage();
    let everybody = (0..4_096).map(|i| UserName::parse(&format!("{i:064}")).unwrap()).collect();
    let audience = Arc::new(Audience::only(everybody));
    let mut big = mutation(1);
    let Change::Publish { audience: slot, .. } = &mut big.change else { panic!("a PUBLISH") };
    *slot = audience;
    journal.push(mutation(1)).unwrap();
    batches.recv().unwrap();
    let mut pushed = 0;
    while journal.push(big.clone()).is_ok() {
        pushed += 1;
        assert!(pushed * 4_096 * 64 <= QUEUE_MAX_BYTES, "more bytes wait than are allowed");
    }
    assert!(pushed > 50);
    assert!(journal.push(mutation(2)).is_ok(), "a small one still fits");
    answers.send(Ok(())).unwrap();
    answers.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    wakes.recv().unwrap();
    assert!(journal.push(big).is_ok(), "the room came back");
    answers.send(Ok(())).unwrap();
    answers.send(Ok(())).unwrap();
    journal.close().unwrap();
}

#[test]
fn an_ephemeral_journal_is_durable_at_once_and_wakes() {
    let wakes = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&wakes);
    let mut journal = Journal::ephemeral(Box::new(move || *counter.lock().unwrap() += 1));
    assert_eq!(journal.push(mutation(1)), Ok(JournalSeq(1)));
    assert_eq!(journal.push(mutation(2)), Ok(JournalSeq(2)));
    assert_eq!(journal.durable(), JournalSeq(2));
    assert_eq!(*wakes.lock().unwrap(), 2);
    assert_ne!(journal.root_secret(), Journal::ephemeral(Box::new(|| {})).root_secret());
    assert!(journal.failed().is_none());
    journal.close().unwrap();
}
