//! `get` between real clients: sizes, names, folders, patterns, what exists already, sources that fail.

use std::fs;

use crate::test_support::{TestEnv, entries, seeded_bytes};

#[test]
fn every_size_and_name_arrives_byte_for_byte() {
    let env = TestEnv::new();
    let long = format!("{}/{}", "l".repeat(255), "ö".repeat(100));
    let files = [
        ("empty".to_owned(), 0),
        ("one".to_owned(), 1),
        ("a space and 'quotes\"".to_owned(), 65_536),
        ("größe/日本語/🙂.bin".to_owned(), (1 << 20) + 1),
        (long, 100_000),
        ("#odd -- name~".to_owned(), 5),
    ];
    let mut client = env.client("hans").user();
    for (seed, (name, size)) in files.iter().enumerate() {
        client = client.file(name, seeded_bytes(seed as u64, *size));
    }
    let mut hans = client.spawn();
    hans.skip_greeting();
    let quoted: Vec<String> = files.iter().map(|(name, _)| format!("'{}'", name.replace('\'', r"'\''"))).collect();
    hans.run_command(&format!("pub {}", quoted.join(" ")), &["6 files published successfully"]);

    let client = env.client("vader").user();
    let dir = client.dir().to_owned();
    let mut vader = client.spawn();
    vader.skip_greeting();
    vader.send(&format!("get {}", quoted.join(" ")));
    for (seed, (name, size)) in files.iter().enumerate() {
        vader.expect_lines(&[&format!("{name} downloaded successfully")]);
        assert!(fs::read(dir.join(name)).expect("a copy") == seeded_bytes(seed as u64, *size), "{name}");
    }
}

#[test]
fn folders_and_patterns_fetch_what_they_name() {
    let env = TestEnv::new();
    let mut client = env.client("hans").user();
    for name in ["photos/a.jpg", "photos/deep/b.jpg", "photos/c.png", "d.jpg", "e.jpg", "photosx"] {
        client = client.file(name, name);
    }
    let _hans = client.stay(&["pub photos d.jpg e.jpg photosx"], &["6 files published successfully"]);
    let folder = env.client("vader").user().args(["-q"]);
    let dir = folder.dir().to_owned();
    folder.run(&["get photos/"]).expect(
        0,
        &[
            "photos/a.jpg downloaded successfully",
            "photos/c.png downloaded successfully",
            "photos/deep/b.jpg downloaded successfully",
        ],
    );
    assert_eq!(entries(&dir), ["photos", "photos/a.jpg", "photos/c.png", "photos/deep", "photos/deep/b.jpg"]);
    let pattern = env.client("yoda").user().args(["-q"]);
    pattern.run(&["get *.jpg photos/*.png"]).expect(
        0,
        &["d.jpg downloaded successfully", "e.jpg downloaded successfully", "photos/c.png downloaded successfully"],
    );
    env.client("yoda").user().args(["-q"]).run(&["get '*.jpg'"]).expect(5, &["File not found"]);
}

#[test]
fn existing_files_follow_the_on_exists_policy() {
    let env = TestEnv::new();
    let _hans =
        env.client("hans").user().file("report.pdf", "new").stay(&["pub report.pdf"], &["File published successfully"]);
    let vader = || env.client("vader").user().args(["-q"]);
    let dir = vader().dir().to_owned();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    fs::write(dir.join("report.pdf"), "old").expect("a file in the way");

    let refused = vader().run(&["get report.pdf"]);
    refused.expect(8, &["report.pdf download failed"]);
    refused.one_line_of_stderr();
    vader().args(["--on-exists", "skip"]).run(&["get report.pdf"]).expect(0, &[]);
    assert_eq!(read("report.pdf"), "old");

    let rename = || vader().args(["--on-exists", "rename"]);
    rename().run(&["get report.pdf"]).expect(0, &["report (1).pdf downloaded successfully"]);
    assert_eq!((read("report.pdf").as_str(), read("report (1).pdf").as_str()), ("old", "new"));

    vader()
        .args(["--on-exists", "overwrite"])
        .run(&["get report.pdf"])
        .expect(0, &["report.pdf downloaded successfully"]);
    assert_eq!(read("report.pdf"), "new");
    assert_eq!(entries(&dir), ["report (1).pdf", "report.pdf"]);
}

