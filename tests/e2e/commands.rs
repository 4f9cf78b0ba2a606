//! What each command prints (docs/CLI.md, "Commands").

use std::fs;

use crate::test_support::{COMMANDS, TestEnv};

const WELCOME: &str = "Welcome, hans!";

#[test]
fn every_command_prints_its_fixed_texts() {
    let env = TestEnv::new();
    let (a, b, c) = ("a.txt", "b.txt", "c.txt");
    let mut vader = env.client("vader").file(a, "a").file(b, "b").file(c, "c").spawn();
    vader.run_command("auth vader wrong", &["Authentication failed. Please try again."]);
    vader.run_command("auth vader sithlord**", &["Welcome, vader!", COMMANDS]);
    vader.run_command("lpf", &["No files published"]);
    vader.run_command("pub c.txt a.txt b.txt", &["3 files published successfully"]);
    vader.run_command("pub a.txt", &["File published successfully"]);
    vader.run_command("lpf", &["3 files published:", a, b, c]);
    vader.run_command("lap", &["No active peers"]);
    vader.run_command("unp c.txt", &["File unpublished successfully"]);
    vader.run_command("unp c.txt", &["File unpublication failed"]);
    vader.run_command("pub nope.txt", &["File publication failed"]);

    let mut hans = env.client("hans").spawn();
    hans.log_in("hans");
    hans.run_command("lap", &["1 active peer:", "vader"]);
    hans.run_command("sch zzz", &["No files found"]);
    hans.run_command("sch a.t", &["1 file found:", a]);
    hans.run_command("sch txt", &["2 files found:", a, b]);
    hans.run_command("get zzz", &["File not found"]);
    hans.run_command("get a.txt", &["a.txt downloaded successfully"]);

    let mut yoda = env.client("yoda").spawn();
    yoda.log_in("yoda");
    yoda.run_command("lap", &["2 active peers:", "hans", "vader"]);
    vader.run_command("unp a.txt b.txt", &["2 files unpublished successfully"]);
    vader.run_command("lpf", &["No files published"]);
    for mut client in [vader, hans, yoda] {
        client.run_command("xit", &["Goodbye!"]);
    }
}

#[test]
fn the_reason_of_a_failure_is_one_line_on_stderr() {
    let env = TestEnv::new();
    for (command, line) in [
        ("pub nope.txt", "File publication failed"),
        ("unp nope.txt", "File unpublication failed"),
        ("get nope.txt", "File not found"),
    ] {
        let done = env.client("hans").user().args(["-q"]).run(&[command]);
        assert_eq!(done.stdout, format!("{line}\n"), "{command}");
        let why = done.one_line_of_stderr();
        assert!(why.contains("nope.txt"), "{command}: {why}");
    }
}

#[test]
fn publishing_again_changes_nothing() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").file("a", "a").spawn();
    hans.log_in("hans");
    for _ in 0..3 {
        hans.run_command("pub a", &["File published successfully"]);
    }
    hans.run_command("pub a a ./a", &["File published successfully"]);
    hans.run_command("lpf", &["1 file published:", "a"]);
}

#[test]
fn search_is_case_sensitive_unless_asked_otherwise() {
    let env = TestEnv::new();
    let _hans = env
        .client("hans")
        .user()
        .file("Straße.TXT", "a")
        .file("b.txt", "b")
        .stay(&["pub Straße.TXT b.txt"], &["2 files published successfully"]);
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.run_command("sch txt", &["1 file found:", "b.txt"]);
    vader.run_command("sch -i tXt", &["2 files found:", "Straße.TXT", "b.txt"]);
    vader.run_command("sch -i STRASSE", &["No files found"]);
    vader.run_command("sch TXT", &["1 file found:", "Straße.TXT"]);
}

#[test]
fn a_long_search_list_has_size_sources_and_age_between_tabs() {
    let env = TestEnv::new();
    let publish = |name: &'static str| {
        env.client(name).user().file("both", "12345").stay(&["pub both"], &["File published successfully"])
    };
    let _peers = (publish("hans"), publish("yoda"));
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.run_command("sch -l both", &["1 file found:"]);
    let line = vader.next_line();
    let fields: Vec<&str> = line.split('\t').collect();
    assert_eq!(&fields[..3], ["both", "5", "2"], "{line:?}");
    assert!(fields.len() == 4 && fields[3].parse::<u64>().is_ok_and(|age| age < 3_600), "{line:?}");
}

