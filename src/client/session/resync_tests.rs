//! After a reconnect: a loss is found and repaired, and nothing else is.

use std::collections::BTreeMap;

use super::publishing::stage_audience_requests;
use super::test_support::{Pair, Policy};
use super::*;
use crate::common::limits::AUDIENCE_PART_MAX_USERS;
use crate::common::message::{AudienceRef, OwnPublication};
use crate::common::types::{Content, ContentHash, FileName, InstanceId, NamedContent, PublicationsDigest};

/// What a real server keeps: names, contents, and for whom.
#[derive(Default)]
struct Store {
    files: BTreeMap<FileName, (Content, Option<Vec<UserName>>)>,
    staged: Option<(u32, Vec<UserName>)>,
    changes: u8,
    published: usize,
    listed: usize,
}

impl Store {
    fn digest(&self) -> PublicationsDigest {
        let names: Vec<_> = self.files.iter().map(|(name, (content, shown))| (name, content.hash, shown)).collect();
        let hash = blake3::hash(format!("{names:?}").as_bytes());
        PublicationsDigest(*hash.as_bytes().first_chunk().unwrap())
    }

    fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Publish { files, audience } => {
                let shown = match (audience, &self.staged) {
                    (AudienceRef::Staged(key), Some((staged, users))) if key == *staged => Some(users.clone()),
                    (AudienceRef::Staged(_), _) => return Response::UnknownAudience,
                    _ => None,
                };
                self.published += files.len();
                self.files.extend(files.into_iter().map(|file| (file.name, (file.content, shown.clone()))));
                Response::Published { digest: self.digest() }
            }
            Request::Unpublish { names } => {
                let found = names.iter().zip(0..).filter(|(name, _)| self.files.remove(*name).is_some());
                let found = found.fold(0, |bits, (_, at)| bits | 1 << at);
                Response::Unpublished { published_mask: found, digest: self.digest() }
            }
            Request::StageAudience { key, part: 0, users } => {
                self.staged = Some((key, users));
                Response::AudienceStaged
            }
            Request::StageAudience { users, .. } => match &mut self.staged {
                Some((_, staged)) => {
                    staged.extend(users);
                    Response::AudienceStaged
                }
                None => Response::UnknownAudience,
            },
            Request::OwnPublications { cursor, .. } => {
                self.listed += 1;
                let from = cursor.map_or(0, |cursor| usize::from(cursor.0[0]));
                let entry = |(name, (content, shown)): (&FileName, &(Content, Option<_>))| OwnPublication {
                    name: name.clone(),
                    content: *content,
                    restricted: shown.is_some(),
                };
                let entries = self.files.iter().skip(from).take(3).map(entry).collect();
                let next = (from + 3 < self.files.len()).then(|| crate::common::message::Cursor(vec![from as u8 + 3]));
                Response::OwnPublications { entries, next }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Answers everything the session asks.
    fn serve(&mut self, pair: &mut Pair) {
        while let Some((id, _, request)) = pair.server.request() {
            let response = self.answer(request);
            pair.reply(id, response);
        }
        self.changes += 1;
    }

    /// The server restarts and tells the session.
    fn restart(&mut self, pair: &mut Pair) {
        self.staged = None;
        pair.server.digest = self.digest();
        pair.deliver(pair.server.reset(0));
        self.serve(pair);
    }
}

fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

fn file(text: &str) -> NamedContent {
    let content = Content { hash: ContentHash(*blake3::hash(text.as_bytes()).as_bytes()), size: 1, mtime_ms: 2 };
    NamedContent { name: name(text), content }
}

fn publish(text: &str, audience: AudienceRef) -> Request {
    Request::Publish { files: vec![file(text)], audience }
}

fn users(count: usize) -> Vec<UserName> {
    (0..count).map(|at| UserName::parse(&format!("user{at:03}")).unwrap()).collect()
}

fn repaired(pair: &mut Pair) -> Option<usize> {
    let mut counts = pair.events.drain(..).filter_map(|event| match event {
        Event::Resynced(files) => Some(files),
        _ => None,
    });
    counts.next_back()
}

/// Two files for all and one for many users, published and acknowledged.
fn published() -> (Pair, Store) {
    let (mut pair, mut store) = (Pair::standing(), Store::default());
    pair.ask(publish("a", AudienceRef::Everyone));
    pair.ask(publish("b", AudienceRef::Everyone));
    store.serve(&mut pair);
    for part in stage_audience_requests(7, &users(AUDIENCE_PART_MAX_USERS + 3)) {
        pair.ask(part);
        store.serve(&mut pair);
    }
    pair.ask(publish("secret", AudienceRef::Staged(7)));
    store.serve(&mut pair);
    assert_eq!(store.files.len(), 3);
    pair.events.clear();
    (pair, store)
}

#[test]
fn nothing_is_repaired_where_nothing_is_missing() {
    let (mut pair, mut store) = published();
    store.restart(&mut pair);
    assert_eq!((repaired(&mut pair), store.listed, store.published), (None, 0, 3));
}

#[test]
fn everything_lost_is_published_again_for_whom_it_was() {
    let (mut pair, mut store) = published();
    let before = std::mem::take(&mut store.files);
    store.restart(&mut pair);
    assert_eq!(store.files, before);
    assert_eq!(repaired(&mut pair), Some(3));
    store.restart(&mut pair);
    assert_eq!(repaired(&mut pair), None, "once");
}

#[test]
fn only_what_is_missing_is_published_again() {
    let (mut pair, mut store) = published();
    let before = store.files.clone();
    store.files.remove(&name("b"));
    store.restart(&mut pair);
    assert_eq!((repaired(&mut pair), store.published), (Some(1), 5), "and what is for some");
    assert_eq!(store.files, before);
}

#[test]
fn a_backup_in_which_a_file_was_for_others_is_put_right() {
    let (mut pair, mut store) = published();
    let before = store.files.clone();
    let stranger = UserName::parse("yoda").unwrap();
    store.files.get_mut(&name("secret")).unwrap().1 = Some(vec![stranger]);
    store.restart(&mut pair);
    assert_eq!(store.files, before);
    assert_eq!(repaired(&mut pair), None, "no file was lost");
}

#[test]
fn a_server_without_memory_is_told_all_again_after_the_new_login() {
    let (mut pair, mut store) = published();
    let before = std::mem::take(&mut store.files);
    pair.server.on_resume = Policy::Refuse;
    pair.server.run = InstanceId(500);
    store.restart(&mut pair);
    assert_eq!((store.files, pair.server.logins), (before, 2));
    assert_eq!(repaired(&mut pair), Some(3));
}

#[test]
fn what_was_withdrawn_stays_withdrawn() {
    let (mut pair, mut store) = published();
    pair.ask(Request::Unpublish { names: vec![name("a")] });
    store.serve(&mut pair);
    store.files.clear();
    store.restart(&mut pair);
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("b"), name("secret")]);
}

