//! `--json`: every line of every command is a message of docs/json-schema.json, has the id of its command, and comes before
//! the one end of it; stderr stays empty.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use fileshare::internals::client::message::{
    CommandEnd, CommandId, CommandResult, EventMessage, GetResult, Message, MessageBody, NoteLevel,
};

use crate::json_schema::violation;
use crate::test_support::{CREDENTIALS, Client, Finished, Running, TestEnv, auth, seeded_bytes};

/// The message of a line, which conforms to the schema, and of which the types leave nothing out.
#[track_caller]
fn parse(line: &str) -> Message {
    let message: Message = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let read: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
    assert_eq!(violation(&read), None, "{line}");
    assert_eq!(serde_json::to_value(&message).expect("it can be written"), read, "{line}");
    message
}

/// The messages of one client that has ended.
struct Lines(Vec<Message>);

impl Lines {
    #[track_caller]
    fn of(done: &Finished) -> Self {
        assert_eq!(done.stderr, "", "stdout:\n{}", done.stdout);
        let lines = Self(done.stdout.lines().map(parse).collect());
        lines.check_ends();
        lines
    }

    /// Every command has one end, after which nothing has its id.
    #[track_caller]
    fn check_ends(&self) {
        let mut ended: BTreeSet<String> = BTreeSet::new();
        for Message { id, job, body } in &self.0 {
            match id {
                Some(id) => {
                    let id = text(id);
                    assert!(!ended.contains(&id), "after the end of {id}: {body:?}");
                    if matches!(body, MessageBody::End(_)) {
                        ended.insert(id);
                    }
                }
                // A watch, a follow, or a job whose attached side has left.
                None if job.is_some() => {}
                None => assert!(matches!(body, MessageBody::Note(_) | MessageBody::Event(_)), "{body:?}"),
            }
        }
        let all: BTreeSet<String> = self.0.iter().filter_map(|message| message.id.as_ref().map(text)).collect();
        assert_eq!(ended, all, "every command has an end");
    }

    fn of_command(&self, id: &CommandId) -> impl Iterator<Item = &MessageBody> {
        self.0.iter().filter(move |message| message.id.as_ref() == Some(id)).map(|message| &message.body)
    }

    fn results(&self, id: &CommandId) -> Vec<&CommandResult> {
        let results = self.of_command(id).filter_map(|body| match body {
            MessageBody::Result(result) => Some(result),
            _ => None,
        });
        results.collect()
    }

    /// Ids and ends, in order.
    fn ends(&self) -> Vec<(String, &CommandEnd)> {
        let end = |message: &'_ Message| matches!(message.body, MessageBody::End(_));
        let ends = self.0.iter().filter(|message| end(message));
        let ends = ends.map(|message| match (&message.id, &message.body) {
            (Some(id), MessageBody::End(end)) => (text(id), end),
            _ => panic!("{message:?}"),
        });
        ends.collect()
    }

    /// The names of the events, and the numbers of them, which are counted without gaps.
    #[track_caller]
    fn events(&self) -> BTreeSet<String> {
        let events = self.0.iter().filter_map(|message| match &message.body {
            MessageBody::Event(event) => Some(event),
            _ => None,
        });
        let events: Vec<&EventMessage> = events.collect();
        assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "{events:?}");
        events.iter().map(|event| event.kind.columns().swap_remove(0)).collect()
    }

    /// Whether the reason of a failure was noted for the command.
    fn has_reason(&self, id: &CommandId) -> bool {
        self.of_command(id).any(|body| matches!(body, MessageBody::Note(note) if note.level == NoteLevel::Error))
    }
}

fn text(id: &CommandId) -> String {
    serde_json::to_string(id).expect("an id")
}

fn json_client(env: &TestEnv, name: &str) -> Client {
    env.client(name).args(["--json"])
}

/// Reads up to the end of the command that runs.
#[track_caller]
fn until_end(client: &mut Running) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let message = parse(&client.next_line());
        let is_end = matches!(message.body, MessageBody::End(_));
        messages.push(message);
        if is_end {
            return messages;
        }
    }
}

/// What has no success among these commands: `cat` has none with `--json`, `events` runs until it is cancelled, and `stop`
/// ends the client, as the `xit` here does.
const NO_SUCCESS: &[&str] = &["cat", "events", "stop"];

