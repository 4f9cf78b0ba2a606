//! `get --share`: publishes what was downloaded under the same name, hash and audience, so that a popular file gains a
//! source with every download.
//!
//! The audience is inherited from the owners, the users whose sources delivered what was verified: who may see a copy may
//! see the file at each of them. A source that delivered nothing does not count, so that nobody opens a file of which they
//! know the hash alone. A file whose owners are not known is not published: one that was there already, or of which an
//! earlier download has left a part.
//!
//! A file of several chunk groups is published as soon as a group has arrived: the groups of the owners named to the server
//! are served while the rest is being downloaded, and it is published again for each further owner. If the download fails,
//! the publication is withdrawn; a client that is killed cannot do that, and at the next login such a publication looks
//! like one that the user made. A publication of the user's own is never touched: a file whose name exists in the folder or
//! among the publications, and every file with `rename`, is published only when it is complete. Small files are published
//! together at the end.
//!
//! Requests are sent from background threads: an unreachable server delays neither the downloads nor a cancellation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select, unbounded};

use super::CommandContext;
use crate::client::cancel::Cancelled;
use crate::client::control::{RequestError, ServerApi};
use crate::client::download::{IncompleteFile, OnExists};
use crate::client::exit_code::ExitCode;
use crate::client::files::SharedFiles;
use crate::client::publications::{LoadingGuard, OwnPublications};
use crate::common::limits::INHERITED_OWNERS_MAX_BYTES;
use crate::common::message::encoded_len;
use crate::common::sync::{lock, unpoison};
use crate::common::threads;
use crate::common::types::{Audience, FileName, NamedContent, UserName};

/// How long a cancelled command still waits for a reply: a server that is reachable has replied by then.
const GRACE_AFTER_CANCEL: Duration = Duration::from_millis(400);

/// The publications of one `get --share`.
pub(super) struct Reshare<'a> {
    context: &'a CommandContext,
    items: &'a [NamedContent],
    /// To the thread that publishes incomplete files.
    to_publish: Sender<EarlyCopy>,
    copies: Mutex<BTreeMap<usize, Copy>>,
    early: Arc<Mutex<EarlyPublications>>,
    /// Receives when that thread has ended.
    early_done: Receiver<()>,
}

/// One file that is being downloaded, or was.
#[derive(Default)]
struct Copy {
    /// The users who have delivered something of it, sorted.
    owners: BTreeSet<UserName>,
    /// It holds groups of other owners.
    has_unknown_owner: bool,
    /// A file of several chunk groups, while it is being downloaded.
    incomplete: Option<Arc<IncompleteFile>>,
    is_early: bool,
}

impl Copy {
    /// The owners to name to the server, if all are known and can be named.
    fn known_owners(&self) -> Option<Vec<UserName>> {
        let owners: Vec<UserName> = self.owners.iter().cloned().collect();
        let fits = !owners.is_empty() && encoded_len(&owners) <= INHERITED_OWNERS_MAX_BYTES;
        (fits && !self.has_unknown_owner).then_some(owners)
    }
}

/// An incomplete file to publish.
struct EarlyCopy {
    file: NamedContent,
    owners: Vec<UserName>,
    incomplete: Weak<IncompleteFile>,
}

/// Files that were published while incomplete.
#[derive(Default)]
struct EarlyPublications {
    /// Were not published before; the server may have accepted any of them.
    attempted: BTreeSet<FileName>,
    /// The server has accepted them with these owners, and they are served.
    published: BTreeMap<FileName, Vec<UserName>>,
    /// Their downloads have ended, with these owners if all are known.
    ended: BTreeMap<FileName, Option<Vec<UserName>>>,
    /// No further attempts.
    is_closed: bool,
}

impl EarlyPublications {
    /// Whether these may be all owners of what the file holds.
    fn may_name(&self, name: &FileName, owners: &Vec<UserName>) -> bool {
        self.ended.get(name).is_none_or(|all| all.as_ref() == Some(owners))
    }
}

impl<'a> Reshare<'a> {
    pub fn new(context: &'a CommandContext, items: &'a [NamedContent]) -> Self {
        let (to_publish, files) = unbounded();
        let early = Arc::<Mutex<EarlyPublications>>::default();
        let (publisher, shared) = (Publisher::of(context), early.clone());
        let (done, early_done) = bounded(1);
        let publish = move || {
            publisher.publish_early(&files, &shared);
            let _ = done.send(());
        };
        // Without a thread every file is published when it is complete.
        let _ = threads::spawn("share", publish);
        Self { context, items, to_publish, copies: Mutex::default(), early, early_done }
    }

