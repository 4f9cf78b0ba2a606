//! `get --share`: publishes what was downloaded under the same name, hash and audience, so that a popular file gains a
//! source with every download.
//!
//! A file of several chunk groups is published as soon as its group hashes are verified: the groups that have arrived are
//! served while the rest is being downloaded. If the download fails, the publication is withdrawn; a client that is killed
//! cannot do that, and at the next login such a publication looks like one that the user made. A publication of the user's
//! own is never touched: a file whose name exists in the folder or among the publications, and every file with `rename`,
//! is published only when it is complete. Small files are published together at the end.
//!
//! Requests are sent from background threads: an unreachable server delays neither the downloads nor a cancellation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select, unbounded};

use super::CommandContext;
use crate::client::cancel::Cancelled;
use crate::client::control::{PublishAudience, RequestError, ServerApi};
use crate::client::download::{IncompleteFile, OnExists};
use crate::client::exit_code::ExitCode;
use crate::client::publications::{LoadingGuard, OwnPublications};
use crate::common::sync::lock;
use crate::common::types::{Audience, FileName, NamedContent};

/// How long a cancelled command still waits for a reply: a server that is reachable has replied by then.
const GRACE_AFTER_CANCEL: Duration = Duration::from_millis(400);

/// The publications of one `get --share`.
pub(super) struct Reshare<'a> {
    context: &'a CommandContext,
    items: &'a [NamedContent],
    /// To the thread that publishes incomplete files.
    to_publish: Sender<NamedContent>,
    incomplete: Mutex<BTreeMap<usize, Arc<IncompleteFile>>>,
    early: Arc<Mutex<EarlyPublications>>,
    /// Receives when that thread has ended.
    early_done: Receiver<()>,
}

/// Files that were published while incomplete.
#[derive(Default)]
struct EarlyPublications {
    /// Were not published before; the server may have accepted any of them.
    attempted: BTreeSet<FileName>,
    /// The server has accepted them, and they are served.
    published: BTreeSet<FileName>,
    /// No further attempts.
    is_closed: bool,
}

impl<'a> Reshare<'a> {
    pub fn new(context: &'a CommandContext, items: &'a [NamedContent]) -> Self {
        let (to_publish, files) = unbounded();
        let early = Arc::<Mutex<EarlyPublications>>::default();
        let (publisher, shared) = (Publisher::of(context), early.clone());
        let early_done = spawn_task(move || publisher.publish_early(&files, &shared));
        Self { context, items, to_publish, incomplete: Mutex::default(), early, early_done }
    }

    /// A file of several chunk groups is being downloaded.
    pub fn started(&self, index: usize, incomplete: &Arc<IncompleteFile>) {
        let (uploads, item) = (&self.context.uploads, &self.items[index]);
        lock(&self.incomplete).insert(index, incomplete.clone());
        if self.context.download_options.on_exists == OnExists::Rename || self.context.files.exists(&item.name) {
            return;
        }
        uploads.serve_incomplete(&item.name, incomplete);
        // Fails if the server is unreachable: the file is published when it is complete.
        let _ = self.to_publish.send(item.clone());
    }

    /// The download has ended; `is_saved` if the file is complete and has its own name. Releases the file, so that only
    /// those being downloaded are held open.
    pub fn ended(&self, index: usize, is_saved: bool) {
        let Some(incomplete) = lock(&self.incomplete).remove(&index) else { return };
        let (uploads, name) = (&self.context.uploads, &self.items[index].name);
        if is_saved {
            uploads.register_downloaded(name, &incomplete);
        } else {
            uploads.drop_incomplete(name);
        }
    }

