//! Commands in the background, and what lists, ends and awaits them.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::{CommandContext, Verb, clock};
use crate::client::exit_code::ExitCode;
use crate::client::jobs::{Job, JobKind, JobWait};
use crate::client::ui::message::{
    CommandResult, False, JobCancelled, JobList, JobStarted, ListedJob, ListedUpload, TIMED_OUT, True, WaitResult,
    WaitedFor,
};
use crate::client::ui::output::CommandRun;
use crate::common::threads;

/// How long `cancel` waits for the end of the job.
pub(super) const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts `command` as a job, which ends as the command `run`. A status only if it cannot start.
pub fn start(
    context: &CommandContext,
    run: &CommandRun,
    (verb, line): (Verb, String),
    ignores_failure: bool,
    command: impl FnOnce(&CommandContext) -> ExitCode + Send + 'static,
) -> Option<ExitCode> {
    let context = context.of_command(run);
    let counts = context.client_output.is_none() && !ignores_failure;
    let job = match context.jobs.begin(JobKind::Job, line.clone(), context.state.job_owner(), counts) {
        Ok(job) => job,
        Err(error) => return Some(context.report_error(verb.name(), ExitCode::Internal, error)),
    };
    let (number, background, run) = (job.number, context.in_background(&job), run.clone());
    // Nothing of the job comes before the line that says that it has begun.
    let (told, begin) = bounded::<()>(0);
    let work = move || {
        let _ = begin.recv();
        let code = command(&background);
        background.output.end(run, verb.name(), code);
        job.end(code);
    };
    if let Err(error) = threads::spawn("job", work) {
        return Some(context.report_error(verb.name(), ExitCode::Internal, error));
    }
    context.output.result(CommandResult::Job(JobStarted { ok: True, number, line }));
    drop(told);
    None
}

/// `jobs`: what goes on in the background, and who downloads from here.
pub fn list(context: &CommandContext) -> ExitCode {
    let jobs = context.jobs.running().iter().map(|job| ListedJob::from(&**job)).collect();
    let uploads = context.uploads.active().into_iter().map(ListedUpload::from).collect();
    context.output.result(CommandResult::Jobs(JobList { ok: True, jobs, uploads }));
    ExitCode::Success
}

/// `cancel`: returns when it has ended, unless that takes long.
pub fn cancel(context: &CommandContext, number: u64) -> ExitCode {
    let Some(job) = context.jobs.find(number).filter(|job| job.cancel()) else {
        return context.report_error(Verb::Cancel.name(), ExitCode::NotFound, format!("no job {number} goes on"));
    };
    job.wait(Some(CANCEL_TIMEOUT), &context.state.cancelled());
    // That it has failed is no news.
    context.jobs.forget(&job);
    context.output.result(CommandResult::Cancel(JobCancelled { ok: True, number }));
    ExitCode::Success
}

/// `wait` for the end of a job, or of all that have begun. Its status is the first failure's, by number.
pub fn wait(context: &CommandContext, number: Option<u64>, timeout: Option<Duration>) -> ExitCode {
    // A job waits for earlier ones alone: no two wait for each other.
    let is_before = |job: &Arc<Job>| context.output.job().is_none_or(|own| job.number < own);
    let jobs = match number {
        None => context.jobs.waitable().into_iter().filter(is_before).collect(),
        Some(number) => match context.jobs.find(number).filter(is_before) {
            Some(job) => vec![job],
            None => return context.report_error(Verb::Wait.name(), ExitCode::NotFound, format!("no job {number}")),
        },
    };
    let deadline = timeout.map(|timeout| clock() + timeout);
    let (mut code, mut failed, mut timed_out) = (ExitCode::Success, Vec::new(), false);
    for job in jobs {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(clock()));
        match job.wait(left, &context.state.cancelled()) {
            JobWait::Ended(status) => {
                job.tell(context.state.job_owner());
                code = code.first_failure(status);
                if !status.is_success() {
                    failed.push(format!("job {} has failed with status {}: {}", job.number, status as u8, job.line));
                }
            }
            JobWait::TimedOut => {
                (code, timed_out) = (ExitCode::TimedOut, true);
                break;
            }
            JobWait::Cancelled => {
                return context.report_error(Verb::Wait.name(), ExitCode::Interrupted, "interrupted");
            }
        }
    }
    failed.iter().for_each(|failed| context.output.error(failed));
    let condition = WaitedFor::Job(number.map_or_else(|| "all".to_owned(), |number| number.to_string()));
    let result = match code {
        ExitCode::Success => WaitResult::Met { ok: True, condition },
        code if timed_out => WaitResult::Unmet { ok: False, condition, error: TIMED_OUT.into(), code },
        code => WaitResult::Unmet { ok: False, condition, error: failed.join("; "), code },
    };
    context.output.result(CommandResult::Wait(result));
    code
}

/// The commands of the client have ended: waits for its jobs, until it is cancelled. The status is that of the first failure
/// that counts and that no `wait` has told.
pub fn wait_at_end(context: &CommandContext, is_script: bool) -> ExitCode {
    let _running = context.state.begin_command();
    let (mut code, jobs) = (ExitCode::Success, context.jobs.waitable());
    let running = jobs.iter().filter(|job| !job.has_ended()).count();
    if running > 0 && !is_script {
        context.output.info(format!("jobs that the client waits for: {running}; Ctrl-C ends them"));
    }
    for job in jobs {
        match job.wait(None, &context.state.cancelled()) {
            JobWait::Ended(status) if job.counts => code = code.first_failure(status),
            JobWait::Ended(_) | JobWait::TimedOut => {}
            JobWait::Cancelled => break,
        }
    }
    code
}

#[cfg(test)]
#[path = "jobs_tests.rs"]
mod tests;
