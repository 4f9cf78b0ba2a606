//! `follow` and `unfollow` between real programs.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::test_support::{Running, TestEnv, seeded_bytes, wait_until};

fn holds(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == content)
}

#[test]
fn what_matches_is_fetched_now_and_whenever_it_changes() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("x/a", "a").file("other", "o").user();
    let vader_dir = vader.dir().to_owned();
    let _vader = vader.stay(&["pub --watch ."], &["2 files published successfully"]);
    let hans = env.client("hans").user().args(["-q", "--stay"]);
    let hans_dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("follow x/", &["x/a downloaded successfully"]);
    fs::write(vader_dir.join("x/b"), "b").unwrap();
    hans.expect_lines(&["x/b downloaded successfully"]);
    fs::write(vader_dir.join("x/b"), "bb").unwrap();
    hans.expect_lines(&["x/b downloaded successfully"]);
    assert!(holds(&hans_dir.join("x/b"), "bb") && !hans_dir.join("other").exists());
    hans.run_command("follow", &["1 pattern followed:", "follow x/"]);
    // It never deletes.
    fs::remove_file(vader_dir.join("x/b")).unwrap();
    fs::write(vader_dir.join("x/c"), "c").unwrap();
    hans.expect_lines(&["x/c downloaded successfully"]);
    assert!(holds(&hans_dir.join("x/b"), "bb"));
    hans.send("unfollow x/");
    hans.run_command("follow", &["Nothing followed"]);
    fs::write(vader_dir.join("x/d"), "d").unwrap();
    hans.run_command("wait file x/d", &["x/d is available"]);
    assert!(!hans_dir.join("x/d").exists());
    hans.send("unfollow x/");
    hans.wait_err("x/: is not followed");
}

#[test]
fn a_name_belongs_to_the_owner_it_was_fetched_from_and_the_user_s_files_stay() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("a", "vader's").file("mine", "vader's").user();
    let vader_dir = vader.dir().to_owned();
    let _vader = vader.stay(&["pub --watch ."], &["2 files published successfully"]);
    let hans = env.client("hans").file("mine", "hans's").user().args(["-q", "--stay"]);
    let hans_dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("follow *", &["a downloaded successfully"]);
    assert!(holds(&hans_dir.join("mine"), "hans's"));
    // More users publish another content: it does not count.
    let yoda = env.client("yoda").file("a", "yoda's").file("b", "b").user();
    let _yoda = yoda.stay(&["pub a b"], &["2 files published successfully"]);
    hans.expect_lines(&["b downloaded successfully"]);
    assert!(holds(&hans_dir.join("a"), "vader's"));
    fs::write(vader_dir.join("a"), "vader's new").unwrap();
    hans.expect_lines(&["a downloaded successfully"]);
    assert!(holds(&hans_dir.join("a"), "vader's new"));
    // What the user changes is the user's.
    fs::write(hans_dir.join("a"), "edited").unwrap();
    fs::write(vader_dir.join("a"), "vader's newest").unwrap();
    fs::write(vader_dir.join("c"), "c").unwrap();
    hans.expect_lines(&["c downloaded successfully"]);
    wait_until("the change is seen", || env.log().matches("Received GET from hans").count() > 1);
    assert!(holds(&hans_dir.join("a"), "edited"));
}

#[test]
fn a_mirror_removes_what_it_fetched_and_nobody_changed() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("x/a", "a").file("x/b", "b").file("x/c", "c").user();
    let vader_dir = vader.dir().to_owned();
    let vader = vader.stay(&["pub --watch x"], &["3 files published successfully"]);
    let hans = env.client("hans").file("x/own", "own").user().args(["-q", "--stay"]);
    let hans_dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    let lines = ["a", "b", "c"].map(|name| format!("x/{name} downloaded successfully"));
    hans.send("follow --mirror --from vader x/");
    let mut came = [hans.next_line(), hans.next_line(), hans.next_line()];
    came.sort();
    assert_eq!(came, lines);
    fs::write(hans_dir.join("x/b"), "edited").unwrap();
    fs::remove_file(vader_dir.join("x/a")).unwrap();
    fs::remove_file(vader_dir.join("x/b")).unwrap();
    wait_until("the copy goes", || !hans_dir.join("x/a").exists());
    assert!(holds(&hans_dir.join("x/b"), "edited") && holds(&hans_dir.join("x/own"), "own"));
    // Not while the owner is away, but when it is back.
    vader.kill();
    hans.run_command("wait gone vader", &["vader is gone"]);
    fs::remove_file(vader_dir.join("x/c")).unwrap();
    assert!(holds(&hans_dir.join("x/c"), "c"));
    let vader = env.client("vader").file("x/d", "d").user();
    let _vader = vader.stay(&["pub --watch x"], &["File published successfully"]);
    hans.expect_lines(&["x/d downloaded successfully"]);
    wait_until("the copy goes", || !hans_dir.join("x/c").exists());
}

#[test]
fn two_users_who_watch_and_follow_each_other_never_loop() {
    let env = TestEnv::new();
    let start = |user: &str, file: &str| {
        let client = env.client(user).file(file, user).user().args(["-q", "--stay"]);
        let dir = client.dir().to_owned();
        let mut client = client.spawn();
        client.run_command("pub --watch --to hans --to vader .", &["File published successfully"]);
        (client, dir)
    };
    let ((mut hans, hans_dir), (mut vader, vader_dir)) = (start("hans", "h"), start("vader", "v"));
    hans.run_command("follow --mirror *", &["v downloaded successfully"]);
    vader.run_command("follow --mirror *", &["h downloaded successfully"]);
    for round in 0..3 {
        fs::write(hans_dir.join("h"), format!("h{round}")).unwrap();
        vader.expect_lines(&["h downloaded successfully"]);
        fs::write(vader_dir.join("v"), format!("v{round}")).unwrap();
        hans.expect_lines(&["v downloaded successfully"]);
    }
    hans.run_command("lpf", &["1 file published:", "h"]);
    vader.run_command("lpf", &["1 file published:", "v"]);
    fs::remove_file(hans_dir.join("h")).unwrap();
    wait_until("the copy goes", || !vader_dir.join("h").exists());
    let yoda = env.client("yoda").user().args(["-q"]).run(&["sch ''"]);
    yoda.expect(0, &["No files found"]);
}

