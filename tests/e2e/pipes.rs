//! `cat`, `get -o`, `get -n` and `pub --stdin`: contents over standard streams, and files under other names.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use crate::test_support::{TestEnv, entries, seeded_bytes};

const MIB: usize = 1 << 20;

/// Runs a command with this on its standard input; its standard output is any bytes.
fn run(mut command: Command, stdin: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // It may end without having read everything.
        scope.spawn(move || drop(input.write_all(stdin)));
        child.wait_with_output().expect("our own child")
    })
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_content_passes_through_standard_input_and_output() {
    let env = TestEnv::new();
    for content in [Vec::new(), b"one line\n".to_vec(), seeded_bytes(1, 5 * MIB + 17)] {
        let hans = || env.client("hans").user().args(["-q", "--on-exists", "overwrite"]);
        let published = run(hans().commands(&["pub --stdin logs/build"]).into_command(), &content);
        assert_eq!(
            String::from_utf8_lossy(&published.stdout),
            "File published successfully\n",
            "{}",
            stderr(&published)
        );
        assert_eq!(fs::read(hans().dir().join("logs/build")).expect("stored"), content);
        let _serving = env.client("hans").user().stay(&["lap"], &["No active peers"]);
        for command in ["cat logs/build", "get -o - logs/build", "cat --wait 30 logs/build"] {
            let yoda = env.client("yoda").user().args(["-q"]).commands(&[command]);
            let dir = yoda.dir().to_owned();
            let read = run(yoda.into_command(), b"");
            assert!(read.status.success() && read.stdout == content, "{command}: {}", stderr(&read));
            assert!(entries(&dir).is_empty(), "no file is left");
        }
    }
}

#[test]
fn a_closed_or_full_output_ends_a_cat_as_it_ends_any_command() {
    let env = TestEnv::new();
    let file = seeded_bytes(1, 4 * MIB);
    let _hans = env.client("hans").user().file("a", &file).stay(&["pub a"], &["File published successfully"]);
    let cat = || env.client("vader").user().args(["-q"]).commands(&["cat a", "lap"]).into_command();
    let mut head = cat().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut start = [0; 16];
    head.stdout.take().expect("a pipe").read_exact(&mut start).expect("the beginning");
    let done = head.wait_with_output().expect("our own child");
    assert_eq!(start, file[..16]);
    assert_eq!((done.status.code(), stderr(&done).as_str()), (Some(0), ""));

    let full = fs::File::options().write(true).open("/dev/full").expect("a Linux system");
    let done = cat().stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).output().expect("it starts");
    assert_eq!(done.status.code(), Some(9));
    let reason = stderr(&done);
    assert!(reason.starts_with("client: cannot write to standard output: ") && reason.lines().count() == 1, "{reason}");
}

