//! Existing targets, planted links, and races for a name.

use std::os::unix::fs::symlink;

use super::*;
use crate::client::files::Fetched;

fn fixture(size: usize) -> (DownloadFixture, TestPeer) {
    let fixture = DownloadFixture::new(&[("folder/report.pdf", bytes(size, 0))]);
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    std::fs::create_dir(fixture.path("folder")).unwrap();
    (fixture, peer)
}

const SIZES: [usize; 2] = [100, 2 * MIB + 3];

#[test]
fn an_identical_target_is_not_downloaded() {
    for size in SIZES {
        for policy in [OnExists::Error, OnExists::Overwrite, OnExists::Rename, OnExists::Skip] {
            let (mut fixture, peer) = fixture(size);
            fixture.options.on_exists = policy;
            std::fs::write(fixture.path("folder/report.pdf"), bytes(size, 0)).unwrap();
            assert_all_saved(&fixture.fetch(&[&peer]));
            assert_eq!(peer.dialled.load(Ordering::SeqCst), 0);
            assert_eq!(files_in(fixture.dir.path()), 1);
        }
    }
}

#[test]
fn a_different_target_is_handled_as_on_exists_says() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        let (old, new) = (bytes(size, 9), bytes(size, 0));
        let path = fixture.path("folder/report.pdf");
        std::fs::write(&path, &old).unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Exists)));
        fixture.options.on_exists = OnExists::Skip;
        assert!(matches!(fixture.fetch(&[&peer])[0], DownloadOutcome::Skipped));
        assert_eq!(peer.dialled.load(Ordering::SeqCst), 0, "neither fetches anything");
        fixture.options.on_exists = OnExists::Rename;
        for expected in ["folder/report (1).pdf", "folder/report (2).pdf"] {
            let outcomes = fixture.fetch(&[&peer]);
            assert!(
                matches!(&outcomes[0], DownloadOutcome::Saved { name } if name.as_str() == expected),
                "{outcomes:?}"
            );
            assert!(std::fs::read(fixture.path(expected)).unwrap() == new);
        }
        assert!(std::fs::read(&path).unwrap() == old);
        fixture.options.on_exists = OnExists::Overwrite;
        assert_all_saved(&fixture.fetch(&[&peer]));
        assert!(std::fs::read(&path).unwrap() == new);
    }
}

#[test]
fn a_folder_is_never_replaced_and_fails_before_the_transfer() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        std::fs::create_dir(fixture.path("folder/report.pdf")).unwrap();
        assert!(matches!(fixture.fetch(&[&peer])[0], DownloadOutcome::Failed(DownloadError::Exists)));
        fixture.options.on_exists = OnExists::Skip;
        assert!(matches!(fixture.fetch(&[&peer])[0], DownloadOutcome::Skipped));
        fixture.options.on_exists = OnExists::Overwrite;
        let outcomes = fixture.fetch(&[&peer]);
        let DownloadOutcome::Failed(error @ DownloadError::Local(_)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(error.to_string(), "a folder has this name, and folders are not replaced");
        assert_eq!((peer.dialled.load(Ordering::SeqCst), files_in(fixture.dir.path())), (0, 0));
        fixture.options.on_exists = OnExists::Rename;
        let outcomes = fixture.fetch(&[&peer]);
        let renamed = "folder/report (1).pdf";
        assert!(matches!(&outcomes[0], DownloadOutcome::Saved { name } if name.as_str() == renamed), "{outcomes:?}");
    }
}

/// A small file has a partial file only when it replaces another one.
fn replace_another_file(fixture: &mut DownloadFixture) {
    fixture.options.on_exists = OnExists::Overwrite;
    std::fs::write(fixture.path("folder/report.pdf"), b"old").unwrap();
}

#[test]
fn a_small_file_needs_no_partial_file() {
    let (fixture, peer) = fixture(SIZES[0]);
    // With no part and nothing to write to, what is named is complete.
    std::fs::create_dir(fixture.partial_path(0)).unwrap();
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
}

