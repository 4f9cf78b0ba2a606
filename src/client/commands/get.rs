//! `get`: plans, fetches, and prints one result line for each file in the order asked, as soon as its turn has come.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Context;
use super::get_plan::{Plan, Slot, plan};
use super::get_share::Sharing;
use crate::client::command::Verb;
use crate::client::console::Meter;
use crate::client::control::AskError;
use crate::client::download::{Arriving, DownloadProgress, Fetched, Wanted};
use crate::client::exit_code::ExitCode;
use crate::client::output::{Failure, Report};
use crate::client::share::PathArgument;
use crate::common::types::{FileName, UserName};

pub(super) fn run(context: &Context, files: &[PathArgument], share: bool) -> ExitCode {
    let plan = match plan(&*context.services.catalogue, files) {
        Ok(plan) => plan,
        Err(AskError::NotAuthenticated) => return context.authenticate_first(Verb::Get),
        Err(error) => return nothing_known(context, files, &error),
    };
    for note in &plan.notes {
        context.console.note(note);
    }
    if share {
        let sharing = Sharing::new(context, &plan.wanted);
        let (status, saved) = deliver(context, &plan, Some(&sharing));
        status.or(sharing.settle(&saved))
    } else {
        deliver(context, &plan, None).0
    }
}

/// Fetches and prints; gives the status and what lies under its own name in the folder now.
fn deliver(context: &Context, plan: &Plan, sharing: Option<&Sharing>) -> (ExitCode, BTreeSet<usize>) {
    let delivery = Delivery::new(context, plan, sharing);
    delivery.print_what_is_due();
    if !plan.wanted.is_empty() {
        let outcomes = context.services.fetcher.fetch(&plan.wanted, &context.downloads, &delivery);
        for (index, outcome) in outcomes.iter().enumerate() {
            delivery.settle(index, outcome);
        }
    }
    delivery.into_result()
}

/// The server could not be asked: every argument fails for the same reason, told once.
fn nothing_known(context: &Context, files: &[PathArgument], error: &AskError) -> ExitCode {
    context.console.reason(error);
    for argument in files {
        let failure = Failure { name: argument.text.clone(), why: error.to_string(), code: error.into() };
        context.console.report(&Report::NotFetched(&failure));
    }
    error.into()
}

/// What became of one wanted file.
enum Outcome {
    Saved(FileName),
    Skipped,
    Failed(Failure),
}

impl Outcome {
    fn of(wanted: &Wanted, fetched: &Fetched) -> Self {
        match fetched {
            Fetched::Done { name } => Self::Saved(name.clone()),
            Fetched::Skipped => Self::Skipped,
            Fetched::Failed(error) => Self::Failed(Failure {
                name: wanted.name.to_string(),
                why: format!("{}: {error}", wanted.name),
                code: error.into(),
            }),
        }
    }
}

/// Whether it lies under its own name in the folder now.
fn is_saved(wanted: &Wanted, outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Saved(name)) if *name == wanted.name)
}

/// Takes the outcomes in whatever order they come and prints them in the order asked.
struct Delivery<'a> {
    context: &'a Context,
    plan: &'a Plan,
    sharing: Option<&'a Sharing<'a>>,
    meter: Meter<'a>,
    /// Bytes of each wanted file that have arrived.
    arrived: Vec<AtomicU64>,
    arrived_in_all: AtomicU64,
    wanted_in_all: u64,
    state: Mutex<State>,
}

struct State {
    outcomes: Vec<Option<Outcome>>,
    /// The first slot not printed yet.
    next: usize,
    status: ExitCode,
}