#[test]
fn a_cat_that_fails_writes_nothing_else_to_its_output() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().file("a", "a").stay(&["pub a"], &["File published successfully"]);
    let vader = || env.client("vader").user().args(["-q"]);
    for (client, command, code, reason) in [
        (vader(), "cat b", 5, "b: no active peer has published it"),
        (vader(), "cat --wait 0 b", 5, "b: no active peer has published it"),
        (vader(), "cat a b", 2, "usage: cat "),
        (vader(), "cat '*'", 5, "*: no active peer has published it"),
        (vader(), "cat *", 2, "cat: expected the name of one file"),
        (env.client("yoda").args(["-q"]), "cat a", 4, "Please authenticate first"),
    ] {
        let done = run(client.commands(&[command]).into_command(), b"");
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(code), b"".as_slice()), "{command}");
        assert!(stderr(&done).starts_with(&format!("client: {reason}")), "{command}: {}", stderr(&done));
    }
    for command in ["cat a", "get -o - a"] {
        let done = vader().args(["--json"]).run(&[command]);
        done.expect_code(2);
        assert!(done.stdout.contains(r#""command":"cat","ok":false"#), "{}", done.stdout);
    }
}

#[test]
fn a_cat_whose_sources_die_leaves_a_true_prefix() {
    let env = TestEnv::new();
    let file = seeded_bytes(1, 32 * MIB);
    // In the client itself, and in a process that is attached to it.
    for attached in [false, true] {
        let sources = ["hans", "yoda"].map(|name| {
            let source =
                env.client(name).user().file("a", &file).args(["-q", "--limit-rate", "2M"]).commands(&["pub a"]);
            let mut source = source.args(["--stay"]).spawn();
            source.expect_lines(&["File published successfully"]);
            source
        });
        let vader = || env.client("vader").args(["-q", "--retry-for", "0.1"]);
        let _serving = attached.then(|| env.client("vader").user().stay(&["wait file a"], &["a is available"]));
        let cat = if attached { vader().args(["--attach"]) } else { vader().user() };
        let mut command = cat.commands(&["cat a", "lap"]).into_command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut cat = command.spawn().expect("it starts");
        let (mut output, mut prefix) = (cat.stdout.take().expect("a pipe"), vec![0; 2 * MIB]);
        output.read_exact(&mut prefix).expect("the beginning");
        drop(sources);
        output.read_to_end(&mut prefix).expect("the rest");
        let done = cat.wait_with_output().expect("our own child");
        assert_eq!(done.status.code(), Some(6), "{}", stderr(&done));
        assert!(prefix.len() < file.len() && file.starts_with(&prefix), "{} bytes", prefix.len());
        assert!(stderr(&done).starts_with("client: a: ") && stderr(&done).lines().count() == 1, "{}", stderr(&done));
    }
}

#[test]
fn a_slow_reader_of_a_cat_can_be_interrupted() {
    let env = TestEnv::new();
    let _hans = env
        .client("hans")
        .user()
        .file("a", seeded_bytes(1, 4 * MIB))
        .stay(&["pub a"], &["File published successfully"]);
    let cat = env.client("vader").user().args(["-q"]).commands(&["cat a"]);
    let dir = cat.dir().to_owned();
    let mut command = cat.into_command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cat = command.spawn().expect("it starts");
    let mut output = cat.stdout.take().expect("a pipe");
    output.read_exact(&mut [0]).expect("the first byte");
    // The pipe is full from here on, and nobody reads.
    rustix::process::kill_process(rustix::process::Pid::from_child(&cat), rustix::process::Signal::INT).expect("ours");
    assert_eq!(cat.wait().expect("our own child").code(), Some(130));
    assert!(entries(&dir).is_empty(), "{:?}", entries(&dir));
}

#[test]
fn one_file_is_saved_under_another_name() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().file("a", "a").file("b", "b").stay(&["pub a b"], &[PUBLISHED_2]);
    let vader = || env.client("vader").user().args(["-q"]);
    let dir = vader().dir().to_owned();
    vader().run(&["get -o new/name a"]).expect(0, &["new/name downloaded successfully"]);
    vader().run(&["get -o new/name b"]).expect(8, &["b download failed"]);
    vader().run(&["get --wait 5 -o c b"]).expect(0, &["c downloaded successfully"]);
    assert_eq!(fs::read_to_string(dir.join("new/name")).expect("saved"), "a");
    let json = vader().args(["--json"]).run(&["get -o d a"]);
    assert!(json.stdout.contains(r#""name":"a","saved":"d""#), "{}", json.stdout);
    for command in
        ["get -o x a b", "get -o x *", "get -o x folder/", "get -o ../x a", "get -o /x a", "get --share -o x a"]
    {
        let done = vader().run(&[command]);
        done.expect(2, &[]);
        done.one_line_of_stderr();
    }
    assert_eq!(entries(&dir), ["c", "d", "new", "new/name"]);
}

const PUBLISHED_2: &str = "2 files published successfully";

#[test]
fn a_dry_run_says_what_get_would_do_and_writes_nothing() {
    let env = TestEnv::new();
    let _hans = env.client("hans").user().file("f/a", "aa").file("b", "b").stay(&["pub f/a b"], &[PUBLISHED_2]);
    let vader = || env.client("vader").user().args(["-q"]).file("b", "b");
    let dir = vader().dir().to_owned();
    vader().run(&["get -n f/a b"]).expect(0, &["get\tf/a\t2", "skip\tb\t1"]);
    vader().run(&["get -n -o b f/a"]).expect(8, &["f/a download failed"]);
    vader().args(["--on-exists", "skip"]).run(&["get -n -o b f/a"]).expect(0, &["skip\tf/a\t2"]);
    vader().args(["--on-exists", "rename"]).run(&["get -n -o b f/a"]).expect(0, &["get\tf/a\t2"]);
    vader().run(&["get -n f/ -o c"]).expect(2, &[]);
    vader().run(&["get -n c *"]).expect(5, &["File not found", "skip\tb\t1"]);
    let json = vader().args(["--json"]).run(&["get -n f/a"]);
    assert!(json.stdout.contains(r#""ok":true,"name":"f/a","action":"get","bytes":2"#), "{}", json.stdout);
    assert_eq!(entries(&dir), ["b"]);
}

#[test]
fn standard_input_is_stored_as_on_exists_says() {
    let env = TestEnv::new();
    let publish = |policy: &str, name: &str, stdin: &str| {
        let hans = env.client("hans").user().args(["-q", "--on-exists", policy]);
        let done = run(hans.commands(&[&format!("pub --stdin --to vader '{name}'")]).into_command(), stdin.as_bytes());
        (done.status.code().expect("an exit"), String::from_utf8_lossy(&done.stdout).into_owned(), stderr(&done))
    };
    let published = (0, "File published successfully\n".to_owned(), String::new());
    assert_eq!(publish("error", "log", "1"), published);
    let (code, stdout, reason) = publish("error", "log", "2");
    assert_eq!((code, stdout.as_str()), (8, "File publication failed\n"));
    assert!(reason.starts_with("client: log: the file exists"), "{reason}");
    assert_eq!(publish("skip", "log", "2"), (0, String::new(), String::new()));
    assert_eq!(publish("rename", "log", "2"), published);
    assert_eq!(publish("overwrite", "log", "3"), published);
    assert_eq!(publish("error", "a\\b", "4").0, 8);
    let hans = || env.client("hans").user().args(["-q"]);
    assert_eq!(entries(hans().dir()), ["log", "log (1)"]);
    assert_eq!(fs::read_to_string(hans().dir().join("log")).expect("stored"), "3");
    hans().run(&["lpf"]).expect(0, &["2 files published:", "log", "log (1)"]);
    let _hans = env.client("hans").user().stay(&["lap"], &["No active peers"]);
    env.client("vader").user().args(["-q"]).run(&["sch log"]).expect(0, &["2 files found:", "log", "log (1)"]);
    env.client("yoda").user().args(["-q"]).run(&["sch log"]).expect(0, &["No files found"]);
}

#[test]
fn standard_input_that_is_the_script_is_not_published() {
    let env = TestEnv::new();
    let hans = || env.client("hans").user().args(["-q"]);
    let done = hans().pipe(&["pub --stdin a", "lpf"]);
    done.expect(2, &["No files published"]);
    let done = hans().args(["-b", "-"]).pipe(&["pub --stdin a"]);
    done.expect(2, &[]);
    done.one_line_of_stderr();
    let mut command = hans().file("batch", "pub --stdin a").args(["-b", "batch"]).into_command();
    command.args(["--password-file", "-"]).env_remove("FILESHARE_PASSWORD");
    let done = run(command, b"falcon*solo\ncontent");
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(fs::read_to_string(hans().dir().join("a")).expect("stored"), "content");
}

/// Runs a command without a standard input.
fn run_without_input(command: &Command) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <&-", "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    shell.output().expect("it starts")
}

#[test]
fn a_closed_standard_input_is_not_an_empty_file() {
    let env = TestEnv::new();
    let hans = || env.client("hans").user().args(["-q"]);
    let refuse = |command: &Command| {
        let done = run_without_input(command);
        assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(2), &b""[..]));
        assert_eq!(stderr(&done), "client: standard input is closed; give the content by a pipe or with < FILE\n");
    };
    refuse(&hans().commands(&["pub --stdin a"]).into_command());
    let serving = env.client("hans").user().stay(&["lpf"], &["No files published"]);
    refuse(&env.client("hans").args(["-q", "--attach"]).commands(&["pub --stdin a"]).into_command());
    drop(serving);
    assert!(entries(hans().dir()).is_empty());
    // An empty input is a file like any other.
    let mut command = hans().commands(&["pub --stdin a"]).into_command();
    assert!(command.stdin(Stdio::null()).status().expect("it starts").success());
    assert_eq!(entries(hans().dir()), ["a"]);
}
