//! Files that a source on this host passes, in place of their bytes.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::client::control_folder::ControlFolder;
use crate::client::direct::{pass_files, token_line};
use crate::common::peer_message::{DirectSocket, PeerResponse, RefusalReason};

/// What a peer passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassedContent {
    /// What it has published.
    Published,
    /// The file has another content by now.
    Other,
    /// The file is shorter by now.
    Truncated,
    /// A file that no kernel copies from or to: a pipe.
    Pipe,
    /// Nothing, though it says so once.
    Nothing,
    /// Nothing, though it says so each time.
    NeverAnything,
    /// What it has published, at the socket of another user's client.
    Relayed,
    /// What it has published, the groups of a request together, but no file for the last.
    LastMissing,
    /// What it has published, after a while each.
    Slowly,
    /// What it has published, once. Then it has no time, on this connection.
    ThenBusy,
    /// What it has published, once. Then it has it no more.
    ThenRefuses,
}

impl PassedContent {
    /// What it answers to the next request on this connection, counted from 0, after it has passed so many groups.
    pub fn interruption(self, connection: usize, content: u32, passed: usize) -> Option<PeerResponse> {
        match self {
            Self::ThenBusy if passed == 1 && connection == 0 => Some(PeerResponse::Busy { retry_ms: 20 }),
            Self::ThenRefuses if passed == 1 => {
                Some(PeerResponse::Refused { content, reason: RefusalReason::NotShared })
            }
            _ => None,
        }
    }
}

/// A peer's end of the direct path.
pub struct FilePassing<'a> {
    passed: &'a AtomicUsize,
    stream: Arc<OnceLock<UnixStream>>,
    dir: TempDir,
    /// Whose client greets.
    user: UserName,
}

impl<'a> FilePassing<'a> {
    pub fn new(passed: &'a AtomicUsize, user: UserName) -> Self {
        Self { passed, stream: Arc::default(), dir: tempfile::tempdir().unwrap(), user }
    }

    /// Accepts one connection with the right token.
    pub fn listen(&self) -> DirectSocket {
        let folder = self.dir.path().join("fileshare");
        let (identity, token) = ("a".repeat(32), [5; 16]);
        let socket = ControlFolder::create(&folder).unwrap().listen(&identity).unwrap();
        let (accepted, greeting) = (Arc::clone(&self.stream), format!("{{\"user\":\"{}\"}}\n", self.user));
        std::thread::spawn(move || {
            let (mut stream, _) = socket.listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, token_line(&token));
            accepted.set(stream.try_clone().unwrap()).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
        });
        DirectSocket { folder: folder.as_os_str().as_bytes().to_vec(), name: format!("{identity}.sock"), token }
    }

    pub fn count(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Passes files of these groups together, without one for the last. Whether the downloader still takes files.
    pub fn pass_without_last(&self, contents: &[Arc<Vec<u8>>]) -> bool {
        let Some(stream) = self.stream.get() else { return false };
        let files = contents.iter().take(contents.len() - 1).map(|bytes| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            file
        });
        let files: Vec<_> = files.collect();
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let is_taken = !files.is_empty() && pass_files(stream, &descriptors).is_ok();
        self.passed.fetch_add(if is_taken { files.len() } else { 0 }, Ordering::SeqCst);
        is_taken
    }

    /// Whether the downloader still takes files.
    pub fn pass(&self, content: PassedContent, bytes: &[u8]) -> bool {
        let Some(stream) = self.stream.get() else { return false };
        let mut file = tempfile::tempfile().unwrap();
        let (pipe, mut pipe_end) = std::io::pipe().unwrap();
        match content {
            PassedContent::Slowly => {
                std::thread::sleep(Duration::from_millis(200));
                file.write_all(bytes).unwrap();
            }
            PassedContent::Published
            | PassedContent::Relayed
            | PassedContent::LastMissing
            | PassedContent::ThenBusy
            | PassedContent::ThenRefuses => file.write_all(bytes).unwrap(),
            PassedContent::Other => file.write_all(&vec![0; bytes.len()]).unwrap(),
            PassedContent::Truncated => file.write_all(&bytes[..bytes.len() / 2]).unwrap(),
            PassedContent::Pipe => pipe_end.write_all(&bytes[..1]).unwrap(),
            PassedContent::Nothing if self.passed.load(Ordering::SeqCst) > 0 => return false,
            PassedContent::Nothing | PassedContent::NeverAnything => {}
        }
        if !matches!(content, PassedContent::Nothing | PassedContent::NeverAnything) {
            let file = if content == PassedContent::Pipe { pipe.as_fd() } else { file.as_fd() };
            if pass_files(stream, &[file]).is_err() {
                return false;
            }
        }
        self.passed.fetch_add(1, Ordering::SeqCst);
        true
    }
}

