//! A session of three users with the test kit: `fileshare::testkit`.

use std::fs;
use std::time::Duration;

use fileshare::testkit::message::{FollowResult, GetResult, JobKind, NoteLevel, WaitResult, WaitedFor};
use fileshare::testkit::{
    CommandError, CommandResult, EventKind, ExitCode, MessageBody, TestClient, TestEvents, TestServer, TestkitError,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn three_users_share_their_files() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "falcon*solo"), ("vader", "sithlord**"), ("yoda", "wise@!man")])?;
    let (assignment, movie) = (vec![3; 300_000], vec![7; 3 << 20]);
    let mut hans = server.client("hans")?;
    assert!(hans.peers()?.is_empty());
    hans.write("Assignment.pdf", &assignment)?;
    assert_eq!(hans.publish(&["Assignment.pdf"])?, ["Assignment.pdf"]);
    assert_eq!(names(&hans)?, ["Assignment.pdf"]);
    assert_eq!(hans.unpublish(&["Assignment.pdf"])?, ["Assignment.pdf"]);
    assert_eq!(hans.unpublish(&["Assignment.pdf"]).unwrap_err().code, ExitCode::NotFound);
    hans.publish(&["Assignment.pdf"])?;

    let mut vader = TestClient::start(server.address())?;
    assert_eq!(vader.login("hans", "falcon*solo").unwrap_err().code, ExitCode::NotAuthenticated);
    vader.login("vader", "sithlord**")?;
    assert_eq!(vader.peers()?, ["hans"]);
    vader.write("movie.mp4", &movie)?;
    vader.write("rfc768.txt", b"UDP")?;
    vader.publish(&["movie.mp4"])?;
    vader.publish(&["rfc768.txt"])?;
    assert_eq!(vader.search("pdf")?, ["Assignment.pdf"]);
    assert_eq!(vader.get("assignment.pdf").unwrap_err().code, ExitCode::NotFound);
    let yoda = server.client("yoda")?;
    assert_eq!(yoda.search("i")?, ["Assignment.pdf", "movie.mp4"]);

    let (of_yoda, of_hans, of_vader) = ("get Assignment.pdf movie.mp4", "get movie.mp4", "get Assignment.pdf");
    let downloads = [yoda.begin(of_yoda)?, hans.begin(of_hans)?, vader.begin(of_vader)?];
    assert_eq!(hans.peers()?, ["vader", "yoda"], "its shell stays usable meanwhile");
    for download in &downloads {
        download.wait(SOON)?;
    }
    for client in [&yoda, &hans, &vader] {
        assert!(client.read("Assignment.pdf")? == assignment && client.read("movie.mp4")? == movie);
    }
    vader.publish(&["Assignment.pdf"])?;
    assert!(vader.search("pdf")?.is_empty());

    hans.kill();
    yoda.wait_gone("hans", SOON)?;
    assert_eq!(yoda.peers()?, ["vader"]);
    fs::remove_file(yoda.path("Assignment.pdf"))?;
    assert_eq!(yoda.get("Assignment.pdf")?.sources, ["vader"]);
    assert!(yoda.read("Assignment.pdf")? == assignment);
    vader.quit();
    assert_eq!(yoda.get("rfc768.txt").unwrap_err().code, ExitCode::NotFound);
    vader.restart()?;
    assert_eq!(names(&vader)?, ["Assignment.pdf", "movie.mp4", "rfc768.txt"]);
    assert_eq!(yoda.get("rfc768.txt")?.sources, ["vader"]);
    Ok(())
}

/// What the client's user publishes.
fn names(client: &TestClient) -> Result<Vec<String>, CommandError> {
    Ok(client.published()?.into_iter().map(|file| file.name).collect())
}

#[test]
fn a_server_that_restarts_keeps_its_sessions_and_publications() -> Result<(), TestkitError> {
    let (mut server, other) =
        (TestServer::start(&[("hans", "a"), ("yoda", "b")])?, TestServer::start(&[("yoda", "c")])?);
    let (mut hans, yoda, alone) = (server.client("hans")?, server.client("yoda")?, other.client("yoda")?);
    hans.write("a folder/a file", b"content")?;
    hans.publish_to(&["yoda"], &["a folder"])?;
    server.restart()?;
    yoda.wait_file("a folder/a file", SOON)?;
    assert_eq!(yoda.search_contents("FILE")?.len() + yoda.search_contents("file")?.len(), 1);
    assert_eq!(yoda.get("a folder/a file")?.sources, ["hans"]);
    hans.kill();
    hans.restart()?;
    yoda.wait_peer("hans", SOON)?;
    let late = yoda.wait_file("nothing", Duration::ZERO).unwrap_err();
    assert_eq!((late.code, late.reason.as_str()), (ExitCode::TimedOut, "Timed out"));
    assert!(alone.peers()?.is_empty(), "servers of one process do not know each other");
    Ok(())
}

