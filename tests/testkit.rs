//! A session of three users with the test kit: `fileshare::testkit`.

use std::time::Duration;

use fileshare::testkit::message::{FollowResult, GetResult, JobKind, NoteLevel, WaitResult, WaitedFor};
use fileshare::testkit::{CommandResult, ExitCode, MessageBody, SavedFile, TestClient, TestServer, TestkitError};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn three_users_share_their_files() -> Result<(), TestkitError> {
    let server = TestServer::start(&[("hans", "falcon*solo"), ("vader", "sithlord**"), ("yoda", "wise@!man")])?;
    let mut hans = server.client("hans")?;
    assert!(hans.peers()?.is_empty());
    hans.write("Assignment.pdf", b"an assignment")?;
    assert_eq!(hans.publish(&["Assignment.pdf"])?, ["Assignment.pdf"]);
    assert_eq!(hans.published()?[0].name, "Assignment.pdf");
    hans.unpublish(&["Assignment.pdf"])?;
    assert_eq!(hans.unpublish(&["Assignment.pdf"]).unwrap_err().code, ExitCode::NotFound);
    hans.publish(&["Assignment.pdf"])?;

    let mut vader = TestClient::start(server.address())?;
    assert_eq!(vader.login("hans", "falcon*solo").unwrap_err().code, ExitCode::NotAuthenticated);
    vader.login("vader", "sithlord**")?;
    assert_eq!(vader.peers()?, ["hans"]);
    vader.write("movie.mp4", &[7; 3 << 20])?;
    vader.write("rfc768.txt", b"UDP")?;
    vader.publish(&["movie.mp4", "rfc768.txt"])?;
    assert_eq!(vader.search("pdf")?, ["Assignment.pdf"]);
    assert_eq!(vader.shared_by("hans")?[0].name, "Assignment.pdf");
    assert_eq!(vader.shared_by("yoda").unwrap_err().code, ExitCode::NotFound);
    assert_eq!(vader.get("assignment.pdf").unwrap_err().code, ExitCode::NotFound);

    let yoda = server.client("yoda")?;
    assert_eq!(yoda.search("i")?, ["Assignment.pdf", "movie.mp4"]);
    let get = |client: &TestClient, name: &str| -> SavedFile { client.get(name).unwrap() };
    std::thread::scope(|scope| {
        scope.spawn(|| get(&yoda, "movie.mp4"));
        scope.spawn(|| get(&hans, "movie.mp4"));
        scope.spawn(|| get(&vader, "Assignment.pdf"));
        assert_eq!(hans.peers().unwrap(), ["vader", "yoda"]);
    });
    assert!(yoda.read("movie.mp4")? == vec![7; 3 << 20] && hans.read("movie.mp4")? == vec![7; 3 << 20]);
    vader.publish(&["Assignment.pdf"])?;
    assert!(vader.search("pdf")?.is_empty());

    hans.kill();
    yoda.wait_gone("hans", SOON)?;
    assert_eq!(yoda.get("Assignment.pdf")?.sources, ["vader"]);
    vader.quit();
    assert_eq!(yoda.get("rfc768.txt").unwrap_err().code, ExitCode::NotFound);
    vader.restart()?;
    assert_eq!(vader.published()?.len(), 3);
    yoda.get("rfc768.txt")?;
    Ok(())
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