fn fetch(fixture: &DownloadFixture, peers: &[&TestPeer]) -> Vec<DownloadOutcome> {
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(peers)).unwrap();
    fixture.fetch_with(downloader.with_direct_path(true))
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("empty", Vec::new()),
        ("one", bytes(1, 0)),
        ("mib", bytes(MIB, 0)),
        ("folder/large", bytes(5 * MIB + 1, 0)),
        ("other", bytes(2 * MIB, 0)),
    ]
}

#[test]
fn passed_files_are_copied() {
    let fixture = DownloadFixture::new(&files());
    let peer = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::Published));
    assert_all_saved(&fetch(&fixture, &[&peer]));
    fixture.assert_whole();
    assert_eq!(peer.passed.load(Ordering::SeqCst), 1 + 1 + 6 + 2, "all groups");
    assert_eq!(peer.dialled.load(Ordering::SeqCst), 1);
    let received = fixture.progress.received.lock().unwrap();
    assert!(received.contains(&(3, 5 * MIB as u64 + 1, 5 * MIB as u64 + 1)) && received.contains(&(1, 1, 1)));
}

#[test]
fn whatever_is_wrong_with_a_passed_file_all_comes_over_tcp_unnoticed() {
    let contents = [PassedContent::Other, PassedContent::Truncated, PassedContent::Pipe, PassedContent::Nothing];
    for content in contents {
        let fixture = DownloadFixture::new(&files());
        let peer = fixture.peer("hans", PeerBehaviour::Passes(content));
        assert_all_saved(&fetch(&fixture, &[&peer]));
        fixture.assert_whole();
        assert!(peer.passed.load(Ordering::SeqCst) > 0, "{content:?}");
        assert_eq!(peer.dialled.load(Ordering::SeqCst), 1, "{content:?}: over the same connection");
        assert!(fixture.progress.dropped.lock().unwrap().is_empty(), "{content:?}");
        assert!(fixture.progress.notes.lock().unwrap().is_empty(), "{content:?}");
    }
}

#[test]
fn a_file_that_does_not_arrive_with_the_others_comes_over_tcp() {
    let fixture = DownloadFixture::new(&files());
    let peer = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::LastMissing));
    assert_all_saved(&fetch(&fixture, &[&peer]));
    fixture.assert_whole();
    let passed = peer.passed.load(Ordering::SeqCst);
    assert!((1..10).contains(&passed), "{passed} of 10 groups");
    assert_eq!(peer.dialled.load(Ordering::SeqCst), 1, "over the same connection");
    assert!(fixture.progress.dropped.lock().unwrap().is_empty());
}

#[test]
fn a_source_that_has_no_time_after_passing_a_file_is_dialled_again() {
    let fixture = DownloadFixture::new(&files());
    let peer = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::ThenBusy));
    assert_all_saved(&fetch(&fixture, &[&peer]));
    fixture.assert_whole();
    assert_eq!(peer.dialled.load(Ordering::SeqCst), 2);
    assert_eq!(peer.passed.load(Ordering::SeqCst), 1 + 1 + 6 + 2, "what was passed before is not passed again");
}

#[test]
fn a_source_that_withdraws_a_file_while_it_passes_it_is_given_up_for_that_file() {
    let large = [("large", bytes(5 * MIB + 1, 0))];
    let fixture = DownloadFixture::new(&large);
    let withdraws = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::ThenRefuses));
    let outcomes = fetch(&fixture, &[&withdraws]);
    assert!(matches!(outcomes[..], [DownloadOutcome::Failed(_)]), "{outcomes:?}");
    let other = fixture.peer("vader", PeerBehaviour::Passes(PassedContent::Published));
    assert_all_saved(&fetch(&fixture, &[&withdraws, &other]));
    fixture.assert_whole();
}

/// The groups of the slow source are given to the fast one, and the slow one is told to cancel them.
#[test]
fn groups_that_a_slow_source_would_pass_are_taken_over() {
    let fixture = DownloadFixture::new(&[("large", bytes(40 * MIB, 0))]);
    let slow = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::Slowly));
    let fast = fixture.peer("vader", PeerBehaviour::Passes(PassedContent::Published));
    assert_all_saved(&fetch(&fixture, &[&slow, &fast]));
    fixture.assert_whole();
    assert!(slow.passed.load(Ordering::SeqCst) < fast.passed.load(Ordering::SeqCst));
}

