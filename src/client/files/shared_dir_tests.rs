use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, mkfifoat};

use super::*;

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

/// A folder `share` with a secret beside it, and the same folder opened once with each resolver.
fn folders() -> (tempfile::TempDir, Vec<SharedDir>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("share/sub")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    fs::write(dir.path().join("share/sub/file"), "shared").unwrap();
    let open = || SharedDir::open(&dir.path().join("share")).unwrap();
    let by_components = SharedDir { resolver: Resolver::Components, ..open() };
    let folders = vec![open(), by_components];
    (dir, folders)
}

#[test]
fn only_regular_files_are_opened() {
    let (dir, folders) = folders();
    let share = dir.path().join("share");
    symlink("sub/file", share.join("link-within")).unwrap();
    symlink("../outside/secret", share.join("link")).unwrap();
    symlink("../outside", share.join("parent")).unwrap();
    symlink("sub", share.join("parent-within")).unwrap();
    symlink("nowhere", share.join("dangling")).unwrap();
    mkfifoat(CWD, share.join("fifo"), Mode::RUSR).unwrap();
    let _socket = UnixListener::bind(share.join("socket")).unwrap();
    for folder in folders {
        let (_, identity) = folder.open_file(&name("sub/file")).unwrap();
        assert_eq!(identity.size, 6);
        for special in
            ["link-within", "link", "parent/secret", "parent-within/file", "dangling", "fifo", "socket", "sub"]
        {
            let opened = folder.open_file(&name(special));
            assert!(matches!(opened, Err(ShareError::Special(_))), "{:?} {special}: {opened:?}", folder.resolver);
        }
        for missing in ["nothing", "sub/nothing", "nothing/file", "sub/file/file"] {
            let opened = folder.open_file(&name(missing));
            assert!(matches!(opened, Err(ShareError::Missing(_))), "{:?} {missing}: {opened:?}", folder.resolver);
        }
    }
}

#[test]
fn stat_and_list_report_kinds_without_opening() {
    let (dir, folders) = folders();
    let share = dir.path().join("share");
    symlink("sub", share.join("link")).unwrap();
    mkfifoat(CWD, share.join("fifo"), Mode::RUSR).unwrap();
    for folder in folders {
        let kind = |path: &str| folder.stat(path).map(|stat| stat.kind);
        assert_eq!(kind("sub").unwrap(), FileKind::Directory);
        assert_eq!(folder.stat("sub/file").unwrap(), FileStat { kind: FileKind::File, size: 6 });
        assert_eq!(kind("fifo").unwrap(), FileKind::Special);
        assert_eq!(kind("link").unwrap(), FileKind::Special);
        assert!(matches!(kind("link/file"), Err(ShareError::Special(_))));
        assert!(matches!(kind("sub/file/x"), Err(ShareError::Missing(_))));
        let mut listed: Vec<_> = folder.list("").unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
        listed.sort_by(|one, other| one.0.cmp(&other.0));
        let of = |name: &str, kind| (name.as_bytes().to_vec(), kind);
        let expected = [of("fifo", FileKind::Special), of("link", FileKind::Special), of("sub", FileKind::Directory)];
        assert_eq!(listed, expected);
        assert!(matches!(folder.list("link"), Err(ShareError::Special(_))));
    }
}

#[test]
fn missing_folders_are_created_beneath_the_shared_folder_alone() {
    let (dir, folders) = folders();
    let share = dir.path().join("share");
    symlink("../outside", share.join("link")).unwrap();
    for (at, folder) in folders.iter().enumerate() {
        let missing = format!("new{at}/deep");
        assert_eq!(folder.open_dir(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!share.join(&missing).exists(), "opening creates nothing");
        folder.create_dir(&missing).unwrap();
        assert!(share.join(&missing).is_dir() && folder.open_dir(&missing).is_ok());
        for (refused, obstacle) in [("link/new", "link"), ("sub/file/new", "sub/file"), ("link", "link")] {
            for error in [folder.create_dir(refused).unwrap_err(), folder.open_dir(refused).unwrap_err()] {
                assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{:?} {refused}", folder.resolver);
                assert!(error.to_string().starts_with(&format!("{obstacle} is not a folder")), "{error}");
            }
        }
        assert!(folder.open_dir("").is_ok() && folder.create_dir("").is_ok());
    }
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
}

/// Swaps a folder for a link that leads outside, again and again, while files are opened through it.
#[test]
fn a_link_swapped_in_reaches_nothing_outside() {
    let (dir, folders) = folders();
    let share = dir.path().join("share");
    fs::create_dir(share.join("swapped")).unwrap();
    fs::write(share.join("swapped/secret"), "shared").unwrap();
    symlink("../outside", share.join("link")).unwrap();
    let done = AtomicBool::new(false);
    let (mut opened, mut refused, mut outside) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (real, link, spare) = (share.join("swapped"), share.join("link"), share.join("spare"));
            while !done.load(Ordering::Relaxed) {
                fs::rename(&real, &spare).unwrap();
                fs::rename(&link, &real).unwrap();
                fs::rename(&real, &link).unwrap();
                fs::rename(&spare, &real).unwrap();
            }
        });
        let name = name("swapped/secret");
        for round in 0..100_000 {
            match folders[round % folders.len()].open_file(&name).map(|(file, _)| file).ok() {
                None => refused += 1,
                Some(file) => {
                    opened += 1;
                    outside += u32::from(io::read_to_string(file).unwrap() != "shared");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(outside, 0, "of {opened}");
    assert!(opened > 0 && refused > 0, "the race did not happen: {opened} opened, {refused} refused");
}

#[test]
fn an_identity_is_racy_until_the_timestamp_granularity_has_passed() {
    let second = 1_000_000_000;
    let identity = |ns: i128| FileIdentity { device: 1, inode: 2, size: 3, modified_ns: ns, changed_ns: ns };
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
    let fine = identity(10 * second + 5);
    assert!(fine.is_racy(at(10_000)) && fine.is_racy(at(10_020)) && !fine.is_racy(at(10_021)));
    let coarse = identity(10 * second);
    assert!(coarse.is_racy(at(11_999)) && !coarse.is_racy(at(12_001)));
    assert!(identity(20 * second).is_racy(at(10_000)), "a clock set back");
    let future = FileIdentity { modified_ns: 99 * second + 5, ..fine };
    assert!(future.is_racy(at(10_020)) && !future.is_racy(at(10_021)), "a modification time in the future");
    let backdated = FileIdentity { modified_ns: 5, ..fine };
    assert!(backdated.is_racy(at(10_020)), "a modification time that was just set back");
    assert_eq!(identity(-1).modified_ms(), -1);
}
