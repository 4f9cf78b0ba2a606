use super::*;
use crate::common::chunk_tree::group_range;

fn outline(groups: usize, seed: u8) -> GroupHashes {
    GroupHashes::from_groups(groups as u64 * group_range(u64::MAX >> 30, 0).end, vec![[seed; 32]; groups]).unwrap()
}

fn stamp(outline: &GroupHashes, inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, size: outline.size(), modified_ns: 5_000_000_001, changed_ns: 5_000_000_002 }
}

#[test]
fn an_outline_is_found_by_the_whole_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().join("made/when/needed")));
    let outline = outline(3, 1);
    let stamp = stamp(&outline, 7);
    assert_eq!(cache.load(&stamp), None);
    cache.store(&stamp, &outline);
    assert_eq!(cache.load(&stamp), Some(outline.clone()));
    let again = DiskCache::at(Some(dir.path().join("made/when/needed")));
    assert_eq!(again.load(&stamp), Some(outline), "another client finds it");
    for other in [
        FileIdentity { device: 2, ..stamp },
        FileIdentity { inode: 8, ..stamp },
        FileIdentity { size: stamp.size + 1, ..stamp },
        FileIdentity { modified_ns: stamp.modified_ns + 1, ..stamp },
        FileIdentity { changed_ns: stamp.changed_ns + 1, ..stamp },
    ] {
        assert_eq!(cache.load(&other), None);
    }
}

#[test]
fn damage_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let outline = outline(3, 1);
    let stamp = stamp(&outline, 7);
    cache.store(&stamp, &outline);
    let path = dir.path().join(entry_name(&stamp));
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), HEAD_BYTES + 3 * 32);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!(cache.load(&stamp), None, "byte {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert_eq!(cache.load(&stamp), None, "cut at {at}");
    }
}

#[test]
fn without_a_folder_it_fails_softly() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let outline = outline(2, 1);
    for place in [None, Some(dir.path().join("file/cache"))] {
        let cache = DiskCache::at(place);
        cache.store(&stamp(&outline, 1), &outline);
        assert_eq!(cache.load(&stamp(&outline, 1)), None);
    }
}

/// Sets when an entry was used last, seconds since 1970.
fn used(path: &Path, at_s: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s)).unwrap();
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let outlines: Vec<GroupHashes> = (0..8).map(|number| outline(2 + number, 1)).collect();
    let stamps: Vec<FileIdentity> = (0..).zip(&outlines).map(|(inode, outline)| stamp(outline, inode)).collect();
    for (at, (stamp, outline)) in stamps.iter().zip(&outlines).enumerate() {
        cache.store(stamp, outline);
        used(&dir.path().join(entry_name(stamp)), at as u64);
    }
    let there = || stamps.iter().filter(|stamp| dir.path().join(entry_name(stamp)).exists()).map(|stamp| stamp.inode);
    prune(dir.path(), 8 * BLOCK_BYTES);
    assert_eq!(there().count(), 8, "they just fit");
    assert!(cache.load(&stamps[0]).is_some());
    prune(dir.path(), 8 * BLOCK_BYTES - 1);
    assert_eq!(there().collect::<Vec<_>>(), [0, 4, 5, 6, 7], "the first was used just now");
}

#[test]
fn it_is_looked_again_after_so_much_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let bulk = dir.path().join("bulk");
    let fill = || {
        fs::File::create(&bulk).unwrap().set_len(DISK_MAX_BYTES + 1).unwrap();
        used(&bulk, 1);
    };
    let outline = outline(2, 1);
    for _ in 0..2 {
        fill();
        cache.written_bytes.store(LOOK_EVERY_BYTES - 2 * BLOCK_BYTES, Relaxed);
        cache.store(&stamp(&outline, 1), &outline);
        assert!(bulk.exists());
        cache.store(&stamp(&outline, 2), &outline);
        assert!(!bulk.exists());
    }
    assert!(cache.load(&stamp(&outline, 1)).is_some());
}

#[test]
fn memory_keeps_the_latest_within_its_bound() {
    let recent = MemoryCache::default();
    let roots: Vec<_> = (0..8).map(|seed| recent.keep(outline(MEMORY_MAX_GROUPS / 8 + 1, seed))).collect();
    assert!(recent.of(roots[0]).is_none() && roots[1..].iter().all(|root| recent.of(*root).is_some()));
    let single = recent.keep(outline(1, 9));
    assert!(recent.of(single).is_none(), "it is its own outline");
}