#[test]
fn the_socket_of_another_user_is_not_taken() {
    let fixture = DownloadFixture::new(&files());
    let peer = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::Relayed));
    assert_all_saved(&fetch(&fixture, &[&peer]));
    fixture.assert_whole();
    assert_eq!((peer.passed.load(Ordering::SeqCst), peer.dialled.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn a_source_that_says_again_that_it_passed_files_is_given_up() {
    let fixture = DownloadFixture::new(&files());
    let lying = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::NeverAnything));
    let outcomes = fetch(&fixture, &[&lying]);
    // The empty file needs no source.
    assert!(outcomes[1..].iter().all(|outcome| matches!(outcome, DownloadOutcome::Failed(_))), "{outcomes:?}");
    let fixture = DownloadFixture::new(&files());
    let peers = [PeerBehaviour::Passes(PassedContent::NeverAnything), PeerBehaviour::Honest];
    let peers = ["hans", "vader"].into_iter().zip(peers).map(|(name, behaviour)| fixture.peer(name, behaviour));
    let peers: Vec<TestPeer> = peers.collect();
    assert_all_saved(&fetch(&fixture, &[&peers[0], &peers[1]]));
    fixture.assert_whole();
}

#[test]
fn sources_that_pass_files_share_the_work_with_others() {
    let fixture = DownloadFixture::new(&[("large", bytes(12 * MIB + 17, 0))]);
    let passing = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::Published));
    let slow = PeerBehaviour::Slow(Duration::from_millis(5));
    let others = [slow, PeerBehaviour::Passes(PassedContent::Other)];
    let others = ["vader", "yoda"].into_iter().zip(others).map(|(name, behaviour)| fixture.peer(name, behaviour));
    let others: Vec<TestPeer> = others.collect();
    assert_all_saved(&fetch(&fixture, &[&passing, &others[0], &others[1]]));
    fixture.assert_whole();
    assert!(passing.passed.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_download_continues_with_passed_files() {
    let mut fixture = DownloadFixture::new(&[("large", bytes(24 * MIB, 0))]);
    fixture.progress.stop_at = Some(8 * MIB as u64);
    let peer = fixture.peer("hans", PeerBehaviour::Passes(PassedContent::Published));
    let outcomes = fetch(&fixture, &[&peer]);
    assert!(matches!(outcomes[..], [DownloadOutcome::Failed(DownloadError::Interrupted)]), "{outcomes:?}");
    assert!(fixture.partial_path(0).exists());
    fixture.progress = RecordedProgress::default();
    let before = peer.passed.swap(0, Ordering::SeqCst);
    assert_all_saved(&fetch(&fixture, &[&peer]));
    fixture.assert_whole();
    let after = peer.passed.load(Ordering::SeqCst);
    assert!(before >= 8 && (1..=16).contains(&after), "{before}, then {after}");
}

#[test]
fn only_the_assignment_of_a_group_is_copied_and_the_source_is_blamed_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (incomplete, source) = (IncompleteFile::example(dir.path()), tempfile::tempfile().unwrap());
    incomplete.assign(0, 2);
    assert!(matches!(incomplete.copy_group(0, 1, &source, &mut Vec::new()), Ok(incomplete_file::Write::Stale)));
    assert!(matches!(
        incomplete.copy_group(0, 2, &source, &mut Vec::new()),
        Err(incomplete_file::CopyError::Source(_))
    ));
    source.set_len(MIB as u64).unwrap();
    assert!(matches!(incomplete.copy_group(0, 2, &source, &mut Vec::new()), Ok(incomplete_file::Write::Done)));
    incomplete.close();
    assert!(matches!(incomplete.copy_group(0, 2, &source, &mut Vec::new()), Ok(incomplete_file::Write::Stale)));
}

#[test]
fn a_file_of_another_file_system_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let incomplete = IncompleteFile::example(dir.path());
    let memory = rustix::fs::memfd_create("source", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut source = std::fs::File::from(memory);
    source.write_all(&bytes(MIB + 1, 3)).unwrap();
    let mut buffer = Vec::new();
    for group in 0..2 {
        incomplete.assign(group, 1);
        assert!(matches!(incomplete.copy_group(group, 1, &source, &mut buffer), Ok(incomplete_file::Write::Done)));
    }
    let mut copy = vec![0; MIB + 1];
    std::os::unix::fs::FileExt::read_exact_at(&**incomplete.file(), &mut copy, 0).unwrap();
    assert!(copy == bytes(MIB + 1, 3));
}