#[test]
fn contents_need_no_file_of_the_test() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("yoda", "b")])?;
    let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    let content = vec![5; (2 << 20) + 1];
    hans.publish_content("logs/build", &content)?;
    assert!(yoda.content("logs/build")? == content);
    assert_eq!(hans.publish_content("logs/build", b"new").unwrap_err().code, ExitCode::LocalFile);
    yoda.get_as("logs/build", "-copy")?;
    assert!(yoda.read("-copy")? == content && yoda.read("logs/build").is_err());
    assert_eq!(yoda.content("nothing").unwrap_err().code, ExitCode::NotFound);
    Ok(())
}

#[test]
fn a_dropped_client_ends_with_its_jobs_and_follows() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("vader", "b"), ("yoda", "c")])?;
    let (hans, vader, yoda) = (server.client("hans")?, server.client("vader")?, server.client("yoda")?);
    hans.command("follow *.pdf")?;
    vader.command("get --wait 600 report.pdf &")?;
    drop((hans, vader));
    yoda.wait_gone("hans", SOON)?;
    yoda.wait_gone("vader", SOON)?;
    Ok(())
}

#[test]
fn results_can_be_matched_to_their_last_field() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("yoda", "b")])?;
    let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    hans.publish_content("report.pdf", b"content")?;
    yoda.wait_file("report.pdf", SOON)?;

    let results = yoda.command("get report.pdf")?;
    assert!(matches!(&results[..], [CommandResult::Get(GetResult::Saved { bytes: 7, .. })]), "{results:?}");
    let messages = yoda.run("wait peer vader 0");
    let [unmet, end] = &messages[..] else { panic!("{messages:?}") };
    let MessageBody::Result(CommandResult::Wait(WaitResult::Unmet { condition, code, .. })) = &unmet.body else {
        panic!("{unmet:?}")
    };
    assert_eq!((condition, *code), (&WaitedFor::Peer("vader".into()), ExitCode::TimedOut));
    assert!(matches!(&end.body, MessageBody::End(end) if end.code == ExitCode::TimedOut));
    let messages = yoda.run("get nothing");
    let is_error = |body: &MessageBody| matches!(body, MessageBody::Note(note) if note.level == NoteLevel::Error);
    assert!(messages.iter().any(|message| is_error(&message.body)), "{messages:?}");

    let started = yoda.command("follow *.txt")?;
    let [CommandResult::Follow(FollowResult::Started { started, .. })] = &started[..] else { panic!("{started:?}") };
    assert_eq!(started[0].pattern, "*.txt");
    let jobs = yoda.command("jobs")?;
    let [CommandResult::Jobs(list)] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((list.jobs[0].number, list.jobs[0].kind), (1, JobKind::Follow));
    Ok(())
}

#[test]
fn a_wait_for_a_content_ends_with_that_content_or_a_file_of_that_name() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("yoda", "b")])?;
    let (hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    hans.publish_content("notes", b"old")?;
    hans.publish_content("log", b"other")?;
    let new = blake3::hash(b"new").to_hex();
    let content = yoda.begin(&format!("get --wait 600 notes#{new}"))?;
    let exact = yoda.begin("get --wait 600 log#1234")?;
    yoda.wait_file("notes", SOON)?;
    assert!(!content.has_ended() && !exact.has_ended());
    hans.write("notes", b"new")?;
    hans.publish(&["notes"])?;
    hans.publish_content("log#1234", b"exact")?;
    content.wait(SOON)?;
    exact.wait(SOON)?;
    assert_eq!((yoda.read("notes")?, yoda.read("log#1234")?), (b"new".to_vec(), b"exact".to_vec()));
    Ok(())
}

