//! `pub --watch` and `unp --watch` between real programs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::test_support::{CREDENTIALS, Running, TestEnv, set_mode};

const WATCHED: &str = "watched until 'unp --watch'";

/// A client that reports the files that match a pattern.
fn observer(env: &TestEnv, user: &str, pattern: &str) -> Running {
    env.client(user).user().args(["-q"]).commands(&[&format!("events {pattern}")]).spawn()
}

/// The next event of a file: what has happened, the name and the bytes.
fn next(client: &mut Running) -> String {
    loop {
        let line = client.next_line();
        let columns: Vec<&str> = line.split('\t').skip(1).take(3).collect();
        if columns[0].starts_with("file_") {
            return columns.join(" ");
        }
    }
}

/// The next events of files, in any order.
fn next_of(client: &mut Running, count: usize) -> Vec<String> {
    let mut events: Vec<String> = (0..count).map(|_| next(client)).collect();
    events.sort();
    events
}

/// A client of hans that watches `photos` with `a` in it, and its folder.
fn watching(env: &TestEnv, command: &str) -> (Running, PathBuf) {
    let hans = env.client("hans").file("photos/a", "a").user().args(["-q"]);
    let dir = hans.dir().join("photos");
    let mut hans = hans.args(["--stay"]).spawn();
    hans.run_command(command, &["File published successfully"]);
    (hans, dir)
}

#[test]
fn what_is_new_changed_renamed_and_removed_is_so_for_the_peers() {
    let env = TestEnv::new();
    let (_hans, dir) = watching(&env, "pub --watch photos/");
    let mut vader = observer(&env, "vader", "photos/");
    assert_eq!(next(&mut vader), "file_available photos/a 1");
    fs::write(dir.join("b"), "bb").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/b 2");
    fs::write(dir.join("b"), "bbb").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/b 3");
    fs::rename(dir.join("b"), dir.join("c")).unwrap();
    assert_eq!(next_of(&mut vader, 2), ["file_available photos/c 3", "file_gone photos/b"]);
    fs::remove_file(dir.join("c")).unwrap();
    assert_eq!(next(&mut vader), "file_gone photos/c");
    // Folders, also those that are renamed, and what is hidden in them.
    fs::create_dir_all(dir.join("x/y")).unwrap();
    fs::write(dir.join("x/y/d"), "dddd").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/x/y/d 4");
    fs::write(dir.join("x/.hidden"), "").unwrap();
    fs::rename(dir.join("x"), dir.join("z")).unwrap();
    assert_eq!(next_of(&mut vader, 2), ["file_available photos/z/y/d 4", "file_gone photos/x/y/d"]);
    fs::write(dir.join("z/y/e"), "eeeee").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/z/y/e 5");
    fs::remove_dir_all(dir.join("z")).unwrap();
    assert_eq!(next_of(&mut vader, 2), ["file_gone photos/z/y/d", "file_gone photos/z/y/e"]);
    fs::hard_link(dir.join("a"), dir.join("link")).unwrap();
    assert_eq!(next(&mut vader), "file_available photos/link 1");
}

#[test]
fn a_file_that_is_written_slowly_is_published_once_and_whole() {
    let env = TestEnv::new();
    let (_hans, dir) = watching(&env, "pub --watch photos");
    let mut vader = observer(&env, "vader", "photos/*");
    assert_eq!(next(&mut vader), "file_available photos/a 1");
    let mut file = File::create(dir.join("slow")).unwrap();
    for round in 0..3 {
        file.write_all(&[7; 100]).unwrap();
        // It is quiet for as long as another file takes that is complete.
        fs::write(dir.join(round.to_string()), "").unwrap();
        assert_eq!(next(&mut vader), format!("file_available photos/{round} 0"));
    }
    drop(file);
    assert_eq!(next(&mut vader), "file_available photos/slow 300");
    fs::write(dir.join("last"), "").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/last 0");
}

