//! Contents that are read in order while they arrive, files under another name, and files that come from a stream.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

/// Downloads the only file of `fixture` while another thread reads it. Returns what was read, and the outcome.
fn stream(fixture: &mut DownloadFixture, peers: &[&TestPeer]) -> (Vec<u8>, DownloadOutcome) {
    fixture.options.save_as = SaveAs::Unnamed;
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(peers)).unwrap();
    let stream = ContentStream::new(fixture.wanted[0].content.size);
    let read = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            let taken = stream.read_to(|bytes| {
                read.extend_from_slice(bytes);
                ControlFlow::Continue(())
            });
            taken.map(|()| read)
        });
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &|report| {
            stream.on_report(&report);
            fixture.progress.record(report);
        });
        stream.end();
        reader.join().unwrap().unwrap()
    });
    assert_eq!(files_in(fixture.dir.path()), 0, "no file is left");
    (read, fixture.progress.take_outcomes(1).remove(0))
}

#[test]
fn a_content_of_any_size_is_read_in_order_from_several_sources() {
    for size in [0, 1, MIB, MIB + 1, 9 * MIB + 17] {
        let mut fixture = DownloadFixture::new(&[("folder/file", bytes(size, 0))]);
        let pause = PeerBehaviour::Slow(Duration::from_micros(100));
        let peers = [fixture.peer("hans", PeerBehaviour::Honest), fixture.peer("vader", pause)];
        let (read, outcome) = stream(&mut fixture, &[&peers[0], &peers[1]]);
        assert!(matches!(outcome, DownloadOutcome::Unnamed(_)), "{outcome:?}");
        assert!(read == bytes(size, 0), "{size}");
    }
}

#[test]
fn what_is_read_of_a_content_that_fails_is_its_beginning() {
    for behaviour in [PeerBehaviour::Dies(5 * MIB as u64), PeerBehaviour::CorruptsGroup(3)] {
        let whole = bytes(12 * MIB, 0);
        let mut fixture = DownloadFixture::new(&[("file", whole.clone())]);
        let peer = fixture.peer("hans", behaviour);
        let (read, outcome) = stream(&mut fixture, &[&peer]);
        assert!(matches!(outcome, DownloadOutcome::Failed(_)), "{outcome:?}");
        assert!(whole.starts_with(&read) && read.len() % MIB == 0 && (1..12).contains(&(read.len() / MIB)));
    }
}

#[test]
fn a_content_that_one_source_began_is_completed_by_another() {
    let mut fixture = DownloadFixture::new(&[("file", bytes(12 * MIB, 0))]);
    let dies = fixture.peer("hans", PeerBehaviour::Dies(5 * MIB as u64));
    let honest = fixture.peer("vader", PeerBehaviour::Slow(Duration::from_micros(500)));
    let (read, outcome) = stream(&mut fixture, &[&dies, &honest]);
    assert!(matches!(outcome, DownloadOutcome::Unnamed(_)), "{outcome:?}");
    assert!(read == bytes(12 * MIB, 0));
}

#[test]
fn nothing_is_read_of_a_download_that_fails_at_once() {
    let stream = ContentStream::new(3 * MIB as u64);
    stream.on_report(&DownloadReport::Finished(0, DownloadOutcome::Failed(DownloadError::Interrupted)));
    stream.read_to(|_| panic!("there is nothing to read")).unwrap();
}

#[test]
fn a_file_is_saved_under_another_name_by_the_same_rules() {
    for size in [100, 2 * MIB + 3] {
        let mut fixture = DownloadFixture::new(&[("report.pdf", bytes(size, 0))]);
        let peer = fixture.peer("hans", PeerBehaviour::Honest);
        fixture.options.save_as = SaveAs::Name(FileName::parse("new/name").unwrap());
        std::fs::write(fixture.path("report.pdf"), b"the user's own").unwrap();
        for _ in 0..2 {
            assert_eq!(fixture.fetch(&[&peer])[0].saved_as().unwrap().as_str(), "new/name");
        }
        assert_eq!(peer.dialled.load(Ordering::SeqCst), 1, "the second time it is there already");
        assert!(std::fs::read(fixture.path("new/name")).unwrap() == bytes(size, 0));
        std::fs::write(fixture.path("new/name"), b"other").unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Exists)), "{outcomes:?}");
        fixture.options.on_exists = OnExists::Rename;
        assert_eq!(fixture.fetch(&[&peer])[0].saved_as().unwrap().as_str(), "new/name (1)");
        assert_eq!(std::fs::read(fixture.path("report.pdf")).unwrap(), b"the user's own");
        assert_eq!(files_in(fixture.dir.path()), 3, "no part is left");
    }
}

