//! Names in several Unicode forms, files that changed after they were published, and a content that is fetched twice at once.

use std::fs::{self, File};

use rustix::fs::{FlockOperation, flock};

use crate::test_support::{TestEnv, entries, seeded_bytes};

#[test]
fn names_of_another_unicode_form_find_each_other() {
    let (composed, decomposed) = ("caf\u{e9}.txt", "cafe\u{301}.txt");
    let env = TestEnv::new();
    let mut vader = env.client("vader").user().file(decomposed, "vader's").args(["-q"]).spawn();
    vader.run_command(&format!("pub {decomposed}"), &["File published successfully"]);
    let hans = || env.client("hans").user().args(["-q"]);
    let found = hans().run(&["sch f\u{e9}", &format!("wait file {composed} 5"), &format!("get {composed}")]);
    let downloaded = format!("{decomposed} downloaded successfully");
    found.expect(0, &["1 file found:", decomposed, &format!("{composed} is available"), &downloaded]);
    assert_eq!(entries(hans().dir()), [decomposed], "saved as published");
    // Exactly the bytes that are asked for come first.
    let yoda = env.client("yoda").user().file(composed, "yoda's");
    let _yoda = yoda.stay(&[&format!("pub {composed}")], &["File published successfully"]);
    let read = |name: &str| hans().run(&[&format!("cat {name}")]).stdout;
    assert_eq!([read(composed), read(decomposed)], ["yoda's", "vader's"]);
    vader.run_command(&format!("unp {composed}"), &["File unpublished successfully"]);
    vader.run_command("lpf", &["No files published"]);
}

#[test]
fn a_file_that_changed_is_told_once_and_marked_and_the_next_content_is_taken() {
    let env = TestEnv::new();
    let client = env.client("vader").user().file("a", "first").file("b", "b");
    let file = client.dir().join("a");
    let mut vader = client.spawn();
    vader.skip_greeting();
    vader.run_command("pub a b", &["2 files published successfully"]);
    let _yoda = env.client("yoda").user().file("a", "second").stay(&["pub a"], &["File published successfully"]);
    fs::write(file, "changed").expect("the file can be written");
    for _ in 0..2 {
        let get = env.client("hans").user().args(["-q", "--on-exists", "overwrite"]).run(&["get a"]);
        get.expect(0, &["a downloaded successfully"]);
        let path = env.client("hans").dir().join("a");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "second");
        fs::remove_file(path).expect("it can be removed");
    }
    let noisy = env.client("hans").user().run(&["get a"]);
    assert!(noisy.expect_code(0).stderr.contains("a: "), "the choice is a note: {noisy:?}");
    vader.send("lpf -l");
    assert_eq!(vader.next_line(), "2 files published:");
    let states = [vader.next_line(), vader.next_line()];
    assert!(states[0].starts_with("a\t5\t") && states[0].ends_with("\tchanged"), "{states:?}");
    assert!(states[1].starts_with("b\t1\t") && states[1].ends_with("\tok"), "{states:?}");
    vader.send("xit");
    assert_eq!(vader.finish().stderr.matches("a: is not what was published any more").count(), 1);
}

#[test]
fn a_star_takes_folders_too() {
    let env = TestEnv::new();
    let hans = env.client("hans").user().args(["-q"]);
    let hans = hans.file("a", "a").file("photos/b", "b").file("photos/2026/c", "c").file(".hidden/d", "d");
    let published = ["3 files published successfully", "3 files published:", "a", "photos/2026/c", "photos/b"];
    hans.run(&["pub *", "lpf"]).expect(0, &published);
}

#[test]
fn two_downloads_of_one_content_wait_for_each_other() {
    let env = TestEnv::new();
    let content = seeded_bytes(1, 3 << 20);
    let vader = env.client("vader").user().file("large", &content);
    let _vader = vader.stay(&["pub large"], &["File published successfully"]);
    let hans = env.client("hans").user();
    let dir = hans.dir().to_owned();
    // The other download is this test.
    let part = format!(".{}.part", &blake3::hash(&content).to_hex()[..32]);
    let part = File::create(dir.join(part)).expect("a file");
    flock(&part, FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
    let mut hans = hans.args(["-c", "get large"]).spawn();
    hans.wait_err("large: waiting for another download of this content");
    drop(part);
    hans.skip_greeting();
    hans.expect_lines(&["large downloaded successfully"]);
    hans.finish().expect_code(0);
    assert!(fs::read(dir.join("large")).expect("it is there") == content);
    assert_eq!(entries(&dir), ["large"]);
}
