//! Results as text. The texts are fixed: scripts depend on them. Names that come from other users are escaped.

use std::fmt::Write as _;

use super::common::ItemFailure;
use super::follow::FollowResult;
use super::jobs::{JobCancelled, JobList, JobStarted, ListedJob, ListedUpload};
use super::lists::{AvailableFile, FoundFiles, OwnFile, OwnFileState, PeerFiles, PeerList, SharedFile};
use super::result::{
    AuthResult, CommandFailure, CommandResult, GetResult, NOT_AUTHENTICATED, PlannedAction, PublishResult, TIMED_OUT,
    UnpublishResult, WaitResult, WaitedFor,
};
use crate::client::exit_code::ExitCode;
use crate::client::follow::Followed;
use crate::client::ui::look::{Emphasis, Look};
use crate::client::ui::units;
use crate::common::escape::escape_controls;

const FOUND_TEXTS: [&str; 3] = ["No files found", "file found", "files found"];

impl CommandResult {
    /// Complete lines for programs; may be empty.
    pub fn to_text(&self) -> String {
        self.to_text_with(Look::default())
    }

    /// Complete lines; may be empty.
    pub fn to_text_with(&self, look: Look) -> String {
        let text = self.plain_text(look);
        if !look.has_color {
            return text;
        }
        let last = text.lines().count().saturating_sub(1);
        let emphasis = |at: usize| match self {
            Self::Lap(_) | Self::Lpf(_) | Self::Ls(PeerFiles::Listed { .. }) | Self::Sch(_) if at == 0 => {
                Some(Emphasis::Heading)
            }
            Self::Pub(PublishResult { ok: false, .. }) | Self::Unp(UnpublishResult { ok: false, .. }) if at == last => {
                Some(Emphasis::Failure)
            }
            _ if self.is_failure() => Some(Emphasis::Failure),
            _ => None,
        };
        let line = |(at, line): (usize, &str)| match emphasis(at) {
            Some(emphasis) => look.emphasize(emphasis, line) + "\n",
            None => format!("{line}\n"),
        };
        text.lines().enumerate().map(line).collect()
    }

    /// Whether every line says that something failed.
    fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Auth(AuthResult::Refused(_))
                | Self::Ls(PeerFiles::Failed(_))
                | Self::Get(GetResult::Failed(_))
                | Self::Wait(WaitResult::Unmet { .. })
                | Self::Failed(_)
        )
    }

    fn plain_text(&self, look: Look) -> String {
        match self {
            Self::Auth(AuthResult::LoggedIn { user, commands, .. }) => {
                format!("Welcome, {user}!\nAvailable commands are: {}\n", commands.join(", "))
            }
            Self::Auth(AuthResult::Refused(_)) => "Authentication failed. Please try again.\n".into(),
            Self::Pub(result) => summary_line(result.published.len(), &result.failed, "published", "publication"),
            Self::Unp(result) => summary_line(result.unpublished.len(), &result.failed, "unpublished", "unpublication"),
            Self::Lpf(list) => {
                let texts = ["No files published", "file published", "files published"];
                list_block(list.files.iter().map(own_file), texts, look)
            }
            Self::Lap(list) => list_block(peer_rows(list), ["No active peers", "active peer", "active peers"], look),
            Self::Ls(PeerFiles::Listed { user, files, .. }) => {
                let (one, many) = (format!("file shared by {user}"), format!("files shared by {user}"));
                list_block(files.iter().map(shared_file), ["No files shared", &one, &many], look)
            }
            Self::Ls(PeerFiles::Failed(_)) => "No such peer\n".into(),
            Self::Sch(FoundFiles::Names { files, .. }) => {
                list_block(files.iter().map(|name| vec![Cell::Text(name)]), FOUND_TEXTS, look)
            }
            Self::Sch(FoundFiles::Contents { files, .. }) => {
                list_block(files.iter().map(available_file), FOUND_TEXTS, look)
            }
            // Each file has a line when it is fetched.
            Self::Follow(FollowResult::Started { .. }) | Self::Unfollow(_) => String::new(),
            Self::Follow(FollowResult::Listed { follows, .. }) => {
                let lines: Vec<String> = follows.iter().map(Followed::line).collect();
                let rows = lines.iter().map(|line| vec![Cell::Text(line)]);
                list_block(rows, ["Nothing followed", "pattern followed", "patterns followed"], look)
            }
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
                WaitedFor::Job(_) => String::new(),
                WaitedFor::File(name) => format!("{} is available\n", escape_controls(name)),
            },
            Self::Wait(WaitResult::Unmet { error, .. }) if error == TIMED_OUT => format!("{error}\n"),
            // The job itself has told its failure.
            Self::Wait(WaitResult::Unmet { .. }) => String::new(),
            Self::Cancel(JobCancelled { number, .. }) => format!("[{number}] cancelled\n"),
            Self::Jobs(list) => jobs_text(list, look),
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
    Sources(u32),
    State(OwnFileState),
    /// Its number.
    Job(u64),
}