#[test]
fn a_withdrawal_under_way_is_finished_first_and_not_undone() {
    let (mut pair, mut store) = published();
    pair.ask(Request::Unpublish { names: vec![name("a")] });
    let (_, _, request) = pair.server.request().unwrap();
    store.answer(request);
    store.restart(&mut pair);
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("b"), name("secret")]);
    assert_eq!((repaired(&mut pair), store.published), (None, 4), "the digests differ, but nothing is missing");
}

#[test]
fn another_runs_changes_are_respected() {
    let (mut pair, mut store) = published();
    store.files.remove(&name("a"));
    pair.server.last_writer = InstanceId(pair.server.run.0 + 1);
    store.restart(&mut pair);
    assert_eq!((repaired(&mut pair), store.files.len()), (None, 2));
    store.files.clear();
    store.restart(&mut pair);
    assert!(store.files.is_empty(), "what that run left is not ours to restore");
}

#[test]
fn callers_mutations_wait_for_the_repair() {
    let (mut pair, mut store) = published();
    store.files.clear();
    pair.server.digest = store.digest();
    pair.deliver(pair.server.reset(0));
    pair.ask(Request::Unpublish { names: vec![name("b")] });
    store.serve(&mut pair);
    assert_eq!(repaired(&mut pair), Some(3));
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("a"), name("secret")]);
}

#[test]
fn a_list_asked_for_during_the_break_is_the_repaired_one() {
    let (mut pair, mut store) = published();
    store.files.clear();
    let asked = pair.ask(Request::OwnPublications { user_initiated: true, cursor: None });
    pair.server.messages.clear();
    store.restart(&mut pair);
    let listed = pair.events.iter().find_map(|event| match event {
        Event::RequestFinished { request, result: Ok(Response::OwnPublications { entries, .. }) }
            if *request == asked =>
        {
            Some(entries)
        }
        _ => None,
    });
    assert_eq!(listed.map(Vec::len), Some(3));
}

#[test]
fn a_repair_survives_a_break_at_any_step() {
    for breaks_after in 0..12 {
        let (mut pair, mut store) = published();
        let before = std::mem::take(&mut store.files);
        pair.server.digest = store.digest();
        pair.deliver(pair.server.reset(0));
        for _ in 0..breaks_after {
            if let Some((id, _, request)) = pair.server.request() {
                let response = store.answer(request);
                pair.reply(id, response);
            }
        }
        if let Some((_, _, request)) = pair.server.request() {
            store.answer(request);
        }
        pair.server.messages.clear();
        store.restart(&mut pair);
        assert_eq!(store.files, before, "broken off after {breaks_after} answers");
    }
}
