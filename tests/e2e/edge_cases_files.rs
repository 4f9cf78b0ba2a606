//! Edge cases of file names: what may be published, what patterns and folders mean, where files go.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::test_support::{TestEnv, all_bytes, contains_bytes, entries, mode, set_mode};

#[test]
fn names_are_relative_to_the_folder() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("a", "a").file("sub/b", "b").args(["-q"]);
    let done = client.pipe(&["pub ./a sub/./b", "lpf", "unp ./a"]);
    let expected =
        ["2 files published successfully", "2 files published:", "a", "sub/b", "File unpublished successfully"];
    done.expect(0, &expected);
}

#[test]
fn names_that_lead_outside_are_refused() {
    let env = TestEnv::new();
    fs::write(env.path().join("folders").join("outside"), "secret").unwrap_or_default();
    for command in
        ["pub ../outside", "pub a/../../outside", "pub /etc/hostname", "get ../x", "get /x", "unp ../x", "get .."]
    {
        let done = env.client("hans").user().args(["-q"]).run(&[command]);
        done.expect_code(2);
        done.one_line_of_stderr();
    }
}

#[test]
fn names_with_control_characters_are_refused_by_name_and_left_out_of_folders() {
    let env = TestEnv::new();
    let bad = ["esc\x1b[31m", "bell\x07", "new\nline", "bidi\u{202e}gpj", "line\u{2028}", "c1\u{9b}2J"];
    let mut client = env.client("hans").user().file("d/good", "x");
    for name in bad {
        client = client.file(&format!("d/{name}"), "x");
    }
    let done = client.args(["-q"]).run(&["-pub d", "lpf"]);
    assert!(done.stdout.ends_with("1 file published:\nd/good\n"), "{done:?}");
    assert!(!done.stderr.contains(['\x1b', '\x07', '\u{202e}', '\u{2028}', '\u{9b}']), "{:?}", done.stderr);
    for name in bad.iter().filter(|name| !name.contains('\n')) {
        let done = env.client("hans").user().args(["-q"]).run(&[&format!("pub 'd/{name}'")]);
        assert!(done.code != 0, "{name:?} was published");
        assert!(!done.one_line_of_stderr().contains(['\x1b', '\x07', '\u{202e}', '\u{2028}', '\u{9b}']));
    }
}

#[test]
fn symlinks_and_special_files_are_skipped_in_folders_and_refused_by_name() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("d/good", "x");
    let dir = client.dir().to_owned();
    symlink(dir.join("d/good"), dir.join("d/link")).expect("a symlink");
    symlink("/etc", dir.join("d/folder")).expect("a symlink");
    mknodat(CWD, dir.join("d/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    client
        .args(["-q"])
        .run(&["pub d", "lpf"])
        .expect(0, &["File published successfully", "1 file published:", "d/good"]);
    for name in ["d/link", "d/fifo", "d/folder/hostname", "d/folder"] {
        let done = env.client("hans").user().args(["-q"]).run(&[&format!("pub {name}")]);
        done.expect(8, &["File publication failed"]);
        done.one_line_of_stderr();
    }
}

#[test]
fn patterns_cross_no_slash_and_match_no_hidden_entry() {
    let env = TestEnv::new();
    let client =
        env.client("hans").user().file("a.txt", "a").file("b.txt", "b").file(".c.txt", "c").file("d/e.txt", "e");
    let done = client.args(["-q"]).run(&["pub *.txt", "lpf", "unp a*", "pub */*.txt", "pub .c.txt", "lpf"]);
    done.expect(
        0,
        &[
            "2 files published successfully",
            "2 files published:",
            "a.txt",
            "b.txt",
            "File unpublished successfully",
            "File published successfully",
            "File published successfully",
            "3 files published:",
            ".c.txt",
            "b.txt",
            "d/e.txt",
        ],
    );
}

#[test]
fn a_pattern_without_a_match_is_a_missing_file() {
    let env = TestEnv::new();
    env.client("hans").user().args(["-q"]).run(&["pub *.nope"]).expect(8, &["File publication failed"]);
    env.client("hans").user().args(["-q"]).run(&["unp *.nope"]).expect(5, &["File unpublication failed"]);
    env.client("hans").user().args(["-q"]).run(&["get *.nope"]).expect(5, &["File not found"]);
}

#[test]
fn a_quoted_pattern_is_a_name() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("*.txt", "star").file("a.txt", "a").args(["-q"]);
    client.run(&["pub '*.txt'", "lpf"]).expect(0, &["File published successfully", "1 file published:", "*.txt"]);
    env.client("hans").user().args(["-q"]).run(&["pub \"*.nope\""]).expect(8, &["File publication failed"]);
}

#[test]
fn a_folder_publishes_its_files_without_hidden_and_server_files() {
    let env = TestEnv::new();
    let part = format!(".{}.part", "0".repeat(32));
    let mut client = env.client("hans").user();
    for name in ["d/a", "d/sub/b", "d/.hidden", "d/.git/config", &format!("d/{part}"), "d/credentials.txt"] {
        client = client.file(name, name);
    }
    for name in ["d/fileshare.db", "d/fileshare.db-wal", "d/fileshare.db-shm", "d/fileshare.dbx"] {
        client = client.file(name, name);
    }
    let dir = client.dir().to_owned();
    client
        .args(["-q"])
        .run(&["pub d/", "lpf"])
        .expect(0, &["2 files published successfully", "2 files published:", "d/a", "d/sub/b"]);
    let again = env.client("hans").user().args(["-q"]);
    again.run(&["pub d", "unp d/"]).expect(0, &["2 files published successfully", "2 files unpublished successfully"]);
    let whole = env.client("hans").user().args(["-q"]);
    fs::write(dir.join("credentials.txt"), "hans x").expect("a file");
    fs::write(dir.join("top"), "x").expect("a file");
    whole.run(&["pub *", "unp *", "pub ."]).expect_code(0);
    env.client("hans").user().args(["-q"]).run(&["lpf"]).expect(0, &["3 files published:", "d/a", "d/sub/b", "top"]);
}

