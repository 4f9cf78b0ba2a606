//! `follow` and `unfollow`: fetches in the background what matches, whenever it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, never, select};

use super::background::BackgroundContext;
use super::events::to_pattern;
use super::follow_fetches::{Contents, FollowFetches, retries};
use super::{CommandContext, Verb, clock};
use crate::client::backoff::Backoff;
use crate::client::cancel::{Cancelled, is_cancelled};
use crate::client::control::{RequestError, WatchedList};
use crate::client::download::SourceDiscovery;
use crate::client::events::{ListEntry, ListReader};
use crate::client::exit_code::ExitCode;
use crate::client::files::{FileKind, PathArg, Pattern, ShareError};
use crate::client::follow::{FollowAction, FollowOffer, Followed, LocalFile, decide};
use crate::client::jobs::JobKind;
use crate::client::ui::message::{CommandResult, FollowResult, ItemFailure, True, UnfollowResult};
use crate::common::threads;
use crate::common::types::{Content, ContentHash, ContentRef, FileName, NamedContent, UserName, UsersDigest};

/// How `follow` treats what matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FollowOptions {
    /// Remove what was fetched and is gone.
    pub mirror: bool,
    /// The only user who is followed.
    pub from: Option<UserName>,
}

/// Follows each pattern; without one, lists what is followed.
pub fn start(context: &CommandContext, arguments: &[PathArg], options: &FollowOptions) -> ExitCode {
    let mut patterns = Vec::new();
    for argument in arguments {
        match to_pattern(argument).filter(Pattern::is_within_limits) {
            Some(pattern) => patterns.push((argument.text.clone(), pattern)),
            None => {
                let why = format!("{}: no name, or a pattern with too many wildcards", argument.text);
                return context.report_error(Verb::Follow.name(), ExitCode::Usage, why);
            }
        }
    }
    if let Some(why) = context.files.fetched().trouble().filter(|_| !patterns.is_empty()) {
        let why = format!("nothing can be followed, since what is fetched cannot be recorded: {why}");
        return context.report_error(Verb::Follow.name(), ExitCode::LocalFile, why);
    }
    let mut started = Vec::new();
    for (text, pattern) in patterns {
        match start_one(context, text, pattern, options) {
            Ok(followed) => started.push(followed),
            Err((error, code)) => return context.report_error(Verb::Follow.name(), code, error),
        }
    }
    let result = match arguments {
        [] => FollowResult::Listed { ok: True, follows: context.follows.keys() },
        _ => FollowResult::Started { ok: True, started },
    };
    context.output.result(CommandResult::Follow(result));
    ExitCode::Success
}

fn start_one(
    context: &CommandContext,
    text: String,
    pattern: Pattern,
    options: &FollowOptions,
) -> Result<Followed, (String, ExitCode)> {
    let (wake, woken) = bounded(1);
    let peers = options.mirror.then_some(WatchedList::Peers);
    let lists = [WatchedList::Files(pattern.clone())].into_iter().chain(peers);
    let lists = lists.map(|list| context.lists.reader(&list, wake.clone())).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| (error.to_string(), ExitCode::from(&error)))?;
    let FollowOptions { mirror, from } = options.clone();
    let followed = Followed { pattern: text, mirror, from: from.as_ref().map(ToString::to_string) };
    let job = context.jobs.begin(JobKind::Follow, followed.line(), context.state.job_owner(), false);
    let job = job.map_err(|error| (error.to_string(), ExitCode::Internal))?;
    let (background, shown) = (BackgroundContext::of(context, &job), Arc::clone(job.job()));
    let follow = Follow {
        pattern,
        mirror,
        from,
        lists,
        settled: BTreeMap::new(),
        noted: BTreeSet::new(),
        fetches: FollowFetches::new(wake),
        retry: retries(),
    };
    follow.lists[0].follow();
    let run = move || {
        follow.run(&background, &woken, &job.cancelled());
        job.end(ExitCode::Success);
    };
    threads::spawn("follow", run).map_err(|error: io::Error| (error.to_string(), ExitCode::Internal))?;
    let is_same = |other: &Followed| (&other.pattern, &other.from) == (&followed.pattern, &followed.from);
    context.follows.replace(is_same, followed.clone(), &shown);
    Ok(followed)
}

