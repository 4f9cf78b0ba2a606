//! `get`: selects, downloads, and prints one result line for each file, in the order of the request and as soon as possible.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Instant;

use super::get_select::{ResultLine, Selection, select, short_hash};
use super::reshare::Reshare;
use super::{CommandContext, Verb, clock};
use crate::client::control::RequestError;
use crate::client::download::{DownloadError, DownloadOptions, DownloadOutcome, DownloadReport, SaveAs, WaitReason};
use crate::client::events::EventKind;
use crate::client::exit_code::ExitCode;
use crate::client::files::PathArg;
use crate::client::ui::message::{CommandResult, GetResult, ItemFailure, PlannedAction, True};
use crate::client::ui::output::{ByteCount, ProgressMeter};
use crate::common::types::{FileName, NamedContent, UserName};

/// How `get` deals with the files that it selects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetOptions {
    /// Publish what is downloaded.
    pub share: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    pub save_as: SaveAs,
}

/// Downloads `files`.
pub fn run(context: &CommandContext, files: &[PathArg], options: GetOptions) -> ExitCode {
    let folder = matches!(options.save_as, SaveAs::OwnName).then_some(&*context.files);
    let mut selection = match select(&context.server, folder, files) {
        Ok(selection) => selection,
        Err(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Get),
        Err(error) => return report_unresolvable(context, files, &error),
    };
    for note in &selection.notes {
        context.output.info(note);
    }
    let GetOptions { share, dry_run, save_as } = options;
    let options = DownloadOptions { save_as, ..context.download_options.clone() };
    if dry_run {
        return print_plan(context, &selection, &options);
    }
    let selected = selection.add_alternatives();
    let status = if share {
        let reshare = Reshare::new(context, &selection.items);
        let results = download_and_report(context, &selection, selected, &options, Some(&reshare));
        results.status.first_failure(reshare.finish(&results.saved))
    } else {
        download_and_report(context, &selection, selected, &options, None).status
    };
    if let Some(why) = context.files.fetched().write_failure() {
        context.output.error(format!("what was fetched is not recorded, and a later watch may publish it: {why}"));
    }
    status
}

struct Results {
    /// The exit code of the first failure, in the order of the result lines.
    status: ExitCode,
    /// Indices of the items that are complete and have their own names in the folder.
    saved: BTreeSet<usize>,
}

/// Downloads the first `selected` items, and of those whose sources have all changed their files the next content.
fn download_and_report(
    context: &CommandContext,
    selection: &Selection,
    selected: usize,
    options: &DownloadOptions,
    reshare: Option<&Reshare>,
) -> Results {
    let reporter = OrderedReporter::new(context, selection, reshare);
    reporter.flush_ready();
    let cancelled = context.state.cancelled();
    let mut wanted: Vec<usize> = (0..selected).collect();
    while !wanted.is_empty() {
        reporter.expect_bytes(&wanted);
        let items: Vec<NamedContent> = wanted.iter().map(|&index| selection.items[index].clone()).collect();
        let on_report = |report: DownloadReport| reporter.on_report(report.renumbered(&wanted));
        context.downloader.fetch(&items, options, &cancelled, &on_report);
        wanted = reporter.alternatives_of(&wanted);
    }
    reporter.into_results()
}

/// `get -n`.
fn print_plan(context: &CommandContext, selection: &Selection, options: &DownloadOptions) -> ExitCode {
    let outcomes = context.downloader.check_targets(&selection.items, options, &context.state.cancelled());
    let mut status = ExitCode::Success;
    for line in &selection.lines {
        status = status.first_failure(match line {
            ResultLine::NotFound(name) => print_failure(context, not_found(name)),
            ResultLine::Confusable(name) => print_failure(context, confusable(name)),
            ResultLine::Item(index) => {
                let NamedContent { name, content } = &selection.items[*index];
                let action = match &outcomes[*index] {
                    Some(DownloadOutcome::Failed(error)) => Err(error),
                    Some(_) => Ok(PlannedAction::Skip),
                    None => Ok(PlannedAction::Get),
                };
                match action {
                    Ok(action) => {
                        let (name, bytes) = (name.to_string(), content.size);
                        context.output.result(CommandResult::Get(GetResult::Planned { ok: True, name, action, bytes }));
                        ExitCode::Success
                    }
                    Err(error) => print_failure(context, failed(name, error)),
                }
            }
        });
    }
    status
}

fn print_failure(context: &CommandContext, failure: ItemFailure) -> ExitCode {
    let code = failure.code;
    context.output.error(&failure.error);
    context.output.result(CommandResult::Get(GetResult::Failed(failure.into())));
    code
}

fn not_found(name: &str) -> ItemFailure {
    let error = format!("{name}: no active peer has published it");
    ItemFailure { name: name.into(), error, code: ExitCode::NotFound }
}

