//! The downloads of one `follow`: at most one at a time from each owner, so that an owner who is busy holds up no other.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::get::{Transfer, elapsed_ms, report_notes};
use super::{CommandContext, clock};
use crate::client::backoff::Backoff;
use crate::client::cancel::Cancelled;
use crate::client::download::{DownloadError, DownloadOptions, DownloadOutcome, DownloadReport, OnExists, SaveAs};
use crate::client::ui::message::CommandResult;
use crate::common::threads;
use crate::common::types::{ContentHash, FileName, NamedContent, UserName, UsersDigest};

/// Owners who are downloaded from at once.
const OWNERS_MAX: usize = 16;
/// The first failures may be those of a file that has just changed and is published again.
const FAILURES_UNTIL_NOTE: u32 = 3;

/// The contents of a name in a list, each with the users who publish it.
pub(super) type Contents = BTreeSet<(ContentHash, u64, UsersDigest)>;

/// See the [module](self).
pub(super) struct FollowFetches {
    running: BTreeMap<UserName, OwnerFetch>,
    failed: BTreeMap<FileName, FailedFetch>,
    /// Receives when a download has ended.
    wake: Sender<()>,
}

/// What is downloaded from one owner.
struct OwnerFetch {
    /// The names, with what was published when it began.
    names: BTreeMap<FileName, Contents>,
    ended: Receiver<Outcomes>,
}

type Outcomes = Vec<(FileName, Result<(), DownloadError>)>;

struct FailedFetch {
    contents: Contents,
    count: u32,
    retry: Backoff,
    due: Instant,
}

/// When something that could not be done is tried again.
pub(super) fn retries() -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
}

impl FollowFetches {
    pub fn new(wake: Sender<()>) -> Self {
        Self { running: BTreeMap::new(), failed: BTreeMap::new(), wake }
    }

    /// What has been fetched since, with what was published when that began. A note tells what keeps failing.
    pub fn take_ended(&mut self, context: &CommandContext, now: Instant) -> Vec<(FileName, Contents)> {
        let mut fetched = Vec::new();
        let failed = &mut self.failed;
        self.running.retain(|_, OwnerFetch { names, ended }| {
            let outcomes = match ended.try_recv() {
                Ok(outcomes) => outcomes,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => Vec::new(),
            };
            for (name, outcome) in outcomes {
                let Some(contents) = names.remove(&name) else { continue };
                match outcome {
                    Ok(()) => {
                        failed.remove(&name);
                        fetched.push((name, contents));
                    }
                    Err(error) => {
                        let before = failed.get(&name).map_or((0, retries()), |failed| (failed.count, failed.retry));
                        let (count, mut retry) = (before.0 + 1, before.1);
                        if count == FAILURES_UNTIL_NOTE {
                            context.output.error(format!("{name}: {error}"));
                        }
                        let due = now + retry.next_wait();
                        failed.insert(name, FailedFetch { contents, count, retry, due });
                    }
                }
            }
            false
        });
        fetched
    }

    /// Whether the name is not to be fetched now: it is being downloaded, or that has just failed.
    pub fn is_waiting(&self, name: &FileName, contents: &Contents, now: Instant) -> bool {
        let has_failed = self.failed.get(name).is_some_and(|failed| failed.contents == *contents && failed.due > now);
        has_failed || self.running.values().any(|fetch| fetch.names.contains_key(name))
    }

    /// Forgets failures of what is not published any more, also under the same names.
    pub fn retain(&mut self, is_published: impl Fn(&FileName, &Contents) -> bool) {
        self.failed.retain(|name, failed| is_published(name, &failed.contents));
    }

    /// When what has failed is to be tried again.
    pub fn retry_at(&self, now: Instant) -> Option<Instant> {
        self.failed.values().map(|failed| failed.due).filter(|due| *due > now).min()
    }

    /// Whether a download from the owner may start; if not, it may when another has ended.
    pub fn may_start(&self, owner: &UserName) -> bool {
        self.running.len() < OWNERS_MAX && !self.running.contains_key(owner)
    }

    pub fn start(
        &mut self,
        context: &CommandContext,
        owner: &UserName,
        items: Vec<(NamedContent, Contents)>,
        cancelled: &Cancelled,
    ) -> io::Result<()> {
        let names = items.iter().map(|(item, contents)| (item.name.clone(), contents.clone())).collect();
        let items: Vec<NamedContent> = items.into_iter().map(|(item, _)| item).collect();
        let (end, ended) = bounded(1);
        let (context, of, wake, cancelled) = (context.clone(), owner.clone(), self.wake.clone(), cancelled.clone());
        threads::spawn("fetch", move || {
            let _ = end.send(fetch(&context, of, &items, &cancelled));
            drop((context, end));
            let _ = wake.try_send(());
        })?;
        self.running.insert(owner.clone(), OwnerFetch { names, ended });
        Ok(())
    }

    /// Waits for all, which are cancelled.
    pub fn join(self) {
        for fetch in self.running.into_values() {
            let _ = fetch.ended.recv();
        }
    }
}

/// Downloads what belongs to a user, with a `get` line for each file.
fn fetch(context: &CommandContext, owner: UserName, items: &[NamedContent], cancelled: &Cancelled) -> Outcomes {
    let save_as = SaveAs::Followed(owner);
    let options = DownloadOptions { on_exists: OnExists::Overwrite, retry_for: Duration::ZERO, save_as };
    let transfers: Vec<Transfer> = items.iter().map(|_| Transfer::default()).collect();
    let (started, outcomes) = (clock(), RefCell::new(Vec::new()));
    context.downloader.fetch(items, &options, cancelled, &|report| {
        if !matches!(report, DownloadReport::SourceDropped { .. }) {
            report_notes(context, items, &report);
        }
        match report {
            DownloadReport::Delivered(index, user) => transfers[index].delivered(user),
            DownloadReport::Resumed { index, bytes } => transfers[index].resumed(bytes),
            DownloadReport::Finished(index, DownloadOutcome::Saved { name }) => {
                let saved = transfers[index].saved(&items[index], &name, elapsed_ms(started));
                context.output.result(CommandResult::Get(saved));
                outcomes.borrow_mut().push((items[index].name.clone(), Ok(())));
            }
            DownloadReport::Finished(index, DownloadOutcome::Failed(error)) => {
                outcomes.borrow_mut().push((items[index].name.clone(), Err(error)));
            }
            _ => {}
        }
    });
    outcomes.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_failed_waits_only_while_the_same_is_published() {
        let [name, other] = ["a", "b"].map(|name| FileName::parse(name).unwrap());
        let [before, after] = [1, 2].map(|byte| Contents::from([(ContentHash([byte; 32]), 1, UsersDigest::default())]));
        let (mut fetches, now) = (FollowFetches::new(bounded(1).0), clock());
        let due = now + Duration::from_secs(60);
        for name in [&name, &other] {
            let failed = FailedFetch { contents: before.clone(), count: 1, retry: retries(), due };
            fetches.failed.insert(name.clone(), failed);
        }
        assert!(fetches.is_waiting(&name, &before, now) && !fetches.is_waiting(&name, &before, due));
        assert!(!fetches.is_waiting(&name, &after, now));
        // It may be published again, and may then succeed at once.
        fetches.retain(|published, contents| *published == other && *contents == before);
        assert!(!fetches.is_waiting(&name, &before, now) && fetches.is_waiting(&other, &before, now));
        assert_eq!(fetches.retry_at(now), Some(due));
    }
}