#[test]
fn typed_arguments_are_checked_as_those_of_a_line() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a")])?;
    let hans = server.client("hans")?;
    hans.write("-[1] 'a'.txt", b"as it is")?;
    assert_eq!(hans.publish(&["-[1] 'a'.txt"])?, ["-[1] 'a'.txt"]);
    let errors = [
        hans.publish_to(&[], &["-[1] 'a'.txt"]).unwrap_err(),
        hans.publish_to(&["no user"], &["-[1] 'a'.txt"]).unwrap_err(),
        hans.publish(&[]).unwrap_err(),
        hans.publish_content("folder/", b"").unwrap_err(),
        hans.unpublish(&["../a"]).unwrap_err(),
        hans.get_as("a", "folder/").unwrap_err(),
        hans.wait_file("a", Duration::MAX).unwrap_err(),
        hans.wait_and_get("a", Duration::MAX).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code, ExitCode::Usage, "{error}");
    }
    Ok(())
}

#[test]
fn jobs_tell_their_results_or_why_they_failed() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("yoda", "b")])?;
    let (mut hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    let (download, forlorn) = (yoda.begin("get --wait 600 report.pdf")?, yoda.begin("wait peer vader 600")?);
    assert_eq!((download.number(), forlorn.number(), yoda.jobs()?.jobs.len()), (1, 2, 2));
    assert_eq!(forlorn.wait(Duration::ZERO).unwrap_err().code, ExitCode::TimedOut);
    assert!(!forlorn.has_ended());
    hans.publish_content("report.pdf", b"content")?;
    let results = download.wait(SOON)?;
    assert!(matches!(&results[..], [CommandResult::Get(GetResult::Saved { bytes: 7, .. })]), "{results:?}");
    assert!(matches!(&download.messages().last().unwrap().body, MessageBody::End(end) if end.ok));
    assert_eq!(download.wait(SOON)?, results, "again");
    forlorn.cancel();
    assert_eq!(forlorn.wait(SOON).unwrap_err().code, ExitCode::Interrupted);
    assert!(yoda.jobs()?.jobs.is_empty());
    yoda.command("wait all")?;

    let failing = yoda.begin("get nothing")?;
    let error = failing.wait(SOON).unwrap_err();
    assert_eq!((error.code, error.command.as_str()), (ExitCode::NotFound, "get"));
    assert!(error.reason.starts_with("nothing: "), "{error}");
    for (line, code) in [("get", ExitCode::Usage), ("help", ExitCode::Usage), ("sch", ExitCode::Usage)] {
        assert_eq!(yoda.begin(line).err().map(|error| error.code), Some(code), "{line}");
    }
    let cut_off = hans.begin("wait peer vader 600")?;
    hans.kill();
    assert_eq!(cut_off.wait(SOON).unwrap_err().code, ExitCode::Interrupted);
    Ok(())
}

#[test]
fn events_are_typed_and_tell_of_what_is_followed() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "a"), ("yoda", "b")])?;
    let (mut hans, yoda) = (server.client("hans")?, server.client("yoda")?);
    let mut events = yoda.events(&[])?;
    assert_eq!(events.next(SOON)?, EventKind::PeerJoined { user: "hans".into() });
    let available = |events: &mut TestEvents<'_>| match events.next(SOON) {
        Ok(EventKind::FileAvailable { name, content: Some(content) }) => (name, content.bytes),
        other => panic!("{other:?}"),
    };
    hans.publish_content("unknown.pdf", b"what nobody asks for")?;
    yoda.command("follow *.txt")?;
    hans.publish_content("a.txt", b"content")?;
    assert_eq!(available(&mut events), ("a.txt".into(), 7));
    let downloaded = events.next(SOON)?;
    assert!(matches!(&downloaded, EventKind::DownloadFinished { name, ok: true, .. } if name == "a.txt"));
    hans.unpublish(&["a.txt"])?;
    assert_eq!(events.next(SOON)?, EventKind::FileGone { name: "a.txt".into() });
    assert_eq!(events.next(Duration::ZERO).unwrap_err().code, ExitCode::TimedOut);

    let mut of_names = yoda.events(&["unknown.pdf"])?;
    let is_file = |event: &EventKind| matches!(event, EventKind::FileAvailable { name, .. } if name == "unknown.pdf");
    of_names.wait_for(SOON, is_file)?;
    let wildcards = "*?".repeat(64);
    assert_eq!(yoda.events(&[&wildcards]).err().map(|error| error.code), Some(ExitCode::Usage));
    hans.quit();
    events.wait_for(SOON, |event| *event == EventKind::PeerLeft { user: "hans".into() })?;
    let patterns: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    assert!(yoda.events(&patterns).is_err(), "at most 32 lists");
    Ok(())
}
