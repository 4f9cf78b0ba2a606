//! `pub --watch` and `unp --watch`: publishes a folder, and keeps it so in the background.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crossbeam_channel::{Receiver, bounded, never, select};

use super::background::BackgroundContext;
use super::jobs::CANCEL_TIMEOUT;
use super::publish::{hash, publish_keeping_audiences, record_audiences, request_failure, share_failure};
use super::{CommandContext, Verb, clock};
use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::control::{PartialFailure, RequestError};
use crate::client::exit_code::ExitCode;
use crate::client::files::{PathArg, ShareError};
use crate::client::jobs::JobKind;
use crate::client::ui::message::{CommandResult, ItemFailure};
use crate::client::watch::{Notification, Notifier, WatchCore, WatchedFolder, is_beneath};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::{Audience, FileName, UserName};

/// Files that are hashed, and then published, at a time.
const FILES_AT_ONCE: usize = 1_024;

/// `pub --watch`: publishes the folder for these users, or for all, and keeps it so.
pub fn start(context: &CommandContext, to: Vec<UserName>, argument: &PathArg) -> ExitCode {
    let path = folder_path(&argument.text);
    let refuse = |why: String, code| {
        let failure = ItemFailure { name: argument.text.clone(), error: why, code };
        let status = context.report_failures(std::slice::from_ref(&failure));
        context.output.result(CommandResult::published(&[], vec![failure]));
        status
    };
    let line = to.iter().fold("pub --watch".to_owned(), |line, user| format!("{line} --to {user}"));
    let line = format!("{line} {}", argument.text);
    let audience = if to.is_empty() { Audience::Everyone } else { Audience::only(to) };
    if let Some(other) = context.watches.keys().into_iter().find(|other| overlaps(path, other)) {
        let why = format!("{}: {} is watched; 'unp --watch {}' ends that", shown(path), shown(&other), shown(&other));
        return refuse(why, ExitCode::Usage);
    }
    // Otherwise a name might get another audience than it was published for.
    if !context.publications.is_complete() {
        return refuse("the list of your publications could not be loaded; try again".into(), ExitCode::Unreachable);
    }
    // Otherwise what was fetched might be published, or a name for others than before.
    if let Some(why) = context.files.fetched().trouble().or_else(|| context.files.withdrawn().trouble()) {
        let why = format!("{}: cannot be watched, since what belongs to it cannot be recorded: {why}", shown(path));
        return refuse(why, ExitCode::LocalFile);
    }
    let folder = match WatchedFolder::open(context.files.dir(), path) {
        Ok(folder) => folder,
        Err(error) => return refuse(error.to_string(), (&error).into()),
    };
    let (mut watch, woken) = match FolderWatch::open(context, folder, audience) {
        Ok(watch) => watch,
        Err(why) => return refuse(format!("{}: cannot be watched: {why}", shown(path)), ExitCode::Internal),
    };
    let mut step = watch.step(context, true);
    match step.error {
        Some(RequestError::NotAuthenticated) => return context.not_authenticated(Verb::Pub),
        Some(error) => step.failures.push(request_failure(&error)),
        None if context.state.is_cancelled() => step.failures.push(share_failure("", &ShareError::Interrupted)),
        None => {
            watch.tell_trouble(context, step.trouble.take());
            if step.withdrawn > 0 {
                let count = step.withdrawn;
                context.output.info(format!("{}: withdrawn, since there is no such file: {count}", shown(path)));
            }
            let owner = context.state.job_owner();
            let started =
                context.jobs.begin(JobKind::Watch, line, owner, false).map_err(io::Error::other).and_then(|job| {
                    let (background, shown) = (BackgroundContext::of(context, &job), Arc::clone(job.job()));
                    threads::spawn("watch", move || {
                        watch.run(&background, &woken, &job.cancelled());
                        job.end(ExitCode::Success);
                    })?;
                    context.watches.replace(|other| other == path, path.to_owned(), &shown);
                    Ok(())
                });
            match started {
                Ok(()) => {
                    let until = "watched until 'unp --watch' or the end of the client";
                    context.output.info(format!("{}: {until}", shown(path)));
                }
                Err(error) => {
                    let (name, code) = (argument.text.clone(), ExitCode::Internal);
                    step.failures.push(ItemFailure { name, error: error.to_string(), code });
                }
            }
        }
    }
    let status = context.report_failures(&step.failures);
    context.output.result(CommandResult::published(&step.published, step.failures));
    status
}

/// `unp --watch`: what is published stays. Returns when the watch has ended, unless that takes long.
pub fn stop(context: &CommandContext, argument: &PathArg) -> ExitCode {
    let path = folder_path(&argument.text);
    let mut failures = Vec::new();
    if let [job] = &*context.watches.stop(|other| other == path) {
        job.wait(Some(CANCEL_TIMEOUT), &context.state.cancelled());
        context.output.info(format!("{}: no longer watched; what is published stays", shown(path)));
    } else {
        let error = format!("{}: is not watched", shown(path));
        failures.push(ItemFailure { name: argument.text.clone(), error, code: ExitCode::NotFound });
    }
    let status = context.report_failures(&failures);
    context.output.result(CommandResult::unpublished(&[], failures));
    status
}