    /// A file of several chunk groups is being downloaded.
    pub fn started(&self, index: usize, incomplete: &Arc<IncompleteFile>) {
        let (uploads, name) = (&self.context.uploads, &self.items[index].name);
        let is_early = self.context.download_options.on_exists != OnExists::Rename && !self.context.files.exists(name);
        if is_early {
            uploads.serve_incomplete(name, incomplete);
        }
        let copy = Copy { incomplete: Some(incomplete.clone()), is_early, ..Copy::default() };
        lock(&self.copies).insert(index, copy);
    }

    /// The user has delivered something of the file that was verified.
    pub fn delivered(&self, index: usize, owner: &UserName) {
        let mut copies = lock(&self.copies);
        let copy = copies.entry(index).or_default();
        copy.owners.insert(owner.clone());
        if let (Some(incomplete), Some(owners), true) = (&copy.incomplete, copy.known_owners(), copy.is_early) {
            let (file, incomplete) = (self.items[index].clone(), Arc::downgrade(incomplete));
            // Fails if the server is unreachable: the file is published when it is complete.
            let _ = self.to_publish.send(EarlyCopy { file, owners, incomplete });
        }
    }

    /// The download has ended; `is_saved` if the file is complete and has its own name. Releases the file, so that only
    /// those being downloaded are held open.
    pub fn ended(&self, index: usize, is_saved: bool) {
        let mut copies = lock(&self.copies);
        let Some(copy) = copies.get_mut(&index) else { return };
        let Some(incomplete) = copy.incomplete.take() else { return };
        copy.has_unknown_owner = incomplete.has_groups_of_unknown_owner();
        let (uploads, name) = (&self.context.uploads, &self.items[index].name);
        {
            let (owners, mut early) = (copy.known_owners(), lock(&self.early));
            // A complete file is served whole: not to an audience that was inherited from some of its owners only.
            if early.published.get(name) != owners.as_ref() && early.published.remove(name).is_some() {
                self.context.publications.unpublish(name);
            }
            early.ended.insert(name.clone(), owners);
        }
        if is_saved {
            uploads.register_downloaded(name, &incomplete);
        } else {
            uploads.drop_incomplete(name);
        }
    }

    /// All downloads have ended. Publishes those of `saved` (indices of complete files under their own names) that are not
    /// published yet, and withdraws incomplete files.
    pub fn finish(self, saved: &BTreeSet<usize>) -> ExitCode {
        let Self { context, items, to_publish, copies, early, early_done } = self;
        drop(to_publish);
        let cancelled = context.state.cancelled();
        recv_unless_cancelled(&cancelled, &early_done);
        let closed = EarlyPublications { is_closed: true, ..EarlyPublications::default() };
        let EarlyPublications { attempted, published, .. } = std::mem::replace(&mut *lock(&early), closed);
        let (mut copies, mut owned) = (unpoison(copies.into_inner()), BTreeMap::new());
        let mut ownerless: Vec<&FileName> = Vec::new();
        for index in saved {
            match copies.remove(index).and_then(|copy| copy.known_owners()) {
                Some(owners) => drop(owned.insert(&items[*index].name, (&items[*index], owners))),
                None => ownerless.push(&items[*index].name),
            }
        }
        note_ownerless(context, &ownerless);
        let mut rest: BTreeMap<Vec<UserName>, Vec<NamedContent>> = BTreeMap::new();
        let (attempted, mut broken): (BTreeSet<FileName>, BTreeSet<FileName>) =
            attempted.into_iter().partition(|name| owned.contains_key(name));
        for (name, (item, owners)) in owned {
            if published.get(name) != Some(&owners) {
                rest.entry(owners).or_default().push(item.clone());
            }
        }
        if broken.is_empty() && rest.is_empty() {
            return ExitCode::Success;
        }
        let publisher = Publisher::of(context);
        let task = spawn_task(move || {
            let (refused, published) = publisher.publish_all(&rest);
            // It may still be published with the audience of fewer owners.
            broken.extend(refused.into_iter().filter(|name| attempted.contains(name)));
            (publisher.unpublish(broken), published)
        });
        let Some((unpublished, published)) = recv_unless_cancelled(&cancelled, &task) else {
            context.output.error("interrupted; the publication state at the server is unknown");
            return ExitCode::Interrupted;
        };
        if let Err(error) = unpublished {
            context.output.error(format!("file incomplete but still published: {error}"));
        }
        match published {
            Ok(()) => ExitCode::Success,
            Err(error) => {
                context.output.error(format!("downloaded, but not published: {error}"));
                (&error).into()
            }
        }
    }
}

fn note_ownerless(context: &CommandContext, names: &[&FileName]) {
    let what = match names {
        [] => return,
        [name] => format!("{name}: not shared"),
        names => format!("{} files not shared", names.len()),
    };
    let reason = "not all of it was downloaded now from users who share it; 'pub' publishes it";
    context.output.info(format!("{what}: {reason}"));
}

