//! `get`: plans, fetches, and prints one result line for each file in the order asked, as soon as its turn has come.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::get_select::{ResultLine, Selection, select};
use super::reshare::Reshare;
use super::{CommandContext, Verb};
use crate::client::control::RequestError;
use crate::client::download::{DownloadItem, DownloadOutcome, DownloadProgress, IncompleteFile};
use crate::client::exit_code::ExitCode;
use crate::client::files::PathArg;
use crate::client::ui::console::ProgressMeter;
use crate::client::ui::report::{ItemFailure, Report};
use crate::common::types::{FileName, UserName};

pub fn run(context: &CommandContext, files: &[PathArg], share: bool) -> ExitCode {
    let selection = match select(&*context.services.catalogue, files) {
        Ok(selection) => selection,
        Err(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Get),
        Err(error) => return report_unresolvable(context, files, &error),
    };
    for note in &selection.notes {
        context.console.info(note);
    }
    if share {
        let reshare = Reshare::new(context, &selection.wanted);
        let (status, saved) = download_and_report(context, &selection, Some(&reshare));
        status.or(reshare.finish(&saved))
    } else {
        download_and_report(context, &selection, None).0
    }
}

/// Fetches and prints; gives the status and what lies under its own name in the folder now.
fn download_and_report(
    context: &CommandContext,
    selection: &Selection,
    reshare: Option<&Reshare>,
) -> (ExitCode, BTreeSet<usize>) {
    let delivery = OrderedReporter::new(context, selection, reshare);
    delivery.flush_ready();
    if !selection.wanted.is_empty() {
        let outcomes = context.services.fetcher.fetch(&selection.wanted, &context.downloads, &delivery);
        for (index, outcome) in outcomes.iter().enumerate() {
            delivery.record(index, outcome);
        }
    }
    delivery.into_result()
}

/// The server could not be asked: every argument fails for the same reason, told once.
fn report_unresolvable(context: &CommandContext, files: &[PathArg], error: &RequestError) -> ExitCode {
    context.console.error(error);
    for argument in files {
        let failure = ItemFailure { name: argument.text.clone(), why: error.to_string(), code: error.into() };
        context.console.report(&Report::DownloadFailed(&failure));
    }
    error.into()
}

/// What became of one wanted file.
enum FileOutcome {
    Saved(FileName),
    Skipped,
    Failed(ItemFailure),
}

impl FileOutcome {
    fn of(wanted: &DownloadItem, fetched: &DownloadOutcome) -> Self {
        match fetched {
            DownloadOutcome::Saved { name } => Self::Saved(name.clone()),
            DownloadOutcome::Skipped => Self::Skipped,
            DownloadOutcome::Failed(error) => Self::Failed(ItemFailure {
                name: wanted.name.to_string(),
                why: format!("{}: {error}", wanted.name),
                code: error.into(),
            }),
        }
    }
}

/// Whether it lies under its own name in the folder now.
fn is_saved(wanted: &DownloadItem, outcome: &Option<FileOutcome>) -> bool {
    matches!(outcome, Some(FileOutcome::Saved(name)) if *name == wanted.name)
}

/// Takes the outcomes in whatever order they come and prints them in the order asked.
struct OrderedReporter<'a> {
    context: &'a CommandContext,
    selection: &'a Selection,
    reshare: Option<&'a Reshare<'a>>,
    meter: ProgressMeter<'a>,
    /// Bytes of each wanted file that have arrived.
    arrived: Vec<AtomicU64>,
    arrived_in_all: AtomicU64,
    wanted_in_all: u64,
    state: Mutex<State>,
}

struct State {
    outcomes: Vec<Option<FileOutcome>>,
    /// The first line not printed yet.
    next: usize,
    status: ExitCode,
}