impl<'a> Delivery<'a> {
    fn new(context: &'a Context, plan: &'a Plan, sharing: Option<&'a Sharing<'a>>) -> Self {
        let outcomes = plan.wanted.iter().map(|_| None).collect();
        Self {
            context,
            plan,
            sharing,
            meter: context.console.meter(),
            arrived: plan.wanted.iter().map(|_| AtomicU64::new(0)).collect(),
            arrived_in_all: AtomicU64::new(0),
            wanted_in_all: plan.wanted.iter().fold(0, |sum, wanted| sum.saturating_add(wanted.content.size)),
            state: Mutex::new(State { outcomes, next: 0, status: ExitCode::Success }),
        }
    }

    fn settle(&self, index: usize, fetched: &Fetched) {
        let mut state = self.lock();
        if let (Some(outcome @ None), Some(wanted)) = (state.outcomes.get_mut(index), self.plan.wanted.get(index)) {
            *outcome = Some(Outcome::of(wanted, fetched));
            let saved = is_saved(wanted, outcome);
            drop(state);
            if let Some(sharing) = self.sharing {
                sharing.finished(index, saved);
            }
            self.print_what_is_due();
        }
    }

    fn print_what_is_due(&self) {
        let mut state = self.lock();
        while let Some(slot) = self.plan.slots.get(state.next) {
            let code = match slot {
                Slot::Missing(name) => self.print_failure(&Failure {
                    name: name.clone(),
                    why: format!("{name}: no active peer has published it"),
                    code: ExitCode::NotFound,
                }),
                Slot::Wanted(index) => match &state.outcomes[*index] {
                    Some(outcome) => self.print(*index, outcome),
                    None => break,
                },
            };
            state.status = state.status.or(code);
            state.next += 1;
        }
    }

    fn print(&self, index: usize, outcome: &Outcome) -> ExitCode {
        let asked = &self.plan.wanted[index].name;
        match outcome {
            Outcome::Saved(name) => self.context.console.report(&Report::Fetched(asked, name)),
            Outcome::Skipped => self.context.console.report(&Report::Skipped(asked)),
            Outcome::Failed(failure) => return self.print_failure(failure),
        }
        ExitCode::Success
    }

    fn print_failure(&self, failure: &Failure) -> ExitCode {
        self.context.console.reason(&failure.why);
        self.context.console.report(&Report::NotFetched(failure));
        failure.code
    }

    /// The status, and what lies under its own name in the folder now.
    fn into_result(self) -> (ExitCode, BTreeSet<usize>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcomes = self.plan.wanted.iter().zip(&state.outcomes).enumerate();
        let saved =
            outcomes.filter(|(_, (wanted, outcome))| is_saved(wanted, outcome)).map(|(index, _)| index).collect();
        // A downloader that forgot a file is a bug, and must not look like success.
        let complete = state.next == self.plan.slots.len();
        (state.status.or(if complete { ExitCode::Success } else { ExitCode::Internal }), saved)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DownloadProgress for Delivery<'_> {
    fn received(&self, index: usize, done: u64, _total: u64) {
        let Some(arrived) = self.arrived.get(index) else { return };
        let before = arrived.swap(done, Relaxed);
        // Wraps where a bad chunk is taken back, and so stays right.
        let difference = done.wrapping_sub(before);
        let all = self.arrived_in_all.fetch_add(difference, Relaxed).wrapping_add(difference);
        self.meter.update(self.plan.wanted[index].name.as_str(), all, self.wanted_in_all);
    }

    fn waiting(&self, user: &UserName) {
        self.context.console.note(format!("waiting: all upload slots of {user} are taken"));
    }

    fn source_dropped(&self, user: &UserName, name: &FileName, why: &str) {
        self.context.console.note(format!("{name}: dropped the source {user}: {why}"));
    }

    fn finished(&self, index: usize, outcome: &Fetched) {
        self.settle(index, outcome);
    }

    fn arriving(&self, index: usize, arriving: &Arc<Arriving>) {
        if let Some(sharing) = self.sharing {
            sharing.arriving(index, arriving);
        }
    }

    fn interrupted(&self) -> bool {
        self.context.life.cancelled()
    }
}

#[cfg(test)]
#[path = "get_tests.rs"]
mod tests;