#[test]
fn no_link_is_followed() {
    for size in SIZES {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        std::fs::write(&victim, b"precious").unwrap();

        let (mut fixture, peer) = fixture(size);
        std::fs::remove_dir(fixture.path("folder")).unwrap();
        symlink(outside.path(), fixture.path("folder")).unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(
            matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Local(_))),
            "a linked folder: {outcomes:?}"
        );

        std::fs::remove_file(fixture.path("folder")).unwrap();
        std::fs::create_dir(fixture.path("folder")).unwrap();
        replace_another_file(&mut fixture);
        symlink(&victim, fixture.partial_path(0)).unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Local(_))), "a linked part: {outcomes:?}");

        std::fs::remove_file(fixture.partial_path(0)).unwrap();
        std::fs::hard_link(&victim, fixture.partial_path(0)).unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Local(_))), "a hard link: {outcomes:?}");

        std::fs::remove_file(fixture.partial_path(0)).unwrap();
        std::fs::remove_file(fixture.path("folder/report.pdf")).unwrap();
        fixture.options.on_exists = OnExists::Error;
        symlink(&victim, fixture.path("folder/report.pdf")).unwrap();
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Exists)), "a linked target: {outcomes:?}");

        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert_eq!(files_in(outside.path()), 1);
    }
}

#[test]
fn a_link_at_the_target_is_replaced_and_not_followed() {
    let (mut fixture, peer) = fixture(100);
    fixture.options.on_exists = OnExists::Overwrite;
    let victim = fixture.path("victim");
    std::fs::write(&victim, b"precious").unwrap();
    symlink(&victim, fixture.path("folder/report.pdf")).unwrap();
    assert_all_saved(&fixture.fetch(&[&peer]));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(std::fs::symlink_metadata(fixture.path("folder/report.pdf")).unwrap().is_file());
}

#[test]
fn a_fifo_does_not_block_the_download() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        replace_another_file(&mut fixture);
        let fifo = |path: &Path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        };
        fifo(&fixture.partial_path(0));
        let outcomes = fixture.fetch(&[&peer]);
        assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Local(_))), "{outcomes:?}");
        std::fs::remove_file(fixture.partial_path(0)).unwrap();
        std::fs::remove_file(fixture.path("folder/report.pdf")).unwrap();
        fixture.options.on_exists = OnExists::Error;
        fifo(&fixture.path("folder/report.pdf"));
        assert!(matches!(fixture.fetch(&[&peer])[0], DownloadOutcome::Failed(DownloadError::Exists)));
    }
}

#[test]
fn a_partial_file_in_use_is_not_touched_but_waited_for() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        replace_another_file(&mut fixture);
        let folder = Arc::new(std::fs::File::open(fixture.path("folder")).unwrap().into());
        let held = partial_file::PartialFile::open(folder, &fixture.wanted[0].content.hash).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while fixture.progress.notes.lock().unwrap().is_empty() {
                    std::thread::yield_now();
                }
                assert_eq!(held.file().metadata().unwrap().len(), 0);
                drop(held);
            });
            assert_all_saved(&fixture.fetch(&[&peer]));
        });
        fixture.assert_whole();
    }
}

#[test]
fn partial_files_touched_lately_are_kept() {
    let (fixture, peer) = fixture(SIZES[0]);
    let (old, young) =
        (fixture.path("folder/.0123456789abcdef0123456789abcdef.part"), fixture.path("folder/young.part"));
    std::fs::write(&old, "part").unwrap();
    std::fs::write(&young, "part").unwrap();
    assert_all_saved(&fixture.fetch(&[&peer]));
    assert!(old.exists() && young.exists(), "touched just now");
    assert!(fixture.progress.notes.lock().unwrap().is_empty());
}

#[test]
fn a_small_partial_file_in_use_is_waited_for() {
    let (mut fixture, peer) = fixture(SIZES[0]);
    replace_another_file(&mut fixture);
    let folder = Arc::new(std::fs::File::open(fixture.path("folder")).unwrap().into());
    let held = partial_file::PartialFile::open(folder, &fixture.wanted[0].content.hash).unwrap();
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| fixture.fetch(&[&peer]));
        while peer.requested.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        held.remove();
        drop(held);
        assert_all_saved(&fetching.join().unwrap());
    });
    assert_eq!(std::fs::read(fixture.path("folder/report.pdf")).unwrap().len(), SIZES[0]);
}

#[test]
fn a_target_that_appears_meanwhile_is_not_replaced() {
    for (policy, keeps) in [(OnExists::Error, true), (OnExists::Rename, true), (OnExists::Overwrite, false)] {
        let (mut fixture, _) = fixture(2 * MIB + 3);
        let peer = fixture.peer("hans", PeerBehaviour::Slow(Duration::from_millis(1)));
        fixture.options.on_exists = policy;
        let path = fixture.path("folder/report.pdf");
        let plant = |report| match report {
            DownloadReport::Started(..) => std::fs::write(&path, b"mine").unwrap(),
            report => fixture.progress.record(report),
        };
        let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[&peer])).unwrap();
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &plant);
        let outcomes = fixture.progress.take_outcomes(1);
        match (policy, &outcomes[0]) {
            (OnExists::Error, DownloadOutcome::Failed(DownloadError::Exists)) => {
                assert!(fixture.partial_path(0).exists(), "the whole part is kept for another policy");
            }
            (OnExists::Rename, DownloadOutcome::Saved { name }) => assert_eq!(name.as_str(), "folder/report (1).pdf"),
            (OnExists::Overwrite, DownloadOutcome::Saved { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read(&path).unwrap() == b"mine", keeps);
    }
}

