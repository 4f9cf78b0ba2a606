//! Complete downloads in one process: real connections on loopback, real files in a temporary folder.

mod direct_path;
mod giving_up;
mod peers;
mod streams;
mod targets;
mod trouble;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use peers::{Contents, PeerBehaviour, TestDiscovery, TestPeer};
use tempfile::TempDir;

use super::request::FILES_PER_BATCH;
use super::*;
use crate::common::types::{Content, ContentHash, NamedContent};

const MIB: usize = 1 << 20;
const MTIME_MS: i64 = 1_600_000_000_123;

/// Bytes that no other size or seed shares, with no repeats from group to group.
fn bytes(size: usize, seed: u8) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&[seed]).update(&size.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; size];
    reader.fill(&mut bytes);
    bytes
}

/// Records what is reported.
struct RecordedProgress {
    received: Mutex<Vec<(usize, u64, u64)>>,
    dropped: Mutex<Vec<(String, String)>>,
    finished: Mutex<Vec<(usize, DownloadOutcome)>>,
    waiting: Mutex<Vec<String>>,
    notes: Mutex<Vec<String>>,
    /// Dropped to cancel.
    alive: Mutex<Option<Sender<Infallible>>>,
    cancelled: Cancelled,
    /// Cancel once this many bytes of a file have been received.
    stop_at: Option<u64>,
    started: Mutex<Vec<Arc<IncompleteFile>>>,
}

impl Default for RecordedProgress {
    fn default() -> Self {
        let (alive, cancelled) = bounded(0);
        Self {
            received: Mutex::default(),
            dropped: Mutex::default(),
            finished: Mutex::default(),
            waiting: Mutex::default(),
            notes: Mutex::default(),
            alive: Mutex::new(Some(alive)),
            cancelled,
            stop_at: None,
            started: Mutex::default(),
        }
    }
}

impl RecordedProgress {
    /// The outcomes of `count` files, in order.
    fn take_outcomes(&self, count: usize) -> Vec<DownloadOutcome> {
        let mut finished = std::mem::take(&mut *self.finished.lock().unwrap());
        finished.sort_unstable_by_key(|(index, _)| *index);
        assert!(finished.iter().map(|(index, _)| *index).eq(0..count), "each is reported once");
        finished.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn record(&self, report: DownloadReport) {
        match report {
            DownloadReport::Received { index, done, total } => {
                self.received.lock().unwrap().push((index, done, total));
                if self.stop_at.is_some_and(|at| done >= at) {
                    *self.alive.lock().unwrap() = None;
                }
            }
            DownloadReport::Waiting(user, _) => self.waiting.lock().unwrap().push(user.to_string()),
            DownloadReport::SourceDropped { user, reason, .. } => {
                self.dropped.lock().unwrap().push((user.to_string(), reason));
            }
            DownloadReport::Finished(index, outcome) => self.finished.lock().unwrap().push((index, outcome)),
            DownloadReport::Started(_, incomplete) => self.started.lock().unwrap().push(incomplete),
            DownloadReport::Delivered(..) | DownloadReport::Resumed { .. } => {}
            DownloadReport::Note(note) => self.notes.lock().unwrap().push(note),
        }
    }
}

/// A target folder, and the files that can be downloaded.
struct DownloadFixture {
    dir: TempDir,
    contents: Arc<Contents>,
    wanted: Vec<NamedContent>,
    options: DownloadOptions,
    progress: RecordedProgress,
}

impl DownloadFixture {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let mut contents = Contents::new();
        let mut wanted = Vec::new();
        for (name, bytes) in files {
            let hash = ContentHash(*blake3::hash(bytes).as_bytes());
            let content = Content { hash, size: bytes.len() as u64, mtime_ms: MTIME_MS };
            wanted.push(NamedContent { name: FileName::parse(name).unwrap(), content });
            contents.insert(hash, Arc::new(bytes.clone()));
        }
        let options =
            DownloadOptions { on_exists: OnExists::Error, retry_for: Duration::ZERO, save_as: SaveAs::OwnName };
        let (dir, contents, progress) = (tempfile::tempdir().unwrap(), Arc::new(contents), RecordedProgress::default());
        Self { dir, contents, wanted, options, progress }
    }

    fn peer(&self, name: &str, behaviour: PeerBehaviour) -> TestPeer {
        TestPeer::start(name, &self.contents, behaviour)
    }

    fn fetch(&self, peers: &[&TestPeer]) -> Vec<DownloadOutcome> {
        self.fetch_from(TestDiscovery::of(peers))
    }

    fn fetch_from(&self, discovery: Arc<TestDiscovery>) -> Vec<DownloadOutcome> {
        self.fetch_with(Downloader::with_discovery(self.dir.path(), discovery).unwrap())
    }

    fn fetch_with(&self, downloader: Downloader) -> Vec<DownloadOutcome> {
        downloader.fetch(&self.wanted, &self.options, &self.progress.cancelled, &|report| self.progress.record(report));
        self.progress.take_outcomes(self.wanted.len())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn partial_path(&self, index: usize) -> PathBuf {
        let wanted = &self.wanted[index];
        let folder = self.path(wanted.name.as_str());
        folder.parent().unwrap().join(&partial_file::partial_file_names(&wanted.content.hash)[0])
    }

    /// Every file is complete, with the publication's modification time, and there is no other file.
    fn assert_whole(&self) {
        for wanted in &self.wanted {
            let path = self.path(wanted.name.as_str());
            assert!(std::fs::read(&path).unwrap() == **self.contents[&wanted.content.hash], "{}", wanted.name);
            let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
            let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(since.as_millis() as i64, MTIME_MS);
        }
        assert_eq!(files_in(self.dir.path()), self.wanted.len(), "no other file is left");
    }
}

fn files_in(dir: &Path) -> usize {
    let count = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { files_in(&path) } else { 1 }
    };
    std::fs::read_dir(dir).unwrap().map(count).sum()
}

