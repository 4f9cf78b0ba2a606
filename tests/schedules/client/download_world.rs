//! What surrounds the writers of a download, as they see it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::incomplete_file::IncompleteFile;

#[derive(Debug)]
pub struct DownloadError;

pub enum DownloadOutcome {
    Unnamed(Arc<File>),
    Failed,
}

pub enum DownloadReport {
    Received { index: usize, done: u64, total: u64 },
    Started(usize, Arc<IncompleteFile>),
    Finished(usize, DownloadOutcome),
    Note(String),
}

pub mod scheduler {
    pub type SourceId = usize;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Assignment {
        pub file: usize,
        pub group: u32,
        pub id: u32,
    }
}

pub mod coordinator {
    use std::io;
    use std::time::Duration;

    use super::scheduler::{Assignment, SourceId};

    pub const REPORT_INTERVAL: Duration = Duration::from_secs(3_600);

    pub enum DownloadEvent {
        Source(SourceId, SourceEvent),
    }

    pub enum SourceEvent {
        Stored(Vec<StoreResult>),
    }

    pub enum StoreResult {
        Verified(Assignment),
        Corrupt(Assignment),
        Discarded(Assignment),
        SmallFile(usize, ()),
        WriteFailed(usize, io::Error),
    }
}

pub mod file_job {
    use std::marker::PhantomData;

    pub struct Job {
        pub item: Item,
    }

    pub struct Item {
        pub content: Content,
    }

    pub struct Content {
        pub size: u64,
    }

    pub struct FileOperations<'a> {
        pub jobs: [Job; 1],
        lifetime: PhantomData<&'a ()>,
    }

    impl FileOperations<'_> {
        pub fn of_size(size: u64) -> Self {
            Self { jobs: [Job { item: Item { content: Content { size } } }], lifetime: PhantomData }
        }

        /// Files of these tests have two groups, so none is small.
        pub fn is_content(&self, _: usize, _: &[u8]) -> bool {
            false
        }

        pub fn save_small(&self, _: &[(usize, &[u8])]) -> Vec<(usize, Option<()>)> {
            Vec::new()
        }
    }
}

pub mod small_files {
    pub const SAVED_TOGETHER_MAX: usize = 1;
}

pub mod partial_file {
    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::FileExt;
    use std::sync::Arc;

    use super::DownloadError;
    use crate::common::chunk_tree::GroupHashes;
    use crate::common::sync::atomic::{AtomicBool, Ordering};
    use crate::common::types::ContentHash;

    /// A file to which writing takes time, and never happens once it is unlocked.
    pub struct PartialFile {
        file: Arc<File>,
        is_unlocked: AtomicBool,
    }

    impl PartialFile {
        pub fn new(size: u64) -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size).unwrap();
            Self { file: Arc::new(file), is_unlocked: AtomicBool::new(false) }
        }

        pub fn open(_: Arc<OwnedFd>, _: &ContentHash) -> Result<Self, DownloadError> {
            Err(DownloadError)
        }

        pub fn file(&self) -> &Arc<File> {
            &self.file
        }

        pub fn reserve(&self, _: Range<u64>) -> io::Result<()> {
            Ok(())
        }

        pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            shuttle::thread::yield_now();
            assert!(!self.is_unlocked.load(Ordering::SeqCst), "written after it was unlocked");
            self.file.write_all_at(bytes, offset)
        }

        pub fn copy_range(&self, _: &File, _: Range<u64>) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn verify_group(&self, _: &GroupHashes, _: u32, _: &mut Vec<u8>) -> io::Result<bool> {
            Ok(false)
        }

        pub fn remove(&self) {}

        pub fn unlock(&self) {
            self.is_unlocked.store(true, Ordering::SeqCst);
        }
    }
}
