//! `pub` and `unp`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::{CommandContext, CommandState, Verb, report_failures};
use crate::client::control::PublishAudience;
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::client::files::{HashProgress, PathArg, ShareError};
use crate::client::shell::path_arg::Selector;
use crate::client::ui::console::ProgressMeter;
use crate::client::ui::report::{ItemFailure, Report};
use crate::common::message::OwnPublication;
use crate::common::types::{Audience, FileName, NamedContent, UserName};

/// More only wait for the disk.
const THREADS_MAX: usize = 16;

/// Publishes whatever of `files` can be, in one go; nothing once the user has said stop.
pub fn publish(context: &CommandContext, to: Vec<UserName>, files: &[PathArg]) -> ExitCode {
    let mut failures = Vec::new();
    let names = expand(context, files, &mut failures);
    let mut prepared = prepare(context, names, &mut failures);
    if context.state.is_cancelled() {
        prepared.clear();
        failures.push(failure("", &ShareError::Interrupted));
    }
    let audience = if to.is_empty() { Audience::Everyone } else { Audience::only(to) };
    if !prepared.is_empty() {
        let opened = match audience {
            Audience::Everyone => context.own.restricted_among(prepared.iter().map(|file| &file.name)),
            Audience::Only(_) => Vec::new(),
        };
        match register_and_publish(context, &prepared, audience) {
            Ok(()) => note_now_public(context, &opened),
            Err(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Pub),
            Err(error) => {
                failures.push(ItemFailure { name: String::new(), why: error.to_string(), code: (&error).into() });
                prepared.clear();
            }
        }
    }
    let done: Vec<FileName> = prepared.into_iter().map(|file| file.name).collect();
    let status = report_failures(context, &failures);
    context.console.report(&Report::Published(&done, &failures));
    status
}

/// What the arguments mean, each name once, in the order asked.
fn expand(context: &CommandContext, files: &[PathArg], failures: &mut Vec<ItemFailure>) -> Vec<FileName> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for argument in files {
        let found = context.services.folder.expand(argument);
        failures.extend(found.errors.iter().map(|error| failure(&argument.text, error)));
        names.extend(found.files.into_iter().filter(|name| seen.insert(name.clone())));
    }
    names
}

/// Hashes many files at a time: small ones by a thread each, while each large one takes all cores.
fn prepare(context: &CommandContext, names: Vec<FileName>, failures: &mut Vec<ItemFailure>) -> Vec<NamedContent> {
    let folder = &*context.services.folder;
    let sizes: Vec<u64> = names.iter().map(|name| folder.size(name)).collect();
    let hashing = TotalProgress::new(&context.state, context.console.progress(), sizes.iter().sum());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Relaxed);
            let (Some(name), Some(&size)) = (names.get(at), sizes.get(at)) else { return done };
            let one = FileProgress { all: &hashing, counted: AtomicU64::new(0) };
            let outcome = folder.hash_file(name, &one);
            one.count(name, size);
            done.push((at, outcome));
        }
    };
    let mut outcomes = thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads().min(names.len())).map(|_| scope.spawn(work)).collect();
        let mut outcomes = work();
        for helper in helpers {
            outcomes.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        outcomes
    });
    outcomes.sort_unstable_by_key(|(at, _)| *at);
    let mut prepared = Vec::with_capacity(outcomes.len());
    for (at, outcome) in outcomes {
        match outcome {
            Ok(file) => prepared.push(file),
            // Told once for all.
            Err(ShareError::Interrupted) => {}
            Err(error) => failures.push(failure(names[at].as_str(), &error)),
        }
    }
    prepared
}

/// At least two, so that one reads while another hashes.
fn threads() -> usize {
    thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS_MAX)
}

/// The folder serves first, so that whoever sees a new publication can fetch it at once; it answers only for tickets
/// that the server gives out, so that a publication which then fails gives nothing away.
fn register_and_publish(
    context: &CommandContext,
    files: &[NamedContent],
    audience: Audience,
) -> Result<(), RequestError> {
    for file in files {
        context.own.publish(&*context.services.folder, &file.name, file.content, audience.clone());
    }
    context.services.catalogue.publish(files, &PublishAudience::Audience(audience))
}

