//! Commands in the background: `&`, `jobs`, `cancel`, `wait` for jobs.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::test_support::pty::Terminal;
use crate::test_support::{Client, Running, TestEnv, seeded_bytes};

/// An attached side of the client with this name. `-q`: no `Goodbye!`.
fn attached(env: &TestEnv, name: &str) -> Client {
    env.client(name).args(["--attach", "-q"])
}

fn folder(env: &TestEnv, name: &str) -> PathBuf {
    env.path().join("folders").join(name)
}

/// vader serves these small files.
fn serving(env: &TestEnv) -> Running {
    let vader = env.client("vader").file("a", "a").file("b", "b").user();
    vader.stay(&["pub a b"], &["2 files published successfully"])
}

#[test]
fn a_script_waits_for_its_jobs() {
    let env = TestEnv::new();
    let _vader = serving(&env);
    let hans = |lines: &[&str]| env.client("hans").user().args(["-q"]).pipe(lines);
    let all = hans(&["get a &", "wait all", "get b &", "wait 2 30", "wait 2", "wait 3"]);
    let lines = ["[1] get a", "a downloaded successfully", "[2] get b", "b downloaded successfully"];
    all.expect(5, &lines);
    assert_eq!(all.one_line_of_stderr(), "client: no job 3");
    for name in ["a", "b"] {
        fs::remove_file(folder(&env, "hans").join(name)).unwrap();
    }
    // Without a `wait`: by the end of the input.
    hans(&["get a &"]).expect(0, &["[1] get a", "a downloaded successfully"]);
    hans(&["get nothing &", "lap"]).expect_code(5);
    hans(&["get '&'"]).expect(5, &["File not found"]);
}

#[test]
fn commands_and_files_have_jobs_too() {
    let env = TestEnv::new();
    let _vader = serving(&env);
    let hans = || env.client("hans").user().args(["-q"]);
    hans().run(&["get a &", "wait all"]).expect(0, &["[1] get a", "a downloaded successfully"]);
    let batch = env.path().join("batch");
    fs::write(&batch, "-get nothing &\nwait peer nobody 0 &\n-wait 2\n").unwrap();
    let ignored = hans().args([PathBuf::from("-b"), batch]).run(&[]);
    assert_eq!(ignored.code, 0, "{ignored:?}");
    hans().run(&["wait peer nobody 0 &", "wait 1", "lap"]).expect(124, &["[1] wait peer nobody 0", "Timed out"]);
    hans().run(&["pub a &"]).expect(0, &["[1] pub a", "File published successfully"]);
    // A failure ends the commands, not the jobs that have begun.
    hans().run(&["wait peer yoda 0.2 &", "get nothing"]).expect_code(5);
}

#[test]
fn a_job_goes_on_beside_other_commands_until_it_is_cancelled() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("wait peer vader 1000 &", &["[1] wait peer vader 1000"]);
    hans.run_command("lap", &["No active peers"]);
    hans.run_command("jobs", &["1 job:", "1\twait peer vader 1000\t-\t-"]);
    hans.run_command("wait 1 0", &["Timed out"]);
    hans.run_command("cancel 1", &["[1] cancelled"]);
    hans.run_command("jobs", &["No jobs"]);
    hans.run_command("wait peer vader 1000 &", &["[2] wait peer vader 1000"]);
    let _vader = env.client("vader").user().stay(&["lap"], &["1 active peer:", "hans"]);
    hans.expect_lines(&["vader is active"]);
    hans.run_command("wait peer yoda 1000 &", &["[3] wait peer yoda 1000"]);
    hans.send("xit");
    let hans = hans.finish();
    assert_eq!(hans.code, 124, "xit cancels, and the first failure was the wait that ran out: {hans:?}");
}

#[test]
fn a_signal_cancels_the_jobs_that_a_client_waits_for() {
    let env = TestEnv::new();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut hans = env.client("hans").user().args(["-c", "wait peer vader 1000 &"]).spawn();
        hans.skip_greeting();
        hans.expect_lines(&["[1] wait peer vader 1000"]);
        hans.signal(signal);
        let hans = hans.finish();
        assert_eq!((hans.code, hans.stdout.lines().last()), (code, Some("Goodbye!")), "{hans:?}");
    }
}