#[test]
fn an_unreadable_file_is_exit_8() {
    if rustix::process::geteuid().is_root() {
        // Root can read every file; the test of a missing file covers the same exit status.
        return;
    }
    let env = TestEnv::new();
    let client = env.client("hans").user().file("a", "a");
    set_mode(&client.dir().join("a"), 0);
    client.args(["-q"]).run(&["pub a"]).expect(8, &["File publication failed"]);
}

#[test]
fn a_hash_picks_one_of_several_contents() {
    let env = TestEnv::new();
    let publish = |name: &'static str, content: &str| {
        env.client(name).user().file("report", content).stay(&["pub report"], &["File published successfully"])
    };
    let (_hans, _yoda) = (publish("hans", "one"), publish("yoda", "two"));
    for content in ["one", "two"] {
        let hash = blake3::hash(content.as_bytes()).to_hex();
        let command = format!("get report#{}", &hash[..8]);
        let client = env.client("vader").user().args(["-q", "--on-exists", "overwrite"]);
        let saved = client.dir().join("report");
        client.run(&[&command]).expect_code(0);
        assert_eq!(fs::read_to_string(saved).expect("a copy"), content);
    }
    let hash = blake3::hash(b"one").to_hex();
    env.client("vader").user().args(["-q"]).run(&[&format!("get report#{}", &hash[..3])]).expect_code(5);
    env.client("vader").user().args(["-q"]).run(&["get report#00000000000"]).expect_code(5);
}

#[test]
fn an_exact_name_with_a_hash_suffix_wins() {
    let env = TestEnv::new();
    let hash = blake3::hash(b"plain").to_hex();
    let odd = format!("report#{}", &hash[..8]);
    let client = env.client("hans").user().file("report", "plain").file(&odd, "odd");
    let _hans = client.stay(&[&format!("pub report '{odd}'")], &["2 files published successfully"]);
    let client = env.client("vader").user().args(["-q"]);
    let saved = client.dir().join(&odd);
    client.run(&[&format!("get '{odd}'")]).expect(0, &[&format!("{odd} downloaded successfully")]);
    assert_eq!(fs::read_to_string(saved).expect("a copy"), "odd");
}

#[test]
fn get_takes_the_content_with_the_most_sources_and_reports_the_others() {
    let env = TestEnv::with("hans falcon*solo\nyoda wise@!man\nvader sithlord**\nleia x\n", &[]);
    let publish = |client: crate::test_support::Client, content: &str| {
        client.file("report", content).stay(&["pub report"], &["File published successfully"])
    };
    let _peers = [
        publish(env.client("hans").user(), "odd"),
        publish(env.client("yoda").user(), "common"),
        publish(env.client("leia").user_as("leia", "x"), "common"),
    ];
    let client = env.client("vader").user();
    let saved = client.dir().join("report");
    let done = client.run(&["get report"]);
    done.expect_code(0);
    assert_eq!(fs::read_to_string(saved).expect("a copy"), "common");
    assert!(done.stderr.contains(&blake3::hash(b"odd").to_hex()[..4]), "the other content is named:\n{}", done.stderr);
}

#[test]
fn downloads_keep_the_modification_time_and_never_the_permissions() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("run.sh", "#!/bin/sh\n");
    let path = client.dir().join("run.sh");
    set_mode(&path, 0o755);
    let time = UNIX_EPOCH + Duration::from_millis(1_234_567_890_123);
    fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("a time can be set");
    let _hans = client.stay(&["pub run.sh"], &["File published successfully"]);
    let client = env.client("vader").user().args(["-q"]);
    let saved = client.dir().join("run.sh");
    client.run(&["get run.sh"]).expect_code(0);
    assert_eq!(fs::metadata(&saved).and_then(|data| data.modified()).expect("a time"), time);
    assert_eq!(mode(&saved) & 0o111, 0, "a download is never executable");
}

#[test]
fn only_what_was_asked_for_appears_in_the_folder() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("d/a", "a");
    let hans_dir = client.dir().to_owned();
    let _hans = client.stay(&["pub d"], &["File published successfully"]);
    let client = env.client("vader").user();
    let vader_dir = client.dir().to_owned();
    client.run(&["get d/", "lpf", "sch a", "-get nope"]).expect_code(0);
    assert_eq!(entries(&hans_dir), ["d", "d/a"]);
    assert_eq!(entries(&vader_dir), ["d", "d/a"]);
}

#[test]
fn the_data_file_is_private_and_holds_no_password() {
    let env = TestEnv::new();
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
    assert_eq!(mode(&env.data()), 0o600);
    for entry in fs::read_dir(env.path()).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fileshare.db")) {
            assert_eq!(mode(&path), 0o600, "{path:?}");
            assert!(!contains_bytes(&fs::read(&path).expect("readable by its owner"), b"falcon*solo"), "{path:?}");
        }
    }
    let kept = env.path().join("homes");
    assert!(!kept.exists() || !contains_bytes(&all_bytes(&kept), b"falcon*solo"));
}
