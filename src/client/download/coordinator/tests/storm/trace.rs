//! What a person reads of a storm that has failed: who did what when.

use std::time::Duration;

use super::super::*;

/// Lines of a trace that are printed: the last ones.
const LINES_MAX: usize = 60;

#[derive(Default)]
pub(super) struct StormTrace {
    lines: Vec<String>,
    users: BTreeMap<SourceId, String>,
}

impl StormTrace {
    pub fn event(&mut self, at: Duration, event: &DownloadEvent) {
        let text = match event {
            DownloadEvent::SourcesFound(found) => format!("server: {}", answer(found)),
            DownloadEvent::Source(id, event) => format!("{}: {}", self.user(*id), source_event(event)),
            DownloadEvent::File(file, event) => format!("file {file}: {}", file_event(event)),
            DownloadEvent::Interrupted => "user: interrupts".to_owned(),
        };
        self.line(at, &text);
    }

    pub fn effect(&mut self, at: Duration, effect: &Effect) {
        if let Effect::Dial(id, offer) = effect {
            self.users.insert(*id, format!("{} ({id})", offer.user));
        }
        let to = match effect {
            Effect::Dial(id, _) | Effect::Send(id, _) => format!(" of {}", self.user(*id)),
            _ => String::new(),
        };
        for kind in kinds(std::slice::from_ref(effect)) {
            self.line(at, &format!("    -> {kind}{to}"));
        }
    }

    pub fn text(&self) -> String {
        let first = self.lines.len().saturating_sub(LINES_MAX);
        self.lines[first..].join("\n")
    }

    fn user(&self, id: SourceId) -> String {
        self.users.get(&id).cloned().unwrap_or_else(|| format!("source {id}"))
    }

    fn line(&mut self, at: Duration, text: &str) {
        self.lines.push(format!("{:9.3} s  {text}", at.as_secs_f64()));
    }
}

fn answer(found: &SourcesFound) -> String {
    let files = |offer: &SourceOffer| offer.files.iter().map(|&at| found.files[at]).collect::<Vec<_>>();
    match &found.offers {
        Ok(offers) => {
            let named = |offer: &SourceOffer| format!("{} for {:?}", offer.user, files(offer));
            format!("names [{}]", offers.iter().map(named).collect::<Vec<_>>().join(", "))
        }
        Err(error) => error.to_string(),
    }
}

fn groups(assignments: &[Assignment]) -> String {
    let group = |assignment: &Assignment| format!("{}/{}#{}", assignment.file, assignment.group, assignment.id);
    assignments.iter().map(group).collect::<Vec<_>>().join(" ")
}

fn source_event(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Connected(files) => format!("is connected for {files:?}"),
        SourceEvent::Granted(files) => format!("accepts a ticket for {files:?}"),
        SourceEvent::GrantRefused(files) => format!("refuses a ticket for {files:?}"),
        SourceEvent::Received { bytes, completed } => format!("sends {bytes} bytes, completes [{}]", groups(completed)),
        SourceEvent::Outline(file, _) => format!("sends the outline of {file}"),
        SourceEvent::Refused(file, reason) => format!("refuses {file}: {reason}"),
        SourceEvent::Availability(file, None) => format!("has all of {file}"),
        SourceEvent::Availability(file, Some(_)) => format!("has some groups of {file}"),
        SourceEvent::NotAvailable(_, assignments) => format!("does not have [{}]", groups(assignments)),
        SourceEvent::Hashing => "is hashing".to_owned(),
        SourceEvent::Cancelled => "has cancelled".to_owned(),
        SourceEvent::Stored(results) => results.iter().map(stored).collect::<Vec<_>>().join(", "),
        SourceEvent::Ended(end) => format!("has ended: {end:?}"),
    }
}

fn stored(result: &StoreResult) -> String {
    match result {
        StoreResult::Verified(assignment) => format!("{} is verified", groups(&[*assignment])),
        StoreResult::Discarded(assignment) => format!("{} is discarded", groups(&[*assignment])),
        StoreResult::Corrupt(assignment) => format!("{} is wrong", groups(&[*assignment])),
        StoreResult::SmallFile(file, outcome) => format!("file {file}: {outcome:?}"),
        StoreResult::WriteFailed(file, error) => format!("file {file} is not written: {error}"),
    }
}

fn file_event(event: &FileEvent) -> String {
    match event {
        FileEvent::Opened(opened) => format!("is open, may hold {:?}", opened.candidates),
        FileEvent::GroupPresent(group) => format!("holds group {group}"),
        FileEvent::GroupMissing(group) => format!("does not hold group {group}"),
        FileEvent::Finished(outcome) => format!("{outcome:?}"),
    }
}