fn confusable(name: &str) -> ItemFailure {
    let error = format!("{name}: exists, and what is published differs from it only in the Unicode form of its name");
    ItemFailure { name: name.into(), error, code: ExitCode::LocalFile }
}

fn failed(name: &FileName, error: &DownloadError) -> ItemFailure {
    ItemFailure { name: name.to_string(), error: format!("{name}: {error}"), code: error.into() }
}

/// Notes and events about a download.
pub(super) fn report_notes(context: &CommandContext, items: &[NamedContent], report: &DownloadReport) {
    match report {
        DownloadReport::Finished(index, outcome) => {
            context.uploads.events().publish(EventKind::DownloadFinished {
                name: items[*index].name.to_string(),
                saved: outcome.saved_as().map(ToString::to_string),
                bytes: items[*index].content.size,
                ok: outcome.code().is_success(),
                code: outcome.code(),
            });
        }
        DownloadReport::Waiting(user, reason) => context.output.info(match reason {
            WaitReason::Busy => format!("waiting: all upload slots of {user} are taken"),
            WaitReason::Hashing => format!("waiting: {user} is reading the file to check it"),
        }),
        DownloadReport::SourceDropped { index, user, reason } => {
            context.output.info(format!("{}: dropped the source {user}: {reason}", items[*index].name));
        }
        DownloadReport::Note(note) => context.output.info(note),
        DownloadReport::Received { .. }
        | DownloadReport::Resumed { .. }
        | DownloadReport::Started(..)
        | DownloadReport::Delivered(..) => {}
    }
}

/// The server did not answer: every argument fails for the same reason, which is printed once.
fn report_unresolvable(context: &CommandContext, files: &[PathArg], error: &RequestError) -> ExitCode {
    context.output.error(error);
    for argument in files {
        let failure = ItemFailure { name: argument.text.clone(), error: error.to_string(), code: error.into() };
        context.output.result(CommandResult::Get(GetResult::Failed(failure.into())));
    }
    error.into()
}

/// Receives outcomes in any order and prints them in the order of the request.
struct OrderedReporter<'a> {
    context: &'a CommandContext,
    selection: &'a Selection,
    reshare: Option<&'a Reshare<'a>>,
    meter: ProgressMeter<'a>,
    started: Instant,
    transfers: Vec<Transfer>,
    /// Verified bytes of all items.
    total_verified: Cell<u64>,
    total_bytes: Cell<u64>,
    state: RefCell<ReporterState>,
}

/// How one item arrives.
#[derive(Default)]
pub(super) struct Transfer {
    verified_bytes: Cell<u64>,
    /// Of these, what an earlier download had left.
    resumed_bytes: Cell<u64>,
    sources: RefCell<BTreeSet<UserName>>,
}

impl Transfer {
    /// An earlier download had left these bytes.
    pub fn resumed(&self, bytes: u64) {
        self.resumed_bytes.set(bytes);
    }

    /// The user has delivered something of it that was verified.
    pub fn delivered(&self, user: UserName) {
        self.sources.borrow_mut().insert(user);
    }

    /// The item has this name in the folder.
    pub fn saved(&self, item: &NamedContent, saved: &FileName, elapsed_ms: u64) -> GetResult {
        GetResult::Saved {
            ok: True,
            name: item.name.to_string(),
            saved: saved.to_string(),
            bytes: item.content.size,
            hash: item.content.hash.to_hex(),
            sources: self.sources.borrow().iter().map(UserName::to_string).collect(),
            resumed_bytes: self.resumed_bytes.get(),
            elapsed_ms,
        }
    }
}

/// Milliseconds since then.
pub(super) fn elapsed_ms(since: Instant) -> u64 {
    clock().saturating_duration_since(since).as_millis() as u64
}

struct ReporterState {
    outcomes: Vec<Option<Outcome>>,
    /// The first result line that is not printed yet.
    next_line: usize,
    status: ExitCode,
}

struct Outcome {
    of_download: DownloadOutcome,
    elapsed_ms: u64,
}

impl<'a> OrderedReporter<'a> {
    fn new(context: &'a CommandContext, selection: &'a Selection, reshare: Option<&'a Reshare<'a>>) -> Self {
        let outcomes = selection.items.iter().map(|_| None).collect();
        Self {
            context,
            selection,
            reshare,
            meter: context.output.progress(),
            started: clock(),
            transfers: selection.items.iter().map(|_| Transfer::default()).collect(),
            total_verified: Cell::new(0),
            total_bytes: Cell::new(0),
            state: RefCell::new(ReporterState { outcomes, next_line: 0, status: ExitCode::Success }),
        }
    }