#[test]
fn new_files_are_for_the_audience_of_the_watch_and_others_keep_theirs() {
    let env = TestEnv::new();
    let hans = env.client("hans").file("photos/a", "a").file("photos/open", "o").user().args(["-q", "--stay"]);
    let dir = hans.dir().join("photos");
    let mut hans = hans.spawn();
    hans.run_command("pub photos/open", &["File published successfully"]);
    hans.run_command("pub --watch --to vader photos", &["2 files published successfully"]);
    let (mut vader, mut yoda) = (observer(&env, "vader", "photos/*"), observer(&env, "yoda", "photos/*"));
    assert_eq!(next_of(&mut vader, 2), ["file_available photos/a 1", "file_available photos/open 1"]);
    assert_eq!(next(&mut yoda), "file_available photos/open 1");
    fs::write(dir.join("b"), "bb").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/b 2");
    fs::write(dir.join("open"), "oo").unwrap();
    assert_eq!([next(&mut vader), next(&mut yoda)], ["file_available photos/open 2"; 2]);
    // A name that comes again is for those who saw it before.
    fs::remove_file(dir.join("open")).unwrap();
    assert_eq!([next(&mut vader), next(&mut yoda)], ["file_gone photos/open"; 2]);
    fs::write(dir.join("open"), "ooo").unwrap();
    assert_eq!([next(&mut vader), next(&mut yoda)], ["file_available photos/open 3"; 2]);
}

#[test]
fn what_was_fetched_is_not_published_unless_it_is_shared_or_changed() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("photos/v", "v").file("photos/w", "w").user();
    let _vader = vader.stay(&["pub photos"], &["2 files published successfully"]);
    let (mut hans, dir) = watching(&env, "pub --watch photos");
    hans.run_command("get photos/v", &["photos/v downloaded successfully"]);
    hans.run_command("get --share photos/w", &["photos/w downloaded successfully"]);
    fs::write(dir.join("z"), "").unwrap();
    let mut yoda = observer(&env, "yoda", "photos/[vz]");
    while next(&mut yoda) != "file_available photos/z 0" {}
    hans.run_command("lpf", &["3 files published:", "photos/a", "photos/w", "photos/z"]);
    hans.kill();
    // Also after a restart.
    let mut hans = env.client("hans").user().args(["-q", "--stay"]).spawn();
    hans.run_command("pub --watch photos", &["3 files published successfully"]);
    fs::write(dir.join("v"), "mine").unwrap();
    while next(&mut yoda) != "file_available photos/v 4" {}
}

#[test]
fn a_folder_that_is_away_is_withdrawn_by_nobody() {
    let env = TestEnv::new();
    let (mut hans, dir) = watching(&env, "pub --watch photos");
    let away = dir.with_file_name("away");
    fs::rename(&dir, &away).unwrap();
    hans.wait_err("photos: no such file in the shared folder; nothing is withdrawn");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("other"), "").unwrap();
    hans.run_command("lpf", &["1 file published:", "photos/a"]);
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&away, &dir).unwrap();
    fs::write(dir.join("b"), "bb").unwrap();
    let mut vader = observer(&env, "vader", "photos/b");
    assert_eq!(next(&mut vader), "file_available photos/b 2");
    hans.run_command("unp --watch photos", &[]);
    hans.run_command("unp --watch photos", &["File unpublication failed"]);
    fs::remove_file(dir.join("b")).unwrap();
    hans.signal(Signal::TERM);
    let done = hans.wait();
    assert_eq!(done.stderr.matches("nothing is withdrawn").count(), 1, "{}", done.stderr);
    // A watch that starts withdraws what is missing.
    let mut hans = env.client("hans").user().args(["--stay"]).spawn();
    hans.skip_greeting();
    hans.run_command("pub --watch photos", &["File published successfully"]);
    hans.wait_err("photos: withdrawn, since there is no such file: 1");
    hans.wait_err(WATCHED);
    hans.run_command("lpf", &["1 file published:", "photos/a"]);
}