/// Ends what `follow` has begun with these patterns.
pub fn stop(context: &CommandContext, arguments: &[PathArg]) -> ExitCode {
    let (mut unfollowed, mut failed) = (Vec::new(), Vec::new());
    for PathArg { text, .. } in arguments {
        if !context.follows.stop(|followed| followed.pattern == *text).is_empty() {
            unfollowed.push(text.clone());
        } else {
            let error = format!("{text}: is not followed");
            failed.push(ItemFailure { name: text.clone(), error, code: ExitCode::NotFound });
        }
    }
    let code = context.report_failures(&failed);
    context.output.result(CommandResult::Unfollow(UnfollowResult { ok: code.is_success(), unfollowed, failed, code }));
    code
}

/// One pattern that is followed.
struct Follow {
    pattern: Pattern,
    mirror: bool,
    from: Option<UserName>,
    lists: Vec<ListReader>,
    /// The contents of names for which nothing is left to do.
    settled: BTreeMap<FileName, Contents>,
    /// Files of the user that were left alone, with a note.
    noted: BTreeSet<FileName>,
    fetches: FollowFetches,
    /// Of what could not be done.
    retry: Backoff,
}

impl Follow {
    /// Until it is cancelled, or the user has logged out.
    fn run(mut self, background: &BackgroundContext, woken: &Receiver<()>, cancelled: &Cancelled) {
        self.run_steps(background, woken, cancelled);
        self.fetches.join();
    }

    fn run_steps(&mut self, background: &BackgroundContext, woken: &Receiver<()>, cancelled: &Cancelled) {
        let Some(user) = background.upgrade().and_then(|context| context.session.user()) else { return };
        let mut timeout = never();
        loop {
            select! {
                recv(cancelled) -> _ => return,
                recv(woken) -> _ => {}
                recv(timeout) -> _ => {}
            }
            let Some(context) = background.upgrade() else { return };
            let is_logged_in = context.session.user().as_ref() == Some(&user);
            // The end of the client cancels all before it logs out, and whatever wakes a thread may come first.
            if is_cancelled(cancelled) {
                return;
            }
            if !is_logged_in {
                return context.output.info("nothing is followed any more, since you are logged out");
            }
            let is_done = self.step(&context, cancelled).unwrap_or_else(|error| {
                log::debug!("follow: {error}");
                false
            });
            let now = clock();
            if is_done {
                self.retry.reset();
            }
            let retry = (!is_done).then(|| now + self.retry.next_wait());
            let due = retry.into_iter().chain(self.fetches.retry_at(now)).min();
            timeout = due.map_or_else(never, crossbeam_channel::at);
        }
    }