fn assert_all_saved(outcomes: &[DownloadOutcome]) {
    for outcome in outcomes {
        assert!(matches!(outcome, DownloadOutcome::Saved { .. }), "{outcome:?}");
    }
}

#[test]
fn files_of_every_size_are_downloaded() {
    let fixture = DownloadFixture::new(&[
        ("empty", Vec::new()),
        ("one", bytes(1, 0)),
        ("piece", bytes(64 << 10, 0)),
        ("piece and a byte", bytes((64 << 10) + 1, 0)),
        ("mib", bytes(MIB, 0)),
        ("mib and a byte", bytes(MIB + 1, 0)),
        ("folder/deep/five", bytes(5 * MIB, 0)),
    ]);
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
    assert_eq!(peer.dialled.load(Ordering::SeqCst), 1, "one connection carries them all");
    let received = fixture.progress.received.lock().unwrap();
    assert!(received.contains(&(6, 5 * MIB as u64, 5 * MIB as u64)) && received.contains(&(1, 1, 1)));
}

#[test]
fn several_sources_share_the_work() {
    let fixture = DownloadFixture::new(&[("large", bytes(24 * MIB + 17, 0))]);
    let pause = PeerBehaviour::Slow(Duration::from_millis(2));
    let peers = ["hans", "vader", "yoda"].map(|name| fixture.peer(name, pause));
    assert_all_saved(&fixture.fetch(&[&peers[0], &peers[1], &peers[2]]));
    fixture.assert_whole();
    let requested = peers.map(|peer| peer.requested.load(Ordering::SeqCst));
    assert!(requested.iter().all(|&groups| groups > 0), "{requested:?}");
}

#[test]
fn sources_that_steal_groups_from_each_other_leave_no_gap() {
    for round in 0..20 {
        let fixture = DownloadFixture::new(&[("large", bytes(6 * MIB + 1, round))]);
        let peers: Vec<TestPeer> = (0..8).map(|at| fixture.peer(&format!("user{at}"), PeerBehaviour::Honest)).collect();
        assert_all_saved(&fixture.fetch(&peers.iter().collect::<Vec<_>>()));
        fixture.assert_whole();
    }
}

#[test]
fn thousands_of_small_files_use_one_connection() {
    let files: Vec<(String, Vec<u8>)> =
        (0..3_000).map(|at| (format!("folder/{at}"), bytes(1 + at % 97, (at % 251) as u8))).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let fixture = DownloadFixture::new(&files);
    let peers = ["hans", "vader"].map(|name| fixture.peer(name, PeerBehaviour::Honest));
    assert_all_saved(&fixture.fetch(&[&peers[0], &peers[1]]));
    fixture.assert_whole();
    assert!(peers[0].dialled.load(Ordering::SeqCst) <= 2, "one for each batch of {FILES_PER_BATCH} files");
}

#[test]
fn the_same_content_is_saved_under_many_names() {
    let (small, large) = (bytes(5, 1), bytes(2 * MIB + 5, 1));
    let names = ["a", "b", "c", "d/e"];
    let files: Vec<_> = names.iter().map(|name| (*name, small.clone())).collect();
    let fixture = DownloadFixture::new(&files);
    let peers = ["hans", "vader"].map(|name| fixture.peer(name, PeerBehaviour::Honest));
    assert_all_saved(&fixture.fetch(&[&peers[0], &peers[1]]));
    fixture.assert_whole();
    let files: Vec<_> = names.iter().map(|name| (*name, large.clone())).collect();
    let fixture = DownloadFixture::new(&files);
    let peers = ["hans", "vader"].map(|name| fixture.peer(name, PeerBehaviour::Honest));
    assert_all_saved(&fixture.fetch(&[&peers[0], &peers[1]]));
    fixture.assert_whole();
}

#[test]
fn a_source_that_is_still_downloading_serves_the_groups_it_has() {
    let mut fixture = DownloadFixture::new(&[("large", bytes(6 * MIB, 0))]);
    fixture.options.retry_for = Duration::from_secs(20);
    let peer = fixture.peer("hans", PeerBehaviour::Incomplete(2));
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
}

#[test]
fn verified_groups_can_be_served_before_the_file_is_complete() {
    let fixture = DownloadFixture::new(&[("large", bytes(3 * MIB, 0))]);
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&peer]));
    let arriving = fixture.progress.started.lock().unwrap();
    assert!(!arriving[0].serves(0), "not before the copy has the audience of its owner");
    arriving[0].serve_groups_of(&[UserName::parse("vader").unwrap()]);
    assert!(!arriving[0].serves(0), "nor by that of another owner");
    arriving[0].serve_groups_of(&[UserName::parse("hans").unwrap()]);
    assert!((0..3).all(|group| arriving[0].serves(group)) && !arriving[0].serves(3) && !arriving[0].serves(u32::MAX));
    assert!(!arriving[0].has_groups_of_unknown_owner());
    let mut start = [0; 16];
    std::os::unix::fs::FileExt::read_exact_at(&**arriving[0].file(), &mut start, 0).unwrap();
    assert_eq!(start, bytes(3 * MIB, 0)[..16]);
}
