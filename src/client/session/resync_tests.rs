//! After a reconnect: lost publications are published again, and nothing else.

use std::collections::BTreeMap;

use super::publishing::stage_audience_requests;
use super::test_support::{PASSWORD, Pair, Policy};
use super::*;
use crate::common::limits::AUDIENCE_PART_MAX_USERS;
use crate::common::message::{AudienceRef, ClientMessage, OwnPublication};
use crate::common::types::{Content, ContentHash, FileName, InstanceId, NamedContent, PublicationsDigest};

/// The publications of a server: contents and audiences by name.
#[derive(Default)]
struct PublicationStore {
    files: BTreeMap<FileName, (Content, Option<Vec<UserName>>)>,
    staged: Option<(u32, Vec<UserName>)>,
    published: usize,
    listed: usize,
}

impl PublicationStore {
    fn digest(&self) -> PublicationsDigest {
        let names: Vec<_> =
            self.files.iter().map(|(name, (content, visible_to))| (name, content.hash, visible_to)).collect();
        let hash = blake3::hash(format!("{names:?}").as_bytes());
        PublicationsDigest(*hash.as_bytes().first_chunk().unwrap())
    }

    fn respond(&mut self, request: Request) -> Response {
        match request {
            Request::Publish { files, audience } => {
                let visible_to = match (audience, &self.staged) {
                    (AudienceRef::Staged(key), Some((staged, users))) if key == *staged => Some(users.clone()),
                    (AudienceRef::Staged(_), _) => return Response::UnknownAudience,
                    _ => None,
                };
                self.published += files.len();
                self.files.extend(files.into_iter().map(|file| (file.name, (file.content, visible_to.clone()))));
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
                let entry = |(name, (content, visible_to)): (&FileName, &(Content, Option<_>))| OwnPublication {
                    name: name.clone(),
                    content: *content,
                    restricted: visible_to.is_some(),
                    age_s: 0,
                };
                let entries = self.files.iter().skip(from).take(3).map(entry).collect();
                let next = (from + 3 < self.files.len()).then(|| crate::common::message::Cursor(vec![from as u8 + 3]));
                Response::OwnPublications { entries, next }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Replies to all requests of the session.
    fn serve(&mut self, pair: &mut Pair) {
        while let Some(message) = pair.server.messages.pop_front() {
            let ClientMessage::Request { id, pages, mut request, .. } = message else { continue };
            for page in 0..pages {
                let response = self.respond(request.clone());
                let next = response.next_cursor().cloned();
                pair.reply_page(id, page, response);
                match (request.cursor_mut(), next) {
                    (Some(cursor), Some(next)) => *cursor = Some(next),
                    _ => break,
                }
            }
        }
    }

    /// The server restarts and sends a RESET.
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

fn resynced(pair: &mut Pair) -> Option<usize> {
    let mut counts = pair.events.drain(..).filter_map(|event| match event {
        Event::Resynced(files) => Some(files),
        _ => None,
    });
    counts.next_back()
}

/// Two files for everyone and one for many users, published and acknowledged.
fn published() -> (Pair, PublicationStore) {
    let (mut pair, mut store) = (Pair::established(), PublicationStore::default());
    pair.request(publish("a", AudienceRef::Everyone));
    pair.request(publish("b", AudienceRef::Everyone));
    store.serve(&mut pair);
    for part in stage_audience_requests(7, &users(AUDIENCE_PART_MAX_USERS + 3)) {
        pair.request(part);
        store.serve(&mut pair);
    }
    pair.request(publish("secret", AudienceRef::Staged(7)));
    store.serve(&mut pair);
    assert_eq!(store.files.len(), 3);
    pair.events.clear();
    (pair, store)
}

#[test]
fn nothing_is_published_again_if_nothing_is_missing() {
    let (mut pair, mut store) = published();
    store.restart(&mut pair);
    assert_eq!((resynced(&mut pair), store.listed, store.published), (None, 0, 3));
}

/// A backup is restored, older than some withdrawals. The list has two pages.
#[test]
fn withdrawn_files_are_withdrawn_again() {
    let (mut pair, mut store) = published();
    for text in ["c", "d", "e", "f", "g"] {
        pair.request(publish(text, AudienceRef::Everyone));
        store.serve(&mut pair);
    }
    let backup = store.files.clone();
    for text in ["a", "f", "g", "never published"] {
        pair.request(Request::Unpublish { names: vec![name(text)] });
        store.serve(&mut pair);
    }
    pair.request(publish("g", AudienceRef::Everyone));
    store.serve(&mut pair);
    let expected = store.files.clone();
    store.files = backup;
    store.restart(&mut pair);
    assert_eq!(store.listed, 3, "pages");
    assert_eq!(store.files, expected);
    assert_eq!(resynced(&mut pair), None, "nothing was lost");
}

#[test]
fn lost_files_are_published_again_with_their_audiences() {
    let (mut pair, mut store) = published();
    let before = std::mem::take(&mut store.files);
    store.restart(&mut pair);
    assert_eq!(store.files, before);
    assert_eq!(resynced(&mut pair), Some(3));
    store.restart(&mut pair);
    assert_eq!(resynced(&mut pair), None, "once");
}

#[test]
fn only_missing_files_are_published_again() {
    let (mut pair, mut store) = published();
    let before = store.files.clone();
    store.files.remove(&name("b"));
    store.restart(&mut pair);
    assert_eq!((resynced(&mut pair), store.published), (Some(1), 5), "and the restricted one");
    assert_eq!(store.files, before);
}

#[test]
fn a_wrong_audience_from_a_backup_is_corrected() {
    let (mut pair, mut store) = published();
    let before = store.files.clone();
    let other = UserName::parse("yoda").unwrap();
    store.files.get_mut(&name("secret")).unwrap().1 = Some(vec![other]);
    store.restart(&mut pair);
    assert_eq!(store.files, before);
    assert_eq!(resynced(&mut pair), None, "no file was lost");
}

#[test]
fn a_server_that_lost_everything_gets_all_files_after_the_new_login() {
    let (mut pair, mut store) = published();
    let before = std::mem::take(&mut store.files);
    pair.server.on_resume = Policy::Refuse;
    pair.server.run = InstanceId(500);
    store.restart(&mut pair);
    assert_eq!((store.files, pair.server.logins), (before, 2));
    assert_eq!(resynced(&mut pair), Some(3));
}

/// What the server has refused has changed nothing.
#[test]
fn files_are_published_or_withdrawn_again_after_a_refused_mutation() {
    let (mut pair, mut store) = published();
    let backup = store.files.clone();
    pair.request(Request::Unpublish { names: vec![name("b")] });
    store.serve(&mut pair);
    let expected = store.files.clone();
    for text in ["a", "b"] {
        pair.request(publish(text, AudienceRef::Staged(1_000)));
        store.serve(&mut pair);
    }
    store.files = backup;
    store.files.remove(&name("a"));
    store.restart(&mut pair);
    assert_eq!(store.files, expected);
    assert_eq!(resynced(&mut pair), Some(1));
}

#[test]
fn a_mutation_that_is_refused_after_the_reconnect_has_changed_nothing() {
    let (mut pair, mut store) = (Pair::established(), PublicationStore::default());
    pair.request(publish("a", AudienceRef::Everyone));
    store.serve(&mut pair);
    let expected = std::mem::take(&mut store.files);
    pair.request(publish("a", AudienceRef::Staged(1_000)));
    pair.server.request().expect("it is on its way");
    store.restart(&mut pair);
    assert_eq!(store.files, expected);
}

#[test]
fn unpublished_files_stay_unpublished() {
    let (mut pair, mut store) = published();
    pair.request(Request::Unpublish { names: vec![name("a")] });
    store.serve(&mut pair);
    store.files.clear();
    store.restart(&mut pair);
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("b"), name("secret")]);
}

#[test]
fn a_pending_unpublish_completes_first_and_is_not_undone() {
    let (mut pair, mut store) = published();
    pair.request(Request::Unpublish { names: vec![name("a")] });
    let (_, _, request) = pair.server.request().unwrap();
    store.respond(request);
    store.restart(&mut pair);
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("b"), name("secret")]);
    assert_eq!((resynced(&mut pair), store.published), (None, 4), "the digests differ, but nothing is missing");
}

