use super::*;
use crate::common::chunk_tree::{group_count, hash_group};

const MIB: usize = 1 << 20;

fn outline(bytes: &[u8]) -> GroupHashes {
    let size = bytes.len() as u64;
    let group = |index| {
        let range = group_range(size, index);
        hash_group(size, index, &bytes[range.start as usize..range.end as usize])
    };
    GroupHashes::from_groups(size, (0..group_count(size)).map(group).collect()).unwrap()
}

fn open(dir: &tempfile::TempDir, hash: &ContentHash) -> Result<Part, DownloadError> {
    Part::open(Arc::new(File::open(dir.path()).unwrap().into()), hash)
}

#[test]
fn a_part_is_found_again_and_only_what_fits_counts() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4 * MIB).map(|at| (at / 3 % 251) as u8).collect();
    let outline = outline(&bytes);
    let part = open(&dir, &outline.root()).unwrap();
    assert!(part.candidates(&outline).is_empty());
    part.reserve(4 * MIB as u64).unwrap();
    part.file().write_all_at(&bytes[..MIB], 0).unwrap();
    part.file().write_all_at(&bytes[..MIB], 2 * MIB as u64).unwrap();
    drop(part);
    let part = open(&dir, &outline.root()).unwrap();
    let candidates = part.candidates(&outline);
    assert!(candidates.contains(&0) && candidates.contains(&2), "{candidates:?}");
    let mut buffer = Vec::new();
    let held: Vec<u32> =
        candidates.into_iter().filter(|&group| part.holds(&outline, group, &mut buffer).unwrap()).collect();
    assert_eq!(held, [0], "group 2 holds what belongs elsewhere");
}

#[test]
fn a_part_is_locked_while_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let hash = ContentHash([1; 32]);
    let part = open(&dir, &hash).unwrap();
    assert!(matches!(open(&dir, &hash), Err(DownloadError::Locked)));
    drop(part);
    assert!(open(&dir, &hash).is_ok());
}

#[test]
fn times_before_1970_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let part = open(&dir, &ContentHash([1; 32])).unwrap();
    part.set_mtime(-1_500).unwrap();
    let modified = part.file().metadata().unwrap().modified().unwrap();
    assert_eq!(std::time::UNIX_EPOCH.duration_since(modified).unwrap().as_millis(), 1_500);
}
