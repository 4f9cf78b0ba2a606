//! `pub` and `unp`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{io, slice, thread};

use rayon::prelude::*;

use super::content_pipes::{CancellableInput, ContentInput, InputReader};
use super::selector::Selector;
use super::{CommandContext, CommandState, Verb};
use crate::client::control::{PartialFailure, PublishAudience, RequestError};
use crate::client::download::DownloadError;
use crate::client::exit_code::ExitCode;
use crate::client::files::{HashProgress, PathArg, ShareError};
use crate::client::ui::message::{CommandResult, ItemFailure};
use crate::client::ui::output::{ByteCount, ProgressMeter};
use crate::common::limits::GROUP_MIN_BYTES;
use crate::common::message::{NameQuery, OwnPublication};
use crate::common::normal_form::has_variants;
use crate::common::threads;
use crate::common::types::{Audience, FileName, NamedContent, UserName};

/// More threads only wait for the disk.
const THREADS_MAX: usize = 16;

/// Publishes those of `files` that can be read, together; nothing if the command is cancelled. `to`: the only users who
/// may see them; empty: all users.
pub fn publish(context: &CommandContext, to: Vec<UserName>, files: &[PathArg]) -> ExitCode {
    publish_hashed(context, to, files, &|name, progress| context.files.hash(name, progress))
}

/// Stores what the context's input yields under the name `file`, and publishes that. What exists is treated as the policy
/// says; if it stays as it is, it is not published.
pub fn publish_input(context: &CommandContext, to: Vec<UserName>, file: &PathArg) -> ExitCode {
    let refuse = |why| context.report_error(Verb::Pub.name(), ExitCode::Usage, why);
    let input = match context.pipes.input.clone() {
        Some(ContentInput::Open(input)) => input,
        Some(ContentInput::Closed) => {
            return refuse("standard input is closed; give the content by a pipe or with < FILE");
        }
        None => return refuse("standard input is where the commands come from; give them with -c or -b FILE"),
    };
    match store_input(context, input, &file.text) {
        Ok(Some(stored)) => publish(context, to, &[PathArg { text: stored.to_string(), pattern: None }]),
        Ok(None) => {
            context.output.result(CommandResult::published(&[], Vec::new()));
            ExitCode::Success
        }
        Err(failure) => {
            let status = context.report_failures(slice::from_ref(&failure));
            context.output.result(CommandResult::published(&[], vec![failure]));
            status
        }
    }
}

fn store_input(context: &CommandContext, input: InputReader, name: &str) -> Result<Option<FileName>, ItemFailure> {
    let requested =
        FileName::parse(name).map_err(|error| share_failure(name, &ShareError::Name(name.into(), error)))?;
    let cancelled = context.state.cancelled();
    let mut input = CancellableInput::new(input, cancelled.clone());
    let stored = context.downloader.store(&requested, context.download_options.on_exists, &mut input, &cancelled);
    let failure = |error: DownloadError| ItemFailure {
        name: name.into(),
        error: format!("{name}: {error}"),
        code: (&error).into(),
    };
    let stored = stored.map_err(failure)?;
    match &stored {
        Some(stored) if *stored == requested => {}
        Some(stored) => context.output.info(format!("stored as {stored}")),
        None => context.output.info(format!("{name}: the file exists; nothing is stored or published")),
    }
    Ok(stored)
}

/// Hashes one file, ready to be published.
type HashFile<'a> = dyn Fn(&FileName, &mut HashProgress<'_>) -> Result<NamedContent, ShareError> + Sync + 'a;

