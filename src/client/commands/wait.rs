//! `wait`, and the waiting of `get --wait` and `cat --wait`.

use std::time::Duration;

use super::selector::Selector;
use super::{CommandContext, Verb, clock};
use crate::client::control::{RequestError, WaitCondition, WaitOutcome};
use crate::client::events::EventKind;
use crate::client::exit_code::ExitCode;
use crate::client::files::PathArg;
use crate::client::ui::message::{CommandResult, False, TIMED_OUT, True, WaitResult, WaitedFor};
use crate::common::types::FileName;

/// Waits until the condition is met, for at most `timeout`.
pub fn run(context: &CommandContext, condition: WaitCondition, timeout: Duration) -> ExitCode {
    if let WaitCondition::PeerActive(user) | WaitCondition::PeerGone(user) = &condition
        && context.session.user().as_ref() == Some(user)
    {
        return context.report_error(Verb::Wait.name(), ExitCode::Usage, format!("{user} is your own user name"));
    }
    match context.session.wait(condition.clone(), timeout, &context.state.cancelled()) {
        Ok(WaitOutcome::Met) => {
            if let WaitCondition::FileAvailable(name) = &condition {
                report_available(context, name);
            }
            let result = WaitResult::Met { ok: True, condition: waited_for(&condition) };
            context.output.result(CommandResult::Wait(result));
            ExitCode::Success
        }
        Ok(WaitOutcome::TimedOut) => {
            let (condition, code) = (waited_for(&condition), ExitCode::TimedOut);
            let result = WaitResult::Unmet { ok: False, condition, error: TIMED_OUT.into(), code };
            context.output.result(CommandResult::Wait(result));
            ExitCode::TimedOut
        }
        Ok(WaitOutcome::Cancelled) => interrupted(context, Verb::Wait),
        Err(error) => failed(context, Verb::Wait, &error),
    }
}

fn interrupted(context: &CommandContext, verb: Verb) -> ExitCode {
    context.report_error(verb.name(), ExitCode::Interrupted, "interrupted")
}

fn failed(context: &CommandContext, verb: Verb, error: &RequestError) -> ExitCode {
    match error {
        RequestError::NotAuthenticated => context.not_authenticated(verb),
        error => context.report_error(verb.name(), error.into(), error),
    }
}

fn waited_for(condition: &WaitCondition) -> WaitedFor {
    match condition {
        WaitCondition::PeerActive(user) => WaitedFor::Peer(user.to_string()),
        WaitCondition::PeerGone(user) => WaitedFor::Gone(user.to_string()),
        WaitCondition::FileAvailable(name) => WaitedFor::File(name.to_string()),
    }
}

/// `get --wait` and `cat --wait`, which `verb` tells: waits until each name is available, for at most `timeout` in all. What
/// is not available then, they do not find. Patterns and folders are not waited for. The error: the wait was interrupted or
/// failed, as is reported.
pub fn for_files(context: &CommandContext, verb: Verb, files: &[PathArg], timeout: Duration) -> Result<(), ExitCode> {
    let deadline = clock() + timeout;
    for argument in files {
        let Ok(Selector::Name { name, pinned }) = Selector::of(argument) else { continue };
        // A file whose name ends like `name#hex` wins, if there is one.
        let Some(name) = pinned.map(|pinned| pinned.name).or(name) else { continue };
        let left = deadline.saturating_duration_since(clock());
        let condition = WaitCondition::FileAvailable(name.clone());
        match context.session.wait(condition, left, &context.state.cancelled()) {
            Ok(WaitOutcome::Met) => report_available(context, &name),
            Ok(WaitOutcome::TimedOut) => {}
            Ok(WaitOutcome::Cancelled) => return Err(interrupted(context, verb)),
            Err(error) => return Err(failed(context, verb, &error)),
        }
    }
    Ok(())
}

/// Reports that what was waited for is there as an event, too.
fn report_available(context: &CommandContext, name: &FileName) {
    context.uploads.events().publish(EventKind::FileAvailable { name: name.to_string(), content: None });
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