impl<'a> OrderedReporter<'a> {
    fn new(context: &'a CommandContext, selection: &'a Selection, reshare: Option<&'a Reshare<'a>>) -> Self {
        let outcomes = selection.wanted.iter().map(|_| None).collect();
        Self {
            context,
            selection,
            reshare,
            meter: context.console.progress(),
            arrived: selection.wanted.iter().map(|_| AtomicU64::new(0)).collect(),
            arrived_in_all: AtomicU64::new(0),
            wanted_in_all: selection.wanted.iter().fold(0, |sum, wanted| sum.saturating_add(wanted.content.size)),
            state: Mutex::new(State { outcomes, next: 0, status: ExitCode::Success }),
        }
    }

    fn record(&self, index: usize, fetched: &DownloadOutcome) {
        let mut state = self.lock();
        if let (Some(outcome @ None), Some(wanted)) = (state.outcomes.get_mut(index), self.selection.wanted.get(index))
        {
            *outcome = Some(FileOutcome::of(wanted, fetched));
            let saved = is_saved(wanted, outcome);
            drop(state);
            if let Some(reshare) = self.reshare {
                reshare.finished(index, saved);
            }
            self.flush_ready();
        }
    }

    fn flush_ready(&self) {
        let mut state = self.lock();
        while let Some(line) = self.selection.lines.get(state.next) {
            let code = match line {
                ResultLine::Missing(name) => self.print_failure(&ItemFailure {
                    name: name.clone(),
                    why: format!("{name}: no active peer has published it"),
                    code: ExitCode::NotFound,
                }),
                ResultLine::Wanted(index) => match &state.outcomes[*index] {
                    Some(outcome) => self.print(*index, outcome),
                    None => break,
                },
            };
            state.status = state.status.or(code);
            state.next += 1;
        }
    }

    fn print(&self, index: usize, outcome: &FileOutcome) -> ExitCode {
        let asked = &self.selection.wanted[index].name;
        match outcome {
            FileOutcome::Saved(name) => self.context.console.report(&Report::Downloaded(asked, name)),
            FileOutcome::Skipped => self.context.console.report(&Report::Skipped(asked)),
            FileOutcome::Failed(failure) => return self.print_failure(failure),
        }
        ExitCode::Success
    }

    fn print_failure(&self, failure: &ItemFailure) -> ExitCode {
        self.context.console.error(&failure.why);
        self.context.console.report(&Report::DownloadFailed(failure));
        failure.code
    }

    /// The status, and what lies under its own name in the folder now.
    fn into_result(self) -> (ExitCode, BTreeSet<usize>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcomes = self.selection.wanted.iter().zip(&state.outcomes).enumerate();
        let saved =
            outcomes.filter(|(_, (wanted, outcome))| is_saved(wanted, outcome)).map(|(index, _)| index).collect();
        // A downloader that forgot a file is a bug, and must not look like success.
        let complete = state.next == self.selection.lines.len();
        (state.status.or(if complete { ExitCode::Success } else { ExitCode::Internal }), saved)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DownloadProgress for OrderedReporter<'_> {
    fn received(&self, index: usize, done: u64, _total: u64) {
        let Some(arrived) = self.arrived.get(index) else { return };
        let before = arrived.swap(done, Relaxed);
        // Wraps where a bad chunk is taken back, and so stays right.
        let difference = done.wrapping_sub(before);
        let all = self.arrived_in_all.fetch_add(difference, Relaxed).wrapping_add(difference);
        self.meter.update(self.selection.wanted[index].name.as_str(), all, self.wanted_in_all);
    }

    fn waiting(&self, user: &UserName) {
        self.context.console.info(format!("waiting: all upload lines of {user} are taken"));
    }

    fn source_dropped(&self, user: &UserName, name: &FileName, why: &str) {
        self.context.console.info(format!("{name}: dropped the source {user}: {why}"));
    }

    fn finished(&self, index: usize, outcome: &DownloadOutcome) {
        self.record(index, outcome);
    }

    fn arriving(&self, index: usize, arriving: &Arc<IncompleteFile>) {
        if let Some(reshare) = self.reshare {
            reshare.arriving(index, arriving);
        }
    }

    fn interrupted(&self) -> bool {
        self.context.state.is_cancelled()
    }
}

#[cfg(test)]
#[path = "get_tests.rs"]
mod tests;
