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

/// A folder `share` with a secret beside it.
fn folder() -> (tempfile::TempDir, SharedDir) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("share/sub")).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/secret"), "secret").unwrap();
    fs::write(dir.path().join("share/sub/file"), "shared").unwrap();
    let folder = SharedDir::open(&dir.path().join("share")).unwrap();
    (dir, folder)
}

#[test]
fn regular_files_open_and_nothing_else_does() {
    let (dir, folder) = folder();
    let share = dir.path().join("share");
    let (_, stamp) = folder.open_file(&name("sub/file")).unwrap();
    assert_eq!(stamp.size, 6);
    symlink("sub/file", share.join("link-within")).unwrap();
    symlink("../outside/secret", share.join("link")).unwrap();
    symlink("../outside", share.join("parent")).unwrap();
    symlink("sub", share.join("parent-within")).unwrap();
    symlink("nowhere", share.join("dangling")).unwrap();
    mkfifoat(CWD, share.join("fifo"), Mode::RUSR).unwrap();
    let _socket = UnixListener::bind(share.join("socket")).unwrap();
    for special in ["link-within", "link", "parent/secret", "parent-within/file", "dangling", "fifo", "socket", "sub"] {
        let opened = folder.open_file(&name(special));
        assert!(matches!(opened, Err(ShareError::Special(_))), "{special}: {opened:?}");
    }
    for missing in ["nothing", "sub/nothing", "nothing/file", "sub/file/file"] {
        let opened = folder.open_file(&name(missing));
        assert!(matches!(opened, Err(ShareError::Missing(_))), "{missing}: {opened:?}");
    }
}

#[test]
fn step_by_step_refuses_the_same() {
    let (dir, folder) = folder();
    let share = dir.path().join("share");
    symlink("../outside", share.join("parent")).unwrap();
    symlink("sub/file", share.join("link")).unwrap();
    let open = |path: &str| walk(folder.root.as_fd(), path, FILE);
    assert!(open("sub/file").is_ok());
    for refused in ["parent/secret", "link", "nothing", "sub/file/file"] {
        assert!(open(refused).is_err(), "{refused}");
    }
}

#[test]
fn kinds_are_told_without_opening() {
    let (dir, folder) = folder();
    let share = dir.path().join("share");
    symlink("sub", share.join("link")).unwrap();
    mkfifoat(CWD, share.join("fifo"), Mode::RUSR).unwrap();
    assert_eq!(folder.kind("sub").unwrap(), FileKind::Directory);
    assert_eq!(folder.kind("sub/file").unwrap(), FileKind::File);
    assert_eq!(folder.kind("fifo").unwrap(), FileKind::Special);
    assert_eq!(folder.kind("link").unwrap(), FileKind::Special);
    assert!(matches!(folder.kind("link/file"), Err(ShareError::Special(_))));
    assert!(matches!(folder.kind("sub/file/x"), Err(ShareError::Missing(_))));
    let mut listed: Vec<_> = folder.list(None).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
    listed.sort_by(|one, other| one.0.cmp(&other.0));
    let of = |name: &str, kind| (name.as_bytes().to_vec(), kind);
    assert_eq!(listed, [of("fifo", FileKind::Special), of("link", FileKind::Special), of("sub", FileKind::Directory)]);
    assert!(matches!(folder.list(Some("link")), Err(ShareError::Special(_))));
}

/// Swaps a folder for a link that leads outside, again and again, while files are opened through it.
#[test]
fn a_link_swapped_in_reaches_nothing_outside() {
    let (dir, folder) = folder();
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
        let (name, direct) = (name("swapped/secret"), folder.root.as_fd());
        for round in 0..100_000 {
            let file = match round % 4 {
                0 => walk(direct, name.as_str(), FILE).map(File::from).ok(),
                _ => folder.open_file(&name).map(|(file, _)| file).ok(),
            };
            match file {
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
    assert!(opened > 0 && refused > 0, "the swapping was felt: {opened} opened, {refused} refused");
}

#[test]
fn a_stamp_settles_when_its_tick_is_over() {
    let second = 1_000_000_000;
    let stamp = |ns: i128| FileIdentity { device: 1, inode: 2, size: 3, modified_ns: ns, changed_ns: ns };
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
    let fine = stamp(10 * second + 5);
    assert!(!fine.is_stable(at(10_000)) && !fine.is_stable(at(10_020)) && fine.is_stable(at(10_021)));
    let coarse = stamp(10 * second);
    assert!(!coarse.is_stable(at(11_999)) && coarse.is_stable(at(12_001)));
    assert!(!stamp(20 * second).is_stable(at(10_000)), "a clock put back");
    let future = FileIdentity { modified_ns: 99 * second + 5, ..fine };
    assert!(!future.is_stable(at(10_020)) && future.is_stable(at(10_021)), "a modification time in the future");
    let dated_back = FileIdentity { modified_ns: 5, ..fine };
    assert!(!dated_back.is_stable(at(10_020)), "one put back just now");
    assert_eq!(stamp(-1).modified_ms(), -1);
}
