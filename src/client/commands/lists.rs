//! `lap` and `lpf`. An empty list is a success.

use super::{CommandContext, Verb};
use crate::client::exit_code::ExitCode;
use crate::client::ui::report::Report;

/// `lap`: the active peers.
pub fn active_peers(context: &CommandContext) -> ExitCode {
    let peers = context.server.peers();
    context.report_list(Verb::Lap, peers, |users| Report::Peers(users))
}

/// `lpf`: the files that the user has published.
pub fn published_files(context: &CommandContext) -> ExitCode {
    let published = context.server.published();
    context.report_list(Verb::Lpf, published, |files| Report::PublishedFiles(files))
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
