//! `lap`, `lpf` and `sch`: lists as the server gives them. Empty is not failure.

use super::CommandContext;
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::Verb;
use crate::client::ui::report::Report;
use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::NameQuery;

pub(super) fn peers(context: &CommandContext) -> ExitCode {
    show(context, Verb::Lap, context.services.catalogue.peers(), |users| Report::Peers(users))
}

pub(super) fn published(context: &CommandContext) -> ExitCode {
    show(context, Verb::Lpf, context.services.catalogue.published(), |files| Report::OwnFiles(files))
}

pub(super) fn search(context: &CommandContext, needle: String, ignore_case: bool, long: bool) -> ExitCode {
    // Longer than any name: nothing can hold it, and no query could carry it.
    if needle.len() > NEEDLE_MAX_BYTES {
        context.console.report(&Report::Names(&[]));
        return ExitCode::Success;
    }
    let query = if ignore_case { NameQuery::SubstringIgnoreCase(needle) } else { NameQuery::Substring(needle) };
    let catalogue = &context.services.catalogue;
    if long {
        show(context, Verb::Sch, catalogue.resolve(query, false), |entries| Report::Found(entries))
    } else {
        show(context, Verb::Sch, catalogue.search(query), |names| Report::Names(names))
    }
}

fn show<T>(
    context: &CommandContext,
    verb: Verb,
    answer: Result<Vec<T>, RequestError>,
    report: impl FnOnce(&[T]) -> Report<'_>,
) -> ExitCode {
    match answer {
        Ok(list) => {
            context.console.report(&report(&list));
            ExitCode::Success
        }
        Err(error) => context.request_failed(verb, error),
    }
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