#[test]
fn two_downloads_of_one_name_do_not_corrupt_each_other() {
    assert_eq!(race(&fixture(4 * MIB).0), 2, "the later one waits");
}

#[test]
fn two_downloads_of_many_small_files_both_succeed() {
    let names: Vec<String> = (0..300).map(|at| format!("folder/{at}")).collect();
    let files: Vec<_> = names.iter().enumerate().map(|(at, name)| (name.as_str(), bytes(3_000 + at, 0))).collect();
    assert_eq!(race(&DownloadFixture::new(&files)), 2 * files.len());
}

/// Two downloads of the same into the same folder at once; how many files were successes.
fn race(fixture: &DownloadFixture) -> usize {
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    let other = RecordedProgress::default();
    let discovery = TestDiscovery::of(&[&peer]);
    let downloaders = [(); 2].map(|()| Downloader::with_discovery(fixture.dir.path(), discovery.clone()).unwrap());
    let both = [&fixture.progress, &other];
    std::thread::scope(|scope| {
        for (downloader, progress) in downloaders.iter().zip(both) {
            scope.spawn(|| {
                let on_report = |report| progress.record(report);
                downloader.fetch(&fixture.wanted, &fixture.options, &progress.cancelled, &on_report);
            });
        }
    });
    let outcomes = both.map(|progress| progress.take_outcomes(fixture.wanted.len()));
    let is_done = |outcome: &&DownloadOutcome| matches!(outcome, DownloadOutcome::Saved { .. });
    for outcome in outcomes.iter().flatten() {
        assert!(is_done(&outcome), "{outcome:?}");
    }
    fixture.assert_whole();
    outcomes.iter().flatten().filter(is_done).count()
}

#[test]
fn a_full_disk_has_its_own_error() {
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        assert!(matches!(DownloadError::from(io::Error::from(errno)), DownloadError::DiskFull));
    }
    let too_large = DownloadError::from(io::Error::from(Errno::FBIG));
    assert_eq!(
        (ExitCode::from(&too_large), ExitCode::from(&DownloadError::DiskFull)),
        (ExitCode::DiskFull, ExitCode::DiskFull)
    );
    assert!(matches!(DownloadError::from(io::Error::from(Errno::ACCESS)), DownloadError::Local(_)));
}

#[test]
fn the_umask_alone_decides_on_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let (fixture, peer) = fixture(100);
    std::fs::write(fixture.path("plain"), b"").unwrap();
    assert_all_saved(&fixture.fetch(&[&peer]));
    let mode = |name: &str| std::fs::metadata(fixture.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("folder/report.pdf"), mode("plain"));
}

#[test]
fn a_file_that_is_replaced_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        fixture.options.on_exists = OnExists::Overwrite;
        let path = fixture.path("folder/report.pdf");
        std::fs::write(&path, b"old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o751)).unwrap();
        assert_all_saved(&fixture.fetch(&[&peer]));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o751);
        fixture.assert_whole();
    }
}

/// Only root can make another user's file.
#[test]
fn the_partial_file_of_another_user_is_left_alone() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        replace_another_file(&mut fixture);
        let [first, second] = partial_file::partial_file_names(&fixture.wanted[0].content.hash);
        let paths = [first, second].map(|name| fixture.path("folder").join(name));
        for (count, path) in paths.iter().enumerate() {
            std::fs::write(path, b"theirs").unwrap();
            if std::os::unix::fs::chown(path, Some(65_534), None).is_err() {
                return;
            }
            let outcomes = fixture.fetch(&[&peer]);
            if count == 0 {
                assert_all_saved(&outcomes);
                replace_another_file(&mut fixture);
            } else {
                let DownloadOutcome::Failed(error @ DownloadError::Local(_)) = &outcomes[0] else {
                    panic!("{outcomes:?}")
                };
                assert!(error.to_string().contains(".part: "), "{error}");
            }
        }
        assert!(paths.iter().all(|path| std::fs::read(path).unwrap() == b"theirs"));
    }
}