#[test]
fn a_folder_that_cannot_be_read_is_withdrawn_by_nobody() {
    let env = TestEnv::new();
    let (mut hans, dir) = watching(&env, "pub --watch photos");
    fs::create_dir(dir.join("x")).unwrap();
    fs::write(dir.join("x/b"), "bb").unwrap();
    let mut vader = observer(&env, "vader", "photos/x/*");
    assert_eq!(next(&mut vader), "file_available photos/x/b 2");
    set_mode(&dir.join("x"), 0);
    if fs::read_dir(dir.join("x")).is_ok() {
        // The superuser reads everything.
        return;
    }
    hans.wait_err("nothing is withdrawn");
    hans.run_command("lpf", &["2 files published:", "photos/a", "photos/x/b"]);
    set_mode(&dir.join("x"), 0o755);
    fs::remove_file(dir.join("x/b")).unwrap();
    assert_eq!(next(&mut vader), "file_gone photos/x/b");
}

#[test]
fn each_folder_is_watched_until_its_own_watch_ends() {
    let env = TestEnv::new();
    let hans = env.client("hans").file("photos/a", "").file("texts/a", "").user().args(["-q", "--stay"]);
    let dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("pub --watch photos", &["File published successfully"]);
    hans.run_command("pub --watch texts", &["File published successfully"]);
    let mut vader = env.client("vader").user().args(["-q", "--stay"]).spawn();
    let mut comes = |name: &str| {
        fs::write(dir.join(name), "").unwrap();
        vader.run_command(&format!("wait file {name} 60"), &[&format!("{name} is available")]);
    };
    comes("photos/b");
    comes("texts/b");
    hans.run_command("unp --watch texts", &[]);
    comes("photos/c");
    hans.run_command("unp --watch photos", &[]);
    hans.run_command("unp --watch photos", &["File unpublication failed"]);
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let env = TestEnv::new();
    let hans = env.client("hans").file("x/y/z", "").file("f", "").user().args(["-q"]);
    let failed = "File publication failed";
    let lines = [
        ("pub --watch", None),
        ("pub --watch x f", None),
        ("pub --watch *", None),
        ("pub --watch --stdin x", None),
        ("unp --watch", None),
        ("pub --watch f", Some(failed)),
        ("pub --watch nothing", Some(failed)),
        ("pub --watch x/y", Some("File published successfully")),
        ("pub --watch x", Some(failed)),
        ("pub --watch .", Some(failed)),
        ("pub --watch x/y", Some("File published successfully")),
        ("unp --watch x", Some("File unpublication failed")),
        ("unp --watch x/y/", None),
        ("pub --watch .", Some("2 files published successfully")),
    ];
    let done = hans.pipe(&lines.map(|(line, _)| line));
    let expected: Vec<&str> = lines.iter().filter_map(|(_, text)| *text).collect();
    done.expect(2, &expected);
    for reason in [
        "client: --watch: expected the name of one folder",
        "client: f: not a folder",
        "client: nothing: no such file in the shared folder",
        "client: x: x/y is watched; 'unp --watch x/y' ends that",
        "client: x: is not watched",
    ] {
        assert!(done.stderr.contains(reason), "{reason:?} in {}", done.stderr);
    }
}

#[test]
fn an_audience_never_widens() {
    let env = TestEnv::new();
    let hans = env.client("hans").file("photos/a", "a").file("photos/b", "b").user().args(["-q", "--stay"]);
    let dir = hans.dir().join("photos");
    let mut hans = hans.spawn();
    hans.run_command("pub --to vader photos", &["2 files published successfully"]);
    hans.run_command("pub --watch photos", &["2 files published successfully"]);
    let (mut vader, mut yoda) = (observer(&env, "vader", "photos/*"), observer(&env, "yoda", "photos/*"));
    assert_eq!(next_of(&mut vader, 2), ["file_available photos/a 1", "file_available photos/b 1"]);
    // One is withdrawn by hand, the other by the watch.
    hans.run_command("unp photos/a", &["File unpublished successfully"]);
    assert_eq!(next(&mut vader), "file_gone photos/a");
    hans.run_command("unp photos/a", &["File unpublication failed"]);
    fs::write(dir.join("a"), "aa").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/a 2");
    hans.run_command("unp photos/a", &["File unpublished successfully"]);
    fs::remove_file(dir.join("b")).unwrap();
    assert_eq!(next_of(&mut vader, 2), ["file_gone photos/a", "file_gone photos/b"]);
    hans.kill();
    let mut hans = env.client("hans").file("photos/b", "bbb").user().args(["-q", "--stay"]).spawn();
    hans.run_command("pub --watch photos", &["2 files published successfully"]);
    assert_eq!(next_of(&mut vader, 2), ["file_available photos/a 2", "file_available photos/b 3"]);
    // What is new is for all.
    fs::write(dir.join("c"), "cccc").unwrap();
    assert_eq!([next(&mut vader), next(&mut yoda)], ["file_available photos/c 4"; 2]);
}