fn publish_hashed(context: &CommandContext, to: Vec<UserName>, files: &[PathArg], hash: &HashFile<'_>) -> ExitCode {
    let mut failures = Vec::new();
    let names = expand(context, files, &mut failures);
    let mut unread = Vec::new();
    let mut hashed = hash_files(context, &names, hash, &mut unread);
    // An interruption is reported once for all files.
    unread.retain(|(_, error)| !matches!(error, ShareError::Interrupted));
    failures.extend(unread.iter().map(|(name, error)| share_failure(name.as_str(), error)));
    if context.state.is_cancelled() {
        hashed.clear();
        failures.push(share_failure("", &ShareError::Interrupted));
    }
    let mut published = Vec::new();
    if !hashed.is_empty() {
        let audience = if to.is_empty() { Audience::Everyone } else { Audience::only(to) };
        let mut now_public = match audience {
            Audience::Everyone => context.publications.restricted_among(hashed.iter().map(|file| &file.name)),
            Audience::Only(_) => Vec::new(),
        };
        match register_and_publish(context, &hashed, audience) {
            Ok(()) => published = hashed.into_iter().map(|file| file.name).collect(),
            Err(PartialFailure { done, error: RequestError::NotAuthenticated }) if done.is_empty() => {
                return context.not_authenticated(Verb::Pub);
            }
            Err(PartialFailure { done, error }) => {
                failures.push(request_failure(&error));
                let done_names: BTreeSet<&FileName> = done.iter().collect();
                now_public.retain(|name| done_names.contains(name));
                published = done;
            }
        }
        note_now_public(context, &now_public);
    }
    let status = context.report_failures(&failures);
    context.output.result(CommandResult::published(&published, failures));
    status
}

/// The files that the arguments name, each once, in the order of the arguments.
fn expand(context: &CommandContext, files: &[PathArg], failures: &mut Vec<ItemFailure>) -> Vec<FileName> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for argument in files {
        let expanded = context.files.expand(argument);
        failures.extend(expanded.errors.iter().map(|error| share_failure(&argument.text, error)));
        names.extend(expanded.files.into_iter().filter(|name| seen.insert(name.clone())));
    }
    names
}

/// Hashes all files, or takes their hashes from the cache. The result is in the order of `names`, without the failures.
pub(super) fn hash(
    context: &CommandContext,
    names: &[FileName],
    failures: &mut Vec<(FileName, ShareError)>,
) -> Vec<NamedContent> {
    hash_files(context, names, &|name, progress| context.files.hash(name, progress), failures)
}

/// Hashes all files: those of one chunk group side by side, then the larger ones one by one, since each takes all cores.
/// The result is in the order of `names`.
fn hash_files(
    context: &CommandContext,
    names: &[FileName],
    hash: &HashFile<'_>,
    failures: &mut Vec<(FileName, ShareError)>,
) -> Vec<NamedContent> {
    let sizes: Vec<u64> = names.iter().map(|name| context.files.size(name)).collect();
    let (state, meter, total) = (&*context.state, context.output.progress(), sizes.iter().sum());
    let progress = TotalProgress { state, meter, done: AtomicU64::new(0), total };
    let hash = |index: usize| {
        let mut count = progress.of_file(&names[index], sizes[index]);
        let outcome = hash(&names[index], &mut count);
        let _ = count(sizes[index]);
        (index, outcome)
    };
    let (small, large): (Vec<usize>, Vec<usize>) = (0..names.len()).partition(|&index| sizes[index] <= GROUP_MIN_BYTES);
    let mut outcomes = match thread_pool(small.len()) {
        Some(pool) => pool.install(|| small.into_par_iter().map(hash).collect()),
        None => small.into_iter().map(hash).collect::<Vec<_>>(),
    };
    outcomes.extend(large.into_iter().map(hash));
    outcomes.sort_unstable_by_key(|(index, _)| *index);
    let mut hashed = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes {
        match outcome {
            Ok(file) => hashed.push(file),
            Err(error) => failures.push((names[index].clone(), error)),
        }
    }
    hashed
}

/// A pool of at least two threads, so that one reads while another hashes. `None` for a single file, or if no thread can
/// be created.
fn thread_pool(files: usize) -> Option<rayon::ThreadPool> {
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS_MAX).min(files);
    if threads < 2 {
        return None;
    }
    threads::pool("publish", threads)
}

fn register_and_publish(
    context: &CommandContext,
    files: &[NamedContent],
    audience: Audience,
) -> Result<(), PartialFailure<FileName>> {
    {
        let _order = context.publications.order();
        register(context, files, &audience);
    }
    publish_registered(context, files, audience)
}

