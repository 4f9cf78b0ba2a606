//! The results of commands, as text and as JSON (docs/CLI.md); the texts are fixed.
//!
//! No streams, no decisions. Names that come from other users are escaped.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::client::control::WaitCondition;
use crate::client::exit_code::ExitCode;
use crate::common::escape::escape_controls;
use crate::common::message::{AvailableContent, OwnPublication};
use crate::common::types::{FileName, UserName, is_control};

/// Listed after a login. Never grows: scripts depend on the text.
const COMMANDS: [&str; 7] = ["get", "lap", "lpf", "pub", "sch", "unp", "xit"];

/// One name for which a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemFailure {
    /// As typed or as found.
    pub name: String,
    /// The reason, one line.
    pub why: String,
    pub code: ExitCode,
}

/// One result: a success or a failure.
#[derive(Debug)]
pub enum Report<'a> {
    /// Logged in.
    Welcome(&'a UserName),
    /// Not logged in.
    AuthFailed(&'a ItemFailure),
    /// This command needs a login before it.
    NotAuthenticated(&'a str),
    /// `pub`.
    Published { files: &'a [FileName], failures: &'a [ItemFailure] },
    /// `unp`.
    Unpublished { files: &'a [FileName], failures: &'a [ItemFailure] },
    /// `lpf`.
    PublishedFiles(&'a [OwnPublication]),
    /// `lap`.
    Peers(&'a [UserName]),
    /// `sch`.
    SearchResults(&'a [FileName]),
    /// `sch -l`.
    SearchDetails(&'a [AvailableContent]),
    /// `get`: the requested name, and the name in the shared folder.
    Downloaded { requested: &'a FileName, saved: &'a FileName },
    /// `get` with `--on-exists skip`: the file exists.
    Skipped(&'a FileName),
    /// `get`: not found, or not downloaded.
    DownloadFailed(&'a ItemFailure),
    /// `wait`: the condition is met.
    Waited(&'a WaitCondition),
    /// `wait`: the condition was not met in time.
    WaitTimedOut(&'a WaitCondition),
    /// The text of `help`.
    Help(&'a str),
    /// This command failed as a whole. Its reason goes to stderr; only JSON has a result.
    CommandFailed { command: &'a str, failure: &'a ItemFailure },
    /// The client exits.
    Goodbye,
}

impl Report<'_> {
    /// Whether `--quiet` leaves it out.
    pub fn is_greeting(&self) -> bool {
        matches!(self, Self::Welcome(_) | Self::Goodbye)
    }

    /// Complete lines; may be empty.
    pub fn to_text(&self) -> String {
        match self {
            Self::Welcome(user) => format!("Welcome, {user}!\nAvailable commands are: {}\n", COMMANDS.join(", ")),
            Self::AuthFailed(_) => "Authentication failed. Please try again.\n".into(),
            Self::NotAuthenticated(_) => "Please authenticate first\n".into(),
            Self::Published { files, failures } => summary_line(files.len(), failures, "published", "publication"),
            Self::Unpublished { files, failures } => {
                summary_line(files.len(), failures, "unpublished", "unpublication")
            }
            Self::PublishedFiles(files) => list_block(
                files.iter().map(|file| file.name.as_str()),
                ["No files published", "file published", "files published"],
            ),
            Self::Peers(users) => {
                list_block(users.iter().map(UserName::as_str), ["No active peers", "active peer", "active peers"])
            }
            Self::SearchResults(names) => {
                list_block(names.iter().map(FileName::as_str), ["No files found", "file found", "files found"])
            }
            Self::SearchDetails(entries) => {
                list_block(entries.iter().map(search_columns), ["No files found", "file found", "files found"])
            }
            Self::Downloaded { saved, .. } => format!("{} downloaded successfully\n", escape_controls(saved.as_str())),
            Self::DownloadFailed(failure) if failure.code == ExitCode::NotFound => "File not found\n".into(),
            Self::DownloadFailed(failure) => format!("{} download failed\n", escape_controls(&failure.name)),
            Self::Waited(condition) => match condition {
                WaitCondition::PeerActive(user) => format!("{user} is active\n"),
                WaitCondition::PeerGone(user) => format!("{user} is gone\n"),
                WaitCondition::FileAvailable(name) => format!("{} is available\n", escape_controls(name.as_str())),
            },
            Self::WaitTimedOut(_) => "Timed out\n".into(),
            Self::Help(text) => (*text).into(),
            Self::Skipped(_) | Self::CommandFailed { .. } => String::new(),
            Self::Goodbye => "Goodbye!\n".into(),
        }
    }

    /// One JSON object and a line end.
    pub fn to_json(&self) -> String {
        let mut line = String::new();
        // Control characters can only be inside a string, where JSON allows an escape.
        for c in self.json_value().to_string().chars() {
            match c {
                c if is_control(c) => write!(line, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
                c => line.push(c),
            }
        }
        line.push('\n');
        line
    }

    fn json_value(&self) -> Value {
        match self {
            Self::Welcome(user) => json!({"command": "auth", "ok": true, "user": user.as_str(), "commands": COMMANDS}),
            Self::AuthFailed(failure) => failure_value("auth", failure),
            Self::NotAuthenticated(command) => {
                let code = ExitCode::NotAuthenticated as u8;
                json!({"command": command, "ok": false, "error": "Please authenticate first", "code": code})
            }
            Self::Published { files, failures } => summary_value("pub", "published", files, failures),
            Self::Unpublished { files, failures } => summary_value("unp", "unpublished", files, failures),
            Self::PublishedFiles(files) => json!({"command": "lpf", "ok": true, "files": own_values(files)}),
            Self::Peers(users) => {
                json!({"command": "lap", "ok": true, "peers": users.iter().map(UserName::as_str).collect::<Vec<_>>()})
            }
            Self::SearchResults(names) => json!({"command": "sch", "ok": true, "files": name_texts(names)}),
            Self::SearchDetails(entries) => json!({"command": "sch", "ok": true, "files": found_values(entries)}),
            Self::Downloaded { requested, saved } => {
                json!({"command": "get", "ok": true, "name": requested.as_str(), "saved": saved.as_str()})
            }
            Self::Skipped(name) => json!({"command": "get", "ok": true, "name": name.as_str(), "skipped": true}),
            Self::DownloadFailed(failure) => failure_value("get", failure),
            Self::Waited(condition) => {
                let (what, name) = condition_texts(condition);
                json!({"command": "wait", "ok": true, "for": what, "name": name})
            }
            Self::WaitTimedOut(condition) => {
                let (what, name) = condition_texts(condition);
                let code = ExitCode::TimedOut as u8;
                json!({"command": "wait", "ok": false, "for": what, "name": name, "error": "Timed out", "code": code})
            }
            Self::Help(text) => json!({"command": "help", "ok": true, "text": text}),
            Self::CommandFailed { command, failure } => {
                json!({"command": command, "ok": false, "error": failure.why, "code": failure.code as u8})
            }
            Self::Goodbye => json!({"command": "xit", "ok": true}),
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

fn search_columns(entry: &AvailableContent) -> String {
    format!("{}\t{}\t{}\t{}", entry.name, entry.content.size, entry.sources, entry.age_s)
}

/// The word of the command, and the name of the user or the file.
fn condition_texts(condition: &WaitCondition) -> (&'static str, &str) {
    match condition {
        WaitCondition::PeerActive(user) => ("peer", user.as_str()),
        WaitCondition::PeerGone(user) => ("gone", user.as_str()),
        WaitCondition::FileAvailable(name) => ("file", name.as_str()),
    }
}

fn name_texts(names: &[FileName]) -> Vec<&str> {
    names.iter().map(FileName::as_str).collect()
}

fn failure_value(command: &str, failure: &ItemFailure) -> Value {
    json!({
        "command": command,
        "ok": false,
        "name": failure.name,
        "error": failure.why,
        "code": failure.code as u8,
    })
}

fn summary_value(command: &str, list: &str, files: &[FileName], failures: &[ItemFailure]) -> Value {
    let failed = failures.iter().map(|one| json!({"name": one.name, "error": one.why, "code": one.code as u8}));
    let code = failures.first().map_or(ExitCode::Success, |first| first.code);
    json!({
        "command": command,
        "ok": failures.is_empty(),
        list: name_texts(files),
        "failed": failed.collect::<Vec<_>>(),
        "code": code as u8,
    })
}

fn own_values(files: &[OwnPublication]) -> Vec<Value> {
    let value = |file: &OwnPublication| {
        json!({
            "name": file.name.as_str(),
            "bytes": file.content.size,
            "hash": file.content.hash.to_hex(),
            "restricted": file.restricted,
        })
    };
    files.iter().map(value).collect()
}

fn found_values(entries: &[AvailableContent]) -> Vec<Value> {
    let value = |entry: &AvailableContent| {
        json!({
            "name": entry.name.as_str(),
            "bytes": entry.content.size,
            "hash": entry.content.hash.to_hex(),
            "sources": entry.sources,
            "age_s": entry.age_s,
        })
    };
    entries.iter().map(value).collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