#[test]
fn what_was_fetched_is_not_published_under_another_name_either() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("photos/v", "vv").user();
    let _vader = vader.stay(&["pub --to hans photos"], &["File published successfully"]);
    let hans = env.client("hans").file("photos/a", "a").user().args(["--stay"]);
    let dir = hans.dir().join("photos");
    let mut hans = hans.spawn();
    hans.skip_greeting();
    hans.run_command("pub --watch photos", &["File published successfully"]);
    hans.run_command("get photos/v", &["photos/v downloaded successfully"]);
    fs::copy(dir.join("v"), dir.join("copy")).unwrap();
    hans.wait_err("photos/copy: not published, since this was fetched before; 'pub' publishes it");
    fs::rename(dir.join("v"), dir.join("moved")).unwrap();
    hans.wait_err("photos/moved: not published");
    fs::write(dir.join("z"), "").unwrap();
    let mut yoda = observer(&env, "yoda", "photos/*");
    assert_eq!(next_of(&mut yoda, 2), ["file_available photos/a 1", "file_available photos/z 0"]);
    hans.run_command("lpf", &["2 files published:", "photos/a", "photos/z"]);
}

#[test]
fn a_quota_is_told_once_and_what_it_refuses_is_published_later() {
    let env = TestEnv::with(CREDENTIALS, &["--max-files", "3"]);
    let (hans, dir) = watching(&env, "pub --watch photos");
    for name in ["b", "c", "d", "e"] {
        fs::write(dir.join(name), name).unwrap();
    }
    let told = "photos: over the quota at the server: at most 3 publications a user; tried again later";
    hans.wait_err(told);
    let mut vader = observer(&env, "vader", "photos/*");
    let mut published: BTreeSet<String> = next_of(&mut vader, 3).into_iter().collect();
    // Other files go on, also those that are examined together with what was refused.
    for name in ["b", "c", "d", "e"] {
        fs::write(dir.join(name), name).unwrap();
    }
    fs::write(dir.join("a"), "aa").unwrap();
    assert_eq!(next(&mut vader), "file_available photos/a 2");
    for name in ["a", "b"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    while !["c", "d", "e"].iter().all(|name| published.contains(&format!("file_available photos/{name} 1"))) {
        published.insert(next(&mut vader));
    }
    hans.signal(Signal::TERM);
    assert_eq!(hans.wait().stderr.matches(told).count(), 1);
}

#[test]
fn nothing_is_watched_or_followed_without_a_record_of_what_was_fetched() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("v", "v").user();
    let _vader = vader.stay(&["pub v"], &["File published successfully"]);
    let hans = env.client("hans").file("a", "").file("state", "").user().args(["-q"]);
    let state = hans.dir().join("state");
    let done = hans.env("XDG_STATE_HOME", state.to_str().unwrap()).pipe(&["pub --watch .", "follow *", "get v"]);
    assert_eq!(done.stdout, "File publication failed\nv downloaded successfully\n");
    for reason in ["client: .: cannot be watched, since", "client: nothing can be followed, since"] {
        assert!(done.stderr.contains(reason), "{reason:?} in {}", done.stderr);
    }
}