    /// Compares what is published with what is here, and does what follows. Returns whether nothing is left to do.
    fn step(&mut self, context: &CommandContext, cancelled: &Cancelled) -> Result<bool, RequestError> {
        let now = clock();
        for (name, contents) in self.fetches.take_ended(context, now) {
            self.noted.remove(&name);
            self.settled.insert(name, contents);
        }
        let snapshot = self.lists[0].snapshot();
        let mut published: BTreeMap<FileName, Contents> = BTreeMap::new();
        for (entry, users) in &snapshot.entries {
            if let ListEntry::File { name, hash, size } = entry {
                published.entry(name.clone()).or_default().insert((*hash, *size, *users));
            }
        }
        let mut orphans = self.unpublished_copies(context, &published);
        self.settled.retain(|name, _| published.contains_key(name));
        self.fetches.retain(|name, contents| published.get(name) == Some(contents));
        let mut changed: Vec<(FileName, Contents)> = published.into_iter().collect();
        changed.retain(|(name, contents)| self.settled.get(name) != Some(contents));
        changed.retain(|(name, contents)| !self.fetches.is_waiting(name, contents, now));
        let offers = offers_of(context, &changed)?;
        let mut wanted: BTreeMap<UserName, Vec<(NamedContent, Contents)>> = BTreeMap::new();
        let mut is_done = true;
        for ((name, contents), offers) in changed.iter().zip(offers) {
            let Some(local) = local_file(context, name) else {
                is_done = false;
                continue;
            };
            let recorded = context.files.fetched().get(name, local.hash());
            match decide(recorded.as_ref(), self.from.as_ref(), local, &offers) {
                FollowAction::Nothing => drop(self.settled.insert(name.clone(), contents.clone())),
                FollowAction::Orphan(owner) if self.mirror => {
                    orphans.entry(owner).or_default().push(name.clone());
                }
                FollowAction::NotOffered | FollowAction::Orphan(_) if has_sources(contents, &offers) => {
                    self.settled.insert(name.clone(), contents.clone());
                }
                // The list has changed since, and may be the same again later.
                FollowAction::NotOffered | FollowAction::Orphan(_) => {}
                FollowAction::LeaveAlone => {
                    self.settled.insert(name.clone(), contents.clone());
                    if self.noted.insert(name.clone()) {
                        context.output.info(format!("{name}: left alone, since this file was not fetched by 'follow'"));
                    }
                }
                FollowAction::Fetch { content, owner } => {
                    let item = NamedContent { name: name.clone(), content };
                    wanted.entry(owner).or_default().push((item, contents.clone()));
                }
            }
        }
        for (owner, mut items) in wanted {
            // The end of another download wakes this.
            if !self.fetches.may_start(&owner) {
                continue;
            }
            is_done &= complete(context, &mut items)?;
            if !items.is_empty() {
                let started = self.fetches.start(context, &owner, items, cancelled);
                is_done &= started.inspect_err(|error| log::debug!("cannot fetch from {owner}: {error}")).is_ok();
            }
        }
        if self.mirror {
            is_done &= remove_orphans(context, orphans, snapshot.complete_in, cancelled)?;
        }
        Ok(is_done)
    }

    /// What was fetched from each owner, and nobody publishes any more; nothing without `--mirror`.
    fn unpublished_copies(
        &self,
        context: &CommandContext,
        published: &BTreeMap<FileName, Contents>,
    ) -> BTreeMap<UserName, Vec<FileName>> {
        let mut copies: BTreeMap<UserName, Vec<FileName>> = BTreeMap::new();
        let fetched = context.files.fetched();
        let owned = if self.mirror { fetched.owned() } else { Vec::new() };
        for (name, owner) in owned {
            let is_mine = self.pattern.matches(&name) && self.from.as_ref().is_none_or(|from| *from == owner);
            if !is_mine || published.contains_key(&name) {
                continue;
            }
            // What the user has changed or removed is no copy any more.
            let local = local_file(context, &name).unwrap_or(LocalFile::Other);
            if fetched.candidates(&name).iter().any(|fetched| Some(&fetched.hash) == local.hash()) {
                copies.entry(owner).or_default().push(name);
            }
        }
        copies
    }
}

/// Who publishes which contents of these names; the contents that most publish come first.
fn offers_of(context: &CommandContext, names: &[(FileName, Contents)]) -> Result<Vec<Vec<FollowOffer>>, RequestError> {
    let refs = names.iter().flat_map(|(name, contents)| {
        contents.iter().map(|(hash, size, _)| ContentRef { name: name.clone(), hash: *hash, size: *size })
    });
    let refs: Vec<ContentRef> = refs.collect();
    let mut owners = vec![Vec::new(); refs.len()];
    for offer in context.server.find_sources(&refs, &[], usize::MAX)? {
        offer.files.iter().for_each(|&file| owners[file].push(offer.user.clone()));
    }
    let mut owners = owners.into_iter();
    let offers = names.iter().map(|(_, contents)| {
        let offer = |(hash, size, _): &(ContentHash, u64, UsersDigest)| FollowOffer {
            content: Content { hash: *hash, size: *size, mtime_ms: 0 },
            owners: owners.next().unwrap_or_default(),
        };
        let mut offers: Vec<FollowOffer> = contents.iter().map(offer).collect();
        offers.sort_by_key(|offer| std::cmp::Reverse(offer.owners.len()));
        offers
    });
    Ok(offers.collect())
}

