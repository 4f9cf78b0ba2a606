use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags};

use super::super::partial_file::PartialFile;
use super::*;
use crate::common::types::ContentHash;

#[test]
fn a_number_is_inserted_before_the_extension_and_fits() {
    let numbered_name = |leaf: &str, number| super::numbered_name(leaf, number, leaf_max_bytes(""));
    assert_eq!(numbered_name("report.pdf", 1), "report (1).pdf");
    assert_eq!(numbered_name("archive.tar.gz", 2), "archive.tar (2).gz");
    assert_eq!(numbered_name("README", 3), "README (3)");
    assert_eq!(numbered_name(".profile", 1), ".profile (1)");
    let long = format!("{}.pdf", "ä".repeat(125));
    let renamed = numbered_name(&long, 10);
    assert!(renamed.len() <= 255 && renamed.ends_with("ä (10).pdf"), "{renamed}");
    for extension in 240..=253 {
        let renamed = numbered_name(&format!("a.{}", "x".repeat(extension)), 9_999);
        assert!(renamed.len() <= 255 && renamed.starts_with('a') && renamed.contains(" (9999)"), "{renamed}");
    }
}

#[test]
fn a_number_fits_the_whole_name_too() {
    let folder = ["f".repeat(250), "g".repeat(200)].join("/");
    let longest = format!("{folder}/{}.txt", "n".repeat(FILE_NAME_MAX_BYTES - folder.len() - 5));
    let (path, leaf) = longest.rsplit_once('/').unwrap();
    assert_eq!(longest.len(), FILE_NAME_MAX_BYTES);
    let renamed = format!("{path}/{}", numbered_name(leaf, 12, leaf_max_bytes(path)));
    assert!(FileName::parse(&renamed).is_ok() && renamed.ends_with("n (12).txt"), "{renamed}");
}

#[test]
fn a_rename_replaces_nothing_unless_overwrite_is_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let target_dir = TargetDir::open(dir.path()).unwrap();
    let name = FileName::parse("a/b").unwrap();
    let folder = target_dir.open_parent(&name).unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join("a").join(name), text).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join("a").join(name)).unwrap();
    for policy in [OnExists::Error, OnExists::Skip] {
        put("b", "old");
        let large = "n".repeat((1 << 20) + 1);
        put("part", &large);
        assert_eq!(target_dir.finalize(&folder, "part", &name, policy, &|_| Ok(())).unwrap(), Finalized::Exists);
        assert_eq!(read("b"), "old");
        assert!(read("part") == large);
        put("part", "new");
        assert_eq!(target_dir.finalize(&folder, "part", &name, policy, &|_| Ok(())).unwrap(), Finalized::Exists);
        assert!(!dir.path().join("a/part").exists(), "a small part file is removed");
    }
    put("part", "new");
    let renamed = FileName::parse("a/b (1)").unwrap();
    assert_eq!(
        target_dir.finalize(&folder, "part", &name, OnExists::Rename, &|_| Ok(())).unwrap(),
        Finalized::Saved(renamed)
    );
    assert_eq!((read("b").as_str(), read("b (1)").as_str()), ("old", "new"));
    put("part", "newer");
    assert_eq!(
        target_dir.finalize(&folder, "part", &name, OnExists::Overwrite, &|_| Ok(())).unwrap(),
        Finalized::Saved(name.clone())
    );
    assert_eq!(read("b"), "newer");
    std::fs::create_dir(dir.path().join("a/c")).unwrap();
    put("part", "new");
    let folder_there = FileName::parse("a/c").unwrap();
    assert!(target_dir.finalize(&folder, "part", &folder_there, OnExists::Overwrite, &|_| Ok(())).is_err());
    assert!(!dir.path().join("a/part").exists());
}

#[test]
fn target_state_creates_no_folders() {
    let dir = tempfile::tempdir().unwrap();
    let target_dir = TargetDir::open(dir.path()).unwrap();
    let name = FileName::parse("a/b/c").unwrap();
    let content = Content { hash: ContentHash([0; 32]), size: 1, mtime_ms: 0 };
    assert_eq!(target_dir.target_state(&name, &content, &|| false).unwrap(), TargetState::Absent);
    assert!(!dir.path().join("a").exists());
}

#[test]
fn a_comparison_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "abc").unwrap();
    let target_dir = TargetDir::open(dir.path()).unwrap();
    let content = Content { hash: ContentHash(*blake3::hash(b"abc").as_bytes()), size: 3, mtime_ms: 0 };
    let name = FileName::parse("a").unwrap();
    assert_eq!(target_dir.target_state(&name, &content, &|| false).unwrap(), TargetState::Identical);
    let error = target_dir.target_state(&name, &content, &|| true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
}

#[test]
fn a_size_beyond_any_file_is_compared_without_overflow() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), "abc").unwrap();
    let target_dir = TargetDir::open(dir.path()).unwrap();
    let name = FileName::parse("a").unwrap();
    for size in [u64::MAX, u64::MAX - 1, 4, 2, 0] {
        let content = Content { hash: ContentHash(*blake3::hash(b"abc").as_bytes()), size, mtime_ms: 0 };
        assert_eq!(target_dir.target_state(&name, &content, &|| false).unwrap(), TargetState::Different, "{size}");
    }
}

/// Swaps a folder for a link that leads outside, again and again, while files are saved beneath it.
#[test]
fn a_link_swapped_in_saves_nothing_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (share, outside) = (dir.path().join("share"), dir.path().join("outside"));
    for folder in [&share.join("swapped/deep"), &outside.join("deep")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    symlink("../outside", share.join("link")).unwrap();
    let target_dir = TargetDir::open(&share).unwrap();
    let done = AtomicBool::new(false);
    let (mut saved, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (real, link) = (share.join("swapped"), share.join("link"));
            while !done.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &real, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for round in 0..100_000 {
            // In a folder that exists, and in one that has to be created.
            let folder = if round % 2 == 0 { "deep".into() } else { format!("new{}", round % 64) };
            let name = FileName::parse(&format!("swapped/{folder}/file")).unwrap();
            target_dir.clear_cache();
            let Ok(folder) = target_dir.open_parent(&name) else {
                refused += 1;
                continue;
            };
            if round % 8 < 2 {
                let part = PartialFile::open(folder, &ContentHash([1; 32])).unwrap();
                part.write_all(b"content").unwrap();
                target_dir.finalize(part.folder(), part.name(), &name, OnExists::Overwrite, &|_| Ok(())).unwrap();
            }
            saved += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(saved > 0 && refused > 0, "the race did not happen: {saved} saved, {refused} refused");
    let everything = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(everything(&outside).eq(["deep"]), "{:?}", everything(&outside).collect::<Vec<_>>());
    assert_eq!(everything(&outside.join("deep")).count(), 0);
}
