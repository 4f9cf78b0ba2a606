//! Results as text. The texts are fixed: scripts depend on them. Names that come from other users are escaped.

use std::fmt::Write as _;

use super::common::ItemFailure;
use super::jobs::JobStarted;
use super::lists::{AvailableFile, FoundFiles, OwnFile, OwnFileState, PeerFiles, PeerList, SharedFile};
use super::result::{
    AuthResult, CommandFailure, CommandResult, GetResult, NOT_AUTHENTICATED, PlannedAction, WaitResult, WaitedFor,
};
use crate::client::exit_code::ExitCode;
use crate::common::escape::escape_controls;

const FOUND_TEXTS: [&str; 3] = ["No files found", "file found", "files found"];

impl CommandResult {
    /// Complete lines; may be empty.
    pub fn to_text(&self) -> String {
        match self {
            Self::Auth(AuthResult::LoggedIn { user, commands, .. }) => {
                format!("Welcome, {user}!\nAvailable commands are: {}\n", commands.join(", "))
            }
            Self::Auth(AuthResult::Refused(_)) => "Authentication failed. Please try again.\n".into(),
            Self::Pub(result) => summary_line(result.published.len(), &result.failed, "published", "publication"),
            Self::Unp(result) => summary_line(result.unpublished.len(), &result.failed, "unpublished", "unpublication"),
            Self::Lpf(list) => {
                list_block(list.files.iter().map(own_file), ["No files published", "file published", "files published"])
            }
            Self::Lap(list) => list_block(peer_rows(list), ["No active peers", "active peer", "active peers"]),
            Self::Ls(PeerFiles::Listed { user, files, .. }) => {
                let (one, many) = (format!("file shared by {user}"), format!("files shared by {user}"));
                list_block(files.iter().map(shared_file), ["No files shared", &one, &many])
            }
            Self::Ls(PeerFiles::Failed(_)) => "No such peer\n".into(),
            Self::Sch(FoundFiles::Names { files, .. }) => {
                list_block(files.iter().map(|name| vec![Cell::Text(name)]), FOUND_TEXTS)
            }
            Self::Sch(FoundFiles::Contents { files, .. }) => list_block(files.iter().map(available_file), FOUND_TEXTS),
            Self::Get(GetResult::Saved { saved, .. }) => {
                format!("{} downloaded successfully\n", escape_controls(saved))
            }
            Self::Get(GetResult::Skipped { .. }) => String::new(),
            Self::Get(GetResult::Planned { name, action, bytes, .. }) => {
                let action = match action {
                    PlannedAction::Get => "get",
                    PlannedAction::Skip => "skip",
                };
                format!("{action}\t{}\t{bytes}\n", escape_controls(name))
            }
            Self::Get(GetResult::Failed(failed)) => match &failed.failure {
                ItemFailure { code: ExitCode::NotFound, .. } => "File not found\n".into(),
                ItemFailure { name, .. } => format!("{} download failed\n", escape_controls(name)),
            },
            Self::Wait(WaitResult::Met { condition, .. }) => match condition {
                WaitedFor::Peer(user) => format!("{user} is active\n"),
                WaitedFor::Gone(user) => format!("{user} is gone\n"),
                WaitedFor::File(name) => format!("{} is available\n", escape_controls(name)),
            },
            Self::Wait(WaitResult::TimedOut { error, .. }) => format!("{error}\n"),
            Self::Job(JobStarted { number, line, .. }) => format!("[{number}] {}\n", escape_controls(line)),
            Self::Help(help) => help.text.clone(),
            // The output of `cat` is the file alone.
            Self::Failed(CommandFailure { command, error, .. }) if error == NOT_AUTHENTICATED && command != "cat" => {
                format!("{error}\n")
            }
            Self::Failed(_) => String::new(),
            Self::Xit(_) => "Goodbye!\n".into(),
        }
    }
}

/// A line with the count of successes, then one failure line if any failed.
fn summary_line(count: usize, failures: &[ItemFailure], verb: &str, noun: &str) -> String {
    let mut text = match count {
        0 => String::new(),
        1 => format!("File {verb} successfully\n"),
        many => format!("{many} files {verb} successfully\n"),
    };
    if !failures.is_empty() {
        writeln!(text, "File {noun} failed").expect("a string takes all");
    }
    text
}

/// One column of a line of a list.
enum Cell<'a> {
    Text(&'a str),
    Bytes(u64),
    /// In seconds.
    Age(u64),
    Count(u64),
}

type Row<'a> = Vec<Cell<'a>>;

fn available_file(file: &AvailableFile) -> Row<'_> {
    vec![Cell::Text(&file.name), Cell::Bytes(file.bytes), Cell::Count(file.sources.into()), Cell::Age(file.age_s)]
}

fn shared_file(file: &SharedFile) -> Row<'_> {
    let details = file.age_s.map(|age_s| [Cell::Bytes(file.bytes), Cell::Age(age_s)]);
    [Cell::Text(&file.name)].into_iter().chain(details.into_iter().flatten()).collect()
}

fn own_file(file: &OwnFile) -> Row<'_> {
    let mut row = vec![Cell::Text(&file.name)];
    if let (Some(age_s), Some(state)) = (file.age_s, file.state) {
        let audience = if file.restricted { "restricted" } else { "all" };
        let state = match state {
            OwnFileState::Ok => "ok",
            OwnFileState::Changed => "changed",
            OwnFileState::Missing => "missing",
        };
        row.extend([Cell::Bytes(file.bytes), Cell::Age(age_s), Cell::Text(audience), Cell::Text(state)]);
    }
    row
}

fn peer_rows(list: &PeerList) -> impl ExactSizeIterator<Item = Row<'_>> {
    list.peers.iter().enumerate().map(|(at, user)| {
        let active_s = list.details.as_ref().and_then(|details| Some(Cell::Age(details.get(at)?.active_s)));
        [Cell::Text(user)].into_iter().chain(active_s).collect()
    })
}

fn list_block<'a>(rows: impl ExactSizeIterator<Item = Row<'a>>, [none, one, many]: [&str; 3]) -> String {
    let mut text = match rows.len() {
        0 => format!("{none}\n"),
        1 => format!("1 {one}:\n"),
        count => format!("{count} {many}:\n"),
    };
    for row in rows {
        let columns: Vec<String> = row.iter().map(Cell::to_string).collect();
        writeln!(text, "{}", columns.join("\t")).expect("a string takes all");
    }
    text
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{}", escape_controls(text)),
            Self::Bytes(number) | Self::Age(number) | Self::Count(number) => write!(f, "{number}"),
        }
    }
}