/// The argument as a path relative to the shared folder, which is the empty path.
fn folder_path(text: &str) -> &str {
    match text.trim_end_matches('/') {
        "." => "",
        path => path,
    }
}

/// Whether one of these folders is in the other.
fn overlaps(path: &str, other: &str) -> bool {
    path != other && (is_beneath(path, other) || is_beneath(other, path))
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

/// One watched folder, and what of it is whose.
struct FolderWatch {
    folder: WatchedFolder,
    audience: Audience,
    core: Arc<Mutex<WatchCore>>,
    notifier: Notifier,
    /// The user was told that a folder cannot be watched.
    is_incomplete: bool,
    /// The user was told this, and it goes on.
    trouble: Option<String>,
}

/// What one look at the folder has led to.
#[derive(Default)]
struct WatchStep {
    /// Files that are published, also those that were before.
    published: Vec<FileName>,
    withdrawn: usize,
    failures: Vec<ItemFailure>,
    /// The server does not do what it is asked for.
    error: Option<RequestError>,
    /// Why something else cannot be done now.
    trouble: Option<String>,
}

impl FolderWatch {
    /// Also returns what receives when the core has something to do earlier than before.
    fn open(
        context: &CommandContext,
        folder: WatchedFolder,
        audience: Audience,
    ) -> Result<(Self, Receiver<()>), String> {
        let core = Arc::new(Mutex::new(WatchCore::new(&folder.path, clock())));
        let ((wake, woken), events) = (bounded(1), Arc::clone(&core));
        let on_event = move |notification: Notification<'_>| {
            let mut core = lock(&events);
            let before = core.poll_timeout();
            match notification {
                Notification::Path(path, event) => core.on_event(clock(), path, event),
                Notification::Lost => core.on_lost(clock()),
            }
            if core.poll_timeout().is_some_and(|due| before.is_none_or(|before| due < before)) {
                let _ = wake.try_send(());
            }
        };
        let notifier = Notifier::start(context.files.path(), &folder.path, on_event)?;
        let mut watch = Self { folder, audience, core, notifier, is_incomplete: false, trouble: None };
        watch.notifier.watch(&watch.folder.path)?;
        if !watch.folder.is_at(&context.files.path().join(&watch.folder.path)) {
            return Err("another folder has its name".into());
        }
        Ok((watch, woken))
    }

    /// Until it is cancelled, or the user has logged out.
    fn run(mut self, background: &BackgroundContext, woken: &Receiver<()>, cancelled: &Cancelled) {
        let Some(user) = background.upgrade().and_then(|context| context.session.user()) else { return };
        loop {
            let due = lock(&self.core).poll_timeout();
            let timeout = due.map_or_else(never, crossbeam_channel::at);
            select! {
                recv(cancelled) -> _ => return,
                recv(woken) -> _ => continue,
                recv(timeout) -> _ => {}
            }
            let Some(context) = background.upgrade() else { return };
            let is_logged_in = context.session.user().as_ref() == Some(&user);
            // The end of the client cancels all before it logs out, and whatever wakes a thread may come first.
            if is_cancelled(cancelled) {
                return;
            }
            if !is_logged_in {
                return self.end(&context);
            }
            let step = self.step(&context, false);
            for failure in &step.failures {
                context.output.error(&failure.error);
            }
            if is_cancelled(cancelled) {
                return;
            }
            if step.error == Some(RequestError::NotAuthenticated) {
                return self.end(&context);
            }
            self.tell_trouble(&context, step.error.map(|error| error.to_string()).or(step.trouble));
        }
    }

    /// Once, until all is well again.
    fn tell_trouble(&mut self, context: &CommandContext, trouble: Option<String>) {
        match trouble {
            Some(why) if self.trouble.as_ref() != Some(&why) => {
                context.output.error(format!("{}: {why}; tried again later", shown(&self.folder.path)));
                self.trouble = Some(why);
            }
            Some(_) => {}
            None if lock(&self.core).has_failed() => {}
            None => self.trouble = None,
        }
    }

    fn end(&self, context: &CommandContext) {
        context.output.info(format!("{}: no longer watched, since you are logged out", shown(&self.folder.path)));
    }

    /// Examines what is due, and does what follows. `is_first`: names that cannot be published are reported.
    fn step(&mut self, context: &CommandContext, is_first: bool) -> WatchStep {
        let mut step = WatchStep::default();
        let due = lock(&self.core).poll(clock());
        if due.is_empty() {
            return step;
        }
        // Otherwise a name might get another audience than it was published for.
        if !context.publications.is_complete() {
            lock(&self.core).put_back(clock(), due);
            step.trouble = Some("the list of your publications is not loaded".into());
            return step;
        }
        let mut unwatched = None;
        let survey = self.folder.survey(
            context.files.dir(),
            &due,
            &|path| context.publications.names_beneath(path),
            &mut |path| {
                if let Err(why) = self.notifier.watch(path) {
                    unwatched.get_or_insert(format!("{}: changes in it are not noticed: {why}", shown(path)));
                }
            },
        );
        if let Some(why) = unwatched.filter(|_| !std::mem::replace(&mut self.is_incomplete, true)) {
            context.output.error(why);
        }
        if is_first {
            step.failures.extend(survey.invalid.iter().map(|error| share_failure("", error)));
        }
        let plan = lock(&self.core).on_survey(clock(), &due, survey);
        if let Some(note) = plan.note {
            context.output.error(note);
        }
        self.withdraw(context, plan.withdraw, &mut step);
        // A quota keeps no file from being replaced.
        let is_known = |name: &FileName| context.publications.get(name).is_some_and(|known| known.has_place());
        let (known, new): (Vec<FileName>, Vec<FileName>) = plan.publish.into_iter().partition(is_known);
        for names in [known, new] {
            for (at, chunk) in names.chunks(FILES_AT_ONCE).enumerate() {
                if is_final(step.error.as_ref()) || context.state.is_cancelled() {
                    lock(&self.core).on_failed(clock(), chunk);
                } else if let Err(error) = self.publish(context, chunk, &mut step) {
                    self.on_error(error, &names[at * FILES_AT_ONCE..], &mut step);
                    if !is_final(step.error.as_ref()) {
                        break;
                    }
                }
            }
        }
        step
    }

    /// What fails is tried again.
    fn on_error(&self, error: RequestError, names: &[FileName], step: &mut WatchStep) {
        let mut core = lock(&self.core);
        match error {
            RequestError::Unreachable | RequestError::Busy => core.on_failed(clock(), names),
            _ => core.on_refused(clock(), names),
        }
        step.error = Some(error);
    }

    fn withdraw(&self, context: &CommandContext, names: Vec<FileName>, step: &mut WatchStep) {
        if names.is_empty() {
            return;
        }
        if let Err(error) = record_audiences(context, &names, self.audience != Audience::Everyone) {
            lock(&self.core).on_refused(clock(), &names);
            step.trouble = Some(format!("nothing is withdrawn, since it cannot be recorded: {error}"));
            return;
        }
        match context.server.unpublish(&names) {
            Ok(_) => step.withdrawn += names.iter().filter(|name| context.publications.unpublish(name)).count(),
            Err(PartialFailure { error, .. }) => self.on_error(error, &names, step),
        }
    }

    fn publish(&self, context: &CommandContext, names: &[FileName], step: &mut WatchStep) -> Result<(), RequestError> {
        let mut unread = Vec::new();
        let mut files = hash(context, names, &mut unread);
        for (name, error) in unread {
            match error {
                ShareError::Changed(_) | ShareError::Interrupted => lock(&self.core).on_failed(clock(), [&name]),
                // It has vanished: its own event comes.
                ShareError::Missing(_) | ShareError::Special(_) => {}
                error => step.failures.push(share_failure(name.as_str(), &error)),
            }
        }
        let mut copies = Vec::new();
        let (fetched, publications) = (context.files.fetched(), &context.publications);
        files.retain(|file| {
            let is_published = publications.get(&file.name).is_some_and(|publication| {
                let (published, found) = (&publication.content, &file.content);
                (published.hash, published.size) == (found.hash, found.size) && publication.is_accepted.load(Relaxed)
            });
            if is_published {
                step.published.push(file.name.clone());
                return false;
            }
            let is_copy = fetched.is_copy(&file.name, &file.content.hash);
            if is_copy && fetched.candidates(&file.name).is_empty() {
                copies.push(file.name.clone());
            }
            !is_copy
        });
        note_copies(context, &copies);
        if files.is_empty() {
            return Ok(());
        }
        // They may be hashed for long.
        if context.state.is_cancelled() {
            lock(&self.core).on_failed(clock(), files.iter().map(|file| &file.name));
            return Ok(());
        }
        let Some(user) = context.session.user() else { return Err(RequestError::NotAuthenticated) };
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        let before = |name: &FileName| context.files.withdrawn().get(&user, name);
        publish_keeping_audiences(context, files, |name| before(name).unwrap_or_else(|| self.audience.clone()))?;
        step.published.extend(names);
        Ok(())
    }
}

/// Files that were not fetched under their names, but have contents that were.
fn note_copies(context: &CommandContext, copies: &[FileName]) {
    let what = match copies {
        [] => return,
        [copy] => copy.to_string(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    context.output.info(format!("{what}: not published, since this was fetched before; 'pub' publishes it"));
}

/// Whether the server does nothing else now either.
fn is_final(error: Option<&RequestError>) -> bool {
    matches!(error, Some(RequestError::Unreachable | RequestError::Busy | RequestError::NotAuthenticated))
}
