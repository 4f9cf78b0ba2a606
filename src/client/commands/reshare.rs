//! `get --share`: what is fetched is published under the same name, hash and audience, so that a popular file gains a
//! source with every download.
//!
//! A large file is published as soon as its outline is verified: the chunk groups that have arrived are served while the
//! rest still comes. Should it never get whole, it is withdrawn again (but by a client that is killed: nothing at the next
//! login tells such a publication from one that the user made). That must never touch what the user publishes
//! otherwise: a file whose name is taken, in the folder or among the publications, waits until it is whole, and so do all
//! with `rename`. Small files are published together at the end.
//!
//! The server is asked on threads of their own: one that is away holds up neither the downloads nor a user who wants to
//! stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use super::{CommandContext, CommandState};
use crate::client::control::PublishAudience;
use crate::client::control::RequestError;
use crate::client::download::{DownloadItem, IncompleteFile, OnExists};
use crate::client::exit_code::ExitCode;
use crate::client::publications::{LoadingGuard, OwnPublications};
use crate::client::services::Services;
use crate::common::types::{Audience, FileName, NamedContent};

/// After a cancellation a reply of the server is awaited for this long: a server that is reachable has replied by then.
const GRACE_AFTER_CANCEL: Duration = Duration::from_millis(400);

/// What of one `get --share` has been published so far.
pub(super) struct Reshare<'a> {
    context: &'a CommandContext,
    wanted: &'a [DownloadItem],
    /// To the thread that publishes.
    announced: Sender<NamedContent>,
    arriving: Mutex<BTreeMap<usize, Arc<IncompleteFile>>>,
    early: Arc<Mutex<EarlyPublications>>,
    /// Closed when nothing more is published early.
    publishing: Receiver<()>,
}

/// What was published while it arrived.
#[derive(Default)]
struct EarlyPublications {
    /// The user published none of these before; the server may have taken any of them.
    tried: BTreeSet<FileName>,
    /// The server has, and they are served.
    done: BTreeSet<FileName>,
    /// Nothing more is to be tried.
    over: bool,
}

impl<'a> Reshare<'a> {
    /// Ready for the first file to arrive.
    pub fn new(context: &'a CommandContext, wanted: &'a [DownloadItem]) -> Self {
        let (announced, receiver) = unbounded();
        let early = Arc::<Mutex<EarlyPublications>>::default();
        let (publisher, shared) = (Publisher::of(context), early.clone());
        let publishing = spawn_task(move || publisher.publish_early(&receiver, &shared));
        Self { context, wanted, announced, arriving: Mutex::default(), early, publishing }
    }

    /// A file of several groups begins to arrive.
    pub fn arriving(&self, index: usize, arriving: &Arc<IncompleteFile>) {
        let (folder, name) = (&self.context.services.folder, &self.wanted[index].name);
        lock(&self.arriving).insert(index, arriving.clone());
        if self.context.downloads.on_exists == OnExists::Rename || folder.exists(name) {
            return;
        }
        folder.serve_incomplete(name, arriving);
        // Nobody listens any more when the server is away: it is published when it is whole.
        let _ = self.announced.send(published_file(&self.wanted[index]));
    }

    /// The file is done with: `saved` if it lies whole under its own name. Lets go of it, so that only what is under way
    /// is held open.
    pub fn finished(&self, index: usize, saved: bool) {
        let Some(arriving) = lock(&self.arriving).remove(&index) else { return };
        let (folder, name) = (&self.context.services.folder, &self.wanted[index].name);
        if saved { folder.register_downloaded(name, &arriving) } else { folder.drop_incomplete(name) }
    }

