//! The queue and its thread, with a store that the test controls.

use std::sync::mpsc::{self, Receiver, Sender};

use super::load::NoSink;
use super::writer::{QUEUE_MAX_BYTES, QUEUE_MAX_MUTATIONS};
use super::*;
use crate::common::types::{Content, ContentHash};

fn mutation(request: u64) -> Mutation {
    let content = Content { hash: ContentHash([1; 32]), size: 2, mtime_ms: 3 };
    let files = vec![NamedContent { name: FileName::parse("a/b").unwrap(), content }];
    let change = Change::Publish { files, audience: Arc::default(), published_s: 4 };
    Mutation { user: UserName::parse("hans").unwrap(), instance: InstanceId(1), request: RequestId(request), change }
}

/// Reports each batch to the test, and returns the result that the test sends.
struct ControlledStore {
    batches: Sender<Vec<u64>>,
    results: Receiver<Result<(), StoreError>>,
}

impl Store for ControlledStore {
    fn write(&mut self, batch: &[Mutation]) -> Result<(), StoreError> {
        self.batches.send(batch.iter().map(|mutation| mutation.request.0).collect()).unwrap();
        self.results.recv().unwrap()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.batches.send(Vec::new()).unwrap();
        self.results.recv().unwrap()
    }
}

struct JournalTest {
    journal: Journal,
    batches: Receiver<Vec<u64>>,
    results: Sender<Result<(), StoreError>>,
    wakes: Receiver<()>,
}

fn journal_test() -> JournalTest {
    let (batch_sender, batches) = mpsc::channel();
    let (results, result_receiver) = mpsc::channel();
    let (wake_sender, wakes) = mpsc::channel();
    let store = Box::new(ControlledStore { batches: batch_sender, results: result_receiver });
    let wake = Box::new(move || wake_sender.send(()).unwrap());
    JournalTest { journal: Journal::with_store(store, [7; 32], wake).unwrap(), batches, results, wakes }
}

#[test]
fn queued_mutations_are_written_together_and_durable_afterwards() {
    let JournalTest { mut journal, batches, results, wakes } = journal_test();
    assert_eq!(journal.root_secret(), [7; 32]);
    assert_eq!(journal.push(mutation(1)), Ok(JournalSeq(1)));
    assert_eq!(batches.recv().unwrap(), [1]);
    // The store is busy; the queue accepts more.
    for request in 2..=5 {
        assert_eq!(journal.push(mutation(request)), Ok(JournalSeq(request)));
    }
    assert_eq!(journal.durable(), JournalSeq(0));
    assert!(wakes.try_recv().is_err());
    results.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(1));
    assert_eq!(batches.recv().unwrap(), [2, 3, 4, 5]);
    assert_eq!(journal.durable(), JournalSeq(1));
    results.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(5));
    assert_eq!(journal.commit_times().count(), 2);
    results.send(Ok(())).unwrap();
    assert!(journal.close().is_ok());
}

#[test]
fn after_a_failed_write_nothing_is_durable_or_written() {
    let JournalTest { mut journal, batches, results, wakes } = journal_test();
    journal.push(mutation(1)).unwrap();
    batches.recv().unwrap();
    journal.push(mutation(2)).unwrap();
    results.send(Err(StoreError::Failed("cannot store in x: no room left".into()))).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.failed().as_deref(), Some("cannot store in x: no room left"));
    assert_eq!(journal.durable(), JournalSeq(0));
    assert_eq!(journal.push(mutation(3)), Err(QueueFull));
    // The thread has dropped the store: nothing more was written.
    assert!(batches.recv().is_err());
    let error = journal.close().unwrap_err();
    assert_eq!(error.to_string(), "cannot store in x: no room left");
}

#[test]
fn a_panic_of_the_thread_is_reported_as_a_failure() {
    let JournalTest { mut journal, batches, results, wakes } = journal_test();
    // The store panics when the channel is closed.
    drop(results);
    journal.push(mutation(1)).unwrap();
    batches.recv().unwrap();
    wakes.recv().unwrap();
    assert!(journal.failed().is_some() && journal.durable() == JournalSeq(0));
}

#[test]
fn a_batch_is_tried_again_while_the_store_is_locked() {
    let JournalTest { mut journal, batches, results, wakes } = journal_test();
    journal.push(mutation(1)).unwrap();
    // Longer than a closing journal tries.
    for _ in 0..32 {
        assert_eq!(batches.recv().unwrap(), [1]);
        results.send(Err(StoreError::Locked("x is locked".into()))).unwrap();
    }
    assert_eq!(batches.recv().unwrap(), [1]);
    assert!(journal.failed().is_none() && journal.durable() == JournalSeq(0));
    results.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    assert_eq!(journal.durable(), JournalSeq(1));
    results.send(Ok(())).unwrap();
    journal.close().unwrap();
}

#[test]
fn closing_gives_up_on_a_store_that_stays_locked() {
    let JournalTest { mut journal, batches, results, wakes: _wakes } = journal_test();
    journal.push(mutation(1)).unwrap();
    for _ in 0..100 {
        results.send(Err(StoreError::Locked("x is locked".into()))).unwrap();
    }
    let line = journal.close().unwrap_err().to_string();
    assert_eq!(line, "x is locked; 1 changes could not be stored");
    assert!(batches.iter().all(|batch| batch == [1]));
}

