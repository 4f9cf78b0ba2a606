use super::*;
use crate::common::content::group_range;

fn outline(groups: usize, seed: u8) -> Outline {
    Outline::of_groups(groups as u64 * group_range(u64::MAX >> 30, 0).end, vec![[seed; 32]; groups]).unwrap()
}

fn stamp(outline: &Outline, inode: u64) -> Stamp {
    Stamp { device: 1, inode, size: outline.size(), modified_ns: 5_000_000_001, changed_ns: 5_000_000_002 }
}

#[test]
fn an_outline_is_found_by_the_whole_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(Some(dir.path().join("made/when/needed")));
    let outline = outline(3, 1);
    let stamp = stamp(&outline, 7);
    assert_eq!(cache.load(&stamp), None);
    cache.store(&stamp, &outline);
    assert_eq!(cache.load(&stamp), Some(outline.clone()));
    let again = Cache::at(Some(dir.path().join("made/when/needed")));
    assert_eq!(again.load(&stamp), Some(outline), "another client finds it");
    for other in [
        Stamp { device: 2, ..stamp },
        Stamp { inode: 8, ..stamp },
        Stamp { size: stamp.size + 1, ..stamp },
        Stamp { modified_ns: stamp.modified_ns + 1, ..stamp },
        Stamp { changed_ns: stamp.changed_ns + 1, ..stamp },
    ] {
        assert_eq!(cache.load(&other), None);
    }
}

#[test]
fn damage_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::at(Some(dir.path().into()));
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
        let cache = Cache::at(place);
        cache.store(&stamp(&outline, 1), &outline);
        assert_eq!(cache.load(&stamp(&outline, 1)), None);
    }
}

#[test]
fn old_entries_make_room() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..=ENTRIES_MAX {
        fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    prune(dir.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), ENTRIES_MAX / 2);
}

#[test]
fn memory_keeps_the_latest_within_its_bound() {
    let recent = Recent::default();
    let roots: Vec<_> = (0..8).map(|seed| recent.keep(outline(MEMORY_MAX_GROUPS / 8 + 1, seed))).collect();
    assert!(recent.of(roots[0]).is_none() && roots[1..].iter().all(|root| recent.of(*root).is_some()));
    let single = recent.keep(outline(1, 9));
    assert!(recent.of(single).is_none(), "it is its own outline");
}
