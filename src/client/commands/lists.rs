//! `lap`, `lpf` and `ls`. An empty list is a success.

use std::ops::ControlFlow;

use super::{CommandContext, Verb};
use crate::client::cancel::is_cancelled;
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::client::files::ShareError;
use crate::client::ui::message::{
    CommandResult, ItemFailure, OwnFile, OwnFileState, PeerDetails, PeerFiles, PeerList, PublishedList, SharedFile,
    True,
};
use crate::common::message::{AvailableContent, OwnPublication};
use crate::common::types::UserName;

/// `lap`: the active peers.
pub fn active_peers(context: &CommandContext, long: bool) -> ExitCode {
    context.report_list(Verb::Lap, context.server.peers(), |peers| {
        let users = peers.iter().map(|peer| peer.user.to_string()).collect();
        let details = peers.iter().map(|peer| PeerDetails { user: peer.user.to_string(), active_s: peer.active_s });
        let details = long.then(|| details.collect());
        CommandResult::Lap(PeerList { ok: True, peers: users, details })
    })
}

/// `lpf`: the files that the user has published. `long`: whether they are still what was published; a file whose hash is
/// not known is hashed.
pub fn published_files(context: &CommandContext, long: bool) -> ExitCode {
    let published = context.server.published();
    let mut files: Vec<OwnFile> = published.iter().flatten().map(OwnFile::from).collect();
    if long {
        for (file, publication) in files.iter_mut().zip(published.iter().flatten()) {
            let Some(state) = file_state(context, publication) else {
                return context.report_error(Verb::Lpf.name(), ExitCode::Interrupted, ShareError::Interrupted);
            };
            (file.age_s, file.state) = (Some(publication.age_s), Some(state));
        }
    }
    context.report_list(Verb::Lpf, published, |_| CommandResult::Lpf(PublishedList { ok: True, files }))
}

/// `None`: the command was cancelled.
fn file_state(context: &CommandContext, publication: &OwnPublication) -> Option<OwnFileState> {
    let OwnPublication { name, content, .. } = publication;
    let cancelled = context.state.cancelled();
    match context.files.dir().open_file(name) {
        Ok((_, identity)) if identity.size != content.size => return Some(OwnFileState::Changed),
        Ok(_) => {}
        Err(_) if context.uploads.serves_incomplete(name) => return Some(OwnFileState::Ok),
        Err(_) => return Some(OwnFileState::Missing),
    }
    let mut go_on = |_| if is_cancelled(&cancelled) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    match context.files.hash(name, &mut go_on) {
        Ok(file) if file.content.hash == content.hash => Some(OwnFileState::Ok),
        Ok(_) | Err(ShareError::Changed(_)) => Some(OwnFileState::Changed),
        Err(ShareError::Interrupted) => None,
        Err(_) => Some(OwnFileState::Missing),
    }
}

/// `ls`: what an active peer shares with this user.
pub fn shared_files(context: &CommandContext, user: &UserName, long: bool) -> ExitCode {
    if context.session.user().as_ref() == Some(user) {
        let why = format!("{user} is your own user name; 'lpf' lists what you have published");
        return context.report_error(Verb::Ls.name(), ExitCode::Usage, why);
    }
    let shared = context.server.shared(user);
    if let Err(error @ RequestError::NotActive) = shared {
        let failure = ItemFailure { name: user.to_string(), error: format!("{user}: {error}"), code: (&error).into() };
        let code = context.report_failures(std::slice::from_ref(&failure));
        context.output.result(CommandResult::Ls(PeerFiles::Failed(failure.into())));
        return code;
    }
    context.report_list(Verb::Ls, shared, |entries| {
        let file =
            |entry: &AvailableContent| SharedFile { age_s: long.then_some(entry.age_s), ..SharedFile::from(entry) };
        let files = entries.iter().map(file).collect();
        CommandResult::Ls(PeerFiles::Listed { ok: True, user: user.to_string(), files })
    })
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;