#[test]
fn closing_writes_the_queue() {
    let JournalTest { mut journal, batches, results, wakes: _wakes } = journal_test();
    journal.push(mutation(1)).unwrap();
    assert_eq!(batches.recv().unwrap(), [1]);
    journal.push(mutation(2)).unwrap();
    for _ in 0..3 {
        results.send(Ok(())).unwrap();
    }
    journal.close().unwrap();
    assert_eq!(batches.iter().collect::<Vec<_>>(), [vec![2], vec![]]);
}

#[test]
fn the_queue_is_bounded_by_mutations() {
    let JournalTest { mut journal, batches, results, wakes } = journal_test();
    journal.push(mutation(1)).unwrap();
    assert_eq!(batches.recv().unwrap(), [1]);
    for request in 2..=QUEUE_MAX_MUTATIONS {
        journal.push(mutation(request)).unwrap();
    }
    // The mutation being written counts too.
    assert_eq!(journal.push(mutation(0)), Err(QueueFull));
    let mut waiting = VecDeque::from([mutation(QUEUE_MAX_MUTATIONS + 1), mutation(QUEUE_MAX_MUTATIONS + 2)]);
    assert_eq!(journal.push_all(&mut waiting), None);
    assert_eq!(waiting.len(), 2, "nothing is dropped");
    results.send(Ok(())).unwrap();
    wakes.recv().unwrap();
    let last = journal.push_all(&mut waiting);
    assert_eq!(last, Some(JournalSeq(QUEUE_MAX_MUTATIONS + 1)), "a rejected mutation gets no sequence number");
    assert_eq!(waiting, [mutation(QUEUE_MAX_MUTATIONS + 2)], "in order");
    for _ in 0..3 {
        results.send(Ok(())).unwrap();
    }
    journal.close().unwrap();
}

#[test]
fn the_queue_is_bounded_by_bytes() {
    let hans = |change| Mutation { change, ..mutation(1) };
    let users: Vec<_> = (0..4_096).map(|at| UserName::parse(&format!("{at:064}")).unwrap()).collect();
    let audience_bytes = users.len() * (64 + size_of::<UserName>());
    let for_some = Change::Publish { files: Vec::new(), audience: Arc::new(Audience::only(users)), published_s: 4 };
    let names: Vec<_> = (0..50).map(|at| FileName::parse(&format!("{at:0200}")).unwrap()).collect();
    let content = Content { hash: ContentHash([1; 32]), size: 2, mtime_ms: 3 };
    let files: Vec<_> = names.iter().map(|name| NamedContent { name: name.clone(), content }).collect();
    let files_bytes = files.len() * (200 + size_of::<NamedContent>());
    let for_all = Change::Publish { files, audience: Arc::default(), published_s: 4 };
    let names_bytes = names.len() * (200 + size_of::<FileName>());
    let unpublish = Change::Unpublish { names, found: 0 };
    for (change, bytes) in [(for_some, audience_bytes), (for_all, files_bytes), (unpublish, names_bytes)] {
        let (big, bytes) = (hans(change), bytes + size_of::<Mutation>());
        let JournalTest { mut journal, batches, results, wakes } = journal_test();
        journal.push(mutation(1)).unwrap();
        batches.recv().unwrap();
        let pushed = (0..QUEUE_MAX_MUTATIONS).take_while(|_| journal.push(big.clone()).is_ok()).count();
        assert!(pushed * bytes <= QUEUE_MAX_BYTES, "{pushed} of {bytes} bytes are more than allowed");
        assert!(pushed * bytes > QUEUE_MAX_BYTES / 2, "{pushed} of {bytes} bytes");
        assert!(journal.push(mutation(2)).is_ok(), "a small one still fits");
        results.send(Ok(())).unwrap();
        batches.recv().unwrap();
        assert_eq!(journal.push(big.clone()), Err(QueueFull), "what is being written counts too");
        results.send(Ok(())).unwrap();
        (0..2).for_each(|_| wakes.recv().unwrap());
        assert!(journal.push(big).is_ok(), "the bytes are free again");
        (0..2).for_each(|_| results.send(Ok(())).unwrap());
        journal.close().unwrap();
    }
}

#[test]
fn an_ephemeral_journal_makes_everything_durable_and_calls_wake() {
    let ephemeral = || {
        let (sender, wakes) = mpsc::channel();
        (Journal::ephemeral(Box::new(move || sender.send(()).unwrap())).unwrap(), wakes)
    };
    let (mut journal, wakes) = ephemeral();
    assert_eq!(journal.push(mutation(1)), Ok(JournalSeq(1)));
    assert_eq!(journal.push(mutation(2)), Ok(JournalSeq(2)));
    while journal.durable() < JournalSeq(2) {
        wakes.recv().unwrap();
    }
    assert_ne!(journal.root_secret(), ephemeral().0.root_secret());
    assert!(journal.failed().is_none());
    journal.close().unwrap();
}

#[test]
fn a_closed_journal_has_no_file_open_and_its_secret_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let path = folder.join("data.db");
    let missing = Journal::read_root_secret(&path).unwrap_err().to_string();
    assert!(missing.contains("there is no data file"), "{missing}");
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
        descriptors.filter_map(|path| std::fs::read_link(path).ok()).filter(|file| file.starts_with(&folder)).count()
    };
    let mut journal = Journal::open(&path, &mut NoSink, Box::new(|| ())).unwrap();
    journal.push(mutation(1)).unwrap();
    assert!(open() > 0);
    assert_eq!(Journal::read_root_secret(&path).unwrap(), journal.root_secret());
    let secret = journal.root_secret();
    journal.close().unwrap();
    assert_eq!(open(), 0);
    assert_eq!(Journal::read_root_secret(&path).unwrap(), secret);
}