#[test]
fn a_check_of_the_targets_changes_nothing() {
    let mut fixture = DownloadFixture::new(&[("new/a", bytes(5, 0)), ("same", bytes(6, 0)), ("other", bytes(7, 0))]);
    std::fs::write(fixture.path("same"), bytes(6, 0)).unwrap();
    std::fs::write(fixture.path("other"), b"x").unwrap();
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[])).unwrap();
    let mut check = |on_exists| {
        fixture.options.on_exists = on_exists;
        downloader.check_targets(&fixture.wanted, &fixture.options, &fixture.progress.cancelled)
    };
    let outcomes = check(OnExists::Error);
    assert!(outcomes[0].is_none() && matches!(&outcomes[1], Some(DownloadOutcome::Saved { .. })));
    assert!(matches!(&outcomes[2], Some(DownloadOutcome::Failed(DownloadError::Exists))), "{outcomes:?}");
    assert!(matches!(&check(OnExists::Skip)[2], Some(DownloadOutcome::Skipped)));
    assert!(check(OnExists::Overwrite)[2].is_none() && check(OnExists::Rename)[2].is_none());
    assert_eq!(files_in(fixture.dir.path()), 2);
    assert!(!fixture.path("new").exists());
}

/// Fails, or is cancelled, after its bytes.
struct Input<'a> {
    bytes: &'a [u8],
    was_read: AtomicBool,
    end: Box<dyn Fn() -> std::io::Result<usize> + 'a>,
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.was_read.store(true, Ordering::SeqCst);
        match self.bytes.read(buffer)? {
            0 => (self.end)(),
            length => Ok(length),
        }
    }
}

#[test]
fn an_input_is_stored_whole_and_as_on_exists_says() {
    let fixture = DownloadFixture::new(&[]);
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[])).unwrap();
    let content = bytes(MIB + 5, 1);
    let store = |name: &str, policy, bytes: &[u8]| {
        let mut input = Input { bytes, was_read: AtomicBool::new(false), end: Box::new(|| Ok(0)) };
        let name = FileName::parse(name).unwrap();
        let stored = downloader.store(&name, policy, &mut input, &fixture.progress.cancelled);
        (stored.map(|name| name.map(|name| name.to_string())), input.was_read.into_inner())
    };
    assert_eq!(store("logs/a", OnExists::Error, &content).0.unwrap().unwrap(), "logs/a");
    assert!(std::fs::read(fixture.path("logs/a")).unwrap() == content);
    let (refused, was_read) = store("logs/a", OnExists::Error, b"new");
    assert!(matches!(refused, Err(DownloadError::Exists)) && !was_read);
    let (skipped, was_read) = store("logs/a", OnExists::Skip, b"new");
    assert!(matches!(skipped, Ok(None)) && !was_read);
    assert_eq!(store("logs/a", OnExists::Rename, b"new").0.unwrap().unwrap(), "logs/a (1)");
    assert_eq!(store("logs/a", OnExists::Overwrite, b"").0.unwrap().unwrap(), "logs/a");
    assert_eq!(std::fs::read(fixture.path("logs/a")).unwrap(), b"");
    assert!(matches!(store("logs", OnExists::Overwrite, b"x").0, Err(DownloadError::Local(_))));
    let partial = ".0123456789abcdef0123456789abcdef.part";
    assert!(matches!(store(partial, OnExists::Overwrite, b"x").0, Err(DownloadError::Local(_))));
    assert_eq!(files_in(fixture.dir.path()), 2, "no part is left");
}

#[test]
fn a_file_that_appears_while_an_input_is_read_stays() {
    let fixture = DownloadFixture::new(&[]);
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[])).unwrap();
    let store = |name: &str, policy| {
        let end = Box::new(|| {
            std::fs::write(fixture.path(name), "other")?;
            Ok(0)
        });
        let mut input = Input { bytes: b"input", was_read: AtomicBool::new(false), end };
        let stored = downloader.store(&FileName::parse(name).unwrap(), policy, &mut input, &fixture.progress.cancelled);
        (stored.map(|name| name.map(|name| name.to_string())), std::fs::read_to_string(fixture.path(name)).unwrap())
    };
    let (refused, kept) = store("a", OnExists::Error);
    assert!(matches!(refused, Err(DownloadError::Exists)) && kept == "other", "{refused:?}");
    let (skipped, kept) = store("b", OnExists::Skip);
    assert!(matches!(skipped, Ok(None)) && kept == "other", "{skipped:?}");
    let (renamed, kept) = store("c", OnExists::Rename);
    assert!(renamed.unwrap().unwrap() == "c (1)" && kept == "other");
    assert_eq!(files_in(fixture.dir.path()), 4, "no part is left");
}

#[test]
fn an_input_that_fails_or_is_cancelled_leaves_nothing() {
    let fixture = DownloadFixture::new(&[]);
    let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[])).unwrap();
    let name = FileName::parse("a").unwrap();
    let store = |end: Box<dyn Fn() -> std::io::Result<usize> + '_>| {
        let mut input = Input { bytes: b"beginning", was_read: AtomicBool::new(false), end };
        downloader.store(&name, OnExists::Error, &mut input, &fixture.progress.cancelled)
    };
    let failed = store(Box::new(|| Err(std::io::Error::other("broken"))));
    assert!(matches!(failed, Err(DownloadError::Local(_))), "{failed:?}");
    let cancelled = store(Box::new(|| {
        *fixture.progress.alive.lock().unwrap() = None;
        Err(std::io::ErrorKind::Interrupted.into())
    }));
    assert!(matches!(cancelled, Err(DownloadError::Interrupted)), "{cancelled:?}");
    assert_eq!(files_in(fixture.dir.path()), 0);
}