/// Whether the offers are of the same users as the list.
fn has_sources(contents: &Contents, offers: &[FollowOffer]) -> bool {
    let offered = offers.iter().map(|FollowOffer { content, owners }| {
        (content.hash, content.size, owners.iter().map(UsersDigest::of).collect())
    });
    *contents == offered.collect()
}

/// Adds the times of modification. What is not published any more is dropped. Returns whether nothing is.
fn complete(context: &CommandContext, items: &mut Vec<(NamedContent, Contents)>) -> Result<bool, RequestError> {
    let names: Vec<FileName> = items.iter().map(|(item, _)| item.name.clone()).collect();
    let mut published = context.server.resolve_many(&names)?.into_iter();
    items.retain_mut(|(NamedContent { content, .. }, _)| {
        let contents = published.next().unwrap_or_default();
        let is_same = |other: &Content| (other.hash, other.size) == (content.hash, content.size);
        let same = contents.iter().map(|entry| entry.content).find(is_same);
        same.map(|same| *content = same).is_some()
    });
    Ok(items.len() == names.len())
}

/// `None`: a file that cannot be read now.
fn local_file(context: &CommandContext, name: &FileName) -> Option<LocalFile> {
    match context.files.dir().identify(name.as_str()) {
        Err(ShareError::Missing(_)) => Some(LocalFile::Missing),
        Ok((FileKind::File, _)) => {
            let hashed = context.files.hash(name, &mut |_| std::ops::ControlFlow::Continue(()));
            let hashed = hashed.inspect_err(|error| log::debug!("{name}: {error}")).ok();
            hashed.map(|file| LocalFile::Content(file.content.hash))
        }
        _ => Some(LocalFile::Other),
    }
}

/// Removes copies whose owners are active and do not publish them any more, if that is certain: only in the session
/// `complete_in`, since owners publish all anew after a start of the server. Returns whether nothing is left to do.
fn remove_orphans(
    context: &CommandContext,
    orphans: BTreeMap<UserName, Vec<FileName>>,
    complete_in: Option<u64>,
    cancelled: &Cancelled,
) -> Result<bool, RequestError> {
    let mut is_done = true;
    for (owner, names) in orphans {
        let shared = match context.server.shared(&owner) {
            Ok(shared) => shared,
            // When the owner comes back, the list of peers changes.
            Err(RequestError::NotActive) => continue,
            Err(error) => return Err(error),
        };
        // The list comes again when it is complete.
        if complete_in != Some(context.session.sessions()) {
            return Ok(is_done);
        }
        let shared: BTreeSet<&FileName> = shared.iter().map(|entry| &entry.name).collect();
        for name in names.iter().filter(|name| !shared.contains(name)) {
            if let Err(error) = context.downloader.remove_copy(name, &owner, cancelled) {
                let is_missing = error.kind() == io::ErrorKind::NotFound;
                is_done &= is_missing;
                log::debug!("{name}: {error}");
            }
        }
    }
    Ok(is_done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_those_of_the_list_if_all_users_are_the_same() {
        let user = |name: &str| UserName::parse(name).unwrap();
        let hash = |byte| ContentHash([byte; 32]);
        let users = |names: &[&str]| names.iter().map(|name| UsersDigest::of(&user(name))).collect();
        let listed = Contents::from([(hash(1), 5, users(&["hans", "vader"])), (hash(2), 5, users(&["yoda"]))]);
        let offer = |byte, names: &[&str]| FollowOffer {
            content: Content { hash: hash(byte), size: 5, mtime_ms: 0 },
            owners: names.iter().map(|name| user(name)).collect(),
        };
        assert!(has_sources(&listed, &[offer(2, &["yoda"]), offer(1, &["vader", "hans"])]));
        assert!(!has_sources(&listed, &[offer(2, &["yoda"]), offer(1, &["hans"])]), "a user has left");
        assert!(!has_sources(&listed, &[offer(2, &["luke"]), offer(1, &["vader", "hans"])]), "another user");
        assert!(!has_sources(&listed, &[offer(1, &["vader", "hans"])]), "a content has gone");
    }
}