    /// Prints every line that has its outcome, up to the first that has none.
    fn flush_ready(&self) {
        let mut state = self.state.borrow_mut();
        while let Some(line) = self.selection.lines.get(state.next_line) {
            let code = match line {
                ResultLine::NotFound(name) => print_failure(self.context, not_found(name)),
                ResultLine::Confusable(name) => print_failure(self.context, confusable(name)),
                ResultLine::Item(index) => {
                    let mut index = *index;
                    while let Some(next) = self.next_of(&state, index) {
                        index = next;
                    }
                    match &state.outcomes[index] {
                        Some(outcome) => self.print(index, outcome),
                        None => break,
                    }
                }
            };
            state.status = state.status.first_failure(code);
            state.next_line += 1;
        }
    }

    /// These items will be downloaded.
    fn expect_bytes(&self, items: &[usize]) {
        let bytes = |sum: u64, &index: &usize| sum.saturating_add(self.selection.items[index].content.size);
        self.total_bytes.set(items.iter().fold(self.total_bytes.get(), bytes));
    }

    /// What is to be downloaded next, since the sources of these items have changed their files.
    fn alternatives_of(&self, items: &[usize]) -> Vec<usize> {
        let state = self.state.borrow();
        let next = items.iter().filter_map(|&index| self.next_of(&state, index)).collect::<Vec<_>>();
        for item in next.iter().map(|&index| &self.selection.items[index]) {
            let NamedContent { name, content } = item;
            let hash = short_hash(&content.hash);
            self.context.output.info(format!("{name}: its sources have changed the file; taking {name}#{hash}"));
        }
        next
    }

    fn next_of(&self, state: &ReporterState, index: usize) -> Option<usize> {
        let outcome = state.outcomes[index].as_ref()?;
        let has_changed = matches!(outcome.of_download, DownloadOutcome::Failed(DownloadError::Changed(_)));
        self.selection.next.get(&index).filter(|_| has_changed).copied()
    }

    fn print(&self, index: usize, outcome: &Outcome) -> ExitCode {
        let item = &self.selection.items[index];
        let result = match &outcome.of_download {
            DownloadOutcome::Saved { name } => self.transfers[index].saved(item, name, outcome.elapsed_ms),
            // No `get` asks for it.
            DownloadOutcome::Unnamed(_) => return ExitCode::Internal,
            DownloadOutcome::Skipped => GetResult::Skipped { ok: True, name: item.name.to_string(), skipped: True },
            DownloadOutcome::Failed(error) => return print_failure(self.context, failed(&item.name, error)),
        };
        self.context.output.result(CommandResult::Get(result));
        ExitCode::Success
    }

    fn into_results(self) -> Results {
        let state = self.state.into_inner();
        let is_saved = |&index: &usize| {
            let outcome = state.outcomes[index].as_ref();
            outcome.is_some_and(|outcome| outcome.of_download.is_saved_as(&self.selection.items[index].name))
        };
        let saved = (0..state.outcomes.len()).filter(is_saved).collect();
        // An item without an outcome is a bug of the downloader, and must not look like success.
        let is_complete = state.next_line == self.selection.lines.len();
        Results {
            status: state.status.first_failure(if is_complete { ExitCode::Success } else { ExitCode::Internal }),
            saved,
        }
    }

    fn on_report(&self, report: DownloadReport) {
        report_notes(self.context, &self.selection.items, &report);
        match (report, self.reshare) {
            (DownloadReport::Received { index, done, .. }, _) => {
                let all_done = self.total_verified.get() + done - self.transfers[index].verified_bytes.replace(done);
                self.total_verified.set(all_done);
                let item = &self.selection.items[index];
                let all = ByteCount { done: all_done, total: self.total_bytes.get() };
                self.meter.update(item.name.as_str(), ByteCount { done, total: item.content.size }, all);
            }
            (DownloadReport::Resumed { index, bytes }, _) => self.transfers[index].resumed(bytes),
            (DownloadReport::Started(index, incomplete), Some(reshare)) => reshare.started(index, &incomplete),
            (DownloadReport::Started(..), None) => {}
            (DownloadReport::Delivered(index, user), reshare) => {
                if let Some(reshare) = reshare {
                    reshare.delivered(index, &user);
                }
                self.transfers[index].delivered(user);
            }
            (DownloadReport::Finished(index, outcome), reshare) => {
                let is_saved = outcome.is_saved_as(&self.selection.items[index].name);
                let elapsed_ms = elapsed_ms(self.started);
                self.state.borrow_mut().outcomes[index] = Some(Outcome { of_download: outcome, elapsed_ms });
                if let Some(reshare) = reshare {
                    reshare.ended(index, is_saved);
                }
                self.flush_ready();
            }
            (DownloadReport::Waiting(..) | DownloadReport::Note(_) | DownloadReport::SourceDropped { .. }, _) => {}
        }
    }
}

#[cfg(test)]
#[path = "get_tests.rs"]
mod tests;