fn note_now_public(context: &CommandContext, names: &[FileName]) {
    for name in names {
        context.console.info(format!("{name}: was published to some, now everyone sees it"));
    }
}

fn failure(name: &str, error: &ShareError) -> ItemFailure {
    ItemFailure { name: name.into(), why: error.to_string(), code: error.into() }
}

/// How far all files together have come.
struct TotalProgress<'a> {
    state: &'a CommandState,
    meter: ProgressMeter<'a>,
    done: AtomicU64,
    total: u64,
}

impl<'a> TotalProgress<'a> {
    fn new(state: &'a CommandState, meter: ProgressMeter<'a>, total: u64) -> Self {
        Self { state, meter, done: AtomicU64::new(0), total }
    }
}

/// One of them.
struct FileProgress<'h, 'a> {
    all: &'h TotalProgress<'a>,
    /// Of its bytes, those in [`TotalProgress::done`].
    counted: AtomicU64,
}

impl FileProgress<'_, '_> {
    /// So much of it is done, if not more.
    fn count(&self, name: &FileName, done: u64) {
        let fresh = done.saturating_sub(self.counted.fetch_max(done, Relaxed));
        let all = self.all.done.fetch_add(fresh, Relaxed) + fresh;
        self.all.meter.update(name.as_str(), all, self.all.total.max(all));
    }
}

impl HashProgress for FileProgress<'_, '_> {
    fn hashed(&self, name: &FileName, done: u64, _: u64) {
        self.count(name, done);
    }

    fn interrupted(&self) -> bool {
        self.all.state.is_cancelled()
    }
}

/// Withdraws whatever of `files` is published.
pub fn unpublish(context: &CommandContext, files: &[PathArg]) -> ExitCode {
    let (done, failures) = match withdraw(context, files) {
        Ok(both) => both,
        Err(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Unp),
        Err(error) => {
            let failure = ItemFailure { name: String::new(), why: error.to_string(), code: (&error).into() };
            (Vec::new(), vec![failure])
        }
    };
    let status = report_failures(context, &failures);
    context.console.report(&Report::Unpublished(&done, &failures));
    status
}

fn withdraw(context: &CommandContext, files: &[PathArg]) -> Result<(Vec<FileName>, Vec<ItemFailure>), RequestError> {
    let catalogue = &context.services.catalogue;
    let selected: Vec<Option<Selector>> = files.iter().map(|argument| Selector::of(argument).ok()).collect();
    let wants_list = selected.iter().any(|selector| matches!(selector, Some(Selector::Pattern(..))));
    let published = if wants_list { catalogue.own_publications_quiet()? } else { Vec::new() };

    // Each name once, with the argument that first asked for it.
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    let mut failures = Vec::new();
    for (argument, selector) in files.iter().zip(selected) {
        let meant = selector.map_or_else(Vec::new, |selector| matching_names(&selector, &published));
        if meant.is_empty() {
            failures.push((argument.text.clone(), names.len()));
        }
        names.extend(meant.into_iter().filter(|name| seen.insert(name.clone())));
    }
    let found = if names.is_empty() { Vec::new() } else { catalogue.unpublish(&names)? };

    let mut done = Vec::new();
    for (at, (name, found)) in names.into_iter().zip(found).enumerate() {
        context.own.withdraw(&*context.services.folder, &name);
        if found {
            done.push(name);
        } else {
            failures.push((name.to_string(), at));
        }
    }
    failures.sort_by_key(|(_, at)| *at);
    let failure = |(name, _): (String, usize)| ItemFailure {
        why: format!("{name}: is not published"),
        name,
        code: ExitCode::NotFound,
    };
    Ok((done, failures.into_iter().map(failure).collect()))
}

fn matching_names(selector: &Selector, published: &[OwnPublication]) -> Vec<FileName> {
    match selector {
        Selector::Name { name, .. } => name.iter().cloned().collect(),
        Selector::Pattern(pattern, literal) => {
            let names = published.iter().map(|entry| &entry.name);
            let matching: Vec<FileName> = names.clone().filter(|name| pattern.matches(name)).cloned().collect();
            if matching.is_empty() {
                names.filter(|name| Some(*name) == literal.as_ref()).cloned().collect()
            } else {
                matching
            }
        }
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