impl Cell<'_> {
    /// As programs read it.
    fn to_column(&self) -> String {
        match self {
            Self::Text(text) => escape_controls(text).to_string(),
            Self::Bytes(number) | Self::Age(number) | Self::Job(number) => number.to_string(),
            Self::Sources(number) => number.to_string(),
            Self::State(OwnFileState::Ok) => "ok".into(),
            Self::State(OwnFileState::Changed) => "changed".into(),
            Self::State(OwnFileState::Missing) => "missing".into(),
        }
    }

    /// As people read it.
    fn to_words(&self) -> String {
        match self {
            Self::Bytes(bytes) => units::bytes(*bytes),
            Self::Age(seconds) => units::age(*seconds),
            Self::Job(number) => format!("[{number}]"),
            Self::Sources(1) => "1 source".into(),
            Self::Sources(number) => format!("{number} sources"),
            Self::Text(_) | Self::State(_) => self.to_column(),
        }
    }
}

type Row<'a> = Vec<Cell<'a>>;

fn available_file(file: &AvailableFile) -> Row<'_> {
    vec![Cell::Text(&file.name), Cell::Bytes(file.bytes), Cell::Sources(file.sources), Cell::Age(file.age_s)]
}

fn shared_file(file: &SharedFile) -> Row<'_> {
    let details = file.age_s.map(|age_s| [Cell::Bytes(file.bytes), Cell::Age(age_s)]);
    [Cell::Text(&file.name)].into_iter().chain(details.into_iter().flatten()).collect()
}

fn own_file(file: &OwnFile) -> Row<'_> {
    let mut row = vec![Cell::Text(&file.name)];
    if let (Some(age_s), Some(state)) = (file.age_s, file.state) {
        let audience = if file.restricted { "restricted" } else { "all" };
        row.extend([Cell::Bytes(file.bytes), Cell::Age(age_s), Cell::Text(audience), Cell::State(state)]);
    }
    row
}

fn peer_rows(list: &PeerList) -> impl ExactSizeIterator<Item = Row<'_>> {
    list.peers.iter().enumerate().map(|(at, user)| {
        let active_s = list.details.as_ref().and_then(|details| Some(Cell::Age(details.get(at)?.active_s)));
        [Cell::Text(user)].into_iter().chain(active_s).collect()
    })
}

fn list_block<'a>(rows: impl ExactSizeIterator<Item = Row<'a>>, [none, one, many]: [&str; 3], look: Look) -> String {
    let mut text = match rows.len() {
        0 => format!("{none}\n"),
        1 => format!("1 {one}:\n"),
        count => format!("{count} {many}:\n"),
    };
    if look.is_terminal {
        text += &table(&rows.collect::<Vec<_>>(), look);
        return text;
    }
    for row in rows {
        let columns: Vec<String> = row.iter().map(Cell::to_column).collect();
        writeln!(text, "{}", columns.join("\t")).expect("a string takes all");
    }
    text
}

/// Lines with aligned columns. The name is the last column, since it may be long.
fn table(rows: &[Row<'_>], look: Look) -> String {
    let words: Vec<Vec<String>> = rows.iter().map(|row| row.iter().skip(1).map(Cell::to_words).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &words {
        widths.resize(widths.len().max(row.len()), 0);
        widths.iter_mut().zip(row).for_each(|(width, words)| *width = words.len().max(*width));
    }
    let mut text = String::new();
    for (cells, words) in rows.iter().zip(&words) {
        for ((cell, words), width) in cells.iter().skip(1).zip(words).zip(&widths) {
            let padded = match cell {
                Cell::Text(_) | Cell::State(_) => format!("{words:<width$}"),
                _ => format!("{words:>width$}"),
            };
            text += &match cell {
                Cell::State(OwnFileState::Changed | OwnFileState::Missing) => {
                    look.emphasize(Emphasis::Warning, &padded)
                }
                _ => padded,
            };
            text += "  ";
        }
        text += &cells.first().map(Cell::to_words).unwrap_or_default();
        text.push('\n');
    }
    text
}

/// At a terminal what may be long is the first cell, which a table shows last.
fn listed_job(job: &ListedJob, look: Look) -> Row<'_> {
    let bytes = |count: Option<u64>| count.map_or(Cell::Text("-"), Cell::Bytes);
    let mut row = vec![Cell::Job(job.number), Cell::Text(&job.line), bytes(job.done), bytes(job.total)];
    if look.is_terminal {
        row.swap(0, 1);
    }
    row
}

fn listed_upload(upload: &ListedUpload, look: Look) -> Row<'_> {
    let mut row = vec![Cell::Text(&upload.user), Cell::Text(&upload.name)];
    if look.is_terminal {
        row.swap(0, 1);
    }
    row.extend([Cell::Bytes(upload.done), Cell::Bytes(upload.total)]);
    row
}

/// Uploads are left out if there are none.
fn jobs_text(list: &JobList, look: Look) -> String {
    let jobs = list.jobs.iter().map(|job| listed_job(job, look));
    let mut text = list_block(jobs, ["No jobs", "job", "jobs"], look);
    if !list.uploads.is_empty() {
        let uploads = list.uploads.iter().map(|upload| listed_upload(upload, look));
        text += &list_block(uploads, ["", "upload", "uploads"], look);
    }
    text
}
