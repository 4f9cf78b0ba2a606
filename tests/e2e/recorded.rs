//! What every command writes to pipes is, byte for byte, what the files of tests/recorded say: nothing that is meant for a
//! terminal gets in. `FILESHARE_RECORD=1` writes them anew; look at the difference before committing it.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::test_support::{Client, Finished, TestEnv};

/// A session of hans for each command: the lines that are piped into the client.
const SESSIONS: &[(&str, &[&str])] = &[
    ("auth", &["lap", "auth", "auth nobody x", "auth hans wrong", "auth hans", "auth hans falcon*solo", "auth hans x"]),
    ("cat", &["cat", "cat open.txt", "cat nothing", "cat *.txt", "cat -l open.txt", "cat --wait 0 nothing"]),
    (
        "get",
        &[
            "get",
            "get open.txt nothing photos/ open.txt",
            "get mine.txt",
            "get twice",
            "get -n open.txt twice*",
            "get -o 'a copy' open.txt",
            "get -o - open.txt",
            "get --share secret.txt",
            "get ../x",
            "get --wait 0 nothing",
        ],
    ),
    (
        "follow",
        &[
            "follow",
            "follow --mirror --from vader *.none",
            "follow",
            "jobs",
            "unfollow *.none nothing",
            "unfollow",
            "follow --from",
            "follow ../x",
            "follow",
        ],
    ),
    ("help", &["help", "?", "help get", "? sch", "help nothing", "help get put"]),
    (
        "jobs",
        &[
            "jobs",
            "wait file nothing 60 &",
            "jobs",
            "cancel",
            "cancel 2",
            "cancel x",
            "pub nothing &",
            "wait 2",
            "jobs now",
            "lap & lap",
            "cancel 1",
        ],
    ),
    ("lap", &["lap", "lap -l", "lap now", "lap --long"]),
    ("lpf", &["lpf", "pub mine.txt folder", "pub --to vader b.txt", "lpf", "lpf -l", "lpf now"]),
    ("ls", &["ls", "ls vader", "ls -l vader", "ls yoda", "ls hans", "ls nobody", "ls 'no body'", "ls vader yoda"]),
    (
        "pub",
        &[
            "pub",
            "pub mine.txt",
            "pub mine.txt nothing folder *.log b.txt",
            "pub --to yoda mine.txt",
            "pub mine.txt",
            "pub --to",
            "pub --stdin x",
            "pub /etc/passwd",
        ],
    ),
    (
        "sch",
        &[
            "sch",
            "sch txt",
            "sch TXT",
            "sch -i TXT",
            "sch -l txt",
            "sch -il PHOTO",
            "sch nothing",
            "sch -z x",
            "sch ''",
        ],
    ),
    ("stop", &["stop now", "stop", "lap"]),
    ("typos", &["exti", "SCH x", "ls; lap", "'open", "help put", "-lap", "lpf\\", "# a comment", ""]),
    ("unp", &["unp", "pub mine.txt b.txt folder", "unp b.txt nothing", "unp *.txt", "unp folder/ mine.txt"]),
    (
        "wait",
        &[
            "wait",
            "wait peer vader",
            "wait peer vader 0",
            "wait gone vader 0",
            "wait file open.txt 0.5",
            "wait file nothing 0",
            "wait peer hans",
            "wait peer vader soon",
        ],
    ),
    (
        "watch",
        &[
            "pub --watch",
            "pub --watch nothing",
            "pub --watch folder",
            "jobs",
            "unp --watch",
            "unp --watch nothing",
            "unp --watch folder",
        ],
    ),
    ("xit", &["xit now", "exit now", "quit", "lap"]),
];

/// Commands whose lines have an age, the last of their numbers.
const AGES: &[&str] = &["lap -l", "lpf -l", "ls -l", "sch -l"];

fn hans(env: &TestEnv, session: &str) -> Client {
    let client =
        env.client("hans").file("mine.txt", "mine").file("b.txt", "b").file("folder/a", "a").file("folder/b", "");
    if session == "auth" { client.env("FILESHARE_USER", "") } else { client.user() }
}

#[test]
fn output_to_pipes_is_as_recorded() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("open.txt", "content").file("mine.txt", "theirs").file("twice", "one");
    let vader = vader.file("photos/a.jpg", "x").file("photos/b.jpg", "bb").file("secret.txt", "for hans");
    let _vader = vader.stay(
        &["pub open.txt mine.txt twice photos", "pub --to hans secret.txt"],
        &["5 files published successfully", "File published successfully"],
    );
    let _yoda = env.client("yoda").user().stay(&["lpf"], &["No files published"]);
    for (session, lines) in SESSIONS {
        let _ = fs::remove_dir_all(env.client("hans").dir());
        let done = hans(&env, session).pipe(lines);
        // What was published would stay so.
        env.client("hans").user().run(&["-unp * folder/"]).expect_code(0);
        check(session, lines, &done);
    }
}

#[test]
fn events_in_pipes_are_as_recorded() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("open.txt", "content");
    let _vader = vader.stay(&["pub open.txt"], &["File published successfully"]);
    let mut hans = env.client("hans").user().spawn();
    hans.send("events open.txt");
    hans.out.wait("the file", |text| text.contains("file_available").then_some(()));
    hans.signal(Signal::INT);
    let mut done = hans.finish();
    let untimed = |line: &str| match line.split_once('\t') {
        Some((_, event)) => format!("TIME\t{event}\n"),
        None => format!("{line}\n"),
    };
    done.stdout = done.stdout.lines().map(untimed).collect();
    check("events", &["events open.txt"], &done);
}

#[track_caller]
fn check(session: &str, lines: &[&str], done: &Finished) {
    let has_ages = lines.iter().any(|line| AGES.iter().any(|long| line.starts_with(long)));
    let stdout = if has_ages { done.stdout.lines().map(without_age).collect() } else { done.stdout.clone() };
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let code = done.code;
    let text = format!("--- input\n{input}--- stdout\n{stdout}--- stderr\n{}--- exit status {code}\n", done.stderr);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(session).with_extension("txt");
    if std::env::var_os("FILESHARE_RECORD").is_some() {
        fs::write(&path, &text).expect("the record can be written");
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, recorded, "{}; FILESHARE_RECORD=1 writes it anew", path.display());
}

/// The line with the last number of its columns replaced.
fn without_age(line: &str) -> String {
    let mut columns: Vec<&str> = line.split('\t').collect();
    let is_number = |column: &&str| column.parse::<u64>().is_ok();
    if let Some(age) = columns.iter().skip(1).rposition(is_number).filter(|_| columns.len() > 1) {
        columns[age + 1] = "AGE";
    }
    columns.join("\t") + "\n"
}
