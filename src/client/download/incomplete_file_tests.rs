use std::os::unix::fs::{FileExt, MetadataExt};

use super::super::DownloadError;
use super::*;
use crate::common::chunk_tree::{group_count, hash_group};
use crate::common::types::ContentHash;

const MIB: usize = 1 << 20;

fn outline(bytes: &[u8]) -> GroupHashes {
    let size = bytes.len() as u64;
    let group = |index| {
        let range = group_range(size, index);
        hash_group(size, index, &bytes[range.start as usize..range.end as usize])
    };
    GroupHashes::from_groups(size, (0..group_count(size)).map(group).collect()).unwrap()
}

fn open(dir: &tempfile::TempDir, hash: &ContentHash) -> Result<PartialFile, DownloadError> {
    PartialFile::open(Arc::new(File::open(dir.path()).unwrap().into()), hash)
}

#[test]
fn a_partial_file_is_found_again_and_only_matching_groups_count() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4 * MIB).map(|at| (at / 3 % 251) as u8).collect();
    let outline = outline(&bytes);
    let partial = open(&dir, &outline.root()).unwrap();
    assert!(partial.groups_with_data(&outline).is_empty());
    partial.set_size(4 * MIB as u64).unwrap();
    partial.file().write_all_at(&bytes[..MIB], 0).unwrap();
    partial.file().write_all_at(&bytes[..MIB], 2 * MIB as u64).unwrap();
    drop(partial);
    let partial = open(&dir, &outline.root()).unwrap();
    let groups_with_data = partial.groups_with_data(&outline);
    assert!(groups_with_data.contains(&0) && groups_with_data.contains(&2), "{groups_with_data:?}");
    let mut buffer = Vec::new();
    let valid: Vec<u32> = groups_with_data
        .into_iter()
        .filter(|&group| partial.verify_group(&outline, group, &mut buffer).unwrap())
        .collect();
    assert_eq!(valid, [0], "group 2 holds the data of group 0");
}

#[test]
fn a_partial_file_is_locked_while_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let hash = ContentHash([1; 32]);
    let partial = open(&dir, &hash).unwrap();
    assert!(matches!(open(&dir, &hash), Err(DownloadError::Locked)));
    drop(partial);
    assert!(open(&dir, &hash).is_ok());
}

#[test]
fn times_before_1970_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let partial = open(&dir, &ContentHash([1; 32])).unwrap();
    partial.set_mtime(-1_500).unwrap();
    let modified = partial.file().metadata().unwrap().modified().unwrap();
    assert_eq!(std::time::UNIX_EPOCH.duration_since(modified).unwrap().as_millis(), 1_500);
}

#[test]
fn an_assignment_that_is_registered_late_does_not_take_the_group_from_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let incomplete = IncompleteFile::example(dir.path());
    incomplete.assign(0, 7);
    incomplete.assign(0, 5);
    assert_eq!(incomplete.write(0, 5, b"stolen", 0).unwrap(), Write::Stale);
    assert_eq!(incomplete.write(0, 7, b"kept", 0).unwrap(), Write::Done);
    incomplete.assign(0, 8);
    assert_eq!(incomplete.write(0, 7, b"stolen", 0).unwrap(), Write::Stale);
    assert_eq!(incomplete.write(1, 7, b"never assigned", 1 << 20).unwrap(), Write::Stale);
    assert_eq!(std::fs::read(dir.path().join(incomplete.partial().name())).unwrap(), b"kept");
}

#[test]
fn a_closed_file_is_not_written_to_and_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let incomplete = IncompleteFile::example(dir.path());
    incomplete.assign(0, 1);
    assert!(matches!(open(&dir, &incomplete.outline().root()), Err(DownloadError::Locked)));
    incomplete.close();
    assert_eq!(incomplete.write(0, 1, b"late", 0).unwrap(), Write::Stale);
    assert!(open(&dir, &incomplete.outline().root()).is_ok());
}

#[test]
fn groups_of_unknown_owners_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let incomplete = IncompleteFile::example(dir.path());
    let owners: Vec<UserName> = (0..70).map(|at| UserName::parse(&format!("user{at}")).unwrap()).collect();
    incomplete.set_verified(0, None);
    incomplete.serve_groups_of(&owners);
    assert!(!incomplete.serves(0) && incomplete.has_groups_of_unknown_owner());
    for (owner, is_served) in owners.iter().zip((0..70).map(|at| at < 62)) {
        incomplete.set_verified(0, Some(owner));
        assert_eq!(incomplete.serves(0), is_served, "{owner}");
    }
}

/// A file of 1,000 groups, of which nothing has arrived.
fn large(dir: &tempfile::TempDir, is_unscanned: bool) -> IncompleteFile {
    let size = 1_000 * MIB as u64;
    let outline = GroupHashes::from_groups(size, vec![[1; 32]; 1_000]).unwrap();
    let partial = open(dir, &outline.root()).unwrap();
    partial.file().set_len(size).unwrap();
    IncompleteFile::new(outline, partial, is_unscanned)
}

#[test]
fn space_is_reserved_in_steps_for_what_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let incomplete = large(&dir, false);
    let allocated = || incomplete.file().metadata().unwrap().blocks() * 512;
    assert_eq!(allocated(), 0, "an outline alone takes no space");
    for (group, steps) in [(0, 1), (31, 1), (999, 2), (500, 3)] {
        incomplete.assign(group, group + 1);
        let at = u64::from(group) * MIB as u64;
        assert_eq!(incomplete.write(group, group + 1, b"first bytes", at).unwrap(), Write::Done);
        assert!(allocated() <= steps * (RESERVE_BYTES + MIB as u64), "{group}: {}", allocated());
        if !incomplete.partial().is_in_memory() {
            assert!(allocated() >= (steps - 1) * RESERVE_BYTES + 8 * MIB as u64, "{group}: {}", allocated());
        }
    }
    assert_eq!(incomplete.file().metadata().unwrap().len(), 1_000 * MIB as u64);
}

#[test]
fn a_size_that_the_disk_cannot_hold_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(&dir, &ContentHash([1; 32])).unwrap().set_size(1 << 60).unwrap_err();
    assert!(matches!(DownloadError::from(error), DownloadError::DiskFull));
}

#[test]
fn a_file_that_is_given_up_without_a_verified_group_is_deleted() {
    let is_kept = |act: fn(&IncompleteFile), is_unscanned| {
        let dir = tempfile::tempdir().unwrap();
        let incomplete = large(&dir, is_unscanned);
        incomplete.assign(0, 1);
        incomplete.write(0, 1, b"nothing verified", 0).unwrap();
        act(&incomplete);
        incomplete.close();
        dir.path().join(incomplete.partial().name()).exists()
    };
    assert!(!is_kept(|_| {}, false));
    assert!(!is_kept(|incomplete| incomplete.set_scanned(), true), "what it held is invalid");
    assert!(is_kept(|_| {}, true), "what it held is not known yet");
    assert!(is_kept(|incomplete| incomplete.set_verified(5, None), false));
}
