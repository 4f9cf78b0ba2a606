//! Commands in the background.

use crossbeam_channel::bounded;

use super::{CommandContext, Verb};
use crate::client::exit_code::ExitCode;
use crate::client::jobs::JobKind;
use crate::client::ui::message::{CommandResult, JobStarted, True};
use crate::client::ui::output::CommandRun;
use crate::common::threads;

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
    let job = match context.jobs.begin(JobKind::Job, line.clone(), counts) {
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