#[test]
fn the_name_of_a_partial_file_is_no_target() {
    for size in SIZES {
        let part = |content: &[u8]| format!(".{}.part", &blake3::hash(content).to_hex()[..32]);
        for name in [part(&bytes(size, 0)), part(b"of another file")] {
            let mut fixture = DownloadFixture::new(&[(&name, bytes(size, 0))]);
            let peer = fixture.peer("hans", PeerBehaviour::Honest);
            for policy in [OnExists::Error, OnExists::Overwrite, OnExists::Rename, OnExists::Skip] {
                fixture.options.on_exists = policy;
                let outcomes = fixture.fetch(&[&peer]);
                assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Local(_))), "{outcomes:?}");
                assert_eq!(files_in(fixture.dir.path()), 0);
            }
            std::fs::write(fixture.path(&name), bytes(size, 0)).unwrap();
            assert_all_saved(&fixture.fetch(&[&peer]));
        }
    }
}

#[test]
fn the_record_of_a_copy_stays_when_another_content_is_saved_beside_it() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        let (name, old) = (fixture.wanted[0].name.clone(), bytes(size, 9));
        std::fs::write(fixture.path("folder/report.pdf"), &old).unwrap();
        let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[&peer])).unwrap();
        let hash = ContentHash(*blake3::hash(&old).as_bytes());
        let copy = Fetched { hash, owner: Some(UserName::parse("hans").unwrap()) };
        downloader.fetched.end(&[(name.clone(), copy.clone())], true);
        fixture.options.on_exists = OnExists::Rename;
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &|_| {});
        assert_eq!(downloader.fetched.get(&name, None), Some(copy));
        let renamed = FileName::parse("folder/report (1).pdf").unwrap();
        let expected = Fetched { hash: fixture.wanted[0].content.hash, owner: None };
        assert_eq!(downloader.fetched.get(&renamed, None), Some(expected));
    }
}

#[test]
fn only_the_owner_of_a_copy_replaces_or_removes_it() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        let (name, path, old) = (fixture.wanted[0].name.clone(), fixture.path("folder/report.pdf"), bytes(size, 9));
        std::fs::write(&path, &old).unwrap();
        let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[&peer])).unwrap();
        let hash = ContentHash(*blake3::hash(&old).as_bytes());
        let [hans, vader] = ["hans", "vader"].map(|user| UserName::parse(user).unwrap());
        let copy = Fetched { hash, owner: Some(hans.clone()) };
        downloader.fetched.end(&[(name.clone(), copy.clone())], true);
        fixture.options.on_exists = OnExists::Overwrite;
        fixture.options.save_as = SaveAs::Followed(vader.clone());
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &|_| {});
        assert!(!downloader.remove_copy(&name, &vader, &fixture.progress.cancelled).unwrap());
        assert!(std::fs::read(&path).unwrap() == old);
        assert_eq!(downloader.fetched.get(&name, None), Some(copy));
        fixture.options.save_as = SaveAs::Followed(hans.clone());
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &|_| {});
        assert!(std::fs::read(&path).unwrap() == bytes(size, 0));
        assert!(downloader.remove_copy(&name, &hans, &fixture.progress.cancelled).unwrap());
    }
}

#[test]
fn a_copy_is_replaced_after_a_kill_between_record_and_rename() {
    for size in SIZES {
        let (mut fixture, peer) = fixture(size);
        let (name, path) = (fixture.wanted[0].name.clone(), fixture.path("folder/report.pdf"));
        let downloader = Downloader::with_discovery(fixture.dir.path(), TestDiscovery::of(&[&peer])).unwrap();
        let hans = UserName::parse("hans").unwrap();
        let copy = |byte| {
            let bytes = bytes(size, byte);
            let hash = ContentHash(*blake3::hash(&bytes).as_bytes());
            (bytes, Fetched { hash, owner: Some(hans.clone()) })
        };
        let ([old, killed], mine) = ([8, 9].map(copy), bytes(size, 7));
        fixture.options.on_exists = OnExists::Overwrite;
        fixture.options.save_as = SaveAs::Followed(hans.clone());
        for (before, is_replaced) in [(&old.0, true), (&killed.0, true), (&mine, false)] {
            downloader.fetched.end(&[(name.clone(), old.1.clone())], true);
            downloader.fetched.begin(&[(name.clone(), killed.1.clone())]).unwrap();
            std::fs::write(&path, before).unwrap();
            downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &|_| {});
            assert_eq!(std::fs::read(&path).unwrap() == bytes(size, 0), is_replaced);
            assert!(is_replaced || std::fs::read(&path).unwrap() == mine);
        }
    }
}
