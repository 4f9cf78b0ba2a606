//! The threads of a download: the writers of its sources, and the reader of a `cat`.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use shuttle::thread;

use self::content_stream::ContentStream;
use self::coordinator::{DownloadEvent, SourceEvent, StoreResult};
use self::file_job::FileOperations;
use self::incomplete_file::{IncompleteFile, Write};
use self::partial_file::PartialFile;
use self::scheduler::Assignment;
use self::writer::{Chunk, CopyVerifier, ReceivedBuffer, run_writer};
use crate::common::chunk_tree::{GroupHashes, group_range, hash_group};
use crate::common::sync::mpsc::channel;
use crate::common::sync::{Mutex, lock};
use crate::common::types::UserName;

#[path = "../../../src/client/download/content_stream.rs"]
mod content_stream;
#[path = "download_world.rs"]
mod download_world;
#[path = "../../../src/client/download/incomplete_file.rs"]
mod incomplete_file;
#[path = "../../../src/client/download/writer.rs"]
mod writer;

use self::download_world::{
    DownloadError, DownloadOutcome, DownloadReport, coordinator, file_job, partial_file, scheduler, small_files,
};

/// The first group is of 1 MiB, the last one of these bytes.
const LAST: &[u8] = b"abcdef";
const SIZE: u64 = (1 << 20) + LAST.len() as u64;

fn new_file() -> Arc<IncompleteFile> {
    let outline = GroupHashes::from_groups(SIZE, vec![[0; 32], hash_group(SIZE, 1, LAST)]).unwrap();
    Arc::new(IncompleteFile::new(outline, PartialFile::new(SIZE), false))
}

/// The last group, in two buffers of the source that has this assignment.
fn buffers(incomplete: &Arc<IncompleteFile>, id: u32, bytes: &[u8]) -> Vec<ReceivedBuffer> {
    let halves = [&bytes[..3], &bytes[3..]];
    let start = group_range(SIZE, 1).start;
    let buffer = |(at, half): (usize, &[u8])| ReceivedBuffer {
        bytes: half.to_vec(),
        chunks: vec![Chunk {
            assignment: Assignment { file: 0, group: 1, id },
            incomplete: Some(Arc::clone(incomplete)),
            offset: start + 3 * at as u64,
            at: 0..half.len(),
            is_last: at == 1,
            is_copied: false,
        }],
    };
    halves.into_iter().enumerate().map(buffer).collect()
}

fn stored(incomplete: &IncompleteFile) -> Vec<u8> {
    let mut bytes = vec![0; LAST.len()];
    incomplete.file().read_exact_at(&mut bytes, group_range(SIZE, 1).start).unwrap();
    bytes
}

/// A group is taken from a slow source and given to another one. Each source's thread registers its assignment when it gets to
/// it, in any order. What a writer calls verified is in the file, then and later, also if the slow source sends other bytes
/// than were published.
fn a_group_that_counts_as_verified_is_in_the_file() {
    for of_slow_source in [LAST, b"slower"] {
        check_verified(of_slow_source);
    }
}

fn check_verified(of_slow_source: &'static [u8]) {
    let incomplete = new_file();
    let (events, results) = channel();
    let sources = [(1, of_slow_source), (2, LAST)].map(|(id, bytes)| {
        let (incomplete, events) = (Arc::clone(&incomplete), events.clone());
        thread::spawn(move || {
            incomplete.assign(1, id);
            let (to_store, buffers_in) = channel();
            let (recycle, recycled) = channel();
            let writer = thread::spawn(move || {
                let files = FileOperations::of_size(SIZE);
                run_writer(&files, id as usize, buffers_in, &recycle, &events, CopyVerifier::new(&files, None));
            });
            buffers(&incomplete, id, bytes).into_iter().for_each(|buffer| to_store.send(buffer).unwrap());
            drop(to_store);
            assert_eq!(recycled.iter().count(), 2);
            writer.join().unwrap();
        })
    });
    drop(events);
    let mut is_verified = false;
    for DownloadEvent::Source(_, SourceEvent::Stored(results)) in results {
        for result in results {
            match result {
                StoreResult::Verified(Assignment { id, .. }) => {
                    is_verified |= id == 2;
                    assert_eq!(stored(&incomplete), LAST, "when it was reported");
                }
                StoreResult::Corrupt(Assignment { id: 1, .. }) | StoreResult::Discarded(Assignment { id: 1, .. }) => {}
                _ => panic!("an unexpected result"),
            }
        }
    }
    sources.into_iter().for_each(|source| source.join().unwrap());
    assert!(is_verified);
    assert_eq!(stored(&incomplete), LAST, "in the end");
}

/// A download that fails unlocks its partial file, which another one may then use: nothing is written afterwards. The partial
/// file of these tests asserts it.
fn nothing_is_written_after_the_file_is_unlocked() {
    let incomplete = new_file();
    let writers = [1, 2].map(|id| {
        let incomplete = Arc::clone(&incomplete);
        thread::spawn(move || {
            incomplete.assign(1, id);
            incomplete.write(1, id, LAST, group_range(SIZE, 1).start).unwrap();
        })
    });
    incomplete.close();
    assert_eq!(incomplete.write(1, 2, LAST, group_range(SIZE, 1).start).unwrap(), Write::Stale);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

/// A reader gets every byte that was verified without a gap while the download goes on, and its end, however it ends.
fn a_reader_gets_all_that_was_verified_and_the_end() {
    for completes in [false, true] {
        let (incomplete, stream) = (new_file(), Arc::new(ContentStream::new(SIZE)));
        let (progress, read) = channel();
        let reading = Arc::clone(&stream);
        let reader = thread::spawn(move || {
            let mut at = 0;
            let write = |bytes: &[u8]| {
                at += bytes.len() as u64;
                if at == group_range(SIZE, 0).end || at == SIZE {
                    progress.send(at).unwrap();
                }
                ControlFlow::Continue(())
            };
            reading.read_to(write).unwrap();
        });
        stream.on_report(&DownloadReport::Started(0, Arc::clone(&incomplete)));
        for group in 0..1 + u32::from(completes) {
            incomplete.set_verified(group, None);
            stream.on_report(&DownloadReport::Received { index: 0, done: 1, total: 2 });
            assert_eq!(read.recv(), Ok(group_range(SIZE, group).end));
        }
        stream.end();
        assert!(read.recv().is_err());
        reader.join().unwrap();
    }
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![
        ("download::a_group_that_counts_as_verified_is_in_the_file", a_group_that_counts_as_verified_is_in_the_file),
        ("download::nothing_is_written_after_the_file_is_unlocked", nothing_is_written_after_the_file_is_unlocked),
        ("download::a_reader_gets_all_that_was_verified_and_the_end", a_reader_gets_all_that_was_verified_and_the_end),
    ]
}