/// Commands of hans, in order, with their exit status. Every command has one that succeeds and one that fails.
const COMMANDS: &[(&str, u8)] = &[
    ("help", 0),
    ("help nothing", 2),
    ("lap", 4),
    ("auth hans wrong", 4),
    ("auth hans falcon*solo", 0),
    ("lap", 0),
    ("lap now", 2),
    ("lpf", 0),
    ("lpf now", 2),
    ("ls -l vader", 0),
    ("ls nobody", 5),
    ("lap -l", 0),
    ("pub a.txt b.txt", 0),
    ("pub a.txt nothing", 8),
    ("pub --to vader a.txt", 0),
    ("pub a.txt", 0),
    ("lpf -l", 0),
    ("unp b.txt", 0),
    ("unp b.txt", 5),
    ("sch vader", 0),
    ("sch -l vader", 0),
    ("sch", 2),
    ("get vader.bin missing vader.bin", 5),
    ("get -n vader.bin vader.txt", 8),
    ("get -o copy.txt vader.txt", 0),
    ("get -n vader.bin copy.txt", 5),
    ("get vader.bin", 0),
    ("cat vader.txt", 2),
    ("pub --stdin x", 2),
    ("get a.txt vader.txt", 5),
    ("get vader.txt", 8),
    ("wait peer vader 0", 0),
    ("wait file vader.bin 0", 0),
    ("wait gone vader 0", 124),
    ("wait peer nobody &", 130),
    ("cancel 1", 0),
    ("cancel 1", 5),
    ("jobs", 0),
    ("jobs now", 2),
    ("follow", 0),
    ("follow --mirror --from vader nothing* nothing", 0),
    ("follow", 0),
    ("follow --from", 2),
    ("unfollow nothing*", 0),
    ("unfollow nothing*", 5),
    ("nonsense \u{202e}", 2),
    ("events --nothing", 2),
    ("stop now", 2),
    ("xit now", 2),
];

/// Sends all of [`COMMANDS`], as plain lines and as objects, and an `xit`.
fn send_commands(client: &mut Running) {
    for (at, (command, _)) in COMMANDS.iter().enumerate() {
        match at % 3 {
            0 => client.send(command),
            1 => client.send(&serde_json::json!({ "command": command }).to_string()),
            _ => client.send(&serde_json::json!({ "id": format!("c{at}"), "command": command }).to_string()),
        }
    }
    client.send("xit");
}

#[test]
fn every_line_of_every_command_is_a_message_of_the_schema() {
    let env = TestEnv::new();
    let names = "2 files published successfully";
    let vader = env.client("vader").file("vader.bin", seeded_bytes(1, 3 << 20)).file("vader.txt", "other");
    let _vader = vader.user().stay(&["pub vader.bin vader.txt"], &[names]);
    let hans = json_client(&env, "hans").file("a.txt", "a").file("b.txt", "b").file("vader.txt", "mine");
    let mut hans = hans.spawn();
    send_commands(&mut hans);
    let done = hans.finish();
    done.expect_code(2);
    let lines = Lines::of(&done);

    let mut seen: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let ends = lines.ends();
    assert_eq!(ends.len(), COMMANDS.len() + 1);
    for (at, (id, end)) in ends.iter().enumerate() {
        let (command, code) = COMMANDS.get(at).copied().unwrap_or(("xit", 0));
        let expected_id = if at % 3 == 2 && at < COMMANDS.len() { format!("\"c{at}\"") } else { (at + 1).to_string() };
        let word = command.split(' ').next().expect("a word");
        assert_eq!((id, end.command.as_str(), end.code as u8), (&expected_id, word, code), "{command}");
        assert_eq!(end.ok, code == 0);
        let id: CommandId = serde_json::from_str(id).expect("an id");
        assert!(!lines.results(&id).is_empty(), "{command} has a result");
        let is_reasoned = code != 0 && command != "lap" && (!command.starts_with("wait") || code == 130);
        assert_eq!(lines.has_reason(&id), is_reasoned, "{command}");
        seen.entry(word).or_default().insert(end.ok);
    }
    let MessageBody::Result(CommandResult::Help(help)) = &lines.0[0].body else { panic!("{:?}", lines.0[0]) };
    for verb in help.text.lines().map(|line| line.split(' ').next().expect("a word")) {
        let outcomes = if NO_SUCCESS.contains(&verb) { 1 } else { 2 };
        assert_eq!(seen.get(verb).map(BTreeSet::len), Some(outcomes), "{verb} in COMMANDS: success and failure");
    }
    let last = lines.0.len() - 1;
    assert!(matches!(&lines.0[last - 1].body, MessageBody::Result(CommandResult::Xit(_))), "then its end");
}