fn publish_registered(
    context: &CommandContext,
    files: &[NamedContent],
    audience: Audience,
) -> Result<(), PartialFailure<FileName>> {
    let published = context.server.publish(files, &PublishAudience::Audience(audience));
    match &published {
        Ok(()) => context.publications.accept(files.iter()),
        Err(PartialFailure { done, .. }) => {
            let done: BTreeSet<&FileName> = done.iter().collect();
            context.publications.accept(files.iter().filter(|file| done.contains(&file.name)));
        }
    }
    published
}

/// Serves the files before they are published: a peer that sees a new publication can fetch it at once. Until the server
/// accepts them this gives nothing away, since uploads need a ticket of the server.
fn register(context: &CommandContext, files: &[NamedContent], audience: &Audience) {
    for file in files {
        context.files.private_names().record(&file.name);
        context.publications.announce(&file.name, file.content, audience.clone());
    }
}

/// Publishes the files, which are not many: those that are published for the audience that they have, others for the one
/// that `audience_of` yields. Where a quota does not admit all, the first are published.
pub(super) fn publish_keeping_audiences(
    context: &CommandContext,
    files: Vec<NamedContent>,
    audience_of: impl Fn(&FileName) -> Audience,
) -> Result<(), RequestError> {
    let _order = context.publications.order();
    let mut by_audience: BTreeMap<Audience, Vec<NamedContent>> = BTreeMap::new();
    for file in files {
        let audience = context.publications.audience_of(&file.name).unwrap_or_else(|| audience_of(&file.name));
        by_audience.entry(audience).or_default().push(file);
    }
    for (audience, files) in by_audience {
        register(context, &files, &audience);
        publish_fitting(context, &files, &audience)?;
    }
    Ok(())
}

/// The server refuses what exceeds a quota in one piece: halves may fit.
fn publish_fitting(context: &CommandContext, files: &[NamedContent], audience: &Audience) -> Result<(), RequestError> {
    match publish_registered(context, files, audience.clone()) {
        Err(PartialFailure { error: RequestError::OverQuota { .. }, .. }) if files.len() > 1 => {
            let (first, second) = files.split_at(files.len() / 2);
            publish_fitting(context, first, audience)?;
            publish_fitting(context, second, audience)
        }
        published => Ok(published?),
    }
}

fn note_now_public(context: &CommandContext, names: &[FileName]) {
    for name in names {
        context.output.info(format!("{name}: was published to some users, now all users can see it"));
    }
}

pub(super) fn share_failure(name: &str, error: &ShareError) -> ItemFailure {
    ItemFailure { name: name.into(), error: error.to_string(), code: error.into() }
}

/// The failure of the whole command.
pub(super) fn request_failure(error: &RequestError) -> ItemFailure {
    ItemFailure { name: String::new(), error: error.to_string(), code: error.into() }
}

/// Bytes hashed of all files together.
struct TotalProgress<'a> {
    state: &'a CommandState,
    meter: ProgressMeter<'a>,
    done: AtomicU64,
    total: u64,
}

