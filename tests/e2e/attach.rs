//! `--attach`: commands of other processes in a client that runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Signal;

use crate::test_support::pty::Terminal;
use crate::test_support::{Client, Running, TestEnv, password, wait_until};

/// A client that serves and waits.
fn serving(env: &TestEnv, name: &str) -> Running {
    let mut running = env.client(name).file("a.txt", "a").user().args(["--stay", "-c", "pub a.txt"]).spawn();
    running.skip_greeting();
    running.expect_lines(&["File published successfully"]);
    running
}

/// Attaches to the client that runs with this name. `-q`: no `Goodbye!`.
fn attached(env: &TestEnv, name: &str) -> Client {
    env.client(name).args(["--attach", "-q"])
}

fn socket_dir(env: &TestEnv, name: &str) -> PathBuf {
    env.path().join("homes").join(name).join(".xdg/runtime/fileshare")
}

fn socket(dir: &Path) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "sock")).unwrap()
}

#[test]
fn commands_look_as_if_they_were_typed_in_the_client() {
    let env = TestEnv::new();
    let _vader =
        env.client("vader").file("movie.mp4", "m").user().stay(&["pub movie.mp4"], &["File published successfully"]);
    let lines =
        ["lap", "lpf", "sch m", "sch -l zzz", "get movie.mp4", "get nothing", "put x", "unp nothing", "pub a.txt"];
    let direct = env.client("hans").file("a.txt", "a").user().args(["-q"]).pipe(&lines);
    fs::remove_file(env.path().join("folders/hans/movie.mp4")).unwrap();
    let _hans = serving(&env, "hans");
    attached(&env, "hans").run(&["unp a.txt"]).expect(0, &["File unpublished successfully"]);
    let there = attached(&env, "hans").pipe(&lines);
    assert_eq!((there.code, &there.stdout, &there.stderr), (direct.code, &direct.stdout, &direct.stderr));
    assert_eq!(fs::read(env.path().join("folders/hans/movie.mp4")).unwrap(), b"m", "in the client's folder");

    attached(&env, "hans")
        .args(["--on-exists", "skip"])
        .run(&["get movie.mp4"])
        .expect(0, &["movie.mp4 downloaded successfully"]);
    let json = attached(&env, "hans").args(["--json"]).pipe(&[r#"{"id": "x", "command": "lap"}"#, "get nothing"]);
    assert_eq!((json.code, json.stderr.as_str()), (5, ""));
    assert!(
        json.stdout.contains(r#""id":"x""#) && json.stdout.lines().last().unwrap().contains(r#""type":"end""#),
        "{json:?}"
    );
    env.client("hans").args(["--attach", "-c", "lap"]).run(&[]).expect(0, &["1 active peer:", "vader", "Goodbye!"]);
    attached(&env, "hans").run(&["auth hans x"]).expect(4, &["Authentication failed. Please try again."]);
}

#[test]
fn stop_ends_the_client_that_runs() {
    let env = TestEnv::new();
    let hans = serving(&env, "hans");
    let dir = socket_dir(&env, "hans");
    env.client("hans").args(["--attach"]).run(&["stop"]).expect(0, &["Goodbye!"]);
    let hans = hans.finish();
    assert_eq!((hans.code, hans.stdout.lines().last()), (0, Some("Goodbye!")));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "no socket and no lock stay");
    let none = attached(&env, "hans").run(&["lap"]);
    none.expect(3, &[]);
    assert!(none.one_line_of_stderr().contains("no client runs here"));
    env.client("hans").user().args(["-q"]).run(&["stop", "lap"]).expect(0, &[]);
}

#[test]
fn one_of_several_is_named() {
    let env = TestEnv::new();
    let (_hans, _vader) = (serving(&env, "hans"), {
        let runtime = env.path().join("homes/hans/.xdg/runtime");
        env.client("vader").env("XDG_RUNTIME_DIR", runtime).user().stay(&["lap"], &["1 active peer:", "hans"])
    });
    let several = attached(&env, "hans").run(&["lap"]);
    several.expect(2, &[]);
    assert!(several.stderr.contains("hans at 127.0.0.1") && several.stderr.contains("folders/vader"), "{several:?}");
    attached(&env, "hans").args(["-u", "vader"]).run(&["lap"]).expect(0, &["1 active peer:", "hans"]);
    attached(&env, "hans").env("FILESHARE_USER", "hans").run(&["lap"]).expect(0, &["1 active peer:", "vader"]);
    attached(&env, "hans").args(["-u", "yoda"]).run(&["lap"]).expect_code(3);
}

#[test]
fn one_that_answers_beside_one_that_does_not_is_named() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let _silent = UnixListener::bind(socket_dir(&env, "hans").join("silent.sock")).unwrap();
    let unclear = attached(&env, "hans").run(&["lap"]);
    unclear.expect(2, &[]);
    let texts = ["hans at 127.0.0.1", "silent.sock: the client does not answer"];
    assert!(texts.iter().all(|text| unclear.stderr.contains(text)), "{unclear:?}");
    attached(&env, "hans").args(["-u", "hans"]).run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn a_refused_login_names_the_client_that_runs_here() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let refused = env.client("hans").pipe(&[&format!("auth hans {}", password("hans"))]);
    assert!(refused.stderr.contains("--attach"), "{refused:?}");
    let home = env.path().join("homes/yoda");
    let elsewhere = env.client("hans").env("XDG_RUNTIME_DIR", home).pipe(&[&format!("auth hans {}", password("hans"))]);
    assert!(!elsewhere.stderr.contains("--attach"), "{elsewhere:?}");
}

#[test]
fn fifty_sides_at_once_and_none_waits_for_a_large_get() {
    let env = TestEnv::new();
    let small: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
    let mut vader = env.client("vader").file("large", vec![7; 64 << 20]);
    for name in &small {
        vader = vader.file(name, name);
    }
    let _vader = vader.user().args(["--limit-rate", "4M"]).stay(&["pub *"], &["51 files published successfully"]);
    let hans = serving(&env, "hans");
    let large = attached(&env, "hans").args(["--json", "-c", "get large"]).spawn();
    thread::scope(|scope| {
        for name in &small {
            let env = &env;
            scope.spawn(move || {
                let mut commands = vec!["lap"; 20];
                let get = format!("get {name}");
                commands.push(&get);
                let done = attached(env, "hans").run(&commands);
                let mut lines = ["1 active peer:", "vader"].repeat(20);
                let saved = format!("{name} downloaded successfully");
                lines.push(&saved);
                done.expect(0, &lines);
                assert_eq!(done.stderr, "");
            });
        }
    });
    assert!(!large.out.text().contains(r#""type":"result""#), "it still runs");
    // A killed side takes its command with it, and nothing else.
    large.kill();
    attached(&env, "hans").run(&["lap"]).expect(0, &["1 active peer:", "vader"]);
    drop(hans);
}

#[test]
fn an_interrupt_cancels_the_command_and_not_the_client() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let mut side = attached(&env, "hans").args(["--json"]).spawn();
    side.send("lap");
    side.out.wait("an end", |text| text.contains(r#""type":"end""#).then_some(()));
    side.send("wait peer vader 3600");

    side.signal(Signal::INT);
    side.finish().expect_code(130);
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn an_attached_shell_at_a_terminal_completes_names_and_keeps_the_client() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("large", vec![7; 32 << 20]).file("report one", "1").user();
    let _vader = vader.args(["--limit-rate", "2M"]).stay(&["pub *"], &["2 files published successfully"]);
    let _hans = serving(&env, "hans");
    let mut person = Terminal::start(env.client("hans").args(["--attach"]).into_command());
    person.expect_on_screen("> ");
    // A file of another user, one of the running client's folder, and a publication.
    for (typed, completed) in
        [("get rep\t", r"report\ one"), ("pub repo\t", r"report\ one"), ("unp a\t", "a.txt"), ("lp\t", "lpf")]
    {
        typed.bytes().for_each(|key| person.press(key));
        person.expect_on_screen(completed);
        person.type_line("");
        person.expect_on_screen(if typed.starts_with("lp") { "1 file published:" } else { "successfully" });
        person.expect_on_screen("> ");
    }
    // What goes on in the background is that client's too.
    for (typed, completed) in
        [("follow --from va\t *.none", "vader"), ("unfollow \t", "unfollow *.none"), ("jobs", "jobs")]
    {
        typed.bytes().for_each(|key| person.press(key));
        person.expect_on_screen(completed);
        person.type_line("");
        person.expect_on_screen("> ");
    }
    person.type_line("get large");
    person.expect_on_screen("MiB");
    person.press(0x03);
    person.expect_on_screen("large download failed");
    person.expect_on_screen("> ");
    person.press(0x04);
    person.expect_on_screen("Goodbye!");
    assert_eq!(person.finish().0, 0);
    attached(&env, "hans").run(&["lpf"]).expect(0, &["1 file published:", "report one"]);
}

#[test]
fn a_client_that_is_killed_is_one_line_and_its_socket_is_replaced() {
    let env = TestEnv::new();
    let hans = serving(&env, "hans");
    let mut side = attached(&env, "hans").spawn();
    side.send("lap");
    side.expect_lines(&["No active peers"]);
    hans.signal(Signal::KILL);
    hans.finish();
    // It may have ended already; else it ends at the first.
    side.send_if_running("lap\nlap");
    let side = side.finish();
    side.expect_code(3);
    assert!(side.one_line_of_stderr().contains("has ended"));
    let dir = socket_dir(&env, "hans");
    assert!(socket(&dir).exists(), "it is stale");
    attached(&env, "hans").run(&["lap"]).expect_code(3);
    let _hans = serving(&env, "hans");
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn nobody_attaches_to_a_client_that_the_server_has_logged_out() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("lap", &["No active peers"]);
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
    let socket = socket(&socket_dir(&env, "hans"));
    env.write_credentials("vader sithlord**\n");
    env.signal_server(Signal::HUP);
    wait_until("its socket goes", || !socket.exists());
    attached(&env, "hans").run(&["lap"]).expect_code(3);
    hans.send("auth vader sithlord**");
    hans.run_command("lap", &["No active peers"]);
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn only_the_command_that_is_named_is_cancelled() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let mut side = BufReader::new(UnixStream::connect(socket(&socket_dir(&env, "hans"))).unwrap());
    let mut send = |line: &str, expected: &str| {
        writeln!(side.get_ref(), "{line}").unwrap();
        let mut answer = String::new();
        while !expected.is_empty() && !answer.contains(expected) {
            answer.clear();
            assert!(side.read_line(&mut answer).unwrap() > 0, "{line}");
        }
        answer
    };
    send(r#"{"on_exists":"error","retry_for_ms":0,"wants_progress":true,"json":true,"events":false}"#, "");
    send(r#"{"id":1,"command":"wait peer vader 0.3"}"#, "");
    let end = send(r#"{"cancel":"unknown"}"#, r#""type":"end""#);
    assert!(end.contains(r#""code":124"#), "{end}");
    send(r#"{"id":2,"command":"wait peer vader 600"}"#, "");
    let end = send(r#"{"cancel":2}"#, r#""type":"end""#);
    assert!(end.contains(r#""id":2"#) && end.contains(r#""code":130"#), "{end}");
    let next = send(r#"{"id":2,"command":"wait peer vader 0.1"}"#, r#""type":"end""#);
    assert!(next.contains(r#""code":124"#), "{next}");
}

#[test]
fn junk_into_the_socket_is_one_line_and_does_no_harm() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let path = socket(&socket_dir(&env, "hans"));
    for junk in [&b"\xff\xfe\x00\n"[..], b"{}\n", &vec![b'x'; 5 << 20]] {
        let mut stream = UnixStream::connect(&path).unwrap();
        // It may have closed before all is written.
        let _ = stream.write_all(junk);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.lines().count() <= 2 && answer.starts_with(r#"{"user":"hans""#), "{answer}");
    }
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn junk_among_the_commands_of_a_side_has_an_end_each_and_does_no_harm() {
    let env = TestEnv::new();
    let _hans = serving(&env, "hans");
    let mut stream = BufReader::new(UnixStream::connect(socket(&socket_dir(&env, "hans"))).unwrap());
    let options = r#"{"on_exists":"error","retry_for_ms":0,"wants_progress":true,"json":true,"events":false}"#;
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    // Cancellations of what is unknown change nothing.
    let lines = [options, r#"{"cancel": "nothing"}"#, r#"{"cancel": 7}"#, r#"{"cancel": []}"#, r#"{"id": {}}"#];
    writeln!(stream.get_ref(), "{}\nwait peer\nwait gone vader -1\nlap", lines.join("\n")).unwrap();
    let mut end = || loop {
        answer.clear();
        stream.read_line(&mut answer).unwrap();
        let message: serde_json::Value = serde_json::from_str(&answer).unwrap();
        if message["type"] == "end" {
            return message["code"].as_u64().unwrap();
        }
    };
    assert_eq!([(); 5].map(|()| end()), [2, 2, 2, 2, 0]);
    // A line that is too long ends the connection, and nothing else.
    let _ = stream.get_ref().write_all(&vec![b'x'; 10 << 20]);
    let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn when_all_places_are_taken_one_line_says_so_and_the_client_goes_on() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("lap", &["No active peers"]);
    let path = socket(&socket_dir(&env, "hans"));
    let options = r#"{"on_exists":"error","retry_for_ms":0,"wants_progress":true,"json":true,"events":true}"#;
    let mut first_line = String::new();
    let idle: Vec<UnixStream> = (0..256)
        .map(|_| {
            let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
            stream.read_line(&mut first_line).unwrap();
            writeln!(stream.get_ref(), "{options}").unwrap();
            stream.into_inner()
        })
        .collect();
    let refused = attached(&env, "hans").run(&["lap"]);
    refused.expect(3, &[]);
    assert!(refused.one_line_of_stderr().ends_with("it has 256 attached sides, the most that are served at once"));
    hans.run_command("lap", &["No active peers"]);
    drop(idle);
    // Their threads end one after the other.
    while attached(&env, "hans").run(&["lap"]).code == 3 {}
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn a_full_backlog_of_a_stopped_client_is_one_line_and_nothing_is_lost() {
    let env = TestEnv::new();
    let mut hans = env.client("hans").user().args(["-q"]).spawn();
    hans.run_command("lap", &["No active peers"]);
    let path = SocketAddrUnix::new(socket(&socket_dir(&env, "hans"))).unwrap();
    hans.signal(Signal::STOP);
    let mut waiting = Vec::new();
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
        match connect(&socket, &path) {
            Ok(()) => waiting.push(socket),
            Err(Errno::AGAIN) => break,
            Err(error) => panic!("{error} after {}", waiting.len()),
        }
    }
    let full = attached(&env, "hans").run(&["lap"]);
    full.expect(3, &[]);
    assert!(full.one_line_of_stderr().ends_with("the client does not answer"), "{full:?}");
    hans.signal(Signal::CONT);
    hans.run_command("lap", &["No active peers"]);
    drop(waiting);
    while attached(&env, "hans").run(&["lap"]).code == 3 {}
    attached(&env, "hans").run(&["lap"]).expect(0, &["No active peers"]);
}

#[test]
fn a_client_that_does_not_answer_and_a_folder_of_others_are_one_line() {
    let env = TestEnv::new();
    let dir = socket_dir(&env, "hans");
    fs::create_dir_all(&dir).unwrap();
    let open = attached(&env, "hans").run(&["lap"]);
    open.expect_code(3);
    assert!(open.one_line_of_stderr().contains("0700"), "{open:?}");
    crate::test_support::set_mode(&dir, 0o700);
    let _silent = UnixListener::bind(dir.join("silent.sock")).unwrap();
    let silent = attached(&env, "hans").run(&["lap"]);
    silent.expect_code(3);
    assert!(silent.one_line_of_stderr().contains("does not answer"), "{silent:?}");

    crate::test_support::set_mode(&dir, 0o755);
    let none = env.client("hans").user().args(["-q"]).run(&["lap"]);
    none.expect(0, &["No active peers"]);
    let noted = env.client("hans").user().run(&["lap"]);
    assert!(noted.one_line_of_stderr().contains("no control socket"), "{noted:?}");
    env.client("hans").user().args(["--no-control"]).run(&["lap"]).expect_code(0);
}

#[test]
fn contents_go_through_the_streams_of_the_attached_side() {
    let env = TestEnv::new();
    let content = "line\n".repeat(100_000);
    let vader = env.client("vader").file("log.txt", &content).user();
    let _vader = vader.stay(&["pub log.txt"], &["File published successfully"]);
    let _hans = serving(&env, "hans");
    let cat = attached(&env, "hans").run(&["cat log.txt", "cat nothing"]);
    assert_eq!((cat.code, cat.stdout == content), (5, true), "{}", cat.stderr);
    attached(&env, "hans").run(&["get -o - log.txt"]).expect_code(0);
    attached(&env, "hans").args(["--json"]).run(&["cat log.txt"]).expect_code(2);

    let mut publishing = attached(&env, "hans").commands(&["pub --stdin notes.txt"]).spawn();
    publishing.send("first");
    publishing.finish().expect(0, &["File published successfully"]);
    assert_eq!(fs::read(env.path().join("folders/hans/notes.txt")).unwrap(), b"first\n");
    attached(&env, "hans").pipe(&["pub --stdin x"]).expect_code(2);
}