#[test]
fn every_line_of_an_attached_side_is_one_too() {
    let env = TestEnv::new();
    let vader = env.client("vader").file("vader.bin", seeded_bytes(1, 3 << 20)).file("vader.txt", "other");
    let mut vader = vader.file("late", "late").user().args(["-q"]).spawn();
    vader.run_command("pub vader.bin vader.txt", &["2 files published successfully"]);
    let hans = json_client(&env, "hans").user().args(["--stay", "--events"]);
    let mut hans = hans.file("a.txt", "a").file("b.txt", "b").file("vader.txt", "mine").spawn();
    until_end(&mut hans);
    let attached = || json_client(&env, "hans").args(["--attach", "--events"]);
    let mut side = attached().spawn();
    send_commands(&mut side);
    let done = side.finish();
    let lines = Lines::of(&done);
    assert_eq!(lines.ends().len(), COMMANDS.len() + 1);
    let seen = lines.events();
    assert!(seen.contains("peer_joined") && seen.contains("download_finished"), "{seen:?}");

    // The client itself tells of the job when its side has gone.
    let done = attached().run(&["get --wait 60 late &"]);
    done.expect_code(0);
    let lines = Lines(done.stdout.lines().map(parse).collect());
    assert_eq!((lines.results(&1.into()).len(), lines.ends().len()), (1, 1), "it has begun; the end is that of xit");
    vader.run_command("pub late", &["File published successfully"]);
    hans.out.wait("the end of the job", |out| out.contains(r#""type":"end","command":"get""#).then_some(()));
    Lines::of(&attached().run(&["stop"]));
    let lines = Lines::of(&hans.wait());
    // A slow download has progress, too.
    let is_told = |body: &MessageBody| matches!(body, MessageBody::Result(_) | MessageBody::End(_));
    let of_job = lines.0.iter().filter(|message| message.job.is_some() && message.id.is_none());
    assert_eq!(of_job.filter(|message| is_told(&message.body)).count(), 2, "a result and an end");
    assert!(lines.events().contains("file_available"), "it was waited for");
}

#[test]
fn what_goes_on_beside_commands_is_told_in_such_lines() {
    let env = TestEnv::new();
    let mut vader = env.client("vader").file("a.txt", "a").file("late", "late").user().args(["-q"]).spawn();
    let hans = json_client(&env, "hans").user().args(["--events"]).file("photos/x", "x");
    let mut hans = hans.spawn();
    for command in ["pub --watch photos", "follow --from vader *.txt", "get --wait 60 late &", "jobs"] {
        hans.send(command);
    }
    vader.run_command("pub a.txt late", &["2 files published successfully"]);
    vader.run_command("get --wait 60 photos/x", &["photos/x downloaded successfully"]);
    for what in [r#""name":"a.txt","saved""#, r#""name":"late","saved""#, "upload_finished"] {
        hans.out.wait(what, |out| out.contains(what).then_some(()));
    }
    for command in ["wait all", "unp --watch photos", "unp --watch photos", "unfollow *.txt"] {
        hans.send(command);
    }
    let lines = Lines::of(&hans.finish());
    let of_follow = lines.0.iter().filter(|message| message.job.is_some() && message.id.is_none());
    assert_eq!(of_follow.count(), 1, "what it has fetched");
    for event in ["peer_joined", "file_available", "download_finished", "upload_started", "upload_finished"] {
        assert!(lines.events().contains(event), "{event}: {:?}", lines.events());
    }
}

#[test]
fn a_get_says_what_came_from_where() {
    let env = TestEnv::new();
    let content = seeded_bytes(2, 5 << 20);
    let vader = env.client("vader").file("big", &content).file("empty", "").user();
    let _vader = vader.stay(&["pub big empty"], &["2 files published successfully"]);
    let commands = ["get big empty", "get --share big", "get big"];
    let hans = json_client(&env, "hans").user().args(["--on-exists", "rename"]).file("empty", "mine");
    let done = hans.run(&commands);
    done.expect_code(0);
    let lines = Lines::of(&done);
    let saved = |id: u64| {
        let results = lines.results(&id.into());
        let get = results.into_iter().filter_map(|result| match result {
            CommandResult::Get(GetResult::Saved { name, saved, bytes, hash, sources, resumed_bytes, .. }) => {
                Some((name.clone(), saved.clone(), *bytes, hash.clone(), sources.join(" "), *resumed_bytes))
            }
            _ => None,
        });
        get.collect::<Vec<_>>()
    };
    let hash = |content: &[u8]| blake3::hash(content).to_hex().to_string();
    let big = |sources: &str| ("big".into(), "big".into(), 5 << 20, hash(&content), sources.into(), 0);
    let empty = ("empty".into(), "empty (1)".into(), 0, hash(b""), String::new(), 0);
    assert_eq!(saved(2), [big("vader"), empty]);
    assert_eq!((saved(3), saved(4)), (vec![big("")], vec![big("")]), "it was there already");
    let ids: Vec<String> = lines.ends().into_iter().map(|(id, end)| format!("{id} {}", end.command)).collect();
    assert_eq!(ids, ["1 auth", "2 get", "3 get", "4 get", "5 xit"], "-u is a command of its own, and so is the end");
}

#[test]
fn a_resumed_get_says_how_much_was_there() {
    let env = TestEnv::new();
    let content = seeded_bytes(3, 4 << 20);
    let vader = env.client("vader").file("big", &content).user().args(["--limit-rate", "2M"]);
    let vader = vader.stay(&["pub big"], &["File published successfully"]);
    let mut hans = json_client(&env, "hans").user().args(["--retry-for", "0"]).spawn();
    until_end(&mut hans);
    hans.send("get big");
    let progress = loop {
        if let MessageBody::Progress(progress) = parse(&hans.next_line()).body
            && progress.done >= 1 << 20
        {
            break progress;
        }
    };
    assert_eq!((progress.name.as_str(), progress.total, progress.command_total), ("big", 4 << 20, 4 << 20));
    assert!(progress.done <= progress.total && progress.command_done == progress.done && progress.rate > 0);
    drop(vader);
    let failed = until_end(&mut hans);
    let MessageBody::End(end) = &failed.last().expect("an end").body else { panic!("{failed:?}") };
    assert_eq!(end.code as u8, 6);
    let _yoda = env.client("yoda").file("big", &content).user().stay(&["pub big"], &["File published successfully"]);
    hans.send("get big");
    let done = hans.finish();
    let lines = Lines::of(&done);
    let [CommandResult::Get(GetResult::Saved { sources, resumed_bytes, .. })] = lines.results(&3.into())[..] else {
        panic!("{done:?}")
    };
    assert_eq!(sources, &["yoda"]);
    assert!((progress.done..4 << 20).contains(resumed_bytes) && resumed_bytes % (1 << 20) == 0, "{resumed_bytes}");
}

#[test]
fn notes_replace_stderr() {
    let env = TestEnv::new();
    let auth = auth("hans");
    for (client, commands, code, note) in [
        (json_client(&env, "hans"), vec![auth.as_str()], 0, "can read the password in -c"),
        (json_client(&env, "hans"), vec![r#"{"command": "auth hans falcon*solo"}"#], 0, "can read the password in -c"),
        (json_client(&env, "hans").args(["-d", "nothing"]), vec!["lap"], 8, "nothing: No such file"),
        (json_client(&env, "hans").args(["--stay"]), vec![], 4, "there is nothing to stay online for"),
        (json_client(&env, "hans").user_as("hans", "wrong"), vec![], 4, "the password is wrong"),
    ] {
        let done = client.run(&commands);
        done.expect_code(code);
        let lines = Lines::of(&done);
        let has_note = |Message { body, .. }: &Message| matches!(body, MessageBody::Note(it) if it.text.contains(note));
        assert!(lines.0.iter().any(has_note), "{note}: {}", done.stdout);
    }
}

#[test]
fn bad_input_ends_no_session() {
    let env = TestEnv::new();
    let mut hans = json_client(&env, "hans").user().into_command();
    hans.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut hans = hans.spawn().expect("a client");
    let mut stdin = hans.stdin.take().expect("a pipe");
    let mut junk = seeded_bytes(4, 64 << 10);
    junk.retain(|&byte| byte != b'\n');
    let long = vec![b'{'; 10 << 20];
    let lines: [&[u8]; 6] = [b"{\"id\": \"a\"}", b"{\"id\": 1, \"command\"", &junk, &long, b"\xff\xfe", b"lap"];
    let input = lines.join(&b'\n');
    let writer = std::thread::spawn(move || stdin.write_all(&input).expect("the client reads"));
    let output = hans.wait_with_output().expect("an end");
    writer.join().expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let done = Finished { code: output.status.code().expect("an exit"), stdout, stderr };
    done.expect_code(2);
    let lines = Lines::of(&done);
    let ends: Vec<(String, u8)> = lines.ends().into_iter().map(|(id, end)| (id, end.code as u8)).collect();
    let expected = [("1", 0), ("\"a\"", 2), ("3", 2), ("4", 2), ("5", 2), ("6", 2), ("7", 0), ("8", 0)];
    assert_eq!(ends, expected.map(|(id, code)| (id.to_owned(), code)));
}

#[test]
fn a_signal_ends_the_command_and_then_the_client() {
    let env = TestEnv::with(CREDENTIALS, &["--log-level", "debug"]);
    let mut hans = json_client(&env, "hans").user().spawn();
    until_end(&mut hans);
    hans.send("wait peer vader 3600");
    env.wait_log("Received SUBSCRIBE from hans");
    hans.signal(rustix::process::Signal::INT);
    let done = hans.finish();
    done.expect_code(130);
    let ends: Vec<String> =
        Lines::of(&done).ends().into_iter().map(|(id, end)| format!("{id} {}", end.command)).collect();
    assert_eq!(ends, ["1 auth", "2 wait", "3 xit"]);
}