#[test]
fn jobs_survive_a_detach_and_write_to_the_client_then() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q", "--stay", "-c", "lap"]).spawn();
    hans.expect_lines(&["No active peers"]);
    let began = attached(&env, "hans").run(&["wait peer vader 1000 &", "lap"]);
    began.expect(0, &["[1] wait peer vader 1000", "No active peers"]);
    let mut there = attached(&env, "hans").spawn();
    there.run_command("wait peer vader 1000 &", &["[2] wait peer vader 1000"]);
    there.run_command("jobs", &["2 jobs:", "1\twait peer vader 1000\t-\t-", "2\twait peer vader 1000\t-\t-"]);
    let _vader = serving(&env);
    there.expect_lines(&["vader is active"]);
    hans.expect_lines(&["vader is active"]);
    there.run_command("get a &", &["[3] get a"]);
    there.expect_lines(&["a downloaded successfully"]);
    there.run_command("get nothing &", &["[4] get nothing"]);
    there.expect_lines(&["File not found"]);
    attached(&env, "hans").run(&["wait all", "lap"]).expect(5, &[]);
    attached(&env, "hans").run(&["stop"]).expect(0, &[]);
    assert_eq!(hans.finish().code, 0, "the failures of attached sides are not its own");
}

#[test]
fn the_side_that_began_a_job_has_its_status_whoever_else_waited() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    let mut side = attached(&env, "hans").spawn();
    side.run_command("get nothing &", &["[1] get nothing"]);
    side.expect_lines(&["File not found"]);
    let failed = "client: job 1 has failed with status 5: get nothing";
    for command in ["wait 1", "wait all", "wait 1", "wait all"] {
        let other = attached(&env, "hans").args(["-c", command]).run(&[]);
        other.expect(5, &[]);
        assert_eq!(other.one_line_of_stderr(), failed);
    }
    side.send("wait all");
    side.send("wait all");
    side.run_command("lap", &["No active peers"]);
    let side = side.finish();
    side.expect_code(5);
    assert_eq!(side.stderr.lines().filter(|line| *line == failed).count(), 1, "it was told once");
    attached(&env, "hans").run(&["wait all"]).expect(0, &[]);
    attached(&env, "hans").run(&["wait 1"]).expect(5, &[]);
    // Of a side that has left any other is told.
    attached(&env, "hans").run(&["get nothing &"]).expect_code(0);
    attached(&env, "hans").run(&["wait all"]).expect(5, &[]);
    attached(&env, "hans").run(&["wait all"]).expect(0, &[]);
}

#[test]
fn a_job_reads_from_the_input_of_its_attached_side() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    let mut publishing = attached(&env, "hans").commands(&["pub --stdin notes.txt &", "wait 1"]).spawn();
    publishing.expect_lines(&["[1] pub --stdin notes.txt"]);
    publishing.send("first");
    publishing.finish().expect(0, &["[1] pub --stdin notes.txt", "File published successfully"]);
    assert_eq!(fs::read(folder(&env, "hans").join("notes.txt")).unwrap(), b"first\n");
}

#[test]
fn a_job_of_an_attached_side_does_not_read_from_a_terminal() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    let commands = ["-c", "pub --stdin notes.txt &"];
    let person = Terminal::start(attached(&env, "hans").args(commands).into_command());
    let (code, screen) = person.finish();
    assert_eq!(code, 2, "{screen}");
    let why = "with --attach a job cannot read from a terminal; leave out the &, or use a pipe or a file";
    assert!(screen.trim().lines().count() == 1 && screen.contains(why), "{screen}");
    assert!(!folder(&env, "hans").join("notes.txt").exists());
}