#[test]
fn a_peer_shows_what_it_shares_with_the_asker() {
    let env = TestEnv::new();
    let names = ["1 file shared by vader:", "open"];
    let vader = env.client("vader").user().file("open", "12345").file("secret", "1");
    let _vader = vader.stay(&["pub open", "pub --to yoda secret"], &["File published successfully"; 2]);
    let mut hans = env.client("hans").user().spawn();
    hans.skip_greeting();
    hans.run_command("ls vader", &names);
    hans.run_command("ls -l vader", &names[..1]);
    let line = hans.next_line();
    assert!(line.starts_with("open\t5\t") && line.split('\t').count() == 3, "{line:?}");
    hans.run_command("ls yoda", &["No such peer"]);
    let mut yoda = env.client("yoda").user().spawn();
    yoda.skip_greeting();
    yoda.run_command("ls vader", &["2 files shared by vader:", "open", "secret"]);
    yoda.run_command("ls hans", &["No files shared"]);
    hans.run_command("lap -l", &["2 active peers:"]);
    for user in ["vader", "yoda"] {
        let line = hans.next_line();
        assert!(line.strip_prefix(&format!("{user}\t")).is_some_and(|age| age.parse::<u64>().is_ok()), "{line:?}");
    }
    assert_eq!(env.client("vader").user_as("yoda", "x").run(&["ls vader"]).code, 4);
}

#[test]
fn only_files_of_active_peers_are_found() {
    let env = TestEnv::new();
    let published = env.client("hans").user().file("a", "a").run(&["pub a"]);
    published.expect(0, &[WELCOME, COMMANDS, "File published successfully", "Goodbye!"]);
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.run_command("sch a", &["No files found"]);
    vader.run_command("get a", &["File not found"]);
    let _hans = env.client("hans").user().stay(&["lpf"], &["1 file published:", "a"]);
    vader.run_command("sch a", &["1 file found:", "a"]);
    vader.run_command("get a", &["a downloaded successfully"]);
}

#[test]
fn own_files_are_not_found() {
    let env = TestEnv::new();
    let publish = |name: &str| {
        let mut client = env.client(name).user().file("a", "a").spawn();
        client.skip_greeting();
        client.run_command("pub a", &["File published successfully"]);
        client
    };
    let (_hans, mut vader) = (publish("hans"), publish("vader"));
    vader.run_command("sch a", &["No files found"]);
    vader.run_command("sch -l a", &["No files found"]);
    fs::remove_file(env.client("vader").dir().join("a")).expect("vader's own copy");
    vader.run_command("get a", &["a downloaded successfully"]);
    let mut yoda = env.client("yoda").user().spawn();
    yoda.skip_greeting();
    yoda.run_command("sch a", &["1 file found:", "a"]);
    vader.run_command("unp a", &["File unpublished successfully"]);
    vader.run_command("sch a", &["1 file found:", "a"]);
}

#[test]
fn help_names_every_command_and_explains_one() {
    let env = TestEnv::new();
    let done = env.client("hans").run(&["help"]);
    done.expect_code(0);
    for command in ["auth", "get", "lap", "lpf", "pub", "sch", "unp", "xit", "help"] {
        assert!(done.stdout.contains(command), "{command} in:\n{}", done.stdout);
        let one = env.client("hans").run(&[&format!("help {command}")]);
        one.expect_code(0);
        assert!(one.stdout.contains(command), "{}", one.stdout);
    }
    env.client("hans").run(&["help frobnicate"]).expect_code(2);
}

#[test]
fn command_lines_are_split_like_a_posix_shell() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("a b", "1").file("c d", "2").file("e f", "3").file("-x", "4");
    let done = client.args(["-q"]).pipe(&[
        "# a comment line",
        "",
        r#"pub "a b" 'c d' e\ f"#,
        "pub -- -x",
        "lpf",
        "unp 'a b' -- -x",
    ]);
    done.expect(
        0,
        &[
            "3 files published successfully",
            "File published successfully",
            "4 files published:",
            "-x",
            "a b",
            "c d",
            "e f",
            "2 files unpublished successfully",
        ],
    );
}

#[test]
fn json_is_one_object_a_line() {
    let env = TestEnv::new();
    let done = env.client("hans").user().file("a \"b\"", "a").args(["--json"]).run(&[
        r#"pub 'a "b"'"#,
        "lpf",
        "-get nope",
        "lap",
    ]);
    done.expect_code(0);
    assert!(done.stdout.lines().count() >= 4, "{}", done.stdout);
    let mut listed = false;
    for line in done.stdout.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{line:?}: {why}"));
        assert!(value.is_object(), "{line}");
        listed |= line.contains(r#"a \"b\""#);
    }
    assert!(listed, "the published name is in:\n{}", done.stdout);
}
