use serde_json::{Value, json};

use super::*;
use crate::client::follow::Followed;
use crate::client::jobs::JobKind;
use crate::client::ui::look::Look;
use crate::common::message::{AvailableContent, OwnPublication};
use crate::common::types::{Content, ContentHash, FileName, UsersDigest, is_control};

fn file(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn failure(name: &str, code: ExitCode) -> ItemFailure {
    ItemFailure { name: name.into(), error: "for a reason".into(), code }
}

fn found(name: &str) -> AvailableContent {
    let content = Content { hash: ContentHash([0xab; 32]), size: 1_234, mtime_ms: 0 };
    AvailableContent { name: file(name), content, sources: 3, age_s: 60, users: UsersDigest::default() }
}

fn own(name: &str) -> OwnFile {
    OwnFile::from(&OwnPublication { name: file(name), content: found(name).content, restricted: true, age_s: 60 })
}

fn peers(users: &[&str]) -> CommandResult {
    CommandResult::Lap(PeerList { ok: True, peers: users.iter().map(|&user| user.into()).collect(), details: None })
}

fn saved(name: &str, saved: &str) -> CommandResult {
    CommandResult::Get(GetResult::Saved {
        ok: True,
        name: name.into(),
        saved: saved.into(),
        bytes: 1_234,
        hash: "ab".repeat(32),
        sources: vec!["vader".into()],
        resumed_bytes: 0,
        elapsed_ms: 17,
    })
}

fn get_failed(name: &str, code: ExitCode) -> CommandResult {
    CommandResult::Get(GetResult::Failed(failure(name, code).into()))
}

/// The object of a message, which is the same when it has been read and written again.
fn json(message: &Message) -> Value {
    let line = message.to_json();
    assert!(!line.contains('\n'), "{line:?}");
    let read: Message = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!(&read, message, "{line}");
    serde_json::from_str(&line).unwrap()
}

/// The fields of a result beside `type` and `id`.
fn result_json(result: CommandResult) -> Value {
    let mut value = json(&Message::new(Some(7.into()), MessageBody::Result(result)));
    let fields = value.as_object_mut().unwrap();
    assert_eq!((fields.remove("type"), fields.remove("id")), (Some(json!("result")), Some(json!(7))));
    value
}

#[test]
fn texts_never_change() {
    let welcome = "Welcome, hans!\nAvailable commands are: get, lap, lpf, pub, sch, unp, xit\n";
    assert_eq!(CommandResult::welcome("hans").to_text(), welcome);
    let refused = CommandResult::Auth(AuthResult::Refused(failure("hans", ExitCode::NotAuthenticated).into()));
    assert_eq!(refused.to_text(), "Authentication failed. Please try again.\n");
    assert_eq!(CommandResult::not_authenticated("lap").to_text(), "Please authenticate first\n");
    assert_eq!(CommandResult::failed("put", "unknown", ExitCode::Usage).to_text(), "");
    assert_eq!(CommandResult::goodbye().to_text(), "Goodbye!\n");
}

#[test]
fn counts_are_singular_and_plural() {
    let [a, b, c] = ["a", "b", "c"].map(file);
    let failed = vec![failure("x", ExitCode::LocalFile), failure("y", ExitCode::LocalFile)];
    let published = |files: &[FileName], failed| CommandResult::published(files, failed).to_text();
    assert_eq!(published(std::slice::from_ref(&a), vec![]), "File published successfully\n");
    assert_eq!(published(&[a.clone(), b, c], vec![]), "3 files published successfully\n");
    assert_eq!(published(&[], failed.clone()), "File publication failed\n");
    let both = "File unpublished successfully\nFile unpublication failed\n";
    assert_eq!(CommandResult::unpublished(&[a], failed).to_text(), both);
}

#[test]
fn lists_start_with_their_length() {
    assert_eq!(peers(&[]).to_text(), "No active peers\n");
    assert_eq!(peers(&["hans"]).to_text(), "1 active peer:\nhans\n");
    assert_eq!(peers(&["hans", "yoda"]).to_text(), "2 active peers:\nhans\nyoda\n");
    let published = |files| CommandResult::Lpf(PublishedList { ok: True, files }).to_text();
    assert_eq!(published(vec![]), "No files published\n");
    assert_eq!(published(vec![own("a")]), "1 file published:\na\n");
    assert_eq!(published(vec![own("a"), own("a")]), "2 files published:\na\na\n");
    assert_eq!(CommandResult::found_names(&[]).to_text(), "No files found\n");
    assert_eq!(CommandResult::found_names(&[file("a b")]).to_text(), "1 file found:\na b\n");
    assert_eq!(CommandResult::found_contents(&[found("a b")]).to_text(), "1 file found:\na b\t1234\t3\t60\n");
}

#[test]
fn details_are_columns_between_tabs() {
    let details = vec![PeerDetails { user: "hans".into(), active_s: 3_700 }];
    let lap = CommandResult::Lap(PeerList { ok: True, peers: vec!["hans".into()], details: Some(details) });
    assert_eq!(lap.to_text(), "1 active peer:\nhans\t3700\n");
    let file = |state, restricted| OwnFile { age_s: Some(60), state: Some(state), restricted, ..own("a b") };
    let files =
        vec![file(OwnFileState::Ok, true), file(OwnFileState::Changed, false), file(OwnFileState::Missing, false)];
    let lpf = CommandResult::Lpf(PublishedList { ok: True, files });
    let lines = ["a b\t1234\t60\trestricted\tok", "a b\t1234\t60\tall\tchanged", "a b\t1234\t60\tall\tmissing"];
    assert_eq!(lpf.to_text(), format!("3 files published:\n{}\n", lines.join("\n")));
    let ls = |age_s, names: &[&str]| {
        let files = names.iter().map(|name| SharedFile { age_s, ..SharedFile::from(&found(name)) }).collect();
        CommandResult::Ls(PeerFiles::Listed { ok: True, user: "vader".into(), files }).to_text()
    };
    assert_eq!(ls(None, &["a", "b"]), "2 files shared by vader:\na\nb\n");
    assert_eq!(ls(Some(60), &["a"]), "1 file shared by vader:\na\t1234\t60\n");
    assert_eq!(ls(None, &[]), "No files shared\n");
    let failed = CommandResult::Ls(PeerFiles::Failed(failure("vader", ExitCode::NotFound).into()));
    assert_eq!(failed.to_text(), "No such peer\n");
}

#[test]
fn people_get_units_and_aligned_columns() {
    let people = Look { is_terminal: true, has_color: false };
    let mut files = [found("a b"), found("c")];
    (files[1].content.size, files[1].sources, files[1].age_s) = (400 << 20, 1, 90_000);
    let lines = "2 files found:\n1.2 KiB  3 sources  60 s  a b\n400 MiB   1 source  25 h  c\n";
    assert_eq!(CommandResult::found_contents(&files).to_text_with(people), lines);
    assert_eq!(peers(&["hans"]).to_text_with(people), "1 active peer:\nhans\n");
    let own_file = |state| OwnFile { age_s: Some(60), state: Some(state), restricted: false, ..own("a") };
    let files = vec![own_file(OwnFileState::Ok), own_file(OwnFileState::Missing)];
    let lpf = CommandResult::Lpf(PublishedList { ok: True, files });
    let colored = Look { is_terminal: true, has_color: true };
    let (first, second) = ("1.2 KiB  60 s  all  ok       a", "1.2 KiB  60 s  all  \x1b[33mmissing\x1b[0m  a");
    assert_eq!(lpf.to_text_with(colored), format!("\x1b[1m2 files published:\x1b[0m\n{first}\n{second}\n"));
    let failed = CommandResult::published(&[file("a")], vec![failure("x", ExitCode::LocalFile)]);
    let lines = "File published successfully\n\x1b[31mFile publication failed\x1b[0m\n";
    assert_eq!(failed.to_text_with(colored), lines);
    assert_eq!(get_failed("x", ExitCode::NotFound).to_text_with(colored), "\x1b[31mFile not found\x1b[0m\n");
}

#[test]
fn each_download_outcome_has_its_line() {
    assert_eq!(saved("report.pdf", "report.pdf").to_text(), "report.pdf downloaded successfully\n");
    assert_eq!(saved("report.pdf", "report (1).pdf").to_text(), "report (1).pdf downloaded successfully\n");
    let skipped = GetResult::Skipped { ok: True, name: "report.pdf".into(), skipped: True };
    assert_eq!(CommandResult::Get(skipped).to_text(), "");
    let planned = |name: &str, action| GetResult::Planned { ok: True, name: name.into(), action, bytes: 7 };
    assert_eq!(CommandResult::Get(planned("a b", PlannedAction::Get)).to_text(), "get\ta b\t7\n");
    assert_eq!(CommandResult::Get(planned("\t", PlannedAction::Skip)).to_text(), "skip\t\\u{9}\t7\n");
    assert_eq!(get_failed("x", ExitCode::NotFound).to_text(), "File not found\n");
    assert_eq!(get_failed("x", ExitCode::TransferFailed).to_text(), "x download failed\n");
    assert_eq!(get_failed("\x1b[2J\n", ExitCode::DiskFull).to_text(), "\\u{1b}[2J\\u{a} download failed\n");
}

#[test]
fn json_fields_never_change() {
    let commands = json!(["get", "lap", "lpf", "pub", "sch", "unp", "xit"]);
    let hash = "ab".repeat(32);
    let condition = WaitedFor::File("a".into());
    let timed_out = WaitResult::Unmet {
        ok: False,
        condition: condition.clone(),
        error: "Timed out".into(),
        code: ExitCode::TimedOut,
    };
    let refused = failure("hans", ExitCode::NotAuthenticated);
    let failed = || vec![failure("x", ExitCode::LocalFile)];
    for (result, expected) in [
        (CommandResult::welcome("hans"), json!({"command": "auth", "ok": true, "user": "hans", "commands": commands})),
        (
            CommandResult::Auth(AuthResult::Refused(refused.into())),
            json!({"command": "auth", "ok": false, "name": "hans", "error": "for a reason", "code": 4}),
        ),
        (
            CommandResult::not_authenticated("lap"),
            json!({"command": "lap", "ok": false, "error": "Please authenticate first", "code": 4}),
        ),
        (
            CommandResult::failed("xit", "usage: xit", ExitCode::Usage),
            json!({"command": "xit", "ok": false, "error": "usage: xit", "code": 2}),
        ),
        (peers(&["vader"]), json!({"command": "lap", "ok": true, "peers": ["vader"]})),
        (
            CommandResult::Lpf(PublishedList { ok: True, files: vec![own("a")] }),
            json!({"command": "lpf", "ok": true,
                "files": [{"name": "a", "bytes": 1_234, "hash": hash, "restricted": true}]}),
        ),
        (
            CommandResult::Ls(PeerFiles::Failed(failure("x", ExitCode::NotFound).into())),
            json!({"command": "ls", "ok": false, "name": "x", "error": "for a reason", "code": 5}),
        ),
        (
            CommandResult::Ls(PeerFiles::Listed {
                ok: True,
                user: "vader".into(),
                files: vec![SharedFile { age_s: Some(60), ..SharedFile::from(&found("a")) }],
            }),
            json!({"command": "ls", "ok": true, "user": "vader",
                "files": [{"name": "a", "bytes": 1_234, "hash": hash, "age_s": 60}]}),
        ),
        (CommandResult::found_names(&[]), json!({"command": "sch", "ok": true, "files": []})),
        (CommandResult::found_names(&[file("a")]), json!({"command": "sch", "ok": true, "files": ["a"]})),
        (
            CommandResult::found_contents(&[found("a")]),
            json!({"command": "sch", "ok": true,
                "files": [{"name": "a", "bytes": 1_234, "hash": hash, "sources": 3, "age_s": 60}]}),
        ),
        (
            CommandResult::published(&[file("a")], failed()),
            json!({"command": "pub", "ok": false, "published": ["a"],
                "failed": [{"name": "x", "error": "for a reason", "code": 8}], "code": 8}),
        ),
        (
            CommandResult::unpublished(&[file("a")], vec![]),
            json!({"command": "unp", "ok": true, "unpublished": ["a"], "failed": [], "code": 0}),
        ),
        (
            saved("a", "a (1)"),
            json!({"command": "get", "ok": true, "name": "a", "saved": "a (1)", "bytes": 1_234, "hash": hash,
                "sources": ["vader"], "resumed_bytes": 0, "elapsed_ms": 17}),
        ),
        (
            CommandResult::Get(GetResult::Planned {
                ok: True,
                name: "a".into(),
                action: PlannedAction::Skip,
                bytes: 5,
            }),
            json!({"command": "get", "ok": true, "name": "a", "action": "skip", "bytes": 5}),
        ),
        (
            CommandResult::Get(GetResult::Skipped { ok: True, name: "a".into(), skipped: True }),
            json!({"command": "get", "ok": true, "name": "a", "skipped": true}),
        ),
        (
            get_failed("x", ExitCode::TransferFailed),
            json!({"command": "get", "ok": false, "name": "x", "error": "for a reason", "code": 6}),
        ),
        (
            CommandResult::Wait(WaitResult::Met { ok: True, condition }),
            json!({"command": "wait", "ok": true, "for": "file", "name": "a"}),
        ),
        (
            CommandResult::Wait(timed_out),
            json!({"command": "wait", "ok": false, "for": "file", "name": "a", "error": "Timed out", "code": 124}),
        ),
        (
            CommandResult::Help(HelpResult { ok: True, text: "usage".into() }),
            json!({"command": "help", "ok": true, "text": "usage"}),
        ),
        (CommandResult::goodbye(), json!({"command": "xit", "ok": true})),
    ] {
        assert_eq!(result_json(result), expected);
    }
}

#[test]
fn json_fields_of_jobs_and_follows_never_change() {
    let followed = |from: Option<&str>| Followed { pattern: "*.pdf".into(), mirror: true, from: from.map(Into::into) };
    let job = |done| ListedJob { number: 2, kind: JobKind::Watch, line: "pub --watch a".into(), done, total: done };
    let upload = ListedUpload { user: "vader".into(), name: "a".into(), done: 1, total: 2 };
    let jobs = vec![job(None), ListedJob { kind: JobKind::Job, ..job(Some(5)) }];
    let failed = vec![failure("x", ExitCode::NotFound)];
    for (result, expected) in [
        (
            CommandResult::Job(JobStarted { ok: True, number: 1, line: "get a".into() }),
            json!({"command": "job", "ok": true, "number": 1, "line": "get a"}),
        ),
        (
            CommandResult::Jobs(JobList { ok: True, jobs, uploads: vec![upload] }),
            json!({"command": "jobs", "ok": true,
                "jobs": [{"number": 2, "kind": "watch", "line": "pub --watch a"},
                    {"number": 2, "kind": "job", "line": "pub --watch a", "done": 5, "total": 5}],
                "uploads": [{"user": "vader", "name": "a", "done": 1, "total": 2}]}),
        ),
        (
            CommandResult::Cancel(JobCancelled { ok: True, number: 1 }),
            json!({"command": "cancel", "ok": true, "number": 1}),
        ),
        (
            CommandResult::Follow(FollowResult::Started { ok: True, started: vec![followed(Some("vader"))] }),
            json!({"command": "follow", "ok": true,
                "started": [{"pattern": "*.pdf", "mirror": true, "from": "vader"}]}),
        ),
        (
            CommandResult::Follow(FollowResult::Listed { ok: True, follows: vec![followed(None)] }),
            json!({"command": "follow", "ok": true, "follows": [{"pattern": "*.pdf", "mirror": true}]}),
        ),
        (
            CommandResult::Unfollow(UnfollowResult {
                ok: false,
                unfollowed: vec!["*.pdf".into()],
                failed,
                code: ExitCode::NotFound,
            }),
            json!({"command": "unfollow", "ok": false, "unfollowed": ["*.pdf"],
                "failed": [{"name": "x", "error": "for a reason", "code": 5}], "code": 5}),
        ),
    ] {
        assert_eq!(result_json(result), expected);
    }
}

#[test]
fn every_other_message_has_its_type() {
    let of = |id: Option<CommandId>, body| json(&Message::new(id, body));
    let end = CommandEnd { command: "get".into(), ok: false, code: ExitCode::NotFound, elapsed_ms: 3 };
    assert_eq!(
        of(Some(CommandId::Text("a1".into())), MessageBody::End(end)),
        json!({"type": "end", "id": "a1", "command": "get", "ok": false, "code": 5, "elapsed_ms": 3})
    );
    let progress =
        FileProgress { name: "a".into(), done: 1, total: u64::MAX, rate: 3, command_done: 4, command_total: u64::MAX };
    assert_eq!(
        of(Some(1.into()), MessageBody::Progress(progress)),
        json!({"type": "progress", "id": 1, "name": "a", "done": 1, "total": u64::MAX, "rate": 3,
            "command_done": 4, "command_total": u64::MAX})
    );
    let note = Note { text: "reconnected".into(), level: NoteLevel::Info };
    assert_eq!(of(None, MessageBody::Note(note)), json!({"type": "note", "text": "reconnected", "level": "info"}));
    let kind = EventKind::PeerJoined { user: "vader".into() };
    let event = EventMessage { seq: 1, time: "2026-01-02T03:04:05.678Z".into(), kind };
    assert_eq!(
        of(None, MessageBody::Event(event)),
        json!({"type": "event", "seq": 1, "time": "2026-01-02T03:04:05.678Z", "event": "peer_joined", "user": "vader"})
    );
}

#[test]
fn an_id_is_written_as_it_was_given() {
    for id in ["7", "-7", "1.5", "18446744073709551615", r#""""#, r#""a \"1\" ü""#] {
        let input: InputLine = serde_json::from_str(&format!(r#"{{"id": {id}, "command": "lap"}}"#)).unwrap();
        assert_eq!(serde_json::to_string(&input.id).unwrap(), id);
    }
    for line in [r#"{"command": "lap"}"#, r#"{"command": "lap", "id": null}"#] {
        assert_eq!(serde_json::from_str::<InputLine>(line).unwrap().id, None);
    }
    for line in [r#"{"id": [1], "command": "lap"}"#, r#"{"id": 1}"#, r#"{"command": "lap", "more": 1}"#] {
        assert!(serde_json::from_str::<InputLine>(line).is_err(), "{line}");
    }
}

#[test]
fn json_has_no_control_characters() {
    let name = "\x1b]0;\u{9b}\u{202e}\u{2028}\x7f";
    let body = MessageBody::Result(get_failed(name, ExitCode::NotFound));
    let line = Message::new(Some(CommandId::Text(name.into())), body).to_json();
    assert!(!line.chars().any(is_control), "{line:?}");
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["name"], &value["id"]), (&json!(name), &json!(name)));
}

/// `docs/json-schema.json` is the schema of the types; `FILESHARE_WRITE_SCHEMA=1` writes it anew.
#[test]
fn the_schema_in_the_documents_is_that_of_the_types() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Message)).unwrap() + "\n";
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "docs", "json-schema.json"].iter().collect();
    if std::env::var_os("FILESHARE_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "FILESHARE_WRITE_SCHEMA=1 writes it anew");
}

#[test]
fn an_id_that_is_a_number_stays_the_same_number() {
    // An attached side waits for the end of its own.
    for number in ["1.2971714304409807e-182", "-0.1", "1e+23", "18446744073709551615", "-7"] {
        let id: CommandId = serde_json::from_str(number).unwrap();
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str(&text).unwrap()), (number, id));
    }
}