#[test]
fn jobs_shows_who_downloads_from_here() {
    let env = TestEnv::new();
    let (size, args) = (4 << 20, ["-q", "--limit-rate", "256K"]);
    let mut vader = env.client("vader").file("big", seeded_bytes(7, size)).user().args(args).spawn();
    vader.run_command("pub big", &["File published successfully"]);
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("get big &", &["[1] get big"]);
    let progress = |client: &mut Running, line: &str| loop {
        client.send("jobs");
        let header = client.next_line();
        let row = (header == line).then(|| client.next_line());
        if let Some(row) = row {
            let columns: Vec<String> = row.split('\t').map(str::to_owned).collect();
            if columns[2] != "-" && columns[2] != "0" {
                return columns;
            }
        }
    };
    let row = progress(&mut hans, "1 job:");
    assert_eq!((&*row[0], &*row[1], &*row[3]), ("1", "get big", &*size.to_string()));
    vader.run_command("jobs", &["No jobs", "1 upload:"]);
    let row = vader.next_line();
    assert!(row.starts_with("hans\tbig\t") && row.ends_with(&format!("\t{size}")), "{row}");
    hans.send("cancel 1");
    hans.expect_lines(&["big download failed", "[1] cancelled"]);
    let parts = fs::read_dir(folder(&env, "hans")).unwrap().count();
    assert_eq!(parts, 1, "a part is kept");
}

#[test]
fn the_lines_of_a_job_have_its_id_and_its_number() {
    let env = TestEnv::new();
    let _vader = serving(&env);
    let mut hans = env.client("hans").user().args(["-q", "--json"]).spawn();
    let line = |hans: &mut Running, wanted: &str| loop {
        let line = hans.next_line();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        if value["type"] != "progress" && value["id"] != 1 {
            assert_eq!(value["type"], wanted, "{line}");
            return value;
        }
    };
    hans.send(r#"{"id": "x", "command": "wait peer yoda 1000 &"}"#);
    let began = line(&mut hans, "result");
    assert_eq!((&began["id"], &began["command"], &began["number"]), (&"x".into(), &"job".into(), &1.into()));
    hans.send(r#"{"id": "x", "command": "lap"}"#);
    assert!(line(&mut hans, "note")["text"].as_str().unwrap().contains("in use"));
    assert_eq!(line(&mut hans, "end")["code"], 2);
    hans.send(r#"{"id": "g", "command": "get a &"}"#);
    assert_eq!(line(&mut hans, "result")["number"], 2);
    let (got, end) = (line(&mut hans, "result"), line(&mut hans, "end"));
    assert_eq!((&got["id"], &got["job"], &got["saved"]), (&"g".into(), &2.into(), &"a".into()));
    assert_eq!((&end["id"], &end["job"], &end["code"]), (&"g".into(), &2.into(), &0.into()));
    hans.send(r#"{"id": "c", "command": "cancel 1"}"#);
    assert_eq!(line(&mut hans, "note")["id"], "x");
    assert_eq!(line(&mut hans, "result")["code"], 130);
    assert_eq!((&line(&mut hans, "end")["id"], &line(&mut hans, "result")["id"]), (&"x".into(), &"c".into()));
    assert_eq!(line(&mut hans, "end")["id"], "c");
    hans.send(r#"{"id": "x", "command": "wait all"}"#);
    assert_eq!(line(&mut hans, "result")["ok"], true);
    assert_eq!(line(&mut hans, "end")["id"], "x", "it is free again");
}

#[test]
fn the_prompt_survives_the_lines_of_a_job() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").user().into_command());
    person.expect_on_screen("Welcome, hans!");
    person.enter("wait peer vader 1000 &");
    person.expect_on_screen("[1] wait peer vader 1000");
    person.expect_on_screen("> ");
    "la".bytes().for_each(|key| person.press(key));
    person.expect_on_screen("la");
    let _vader = serving(&env);
    person.expect_on_screen("vader is active");
    // What was typed stands below the line, and goes on.
    person.expect_on_screen("> la");
    person.type_line("p");
    person.expect_on_screen("1 active peer:");
    person.type_line("get nothing &");
    person.expect_on_screen("File not found");
    person.leave();
}
