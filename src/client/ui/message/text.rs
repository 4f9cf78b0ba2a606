//! Results as text. The texts are fixed: scripts depend on them. Names that come from other users are escaped.

use std::fmt::Write as _;

use super::result::{
    AuthResult, AvailableFile, CommandFailure, CommandResult, FoundFiles, GetResult, ItemFailure, NOT_AUTHENTICATED,
    OwnFile, PlannedAction, WaitResult, WaitedFor,
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
                let names = list.files.iter().map(|OwnFile { name, .. }| name);
                list_block(names, ["No files published", "file published", "files published"])
            }
            Self::Lap(list) => list_block(list.peers.iter(), ["No active peers", "active peer", "active peers"]),
            Self::Sch(FoundFiles::Names { files, .. }) => list_block(files.iter(), FOUND_TEXTS),
            Self::Sch(FoundFiles::Contents { files, .. }) => list_block(files.iter().map(columns), FOUND_TEXTS),
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

fn list_block<T: AsRef<str>>(lines: impl ExactSizeIterator<Item = T>, [none, one, many]: [&str; 3]) -> String {
    let mut text = match lines.len() {
        0 => format!("{none}\n"),
        1 => format!("1 {one}:\n"),
        count => format!("{count} {many}:\n"),
    };
    for line in lines {
        // A tab separates columns; every other control character is part of a name.
        let columns: Vec<String> =
            line.as_ref().split('\t').map(|column| escape_controls(column).to_string()).collect();
        writeln!(text, "{}", columns.join("\t")).expect("a string takes all");
    }
    text
}

fn columns(file: &AvailableFile) -> String {
    format!("{}\t{}\t{}\t{}", file.name, file.bytes, file.sources, file.age_s)
}