#[test]
fn a_content_that_another_user_publishes_already_is_fetched_when_the_followed_user_does() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("a", "same").user();
    let _vader = vader.stay(&["pub a"], &["File published successfully"]);
    let hans = env.client("hans").user().args(["-q", "--stay"]);
    let dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.send("follow --from yoda *");
    hans.run_command("wait file a", &["a is available"]);
    assert!(!dir.join("a").exists());
    let yoda = env.client("yoda").file("a", "same").user();
    let _yoda = yoda.stay(&["pub a"], &["File published successfully"]);
    hans.expect_lines(&["a downloaded successfully"]);
}

/// A client that publishes one file, and the path of that.
fn publisher(env: &TestEnv, user: &str, file: &str, content: &str) -> (Running, PathBuf) {
    let client = env.client(user).file(file, content).user().args(["-q", "--stay"]);
    let path = client.dir().join(file);
    let mut client = client.spawn();
    client.run_command(&format!("pub {file}"), &["File published successfully"]);
    (client, path)
}

#[test]
fn a_mirror_of_one_user_removes_what_that_user_withdraws_though_others_publish_it() {
    let env = TestEnv::new();
    let (mut vader, _) = publisher(&env, "vader", "a", "same");
    let _yoda = publisher(&env, "yoda", "a", "same");
    let hans = env.client("hans").user().args(["-q", "--stay"]);
    let dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("follow --mirror --from vader *", &["a downloaded successfully"]);
    vader.run_command("unp a", &["File unpublished successfully"]);
    wait_until("the copy goes", || !dir.join("a").exists());
}

#[test]
fn a_mirror_removes_what_is_withdrawn_after_a_restart_of_the_server() {
    let mut env = TestEnv::new();
    let (mut vader, _) = publisher(&env, "vader", "a", "a");
    let hans = env.client("hans").user().args(["-q", "--stay"]);
    let dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("follow --mirror --from vader *", &["a downloaded successfully"]);
    let port = env.port();
    env.kill_server();
    env.use_port(port);
    env.start();
    vader.run_command("unp a", &["File unpublished successfully"]);
    wait_until("the copy goes", || !dir.join("a").exists());
}

#[test]
fn two_owners_who_exchange_their_contents_are_noticed() {
    let env = TestEnv::new();
    let (mut vader, v) = publisher(&env, "vader", "a", "one");
    let hans = env.client("hans").user().args(["-q", "--stay"]);
    let dir = hans.dir().to_owned();
    let mut hans = hans.spawn();
    hans.run_command("follow *", &["a downloaded successfully"]);
    let yoda = env.client("yoda").file("a", "two").file("b", "b").user().args(["-q", "--stay"]);
    let y = yoda.dir().join("a");
    let mut yoda = yoda.spawn();
    yoda.run_command("pub a b", &["2 files published successfully"]);
    hans.expect_lines(&["b downloaded successfully"]);
    // So hans sees no state in between: before and after, each content has as many users.
    hans.signal(Signal::STOP);
    for (path, content, owner) in [(&v, "two", &mut vader), (&y, "one", &mut yoda)] {
        fs::write(path, content).unwrap();
        owner.run_command("pub a", &["File published successfully"]);
    }
    hans.signal(Signal::CONT);
    hans.expect_lines(&["a downloaded successfully"]);
    assert!(holds(&dir.join("a"), "two"));
}

#[test]
fn a_pattern_is_followed_from_each_user_by_itself() {
    let env = TestEnv::new();
    let _vader = publisher(&env, "vader", "v", "v");
    let (mut yoda, y) = publisher(&env, "yoda", "y", "y");
    let mut hans = env.client("hans").user().args(["-q", "--stay"]).spawn();
    hans.run_command("follow --from yoda *", &["y downloaded successfully"]);
    hans.run_command("follow --from vader *", &["v downloaded successfully"]);
    hans.run_command("follow", &["2 patterns followed:", "follow --from vader *", "follow --from yoda *"]);
    fs::write(&y, "new").unwrap();
    yoda.run_command("pub y", &["File published successfully"]);
    hans.expect_lines(&["y downloaded successfully"]);
    hans.run_command("follow --mirror --from yoda *", &[]);
    hans.run_command("follow", &["2 patterns followed:", "follow --from vader *", "follow --mirror --from yoda *"]);
    hans.send("unfollow *");
    hans.run_command("follow", &["Nothing followed"]);
}

#[test]
fn a_slow_owner_holds_up_no_other() {
    let env = TestEnv::new();
    // It takes longer than this test.
    let vader = env.client("vader").file("v", seeded_bytes(1, 100 << 20)).user().args(["--limit-rate", "100K"]);
    let _vader = vader.stay(&["pub v"], &["File published successfully"]);
    let (mut yoda, y) = publisher(&env, "yoda", "y", "y");
    let mut hans = env.client("hans").user().args(["-q", "--stay"]).spawn();
    hans.run_command("follow [vy]", &["y downloaded successfully"]);
    for round in 0..3 {
        fs::write(&y, format!("{round}")).unwrap();
        yoda.run_command("pub y", &["File published successfully"]);
        hans.expect_lines(&["y downloaded successfully"]);
    }
}
