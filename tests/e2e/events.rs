//! `events` and `--events` between real programs.

use std::io::Read;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::json_schema::violation;
use crate::test_support::{Running, TestEnv, password};

/// The next event of a client with `--json`: its name, and what it is about.
fn next_event(client: &mut Running) -> (String, Value) {
    loop {
        let line: Value = serde_json::from_str(&client.next_line()).expect("an object");
        assert_eq!(violation(&line), None);
        if line["type"] == "event" {
            let time = line["time"].as_str().expect("a time");
            assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
            return (line["event"].as_str().expect("a name").into(), line);
        }
    }
}

/// The next event as text, without its time.
fn next_columns(client: &mut Running) -> Vec<String> {
    client.next_line().split('\t').skip(1).map(str::to_owned).collect()
}

/// The next two, in any order: each with the name of what it is about.
fn next_two(client: &mut Running) -> [String; 2] {
    let mut two = [(); 2].map(|()| next_columns(client)[..2].join(" "));
    two.sort();
    two
}

#[test]
fn events_as_text_begin_with_what_is_there_and_end_with_a_signal() {
    let env = TestEnv::new();
    let mut vader = env.client("vader").file("a.pdf", "abc").file("b.txt", "b").user().args(["-q"]).spawn();
    vader.run_command("pub a.pdf b.txt", &["2 files published successfully"]);
    let mut hans = env.client("hans").user().args(["-q"]).commands(&["events *.pdf", "lap"]).spawn();
    assert_eq!(next_two(&mut hans), ["file_available a.pdf", "peer_joined vader"]);
    vader.run_command("unp a.pdf b.txt", &["2 files unpublished successfully"]);
    assert_eq!(next_columns(&mut hans), ["file_gone", "a.pdf"]);
    vader.signal(Signal::KILL);
    assert_eq!(next_columns(&mut hans), ["peer_left", "vader"]);
    hans.signal(Signal::INT);
    hans.wait().expect_code(130);
}

#[test]
fn transfers_and_the_session_are_reported_beside_the_commands() {
    let mut env = TestEnv::new();
    let mut vader = env.client("vader").file("a", "abc").user().args(["-q", "--json", "--events"]).spawn();
    vader.send("pub a");
    let mut hans = env.client("hans").user().args(["-q", "--json", "--events"]).spawn();
    assert_eq!(next_event(&mut vader).1["user"], "hans");
    let (event, joined) = next_event(&mut hans);
    assert_eq!((&*event, &joined["user"], &joined["seq"]), ("peer_joined", &"vader".into(), &1.into()));
    hans.send("get --wait 30 a");
    assert_eq!(next_event(&mut hans).0, "file_available", "it was waited for");
    let (event, finished) = next_event(&mut hans);
    assert_eq!((&*event, &finished["name"], &finished["ok"]), ("download_finished", &"a".into(), &true.into()));
    let (event, started) = next_event(&mut vader);
    assert_eq!((&*event, &started["user"], &started["bytes"]), ("upload_started", &"hans".into(), &3.into()));
    let (event, finished) = next_event(&mut vader);
    assert_eq!((&*event, &finished["ok"], &finished["seq"]), ("upload_finished", &true.into(), &3.into()));
    let port = env.port();
    env.kill_server();
    env.use_port(port);
    env.start();
    let mut of_session = next_event(&mut hans).0;
    if of_session == "connection_lost" {
        of_session = next_event(&mut hans).0;
    }
    assert_eq!(of_session, "reconnected", "and nobody has left");
    env.write_credentials(&format!("vader {}\n", password("vader")));
    env.signal_server(Signal::HUP);
    assert_eq!(next_event(&mut hans).0, "logged_out");
}

#[test]
fn events_of_files_that_are_hidden_do_not_come() {
    let env = TestEnv::new();
    let mut vader = env.client("vader").file("a", "a").file("b", "b").user().args(["-q"]).spawn();
    let mut hans = env.client("hans").user().args(["-q"]).commands(&["events *"]).spawn();
    assert_eq!(next_columns(&mut hans), ["peer_joined", "vader"]);
    vader.run_command("pub --to yoda a", &["File published successfully"]);
    vader.run_command("pub b", &["File published successfully"]);
    assert_eq!(next_columns(&mut hans)[..2], ["file_available", "b"]);
}

#[test]
fn an_attached_side_gets_events_from_its_start_and_by_the_command() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    let attached = || env.client("hans").args(["--attach", "-q"]);
    // No command runs in it meanwhile.
    let mut json = attached().args(["--json", "--events"]).spawn();
    let mut text = attached().commands(&["events *.txt"]).spawn();
    let vader = env.client("vader").file("a.txt", "a").user().stay(&["pub a.txt"], &["File published successfully"]);
    let (event, joined) = next_event(&mut json);
    assert_eq!((&*event, &joined["user"], joined.get("id")), ("peer_joined", &"vader".into(), None));
    assert_eq!(next_two(&mut text), ["file_available a.txt", "peer_joined vader"]);
    json.send("lap");
    json.out.wait("the end of lap", |out| out.contains(r#""type":"end""#).then_some(()));
    drop(vader);
    assert_eq!(next_two(&mut text), ["file_gone a.txt", "peer_left vader"]);
    text.signal(Signal::INT);
    text.wait().expect_code(130);
    json.finish().expect_code(0);
}

#[test]
fn what_has_happened_is_told_before_the_end() {
    let env = TestEnv::new();
    let _vader = env.client("vader").file("a", "a").user().stay(&["pub a"], &["File published successfully"]);
    let _hans = env.client("hans").user().stay(&["lap"], &["1 active peer:", "vader"]);
    for client in [env.client("hans").args(["--attach"]), env.client("yoda").user()] {
        let done = client.args(["--json", "--events"]).run(&["wait file a"]);
        let found = |what: &str| done.stdout.lines().position(|line| line.contains(what));
        let (event, end) = (found(r#""event":"file_available","name":"a""#), found(r#""command":"xit""#));
        assert!(done.code == 0 && event.is_some() && event < end, "{done:?}");
    }
}

#[test]
fn events_end_quietly_when_nobody_reads_them() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().stay(&["lap"], &["No active peers"]);
    let _hans = env.client("hans").user().stay(&["lap"], &["1 active peer:", "vader"]);
    let unread = [env.client("hans").args(["--attach"]), env.client("yoda").user()].map(|client| {
        let mut command = client.args(["-q", "-c", "events", "-c", "lap"]).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut events = command.spawn().expect("it starts");
        events.stdout.take().expect("a pipe").read_exact(&mut [0; 8]).expect("an event");
        events
    });
    vader.kill();
    for events in unread {
        let done = events.wait_with_output().expect("our own child");
        assert_eq!((done.status.code(), &*String::from_utf8_lossy(&done.stderr)), (Some(0), ""));
    }
}

#[test]
fn the_options_of_events_are_checked() {
    let env = TestEnv::new();
    env.client("hans").args(["--events"]).run(&["lap"]).expect_code(2);
    env.client("hans").user().args(["-q"]).run(&["events [z-a]"]).expect_code(2);
    env.client("hans").args(["-q"]).run(&["events"]).expect(4, &["Please authenticate first"]);
}