#[test]
fn the_same_content_already_there_is_success_without_a_transfer() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("a", "content");
    let source = client.dir().join("a");
    let _hans = client.stay(&["pub a"], &["File published successfully"]);
    fs::remove_file(source).expect("hans can serve it no more");
    for policy in ["error", "overwrite", "rename", "skip"] {
        let client = env.client("vader").user().file("a", "content").args(["-q", "--on-exists", policy]);
        let dir = client.dir().to_owned();
        client.run(&["get a"]).expect(0, &["a downloaded successfully"]);
        assert_eq!(entries(&dir), ["a"], "{policy}");
    }
}

#[test]
fn sources_that_all_fail_are_a_failed_download() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("gone", "content").file("changed", "content");
    let dir = client.dir().to_owned();
    let _hans = client.stay(&["pub gone changed"], &["2 files published successfully"]);
    fs::remove_file(dir.join("gone")).expect("a file to remove");
    fs::write(dir.join("changed"), "CONTENT").expect("a file to change");
    let client = env.client("vader").user().args(["-q"]);
    let vader_dir = client.dir().to_owned();
    let done = client.run(&["get gone changed"]);
    done.expect(6, &["gone download failed", "changed download failed"]);
    assert!(entries(&vader_dir).iter().all(|name| name.ends_with(".part")), "{:?}", entries(&vader_dir));
}

#[test]
fn another_source_takes_over_from_one_that_fails() {
    let env = TestEnv::new();
    let publish = |name: &'static str| {
        let client = env.client(name).user().file("a", "content");
        let path = client.dir().join("a");
        (client.stay(&["pub a"], &["File published successfully"]), path)
    };
    let (_hans, path) = publish("hans");
    let _yoda = publish("yoda");
    fs::write(path, "CONTENT").expect("a file to change");
    let client = env.client("vader").user().args(["-q"]);
    let saved = client.dir().join("a");
    client.run(&["get a"]).expect(0, &["a downloaded successfully"]);
    assert_eq!(fs::read_to_string(saved).expect("a copy"), "content");
}

#[test]
fn an_unpublished_file_is_not_found_any_more() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().file("a", "a").spawn();
    hans.skip_greeting();
    hans.run_command("pub a", &["File published successfully"]);
    hans.run_command("unp a", &["File unpublished successfully"]);
    env.client("vader").user().args(["-q"]).run(&["get a"]).expect(5, &["File not found"]);
}

#[test]
fn earlier_publications_are_served_after_a_client_restart() {
    let env = TestEnv::new();
    env.client("hans").user().file("a", "a").run(&["pub a"]).expect_code(0);
    let _hans = env.client("hans").user().stay(&["lpf"], &["1 file published:", "a"]);
    env.client("vader").user().args(["-q"]).run(&["get a"]).expect(0, &["a downloaded successfully"]);
}

#[test]
fn many_files_arrive_in_the_requested_order() {
    let env = TestEnv::new();
    let mut client = env.client("hans").user();
    for index in 0..300 {
        client = client.file(&format!("many/{index:03}"), index.to_string());
    }
    let _hans = client.stay(&["pub many"], &["300 files published successfully"]);
    let mut vader = env.client("vader").user().spawn();
    vader.skip_greeting();
    vader.send("sch many");
    vader.expect_lines(&["300 files found:"]);
    for index in 0..300 {
        vader.expect_lines(&[&format!("many/{index:03}")]);
    }
    vader.send("get many/");
    for index in 0..300 {
        vader.expect_lines(&[&format!("many/{index:03} downloaded successfully")]);
    }
}

#[test]
fn files_of_many_peers_are_fetched_by_one_command() {
    let users: Vec<String> = (0..12).map(|number| format!("user{number:02}")).collect();
    let credentials: String = users.iter().map(|user| format!("{user} x\n")).collect();
    let env = TestEnv::with(&format!("{credentials}vader sithlord**\n"), &[]);
    // One after the other: a login has 5 s, and all at once share the processors.
    let publish = |user: &String| {
        let client = env.client(user).user_as(user, "x").file(user, user);
        client.stay(&[&format!("pub {user}")], &["File published successfully"])
    };
    let _peers: Vec<_> = users.iter().map(publish).collect();
    let lines: Vec<String> = users.iter().map(|user| format!("{user} downloaded successfully")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    env.client("vader").user().args(["-q"]).run(&[&format!("get {}", users.join(" "))]).expect(0, &lines);
}