impl TotalProgress<'_> {
    fn of_file(&self, name: &FileName, size: u64) -> impl FnMut(u64) -> ControlFlow<()> + Send {
        let mut counted = 0;
        move |done: u64| {
            let added = done.saturating_sub(counted);
            counted += added;
            let all = self.done.fetch_add(added, Relaxed) + added;
            let file = ByteCount { done: counted, total: size.max(counted) };
            self.meter.update(name.as_str(), file, ByteCount { done: all, total: self.total.max(all) });
            if self.state.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
}

/// Withdraws those of `files` that are published.
pub fn unpublish(context: &CommandContext, files: &[PathArg]) -> ExitCode {
    let (unpublished, failures) = match withdraw(context, files) {
        Ok(Withdrawn { unpublished, failures }) => (unpublished, failures),
        Err(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Unp),
        Err(error) => (Vec::new(), vec![request_failure(&error)]),
    };
    let status = context.report_failures(&failures);
    context.output.result(CommandResult::unpublished(&unpublished, failures));
    status
}

struct Withdrawn {
    unpublished: Vec<FileName>,
    /// What was not published, in the order of the arguments, and then the error that ended the command early.
    failures: Vec<ItemFailure>,
}

/// An error means that nothing was withdrawn.
fn withdraw(context: &CommandContext, files: &[PathArg]) -> Result<Withdrawn, RequestError> {
    let selectors: Vec<Option<Selector>> = files.iter().map(|argument| Selector::of(argument).ok()).collect();
    let needs_list = selectors.iter().flatten().any(|selector| match selector {
        Selector::Pattern(..) => true,
        Selector::Name { name, .. } => name.as_ref().is_some_and(|name| has_variants(name.as_str())),
    });
    let published = if needs_list { context.server.own_publications_quiet()? } else { Vec::new() };

    // Each name once, at its first position. A failure has the number of names before it.
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    let mut missing = Vec::new();
    for (argument, selector) in files.iter().zip(selectors) {
        let matching = selector.map_or_else(Vec::new, |selector| matching_names(&selector, &published));
        if matching.is_empty() {
            missing.push((names.len(), argument.text.clone()));
        }
        names.extend(matching.into_iter().filter(|name| seen.insert(name.clone())));
    }
    // So that their audiences are known.
    context.publications.is_complete();
    if let Err(error) = record_audiences(context, &names, false) {
        let what = "to whom files were published is not recorded, and a later watch may publish them for others";
        context.output.error(format!("{what}: {error}"));
    }
    let (found, error) = match context.server.unpublish(&names) {
        Ok(found) => (found, None),
        Err(PartialFailure { done, error }) if done.is_empty() => return Err(error),
        Err(PartialFailure { done, error }) => (done, Some(error)),
    };

    let mut unpublished = Vec::new();
    for (index, (name, found)) in names.into_iter().zip(found).enumerate() {
        // The reply to a request that was sent again after a new login tells nothing of what the first one withdrew.
        let was_served = context.publications.unpublish(&name);
        if found || was_served {
            unpublished.push(name);
        } else {
            missing.push((index, name.to_string()));
        }
    }
    missing.sort_by_key(|(position, _)| *position);
    let failure = |(_, name): (usize, String)| ItemFailure {
        error: format!("{name}: is not published"),
        name,
        code: ExitCode::NotFound,
    };
    let failures = missing.into_iter().map(failure).chain(error.as_ref().map(request_failure)).collect();
    Ok(Withdrawn { unpublished, failures })
}

/// Records to whom names are published that are about to be withdrawn: a watch that publishes them again must not do so for
/// more users. `is_public_kept`: also that some were for all users.
pub(super) fn record_audiences(context: &CommandContext, names: &[FileName], is_public_kept: bool) -> io::Result<()> {
    let Some(user) = context.session.user() else { return Ok(()) };
    let mut by_audience: BTreeMap<Option<Audience>, Vec<FileName>> = BTreeMap::new();
    for name in names {
        if let Some(audience) = context.publications.audience_of(name) {
            let kept = Some(audience).filter(|audience| is_public_kept || *audience != Audience::Everyone);
            by_audience.entry(kept).or_default().push(name.clone());
        }
    }
    let mut recorded = Ok(());
    for (audience, names) in by_audience {
        recorded = recorded.and(context.files.withdrawn().record(&user, names, audience));
    }
    recorded
}

fn matching_names(selector: &Selector, published: &[OwnPublication]) -> Vec<FileName> {
    match selector {
        Selector::Name { name, .. } => {
            let Some(name) = name else { return Vec::new() };
            let named = names_like(name, published);
            // What is not listed may have been published since.
            if named.is_empty() { vec![name.clone()] } else { named }
        }
        Selector::Pattern(pattern, literal) => {
            let names = published.iter().map(|entry| &entry.name);
            let matching: Vec<FileName> = names.filter(|name| pattern.matches(name)).cloned().collect();
            match literal {
                Some(literal) if matching.is_empty() => names_like(literal, published),
                _ => matching,
            }
        }
    }
}

/// This name if it is published, or else those of the same Unicode normal form.
fn names_like(name: &FileName, published: &[OwnPublication]) -> Vec<FileName> {
    let names = published.iter().map(|entry| &entry.name);
    let exact: Vec<FileName> = names.clone().filter(|other| *other == name).cloned().collect();
    if !exact.is_empty() {
        return exact;
    }
    let query = NameQuery::Equivalent(name.clone());
    names.filter(|other| query.matches(other)).cloned().collect()
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
