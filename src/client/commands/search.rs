//! `sch`. An empty list is a success.

use super::{CommandContext, Verb};
use crate::client::exit_code::ExitCode;
use crate::client::ui::message::CommandResult;
use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::{NameQuery, ResolvePurpose};

pub fn run(context: &CommandContext, substring: String, ignore_case: bool, long: bool) -> ExitCode {
    // Longer than any name: nothing contains it, and no query could carry it.
    if substring.len() > NEEDLE_MAX_BYTES {
        context.output.result(CommandResult::found_names(&[]));
        return ExitCode::Success;
    }
    let query = if ignore_case { NameQuery::SubstringIgnoreCase(substring) } else { NameQuery::Substring(substring) };
    let server = &context.server;
    if long {
        context.report_list(Verb::Sch, server.resolve(query, ResolvePurpose::List), |entries| {
            CommandResult::found_contents(&entries)
        })
    } else {
        context.report_list(Verb::Sch, server.search(query), |names| CommandResult::found_names(&names))
    }
}
