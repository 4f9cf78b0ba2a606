//! `get --share`: what is fetched is published under the same name, hash and audience, so that a popular file gains a
//! source with every download.
//!
//! A large file is published as soon as its outline is verified: the chunk groups that have arrived are served while the
//! rest still comes. Should it never get whole, it is withdrawn again. That must never touch what the user publishes
//! otherwise: a file whose name is taken, in the folder or among the publications, waits until it is whole, and so do all
//! with `rename`. Small files are published together at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::Context;
use crate::client::control::AskError;
use crate::client::directory::PublishTo;
use crate::client::download::{Arriving, OnExists, Wanted};
use crate::client::exit_code::ExitCode;
use crate::common::message::PublishedFile;
use crate::common::types::{Audience, FileName};

/// What of one `get --share` has been published so far.
pub(super) struct Sharing<'a> {
    context: &'a Context,
    wanted: &'a [Wanted],
    /// To the thread that publishes; gone once nothing more arrives.
    announced: Mutex<Option<Sender<usize>>>,
    arriving: Mutex<BTreeMap<usize, Arc<Arriving>>>,
    /// Published while they arrived.
    early: Mutex<BTreeSet<usize>>,
}

impl<'a> Sharing<'a> {
    /// The receiver is for [`publish_early`](Self::publish_early), on a thread of its own: whoever tells of an arriving
    /// file must not wait for the server.
    pub fn new(context: &'a Context, wanted: &'a [Wanted]) -> (Self, Receiver<usize>) {
        let (announced, receiver) = channel();
        let announced = Mutex::new(Some(announced));
        (Self { context, wanted, announced, arriving: Mutex::default(), early: Mutex::default() }, receiver)
    }

    /// A file of several groups begins to arrive.
    pub fn arriving(&self, index: usize, arriving: &Arc<Arriving>) {
        let (folder, name) = (&self.context.services.folder, &self.wanted[index].name);
        lock(&self.arriving).insert(index, arriving.clone());
        if self.context.downloads.on_exists == OnExists::Rename || folder.is_taken(name) {
            return;
        }
        folder.arriving(name, arriving);
        if let Some(announced) = &*lock(&self.announced) {
            // Nobody listens any more only when the fetch is over.
            let _ = announced.send(index);
        }
    }

    /// The file is done with: `saved` if it lies whole under its own name. Lets go of it, so that only what is under way
    /// is held open.
    pub fn finished(&self, index: usize, saved: bool) {
        let Some(arriving) = lock(&self.arriving).remove(&index) else { return };
        let (folder, name) = (&self.context.services.folder, &self.wanted[index].name);
        if saved { folder.downloaded(name, &arriving) } else { folder.gave_up(name) }
    }

    /// Publishes what begins to arrive, until [`nothing_more`](Self::nothing_more). What fails here is tried again, and
    /// told, when the file is whole.
    pub fn publish_early(&self, announced: Receiver<usize>) {
        for index in announced {
            let lacks = self.context.own.surely_lacks(&self.wanted[index].name);
            if lacks && publish(self.context, &[published_file(&self.wanted[index])]).is_ok() {
                lock(&self.early).insert(index);
            }
        }
    }

    /// The fetch is over.
    pub fn nothing_more(&self) {
        lock(&self.announced).take();
    }

    /// Publishes whatever of `saved` (indices of what lies whole under its own name) is not yet, and takes back what was
    /// published too early.
    pub fn settle(self, saved: &BTreeSet<usize>) -> ExitCode {
        let early = self.early.into_inner().unwrap_or_else(PoisonError::into_inner);
        let context = self.context;
        let broken: Vec<_> = early.difference(saved).map(|&index| self.wanted[index].name.clone()).collect();
        take_back(context, &broken);
        let rest: Vec<_> = saved.difference(&early).map(|&index| published_file(&self.wanted[index])).collect();
        if rest.is_empty() {
            return ExitCode::Success;
        }
        match publish(context, &rest) {
            Ok(()) => ExitCode::Success,
            Err(error) => {
                context.console.reason(format!("downloaded, but not published: {error}"));
                (&error).into()
            }
        }
    }
}

fn published_file(wanted: &Wanted) -> PublishedFile {
    PublishedFile { name: wanted.name.clone(), content: wanted.content }
}

/// Publishes to whoever may see what it was fetched from, and serves it.
fn publish(context: &Context, files: &[PublishedFile]) -> Result<(), AskError> {
    context.services.catalogue.publish(files, &PublishTo::Inherited)?;
    serve(context, files)
}

/// The audiences are asked for: the folder checks them once more at every upload.
fn serve(context: &Context, files: &[PublishedFile]) -> Result<(), AskError> {
    let catalogue = &context.services.catalogue;
    let books = catalogue.books()?;
    let restricted: BTreeSet<&FileName> =
        books.iter().filter(|entry| entry.restricted).map(|entry| &entry.name).collect();
    for file in files {
        let audience = if restricted.contains(&file.name) {
            let Some(users) = catalogue.audience_of(&file.name)? else { continue };
            Audience::only(users)
        } else {
            Audience::Everyone
        };
        context.own.publish(&*context.services.folder, &file.name, file.content, audience);
    }
    Ok(())
}

/// These never got whole: nobody is to be sent here for them.
fn take_back(context: &Context, names: &[FileName]) {
    if names.is_empty() {
        return;
    }
    names.iter().for_each(|name| context.own.withdraw(&*context.services.folder, name));
    if let Err(error) = context.services.catalogue.unpublish(names) {
        context.console.reason(format!("not whole, but still published: {error}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