    /// All downloads have ended. Publishes those of `saved` (indices of complete files under their own names) that are not
    /// published yet, and withdraws incomplete files.
    pub fn finish(self, saved: &BTreeSet<usize>) -> ExitCode {
        let Self { context, items, to_publish, early, early_done, .. } = self;
        drop(to_publish);
        let cancelled = context.state.cancelled();
        recv_unless_cancelled(&cancelled, &early_done);
        let closed = EarlyPublications { is_closed: true, ..EarlyPublications::default() };
        let EarlyPublications { attempted, published, .. } = std::mem::replace(&mut *lock(&early), closed);
        let saved: BTreeMap<&FileName, &NamedContent> =
            saved.iter().map(|&index| (&items[index].name, &items[index])).collect();
        let broken: Vec<FileName> = attempted.into_iter().filter(|name| !saved.contains_key(name)).collect();
        let rest: Vec<NamedContent> =
            saved.into_iter().filter(|(name, _)| !published.contains(*name)).map(|(_, item)| item.clone()).collect();
        if broken.is_empty() && rest.is_empty() {
            return ExitCode::Success;
        }
        let publisher = Publisher::of(context);
        let task = spawn_task(move || (publisher.unpublish(&broken), publisher.publish(&rest)));
        let Some((unpublished, published)) = recv_unless_cancelled(&cancelled, &task) else {
            context.console.error("interrupted; the publication state at the server is unknown");
            return ExitCode::Interrupted;
        };
        if let Err(error) = unpublished {
            context.console.error(format!("file incomplete but still published: {error}"));
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

/// What a background thread needs to publish.
struct Publisher {
    server: ServerApi,
    publications: Arc<OwnPublications>,
    cancelled: Cancelled,
}

impl Publisher {
    fn of(context: &CommandContext) -> Self {
        Self {
            server: context.server.clone(),
            publications: context.publications.clone(),
            cancelled: context.state.cancelled(),
        }
    }

    /// Publishes incomplete files, all that wait at a time. A failure is not reported here: the file is published again
    /// when it is complete. Ends when the server is unreachable.
    fn publish_early(&self, files: &Receiver<NamedContent>, early: &Mutex<EarlyPublications>) {
        while let Ok(first) = files.recv() {
            let batch = [first].into_iter().chain(files.try_iter());
            let mut batch: Vec<NamedContent> =
                batch.filter(|file| self.publications.is_known_absent(&file.name)).collect();
            {
                let mut early = lock(early);
                if early.is_closed || self.cancelled.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
                batch.retain(|file| early.attempted.insert(file.name.clone()));
            }
            match self.publish(&batch) {
                Ok(()) => lock(early).published.extend(batch.into_iter().map(|file| file.name)),
                Err(RequestError::Unreachable | RequestError::NotAuthenticated) => return,
                Err(_) => {}
            }
        }
    }

    /// Publishes with the audiences of the publications that the files were downloaded from, and serves the files.
    fn publish(&self, files: &[NamedContent]) -> Result<(), RequestError> {
        if files.is_empty() {
            return Ok(());
        }
        let _loading = LoadingGuard::begin(&self.publications);
        self.server.publish(files, &PublishAudience::Inherited)?;
        // Every upload checks the audience again, so the upload service must know it.
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        for (file, users) in files.iter().zip(self.server.audiences_of(&names)?) {
            let audience = match users {
                None => continue,
                // An inherited audience contains at least the owner: an empty one means all users.
                Some(users) if users.is_empty() => Audience::Everyone,
                Some(users) => Audience::only(users),
            };
            self.publications.publish(&file.name, file.content, audience);
        }
        Ok(())
    }

    fn unpublish(&self, names: &[FileName]) -> Result<(), RequestError> {
        if names.is_empty() {
            return Ok(());
        }
        names.iter().for_each(|name| self.publications.unpublish(name));
        self.server.unpublish(names).map(drop)
    }
}

/// Runs `task` on a detached thread; the receiver gets its result.
fn spawn_task<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = bounded(1);
    thread::spawn(move || {
        let _ = sender.send(task());
    });
    receiver
}

/// Waits for the result, after a cancellation for at most [`GRACE_AFTER_CANCEL`].
fn recv_unless_cancelled<T>(cancelled: &Cancelled, result: &Receiver<T>) -> Option<T> {
    select! {
        recv(result) -> result => result.ok(),
        recv(cancelled) -> _ => result.recv_timeout(GRACE_AFTER_CANCEL).ok(),
    }
}