#[test]
fn changes_by_another_instance_are_kept() {
    let (mut pair, mut store) = published();
    store.files.remove(&name("a"));
    pair.server.last_writer = InstanceId(pair.server.run.0 + 1);
    store.restart(&mut pair);
    assert_eq!((resynced(&mut pair), store.files.len()), (None, 2));
    store.files.clear();
    store.restart(&mut pair);
    assert!(store.files.is_empty(), "files of another instance are not restored");
}

#[test]
fn a_list_that_changes_while_it_is_read_is_read_again() {
    let (mut pair, mut store) = published();
    for text in ["d", "e"] {
        pair.request(publish(text, AudienceRef::Everyone));
        store.serve(&mut pair);
    }
    let whole = store.files.clone();
    store.files.remove(&name("secret"));
    pair.server.digest = store.digest();
    pair.deliver(pair.server.reset(0));
    let (id, _, first) = pair.server.request().expect("a list");
    let page = store.respond(first);
    pair.reply(id, page);
    store.files.remove(&name("a"));
    pair.reply_page(id, 1, Response::StaleCursor);
    let (id, _, second) = pair.server.request().expect("its second page");
    assert!(matches!(second, Request::OwnPublications { cursor: Some(_), .. }), "{second:?}");
    pair.reply(id, Response::StaleCursor);
    store.serve(&mut pair);
    assert_eq!(store.files, whole, "with the file of the first page that is gone by now");
}

