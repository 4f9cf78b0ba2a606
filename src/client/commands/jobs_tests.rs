use std::sync::Arc;

use crossbeam_channel::never;

use crate::client::cancel::is_cancelled;
use crate::client::commands::jobs::wait_at_end;
use crate::client::commands::test_support::TestClient;
use crate::client::exit_code::ExitCode;
use crate::client::jobs::{JobKind, JobOwner, JobProgress, JobWait, RunningJob};

fn begin(client: &TestClient, line: &str) -> RunningJob {
    client.context.jobs.begin(JobKind::Job, line.into(), client.context.state.job_owner(), true).unwrap()
}

fn outcome(code: ExitCode, out: &str, err: &str) -> (ExitCode, String, String) {
    (code, out.into(), err.into())
}

#[test]
fn jobs_lists_what_goes_on_with_its_progress() {
    let client = TestClient::logged_in();
    assert_eq!(client.run("jobs"), outcome(ExitCode::Success, "No jobs\n", ""));
    let (get, ended) = (begin(&client, "get 'a\tb'"), begin(&client, "pub c"));
    get.set_progress(JobProgress { done: 5, total: 10 });
    let _watch =
        client.context.jobs.begin(JobKind::Watch, "pub --watch d".into(), &JobOwner::default(), false).unwrap();
    ended.end(ExitCode::Success);
    let list = "2 jobs:\n1\tget 'a\\u{9}b'\t5\t10\n3\tpub --watch d\t-\t-\n";
    assert_eq!(client.run("jobs"), outcome(ExitCode::Success, list, ""));
}

#[test]
fn wait_has_the_status_of_a_job_and_wait_all_what_was_not_told() {
    let client = TestClient::logged_in();
    let (first, second, third) = (begin(&client, "get a"), begin(&client, "get b"), begin(&client, "get c"));
    assert_eq!(client.run("wait 1 0"), outcome(ExitCode::TimedOut, "Timed out\n", ""));
    first.end(ExitCode::NotFound);
    second.end(ExitCode::TransferFailed);
    let failed = "client: job 1 has failed with status 5: get a\n";
    for _ in 0..2 {
        assert_eq!(client.run("wait 1"), outcome(ExitCode::NotFound, "", failed));
    }
    assert_eq!(client.run("wait 9 5"), outcome(ExitCode::NotFound, "", "client: no job 9\n"));
    assert_eq!(client.run("wait all 0").0, ExitCode::TimedOut);
    third.end(ExitCode::Success);
    assert_eq!(client.run("wait all"), outcome(ExitCode::Success, "", ""), "a wait told the end of the second");
    assert_eq!(client.run("wait all"), outcome(ExitCode::Success, "", ""));
    assert_eq!(wait_at_end(&client.context, true), ExitCode::Success);
}

#[test]
fn a_job_waits_for_earlier_ones_alone() {
    let client = TestClient::logged_in();
    let (_first, second) = (begin(&client, "get a"), begin(&client, "wait all"));
    let of_job = client.context.in_background(&second);
    let run = |line: &str| {
        let command = crate::client::shell::command::parse(line.as_bytes()).unwrap().unwrap();
        crate::client::shell::run_command(&of_job, command)
    };
    for line in ["wait 2", "wait 3"] {
        assert_eq!(run(line), ExitCode::NotFound, "{line}");
    }
    client.context.jobs.find(2).unwrap().cancel();
    assert_eq!(run("wait all"), ExitCode::Interrupted, "it waits for the first, until its number cancels it");
    assert!(client.context.jobs.find(1).is_some_and(|job| !is_cancelled(&job.cancelled())));
}

#[test]
fn cancel_ends_a_job_and_leaves_no_status() {
    let client = TestClient::logged_in();
    client.local("a", 1);
    client.script().away = true;
    let job = begin(&client, "pub a");
    let (background, cancelled) = (client.context.in_background(&job), job.cancelled());
    std::thread::spawn(move || {
        let _ = background.state.cancelled().recv();
        job.end(ExitCode::Interrupted);
    });
    assert_eq!(client.run("cancel 1"), outcome(ExitCode::Success, "[1] cancelled\n", ""));
    assert!(is_cancelled(&cancelled));
    let unknown = outcome(ExitCode::NotFound, "", "client: no job 1 goes on\n");
    assert_eq!(client.run("cancel 1"), unknown);
    assert_eq!(client.run("wait 1").0, ExitCode::NotFound);
    assert_eq!(wait_at_end(&client.context, true), ExitCode::Success);
}

#[test]
fn the_end_of_the_client_has_the_first_failure_that_counts() {
    let client = TestClient::logged_in();
    let jobs = &client.context.jobs;
    let of_others = jobs.begin(JobKind::Job, "get a".into(), &JobOwner::default(), false).unwrap();
    let (first, second) = (begin(&client, "get b"), begin(&client, "get c"));
    let running = Arc::clone(second.job());
    of_others.end(ExitCode::DiskFull);
    first.end(ExitCode::NotFound);
    second.end(ExitCode::TransferFailed);
    assert_eq!(running.wait(None, &never()), JobWait::Ended(ExitCode::TransferFailed));
    assert_eq!(wait_at_end(&client.context, true), ExitCode::NotFound);
    let _never_ends = begin(&client, "wait gone vader");
    client.context.state.close();
    assert_eq!(wait_at_end(&client.context, true), ExitCode::NotFound, "a signal ends the wait");
}
