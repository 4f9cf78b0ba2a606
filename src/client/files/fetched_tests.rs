//! What is recorded of fetched files, in memory and on disk.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

fn name(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn fetched(byte: u8, owner: Option<&str>) -> Fetched {
    Fetched { hash: ContentHash([byte; 32]), owner: owner.map(|owner| UserName::parse(owner).unwrap()) }
}

fn folders() -> [TempDir; 2] {
    [(); 2].map(|()| tempfile::tempdir().unwrap())
}

fn open(dir: &TempDir, state: &TempDir) -> FetchedFiles {
    let files = FetchedFiles::open(RecordFile::open(dir.path(), Some(&state.path().join("fetched"))));
    assert_eq!(files.trouble(), None);
    files
}

fn record_file(state: &TempDir) -> PathBuf {
    fs::read_dir(state.path().join("fetched")).unwrap().next().unwrap().unwrap().path()
}

/// Fetches it: begins and ends well.
fn save(files: &FetchedFiles, text: &str, fetched: Fetched) {
    files.begin(&[(name(text), fetched.clone())]).unwrap();
    files.end(&[(name(text), fetched)], true);
}

fn is_copy(files: &FetchedFiles, text: &str, byte: u8) -> bool {
    files.is_copy(&name(text), &ContentHash([byte; 32]))
}

#[test]
fn what_was_fetched_is_known_after_a_restart_and_of_its_folder_alone() {
    let ([dir, state], other) = (folders(), tempfile::tempdir().unwrap());
    let files = open(&dir, &state);
    save(&files, "a b/c", fetched(1, Some("hans")));
    save(&files, "x", fetched(2, None));
    save(&files, "x", fetched(3, None));
    save(&files, "gone", fetched(4, Some("hans")));
    files.forget(&name("gone"));
    for files in [files, open(&dir, &state)] {
        assert_eq!(files.candidates(&name("a b/c")), [fetched(1, Some("hans"))]);
        assert_eq!(files.candidates(&name("x")), [fetched(3, None)]);
        assert!(files.candidates(&name("gone")).is_empty());
        assert_eq!(files.owned(), [(name("a b/c"), UserName::parse("hans").unwrap())]);
    }
    assert!(open(&other, &state).candidates(&name("x")).is_empty());
}

#[test]
fn a_content_that_was_fetched_is_a_copy_under_any_name_for_ever_but_the_empty_one() {
    let [dir, state] = folders();
    let files = open(&dir, &state);
    save(&files, "x", fetched(2, None));
    save(&files, "x", fetched(3, None));
    let empty = Fetched { hash: ContentHash(*blake3::hash(&[]).as_bytes()), owner: None };
    save(&files, "empty", empty.clone());
    files.forget(&name("x"));
    for files in [files, open(&dir, &state)] {
        assert!(is_copy(&files, "x", 2) && is_copy(&files, "moved/y", 3) && !is_copy(&files, "x", 4));
        assert!(files.is_copy(&name("empty"), &empty.hash) && !files.is_copy(&name("mine"), &empty.hash));
    }
}

#[test]
fn until_a_rename_has_come_out_either_content_is_a_copy() {
    let [dir, state] = folders();
    let files = open(&dir, &state);
    save(&files, "a", fetched(1, Some("hans")));
    files.begin(&[(name("a"), fetched(2, Some("hans")))]).unwrap();
    files.begin(&[(name("b"), fetched(3, Some("hans")))]).unwrap();
    for files in [files, open(&dir, &state)] {
        assert_eq!(files.candidates(&name("a")), [1, 2].map(|byte| fetched(byte, Some("hans"))));
        assert_eq!(files.get(&name("a"), Some(&ContentHash([2; 32]))), Some(fetched(2, Some("hans"))));
        for other in [None, Some(&ContentHash([9; 32]))] {
            assert_eq!(files.get(&name("a"), other), Some(fetched(1, Some("hans"))));
        }
        assert_eq!(files.candidates(&name("b")), [fetched(3, Some("hans"))]);
        assert_eq!(files.owned().len(), 2);
    }
    let files = open(&dir, &state);
    files.end(&[(name("a"), fetched(2, Some("hans")))], true);
    files.end(&[(name("b"), fetched(3, Some("hans")))], false);
    for files in [files, open(&dir, &state)] {
        assert_eq!(files.candidates(&name("a")), [fetched(2, Some("hans"))]);
        assert!(files.candidates(&name("b")).is_empty());
    }
}

#[test]
fn a_content_that_has_not_got_its_name_changes_no_record() {
    let [dir, state] = folders();
    let files = open(&dir, &state);
    save(&files, "a", fetched(1, None));
    files.begin(&[(name("a"), fetched(2, None))]).unwrap();
    files.begin(&[(name("a"), fetched(3, None))]).unwrap();
    files.end(&[(name("a"), fetched(2, None))], false);
    assert_eq!(files.candidates(&name("a")).len(), 2, "another download is about to name its content");
    files.end(&[(name("a"), fetched(3, None))], false);
    assert_eq!(files.candidates(&name("a")), [fetched(1, None)]);
}

#[test]
fn what_another_client_of_the_folder_fetches_is_known() {
    let [dir, state] = folders();
    let [one, other] = [(); 2].map(|()| open(&dir, &state));
    save(&one, "a", fetched(1, None));
    save(&other, "b", fetched(2, None));
    for files in [one, other] {
        assert!(is_copy(&files, "c", 1) && is_copy(&files, "c", 2));
    }
}

#[test]
fn a_line_that_was_cut_short_harms_no_other() {
    let [dir, state] = folders();
    save(&open(&dir, &state), "a", fetched(1, None));
    let mut file = OpenOptions::new().append(true).open(record_file(&state)).unwrap();
    file.write_all(b"0101 hans").unwrap();
    save(&open(&dir, &state), "b", fetched(2, None));
    let files = open(&dir, &state);
    assert_eq!(["a", "b"].map(|text| files.candidates(&name(text))), [[fetched(1, None)], [fetched(2, None)]]);
}

#[test]
fn a_record_with_many_old_lines_is_written_anew() {
    let [dir, state] = folders();
    let files = open(&dir, &state);
    (0..SURPLUS_MAX_LINES).for_each(|at| save(&files, "a", fetched(at as u8 % 2, None)));
    files.begin(&[(name("b"), fetched(7, None))]).unwrap();
    drop(files);
    drop(open(&dir, &state));
    let text = fs::read_to_string(record_file(&state)).unwrap();
    assert_eq!(text.lines().count(), 6, "the folder, three contents, and two names: {text}");
    let files = open(&dir, &state);
    assert_eq!(files.candidates(&name("a")), [fetched(1, None)]);
    assert_eq!(files.candidates(&name("b")), [fetched(7, None)]);
    assert!(is_copy(&files, "x", 0));
}

#[test]
fn what_cannot_be_written_is_said_known_until_the_end_and_written_later() {
    let [dir, state] = folders();
    let files = open(&dir, &state);
    lock(&files.0).file.set_writable(false);
    files.begin(&[(name("a"), fetched(1, None))]).unwrap_err();
    assert!(files.write_failure().is_some());
    assert!(is_copy(&files, "a", 1) && !is_copy(&open(&dir, &state), "a", 1));
    lock(&files.0).file.set_writable(true);
    files.end(&[(name("a"), fetched(1, None))], true);
    assert_eq!(files.trouble(), None);
    assert!(is_copy(&open(&dir, &state), "a", 1));
}

#[test]
fn a_state_folder_that_cannot_be_used_is_said() {
    let [dir, state] = folders();
    fs::write(state.path().join("file"), "").unwrap();
    let files = FetchedFiles::open(RecordFile::open(dir.path(), Some(&state.path().join("file/fetched"))));
    assert!(files.trouble().is_some() && files.write_failure().is_none());
    files.begin(&[(name("a"), fetched(1, None))]).unwrap_err();
    assert!(is_copy(&files, "a", 1));
}
