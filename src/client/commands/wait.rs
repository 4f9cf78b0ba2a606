//! `wait`, and the waiting of `get --wait` and `cat --wait`.

use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, select};

use super::selector::{Pinned, Selector};
use super::{CommandContext, Verb, clock};
use crate::client::control::{RequestError, WaitCondition, WaitOutcome, WatchedList};
use crate::client::events::{EventKind, ListEntry};
use crate::client::exit_code::ExitCode;
use crate::client::files::PathArg;
use crate::client::ui::message::{CommandResult, False, TIMED_OUT, True, WaitResult, WaitedFor};
use crate::common::glob::Pattern;
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
        let (waited, name) = match Selector::of(argument) {
            Ok(Selector::Name { name, pinned: Some(pinned) }) => {
                (for_content(context, name.as_ref(), &pinned, deadline), pinned.name)
            }
            Ok(Selector::Name { name: Some(name), pinned: None }) => {
                let left = deadline.saturating_duration_since(clock());
                let condition = WaitCondition::FileAvailable(name.clone());
                (context.session.wait(condition, left, &context.state.cancelled()), name)
            }
            _ => continue,
        };
        match waited {
            Ok(WaitOutcome::Met) => report_available(context, &name),
            Ok(WaitOutcome::TimedOut) => {}
            Ok(WaitOutcome::Cancelled) => return Err(interrupted(context, verb)),
            Err(error) => return Err(failed(context, verb, &error)),
        }
    }
    Ok(())
}

/// Waits for the content that `name#hex` names, or a file of exactly that name, which wins if there is one.
fn for_content(
    context: &CommandContext,
    exact: Option<&FileName>,
    pinned: &Pinned,
    deadline: Instant,
) -> Result<WaitOutcome, RequestError> {
    if context.session.user().is_none() {
        return Err(RequestError::NotAuthenticated);
    }
    let (wake, woken) = bounded(1);
    let names = exact.into_iter().chain([&pinned.name]);
    let lists = names.map(|name| context.lists.reader(&WatchedList::Files(Pattern::name(name)), wake.clone()));
    let lists = lists.collect::<Result<Vec<_>, _>>()?;
    let is_selected = |entry: &ListEntry| match entry {
        ListEntry::File { name, hash, .. } => exact == Some(name) || *name == pinned.name && pinned.selects(hash),
        ListEntry::Peer(_) => false,
    };
    loop {
        if lists.iter().any(|list| list.snapshot().entries.keys().any(is_selected)) {
            return Ok(WaitOutcome::Met);
        }
        select! {
            recv(woken) -> _ => {}
            recv(context.state.cancelled()) -> _ => return Ok(WaitOutcome::Cancelled),
            default(deadline.saturating_duration_since(clock())) => return Ok(WaitOutcome::TimedOut),
        }
    }
}

/// Reports that what was waited for is there as an event, too.
fn report_available(context: &CommandContext, name: &FileName) {
    context.uploads.events().publish(EventKind::FileAvailable { name: name.to_string(), content: None });
}

#[cfg(test)]
#[path = "wait_tests.rs"]
mod tests;