    /// The fetch is over. Publishes whatever of `saved` (indices of what lies whole under its own name) is not yet, and
    /// takes back what was published too early.
    pub fn finish(self, saved: &BTreeSet<usize>) -> ExitCode {
        let Self { context, wanted, announced, early, publishing, .. } = self;
        drop(announced);
        let _ = recv_unless_cancelled(&context.state, &publishing);
        let EarlyPublications { tried, done, .. } =
            std::mem::replace(&mut *lock(&early), EarlyPublications { over: true, ..EarlyPublications::default() });
        let saved: BTreeMap<&FileName, &DownloadItem> =
            saved.iter().map(|&index| (&wanted[index].name, &wanted[index])).collect();
        let broken: Vec<FileName> = tried.into_iter().filter(|name| !saved.contains_key(name)).collect();
        let rest: Vec<NamedContent> = saved
            .into_iter()
            .filter(|(name, _)| !done.contains(*name))
            .map(|(_, wanted)| published_file(wanted))
            .collect();
        if broken.is_empty() && rest.is_empty() {
            return ExitCode::Success;
        }
        let publisher = Publisher::of(context);
        let settling = spawn_task(move || (publisher.unpublish(&broken), publisher.publish(&rest)));
        let Some((taken_back, published)) = recv_unless_cancelled(&context.state, &settling) else {
            context.console.error("interrupted before the server knew what is shared now");
            return ExitCode::Interrupted;
        };
        if let Err(error) = taken_back {
            context.console.error(format!("not whole, but still published: {error}"));
        }
        match published {
            Ok(()) => ExitCode::Success,
            Err(error) => {
                context.console.error(format!("downloaded, but not published: {error}"));
                (&error).into()
            }
        }
    }
}

fn published_file(wanted: &DownloadItem) -> NamedContent {
    NamedContent { name: wanted.name.clone(), content: wanted.content }
}

/// What a thread needs to publish.
struct Publisher {
    services: Services,
    own: Arc<OwnPublications>,
    state: Arc<CommandState>,
}

impl Publisher {
    fn of(context: &CommandContext) -> Self {
        Self { services: context.services.clone(), own: context.own.clone(), state: context.state.clone() }
    }

    /// Publishes what begins to arrive, all there is at a time. What fails here is tried again, and told, when it is
    /// whole; a server that is away is not waited for again until then.
    fn publish_early(&self, announced: &Receiver<NamedContent>, early: &Mutex<EarlyPublications>) {
        while let Ok(first) = announced.recv() {
            let batch = [first].into_iter().chain(announced.try_iter());
            let mut batch: Vec<NamedContent> = batch.filter(|file| self.own.is_known_absent(&file.name)).collect();
            {
                let mut early = lock(early);
                if early.over || self.state.is_cancelled() {
                    return;
                }
                batch.retain(|file| early.tried.insert(file.name.clone()));
            }
            match self.publish(&batch) {
                Ok(()) => lock(early).done.extend(batch.into_iter().map(|file| file.name)),
                Err(RequestError::Unreachable | RequestError::NotAuthenticated) => return,
                Err(_) => {}
            }
        }
    }

    /// Publishes to whoever may see what it was fetched from, and serves it.
    fn publish(&self, files: &[NamedContent]) -> Result<(), RequestError> {
        if files.is_empty() {
            return Ok(());
        }
        let catalogue = &self.services.catalogue;
        let _listing = LoadingGuard::begin(&self.services.folder);
        catalogue.publish(files, &PublishAudience::Inherited)?;
        // The folder checks the audiences once more at every upload.
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        for (file, users) in files.iter().zip(catalogue.audiences_of(&names)?) {
            let audience = match users {
                None => continue,
                // An inherited one has at least its owner in it.
                Some(users) if users.is_empty() => Audience::Everyone,
                Some(users) => Audience::only(users),
            };
            self.own.publish(&*self.services.folder, &file.name, file.content, audience);
        }
        Ok(())
    }

    /// These never got whole: nobody is to be sent here for them.
    fn unpublish(&self, names: &[FileName]) -> Result<(), RequestError> {
        if names.is_empty() {
            return Ok(());
        }
        names.iter().for_each(|name| self.own.withdraw(&*self.services.folder, name));
        self.services.catalogue.unpublish(names).map(drop)
    }
}

/// Works on a thread of its own, which is not waited for: the result comes by the receiver.
fn spawn_task<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = bounded(1);
    thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver
}

/// Waits for the result, but not much longer than the user wants to.
fn recv_unless_cancelled<T>(state: &CommandState, result: &Receiver<T>) -> Option<T> {
    select! {
        recv(result) -> result => result.ok(),
        recv(state.cancelled()) -> _ => result.recv_timeout(GRACE_AFTER_CANCEL).ok(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
