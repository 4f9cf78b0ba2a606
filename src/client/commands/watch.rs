//! `pub --watch` and `unp --watch`: publishes a folder, and keeps it so in the background.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded, never, select};

use super::background::BackgroundContext;
use super::jobs::CANCEL_TIMEOUT;
use super::publish::{hash, publish_keeping_audiences, request_failure, share_failure};
use super::{CommandContext, Verb};
use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::client::files::{PathArg, ShareError};
use crate::client::jobs::JobKind;
use crate::client::ui::message::{CommandResult, ItemFailure};
use crate::client::watch::{Notification, Notifier, WatchCore, WatchedFolder};
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
    if let Some(other) = context.watches.overlapping(path) {
        let why = format!("{}: {} is watched; 'unp --watch' ends that", shown(path), shown(&other));
        return refuse(why, ExitCode::Usage);
    }
    // Otherwise a name might get another audience than it was published for.
    if !context.publications.is_complete() {
        return refuse("the list of your publications could not be loaded; try again".into(), ExitCode::Unreachable);
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
            if step.withdrawn > 0 {
                let count = step.withdrawn;
                context.output.info(format!("{}: withdrawn, since there is no such file: {count}", shown(path)));
            }
            let started = context.jobs.begin(JobKind::Watch, line, false).map_err(io::Error::other).and_then(|job| {
                let (background, shown) = (BackgroundContext::of(context, &job), Arc::clone(job.job()));
                threads::spawn("watch", move || {
                    watch.run(&background, &woken, &job.cancelled());
                    job.end(ExitCode::Success);
                })?;
                context.watches.add(path, &shown);
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
    if let Some(job) = context.watches.stop(path) {
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

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

/// One watched folder, and what of it is whose.
struct FolderWatch {
    folder: WatchedFolder,
    audience: Audience,
    /// The audiences of names that were published for another one, and are withdrawn.
    kept: BTreeMap<FileName, Audience>,
    core: Arc<Mutex<WatchCore>>,
    notifier: Notifier,
    /// The user was told that a folder cannot be watched.
    is_incomplete: bool,
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
        let mut watch = Self { folder, audience, kept: BTreeMap::new(), core, notifier, is_incomplete: false };
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
            if context.session.user().as_ref() != Some(&user) {
                return self.end(&context);
            }
            let step = self.step(&context, false);
            for failure in &step.failures {
                context.output.error(&failure.error);
            }
            match step.error {
                None => {}
                Some(RequestError::NotAuthenticated) => return self.end(&context),
                Some(error) => context.output.error(format!("{}: {error}", shown(&self.folder.path))),
            }
            if is_cancelled(cancelled) {
                return;
            }
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
        if let Err(error) = self.withdraw(context, &plan.withdraw, &mut step) {
            self.on_error(error, plan.withdraw.iter().chain(&plan.publish), &mut step);
            return step;
        }
        for (at, names) in plan.publish.chunks(FILES_AT_ONCE).enumerate() {
            if context.state.is_cancelled() {
                break;
            }
            if let Err(error) = self.publish(context, names, &mut step) {
                self.on_error(error, &plan.publish[at * FILES_AT_ONCE..], &mut step);
                if step.error.is_some() {
                    break;
                }
            }
        }
        step
    }

    /// What fails for want of a server is tried again.
    fn on_error<'a>(&self, error: RequestError, names: impl IntoIterator<Item = &'a FileName>, step: &mut WatchStep) {
        match error {
            RequestError::Unreachable | RequestError::Busy => lock(&self.core).on_failed(clock(), names),
            _ => {}
        }
        step.error = Some(error);
    }

    fn withdraw(
        &mut self,
        context: &CommandContext,
        names: &[FileName],
        step: &mut WatchStep,
    ) -> Result<(), RequestError> {
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if let Some(audience) = context.publications.audience_of(name).filter(|audience| *audience != self.audience)
            {
                self.kept.insert(name.clone(), audience);
            }
        }
        context.server.unpublish(names)?;
        step.withdrawn += names.iter().filter(|name| context.publications.unpublish(name)).count();
        Ok(())
    }

    fn publish(
        &mut self,
        context: &CommandContext,
        names: &[FileName],
        step: &mut WatchStep,
    ) -> Result<(), RequestError> {
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
        let (fetched, publications) = (context.files.fetched(), &context.publications);
        files.retain(|file| {
            let published = publications.get(&file.name).map(|publication| publication.content);
            let is_published =
                published.is_some_and(|content| (content.hash, content.size) == (file.content.hash, file.content.size));
            if is_published {
                step.published.push(file.name.clone());
            }
            !is_published && !fetched.is_copy(&file.name, &file.content.hash)
        });
        if files.is_empty() {
            return Ok(());
        }
        // They may be hashed for long.
        if context.state.is_cancelled() {
            lock(&self.core).on_failed(clock(), files.iter().map(|file| &file.name));
            return Ok(());
        }
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        let (kept, audience) = (&self.kept, &self.audience);
        publish_keeping_audiences(context, files, |name| kept.get(name).unwrap_or(audience).clone())?;
        names.iter().for_each(|name| drop(self.kept.remove(name)));
        step.published.extend(names);
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "a driver: the core gets its time as an argument")]
fn clock() -> Instant {
    Instant::now()
}