/// What a background thread needs to publish.
struct Publisher {
    server: ServerApi,
    publications: Arc<OwnPublications>,
    files: Arc<SharedFiles>,
    cancelled: Cancelled,
}

impl Publisher {
    fn of(context: &CommandContext) -> Self {
        Self {
            server: context.server.clone(),
            publications: context.publications.clone(),
            files: context.files.clone(),
            cancelled: context.state.cancelled(),
        }
    }

    /// Publishes incomplete files, all that wait at a time. A failure is not reported here: the file is published again
    /// when it is complete. Ends when the server is unreachable.
    fn publish_early(&self, copies: &Receiver<EarlyCopy>, early: &Mutex<EarlyPublications>) {
        while let Ok(first) = copies.recv() {
            // Of several requests for one file the last names all owners.
            let waiting = [first].into_iter().chain(copies.try_iter());
            let mut waiting: BTreeMap<FileName, EarlyCopy> =
                waiting.map(|copy| (copy.file.name.clone(), copy)).collect();
            waiting.retain(|name, _| lock(early).attempted.contains(name) || self.publications.is_known_absent(name));
            let mut batches: BTreeMap<Vec<UserName>, Vec<EarlyCopy>> = BTreeMap::new();
            {
                let mut early = lock(early);
                if early.is_closed || self.cancelled.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
                for (name, copy) in waiting {
                    if early.may_name(&name, &copy.owners) {
                        early.attempted.insert(name);
                        batches.entry(copy.owners.clone()).or_default().push(copy);
                    }
                }
            }
            for (owners, copies) in batches {
                let files: Vec<NamedContent> = copies.iter().map(|copy| copy.file.clone()).collect();
                let published = self.publish(&files, &owners, |inherited| {
                    let mut early = lock(early);
                    for (file, audience) in inherited {
                        if !early.may_name(&file.name, &owners) {
                            continue;
                        }
                        self.publications.publish(&file.name, file.content, audience);
                        early.published.insert(file.name.clone(), owners.clone());
                        let copy = copies.iter().find(|copy| copy.file.name == file.name);
                        if let Some(incomplete) = copy.and_then(|copy| copy.incomplete.upgrade()) {
                            incomplete.serve_groups_of(&owners);
                        }
                    }
                });
                if let Err(RequestError::Unreachable | RequestError::NotAuthenticated) = published {
                    return;
                }
            }
        }
    }

    /// Publishes and serves complete files. Returns those that the server has refused, and the first error.
    fn publish_all(
        &self,
        files: &BTreeMap<Vec<UserName>, Vec<NamedContent>>,
    ) -> (BTreeSet<FileName>, Result<(), RequestError>) {
        let (mut all_refused, mut result) = (BTreeSet::new(), Ok(()));
        for (owners, files) in files {
            let published = self.publish(files, owners, |inherited| {
                for (file, audience) in inherited {
                    self.publications.publish(&file.name, file.content, audience);
                }
            });
            match published {
                Ok(refused) if refused.is_empty() => {}
                Ok(refused) => {
                    all_refused.extend(refused);
                    result = result.and(Err(RequestError::NotPublished));
                }
                Err(error) => return (all_refused, Err(error)),
            }
        }
        (all_refused, result)
    }

    /// Publishes copies of what these owners publish, and calls `serve` with the audience that each has inherited: every
    /// upload checks it again. Returns what the server has refused.
    fn publish(
        &self,
        files: &[NamedContent],
        owners: &[UserName],
        serve: impl FnOnce(Vec<(&NamedContent, Audience)>),
    ) -> Result<BTreeSet<FileName>, RequestError> {
        let _loading = LoadingGuard::begin(&self.publications);
        files.iter().for_each(|file| self.files.private_names().record(&file.name));
        let refused = self.server.publish_copies(files, owners)?;
        let files: Vec<&NamedContent> = files.iter().filter(|file| !refused.contains(&file.name)).collect();
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        let audiences = self.server.audiences_of(&names)?;
        let inherited = files.into_iter().zip(audiences).filter_map(|(file, users)| match users {
            None => None,
            // An inherited audience is never empty: an empty one means all users.
            Some(users) if users.is_empty() => Some((file, Audience::Everyone)),
            Some(users) => Some((file, Audience::only(users))),
        });
        serve(inherited.collect());
        Ok(refused)
    }

    fn unpublish(&self, names: BTreeSet<FileName>) -> Result<(), RequestError> {
        if names.is_empty() {
            return Ok(());
        }
        let names: Vec<FileName> = names.into_iter().collect();
        for name in &names {
            self.publications.unpublish(name);
        }
        Ok(self.server.unpublish(&names).map(drop)?)
    }
}

/// Runs `task` on a detached thread, or here if there is none; the receiver gets its result.
fn spawn_task<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = bounded(1);
    threads::spawn_or_run("share", move || {
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
