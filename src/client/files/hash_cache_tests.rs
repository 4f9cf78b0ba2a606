use super::*;
use crate::common::chunk_tree::group_range;

fn hashes(groups: usize, seed: u8) -> GroupHashes {
    GroupHashes::from_groups(groups as u64 * group_range(u64::MAX >> 30, 0).end, vec![[seed; 32]; groups]).unwrap()
}

fn identity(hashes: &GroupHashes, inode: u64) -> FileIdentity {
    FileIdentity { device: 1, inode, size: hashes.size(), modified_ns: 5_000_000_001, changed_ns: 5_000_000_002 }
}

#[test]
fn hashes_are_found_by_the_whole_identity() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().join("made/when/needed")));
    let hashes = hashes(3, 1);
    let identity = identity(&hashes, 7);
    assert_eq!(cache.load(&identity), None);
    cache.store(&identity, &hashes);
    assert_eq!(cache.load(&identity), Some(hashes.clone()));
    let again = DiskCache::at(Some(dir.path().join("made/when/needed")));
    assert_eq!(again.load(&identity), Some(hashes), "another client finds it");
    for other in [
        FileIdentity { device: 2, ..identity },
        FileIdentity { inode: 8, ..identity },
        FileIdentity { size: identity.size + 1, ..identity },
        FileIdentity { modified_ns: identity.modified_ns + 1, ..identity },
        FileIdentity { changed_ns: identity.changed_ns + 1, ..identity },
    ] {
        assert_eq!(cache.load(&other), None);
    }
}

#[test]
fn a_damaged_entry_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let hashes = hashes(3, 1);
    let identity = identity(&hashes, 7);
    cache.store(&identity, &hashes);
    let path = dir.path().join(entry_name(&identity));
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), HEAD_BYTES + 3 * 32);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!(cache.load(&identity), None, "byte {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert_eq!(cache.load(&identity), None, "cut at {at}");
    }
}

#[test]
fn without_a_folder_nothing_is_cached() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let hashes = hashes(2, 1);
    for place in [None, Some(dir.path().join("file/cache"))] {
        let cache = DiskCache::at(place);
        cache.store(&identity(&hashes, 1), &hashes);
        assert_eq!(cache.load(&identity(&hashes, 1)), None);
    }
}

/// Sets when an entry was used last, seconds since 1970.
fn used(path: &Path, at_s: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at_s)).unwrap();
}

#[test]
fn the_least_recently_used_entries_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let all_hashes: Vec<GroupHashes> = (0..8).map(|number| hashes(2 + number, 1)).collect();
    let identities: Vec<FileIdentity> = (0..).zip(&all_hashes).map(|(inode, hashes)| identity(hashes, inode)).collect();
    for (at, (identity, hashes)) in identities.iter().zip(&all_hashes).enumerate() {
        cache.store(identity, hashes);
        used(&dir.path().join(entry_name(identity)), at as u64);
    }
    let there = || {
        identities
            .iter()
            .filter(|identity| dir.path().join(entry_name(identity)).exists())
            .map(|identity| identity.inode)
    };
    prune(dir.path(), 8 * BLOCK_BYTES);
    assert_eq!(there().count(), 8, "all fit exactly");
    assert!(cache.load(&identities[0]).is_some());
    prune(dir.path(), 8 * BLOCK_BYTES - 1);
    assert_eq!(there().collect::<Vec<_>>(), [0, 4, 5, 6, 7], "the first was used just now");
}

#[test]
fn pruning_runs_after_an_interval_of_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = DiskCache::at(Some(dir.path().into()));
    let bulk = dir.path().join("bulk");
    let fill = || {
        fs::File::create(&bulk).unwrap().set_len(DISK_MAX_BYTES + 1).unwrap();
        used(&bulk, 1);
    };
    let hashes = hashes(2, 1);
    for _ in 0..2 {
        fill();
        cache.written_bytes.store(PRUNE_INTERVAL_BYTES - 2 * BLOCK_BYTES, Relaxed);
        cache.store(&identity(&hashes, 1), &hashes);
        assert!(bulk.exists());
        cache.store(&identity(&hashes, 2), &hashes);
        assert!(!bulk.exists());
    }
    assert!(cache.load(&identity(&hashes, 1)).is_some());
}

#[test]
fn memory_stores_the_latest_within_its_maximum() {
    let cache = MemoryCache::default();
    let roots: Vec<_> = (0..8).map(|seed| cache.insert(hashes(MEMORY_MAX_GROUPS / 8 + 1, seed)).root()).collect();
    assert!(cache.group_hashes(roots[0]).is_none());
    assert!(roots[1..].iter().all(|&root| cache.group_hashes(root).is_some()));
    let single = cache.insert(hashes(1, 9)).root();
    assert!(cache.group_hashes(single).is_none(), "a single group needs no group hashes");
}

#[test]
fn content_hashes_of_all_files_stay_in_memory() {
    let cache = MemoryCache::default();
    let identities: Vec<_> = (0..100).map(|inode| identity(&hashes(1, 1), inode)).collect();
    let hash = |at: usize| ContentHash([at as u8; 32]);
    identities.iter().enumerate().for_each(|(at, identity)| cache.set_content_hash(*identity, hash(at)));
    assert!(identities.iter().enumerate().all(|(at, identity)| cache.content_hash(identity) == Some(hash(at))));
}
