//! `lap` and `lpf`. An empty list is a success.

use super::{CommandContext, Verb};
use crate::client::exit_code::ExitCode;
use crate::client::ui::message::{CommandResult, OwnFile, PeerList, PublishedList, True};
use crate::common::types::UserName;

/// `lap`: the active peers.
pub fn active_peers(context: &CommandContext) -> ExitCode {
    let peers = context.server.peers();
    context.report_list(Verb::Lap, peers, |users| {
        CommandResult::Lap(PeerList { ok: True, peers: users.iter().map(UserName::to_string).collect() })
    })
}

/// `lpf`: the files that the user has published.
pub fn published_files(context: &CommandContext) -> ExitCode {
    let published = context.server.published();
    context.report_list(Verb::Lpf, published, |files| {
        CommandResult::Lpf(PublishedList { ok: True, files: files.iter().map(OwnFile::from).collect() })
    })
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