#[test]
fn an_audience_staged_before_the_reply_to_a_publication_does_not_change_what_is_restored() {
    let (mut pair, mut store) = published();
    pair.request(publish("late", AudienceRef::Staged(7)));
    let (id, _, publish) = pair.server.request().expect("PUBLISH");
    let response = store.respond(publish);
    pair.request(Request::StageAudience { key: 8, part: 0, users: users(1) });
    store.serve(&mut pair);
    pair.reply(id, response);
    let before = std::mem::take(&mut store.files);
    store.restart(&mut pair);
    assert_eq!(store.files, before);
}

#[test]
fn what_a_backup_lacks_is_published_again_though_this_instance_wrote_last_in_it() {
    let (mut pair, mut store) = published();
    store.files.remove(&name("a"));
    pair.server.last_writer = pair.server.run;
    store.restart(&mut pair);
    assert_eq!((resynced(&mut pair).is_some(), store.files.len()), (true, 3));
}

#[test]
fn a_login_forgets_what_was_acknowledged_before() {
    let (mut pair, mut store) = published();
    pair.session.logout(pair.now);
    pair.exchange();
    store.files.clear();
    pair.server.digest = store.digest();
    pair.login(PASSWORD);
    pair.events.clear();
    store.restart(&mut pair);
    assert_eq!((resynced(&mut pair), store.files.len()), (None, 0));
}

#[test]
fn callers_mutations_wait_for_the_resync() {
    let (mut pair, mut store) = published();
    store.files.clear();
    pair.server.digest = store.digest();
    pair.deliver(pair.server.reset(0));
    pair.request(Request::Unpublish { names: vec![name("b")] });
    store.serve(&mut pair);
    assert_eq!(resynced(&mut pair), Some(3));
    assert_eq!(store.files.keys().cloned().collect::<Vec<_>>(), [name("a"), name("secret")]);
}

#[test]
fn a_list_requested_before_the_reconnect_shows_the_resynced_state() {
    let (mut pair, mut store) = published();
    store.files.clear();
    let handle = pair.request(Request::OwnPublications { user_initiated: true, cursor: None });
    pair.server.messages.clear();
    store.restart(&mut pair);
    let listed = pair.events.iter().find_map(|event| match event {
        Event::RequestFinished { request, result: Ok(Response::OwnPublications { entries, .. }) }
            if *request == handle =>
        {
            Some(entries)
        }
        _ => None,
    });
    assert_eq!(listed.map(Vec::len), Some(3));
}

#[test]
fn a_resync_survives_a_reconnect_at_any_step() {
    for replies in 0..12 {
        let (mut pair, mut store) = published();
        let before = std::mem::take(&mut store.files);
        pair.server.digest = store.digest();
        pair.deliver(pair.server.reset(0));
        for _ in 0..replies {
            if let Some((id, _, request)) = pair.server.request() {
                let response = store.respond(request);
                pair.reply(id, response);
            }
        }
        if let Some((_, _, request)) = pair.server.request() {
            store.respond(request);
        }
        pair.server.messages.clear();
        store.restart(&mut pair);
        assert_eq!(store.files, before, "a reconnect after {replies} replies");
    }
}
