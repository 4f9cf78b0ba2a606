//! The server API over a scripted transport: lists in small pages, restarts in the middle, audiences in parts.

use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::common::limits::{AUDIENCE_PART_MAX_USERS, FILE_NAME_MAX_BYTES, MESSAGE_MAX_BYTES, TICKET_MAX_BYTES};
use crate::common::message::{AudienceRef, ClientMessage, encoded_len};
use crate::common::types::{Content, ContentHash, PublicationsDigest, RequestId, UsersDigest};

/// A server in memory, behind the message encoding.
#[derive(Default)]
struct FakeServer {
    state: Mutex<ServerState>,
}

#[derive(Default)]
struct ServerState {
    published: BTreeMap<FileName, (Content, Option<Vec<UserName>>)>,
    staged: Option<(u32, Vec<UserName>)>,
    /// The length of every list.
    entries: usize,
    /// Requests until the server restarts, which invalidates cursors and staged audiences.
    restart_in: Option<usize>,
    restarts: u8,
    requests: usize,
    pipelined: usize,
    inherits_alike: bool,
    vanished: BTreeSet<FileName>,
    /// Names that are added to every list of names.
    planted: Vec<FileName>,
}

const PAGE: usize = 3;

impl RequestTransport for FakeServer {
    fn request(&self, request: Request) -> Result<Response, RequestError> {
        let message =
            ClientMessage::Request { id: RequestId(u64::MAX), lowest_pending: RequestId(u64::MAX), pages: 1, request };
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert!(bytes.len() <= MESSAGE_MAX_BYTES, "{} bytes do not fit a datagram", bytes.len());
        assert_eq!(ClientMessage::decode(&bytes).as_ref(), Ok(&message), "the server would reject it");
        let ClientMessage::Request { request, .. } = message else { unreachable!() };
        match self.state.lock().unwrap().respond(request) {
            Response::Rejected => Err(RequestError::Refused),
            response => Ok(response),
        }
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        self.state.lock().unwrap().pipelined += requests.len();
        requests.into_iter().map(|request| self.request(request)).collect()
    }
}

impl ServerState {
    fn respond(&mut self, request: Request) -> Response {
        self.requests += 1;
        if let Some(left) = &mut self.restart_in {
            *left = left.saturating_sub(1);
            if *left == 0 {
                (self.restart_in, self.staged) = (None, None);
                self.restarts += 1;
            }
        }
        match request {
            Request::Publish { files, audience } => self.publish(files, audience),
            Request::Unpublish { names } => {
                let found = names.iter().zip(0..).filter(|(name, _)| self.published.remove(*name).is_some());
                let found = found.fold(0, |bits, (_, at)| bits | 1 << at);
                Response::Unpublished { published_mask: found, digest: PublicationsDigest::default() }
            }
            Request::StageAudience { key, part, users } => match &mut self.staged {
                staged if part == 0 => {
                    *staged = Some((key, users));
                    Response::AudienceStaged
                }
                Some((staged, all)) if *staged == key && all.len() == usize::from(part) * AUDIENCE_PART_MAX_USERS => {
                    all.extend(users);
                    Response::AudienceStaged
                }
                _ => Response::UnknownAudience,
            },
            Request::AudienceOf { name, .. } if name.as_str() == "unknown" => Response::NotPublished,
            Request::OwnPublications { cursor, .. } => self.page(cursor, |entries, next| {
                let entry = |at| OwnPublication { name: name(at), content: content(at), restricted: false, age_s: 0 };
                Response::OwnPublications { entries: entries.map(entry).collect(), next }
            }),
            Request::Peers { cursor } => self.page(cursor, |users, next| {
                let peer = |at| ActivePeer { user: user(at), active_s: at as u64 };
                Response::Peers { peers: users.map(peer).collect(), next }
            }),
            Request::AudienceOf { cursor, .. } => {
                self.page(cursor, |users, next| Response::Users { users: users.map(user).collect(), next })
            }
            Request::Search { cursor, .. } => {
                let planted = || self.planted.iter().cloned();
                let names = |names: std::iter::Rev<std::ops::Range<usize>>| names.map(name).chain(planted()).collect();
                self.page(cursor, |entries, next| Response::SearchResults { names: names(entries), next })
            }
            Request::Resolve { query, cursor, .. } => self.page(cursor, |entries, next| {
                let found = |at: usize| AvailableContent {
                    name: if let NameQuery::Exact(exact) = &query { exact.clone() } else { name(at / 2) },
                    content: content(at),
                    sources: at as u32,
                    age_s: 0,
                    users: UsersDigest::default(),
                };
                let planted = self.planted.iter().map(|name| AvailableContent { name: name.clone(), ..found(200) });
                Response::Contents { entries: entries.map(found).chain(planted).collect(), next }
            }),
            Request::Shared { user: of, .. } if of == user(999) => Response::NotActive,
            Request::Shared { cursor, .. } => self.page(cursor, |entries, next| {
                let users = UsersDigest::default();
                let found = |at| {
                    let (name, content, age_s) = (name(at), content(at), at as u64);
                    AvailableContent { name, content, sources: 1, age_s, users }
                };
                Response::Contents { entries: entries.map(found).collect(), next }
            }),
            Request::Subscribe { .. } | Request::Unsubscribe { .. } => Response::Rejected,
            Request::Sources { files, cursor, .. } => self.page(cursor, |sources, next| {
                // The sources serve one of the files each, in turn.
                let source = |at: usize| SourceGrant { file_mask: 1 << (at % files.len()), ..source(at) };
                Response::Sources { sources: sources.map(source).collect(), next }
            }),
        }
    }

    fn publish(&mut self, files: Vec<NamedContent>, audience: AudienceRef) -> Response {
        let visible_to = match (audience, &self.staged) {
            (AudienceRef::Everyone, _) => None,
            (AudienceRef::Staged(key), Some((staged, users))) if key == *staged => Some(users.clone()),
            (AudienceRef::Staged(_), _) => return Response::UnknownAudience,
            (AudienceRef::Inherited { .. }, _) if files.iter().any(|file| self.vanished.contains(&file.name)) => {
                return Response::NotPublished;
            }
            (AudienceRef::Inherited { .. }, _) if files.len() > 1 && !self.inherits_alike => return Response::Rejected,
            (AudienceRef::Inherited { .. }, _) => None,
        };
        self.published.extend(files.into_iter().map(|file| (file.name, (file.content, visible_to.clone()))));
        Response::Published { digest: PublicationsDigest::default() }
    }

    /// A page of the numbers below `entries`, descending, with one number of the page before.
    fn page<I>(&self, cursor: Option<Cursor>, response: I) -> Response
    where
        I: Fn(std::iter::Rev<std::ops::Range<usize>>, Option<Cursor>) -> Response,
    {
        let (restarts, from) = match &cursor {
            None => (self.restarts, 0),
            Some(Cursor(bytes)) => (bytes[0], usize::from(bytes[1])),
        };
        if restarts != self.restarts {
            return Response::StaleCursor;
        }
        let to = (from + PAGE).min(self.entries);
        let next = (to < self.entries).then(|| Cursor(vec![restarts, to as u8]));
        response((from.saturating_sub(1)..to).rev(), next)
    }
}

fn name(at: usize) -> FileName {
    FileName::parse(&format!("file {at:03}")).unwrap()
}

fn user(at: usize) -> UserName {
    UserName::parse(&format!("user{at:03}")).unwrap()
}

fn content(at: usize) -> Content {
    Content { hash: ContentHash([at as u8; 32]), size: u64::MAX, mtime_ms: i64::MIN }
}

fn file(at: usize) -> NamedContent {
    NamedContent { name: name(at), content: content(at) }
}

fn source(at: usize) -> SourceGrant {
    SourceGrant {
        user: user(at),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        has_free_slot: true,
        file_mask: 1,
        key: [0; 32].into(),
        ticket: vec![0; TICKET_MAX_BYTES],
    }
}

fn wanted(text: &str) -> ContentRef {
    ContentRef { name: FileName::parse(text).unwrap(), hash: ContentHash([1; 32]), size: 1 }
}

/// The sources of one batch.
fn sources(api: &ServerApi, batch: &[ContentRef], limit: usize) -> Result<Vec<SourceGrant>, RequestError> {
    Ok(api.sources_many(&[batch], &[], limit)?.remove(0))
}

fn api(state: ServerState) -> (Arc<FakeServer>, ServerApi) {
    let fake = Arc::new(FakeServer { state: Mutex::new(state) });
    (Arc::clone(&fake), ServerApi::with_transport(fake))
}

#[test]
fn lists_are_complete_and_sorted_without_repeats() {
    for restart_in in [None, Some(1), Some(2), Some(4)] {
        for entries in [0, 1, PAGE, PAGE + 1, 20] {
            let state = || ServerState { entries, restart_in, ..ServerState::default() };
            let list = |state| api(state).1;
            let names: Vec<FileName> = (0..entries).map(name).collect();
            let users: Vec<UserName> = (0..entries).map(user).collect();
            let own = list(state()).published().unwrap();
            assert_eq!(own.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), names);
            let peers = list(state()).peers().unwrap();
            assert_eq!(peers.into_iter().map(|peer| peer.user).collect::<Vec<_>>(), users);
            let shared = list(state()).shared(&user(1)).unwrap();
            assert_eq!(shared.into_iter().map(|entry| entry.name).collect::<Vec<_>>(), names);
            assert_eq!(list(state()).shared(&user(999)), Err(RequestError::NotActive));
            assert_eq!(list(state()).audiences_of(&[name(1), name(2)]), Ok(vec![Some(users.clone()), Some(users)]));
            assert_eq!(list(state()).search(NameQuery::Substring(String::new())), Ok(names));
            let found = list(state()).resolve(NameQuery::Prefix(String::new()), ResolvePurpose::List).unwrap();
            assert_eq!(found.len(), entries);
            let in_order = |pair: &[AvailableContent]| {
                (&pair[0].name, std::cmp::Reverse(pair[0].sources))
                    <= (&pair[1].name, std::cmp::Reverse(pair[1].sources))
            };
            assert!(found.windows(2).all(in_order), "by name, then most sources first");
        }
    }
}

#[test]
fn an_unpublished_name_has_no_audience() {
    let (_, api) = api(ServerState::default());
    assert_eq!(api.audiences_of(&[FileName::parse("unknown").unwrap()]), Ok(vec![None]));
}

#[test]
fn many_files_are_split_into_batches_that_fit() {
    let (fake, api) = api(ServerState::default());
    let files: Vec<NamedContent> = (0..200).map(file).collect();
    api.publish(&files, &PublishAudience::Audience(Audience::Everyone)).unwrap();
    let requests = fake.state.lock().unwrap().requests;
    assert!(requests <= 12, "{requests} requests for 200 files");
    assert_eq!(fake.state.lock().unwrap().published.len(), 200);
    let names: Vec<FileName> = (100..300).map(name).collect();
    let found = api.unpublish(&names).unwrap();
    assert_eq!(found, (100..300).map(|at| at < 200).collect::<Vec<_>>());
}

#[test]
fn the_longest_names_fit_one_to_a_request() {
    let (fake, api) = api(ServerState::default());
    let long = |first: &str| [first, &"b".repeat(255), &"c".repeat(FILE_NAME_MAX_BYTES - 258)].join("/");
    let names = ["x", "y", "z"].map(|first| FileName::parse(&long(first)).unwrap());
    let files: Vec<_> = names.iter().map(|name| NamedContent { name: name.clone(), content: content(1) }).collect();
    api.publish(&files, &PublishAudience::Audience(Audience::Everyone)).unwrap();
    assert_eq!(fake.state.lock().unwrap().published.len(), 3);
    assert_eq!(api.unpublish(&names), Ok(vec![true; 3]));
    let wanted: Vec<_> = names.iter().map(|name| wanted(name.as_str())).collect();
    assert!(source_batches(&wanted).iter().all(|batch| sources(&api, batch, 1).is_ok()));
}

#[test]
fn an_audience_is_staged_in_parts_and_again_when_it_is_lost() {
    let users: Vec<UserName> = (0..AUDIENCE_PART_MAX_USERS * 2 + 1).map(user).collect();
    let files: Vec<NamedContent> = (0..100).map(file).collect();
    for restart_in in [None, Some(1), Some(2), Some(3), Some(4), Some(5)] {
        let (fake, api) = api(ServerState { restart_in, ..ServerState::default() });
        api.publish(&files, &PublishAudience::Audience(Audience::Only(users.clone()))).unwrap();
        let state = fake.state.lock().unwrap();
        assert_eq!(state.published.len(), 100);
        assert!(
            state.published.values().all(|(_, visible_to)| visible_to.as_ref() == Some(&users)),
            "visible to all of them"
        );
    }
}

#[test]
fn inherited_audiences_may_differ_and_vanished_ones_are_reported() {
    let files: Vec<NamedContent> = (0..10).map(file).collect();
    for inherits_alike in [true, false] {
        let (fake, api) = api(ServerState { inherits_alike, ..ServerState::default() });
        assert!(api.publish_copies(&files, &[user(1)]).unwrap().is_empty());
        assert_eq!(fake.state.lock().unwrap().requests, if inherits_alike { 1 } else { 11 });
    }
    let (fake, api) = api(ServerState { vanished: BTreeSet::from([name(4)]), ..ServerState::default() });
    assert_eq!(api.publish_copies(&files, &[user(1)]), Ok(BTreeSet::from([name(4)])));
    assert_eq!(fake.state.lock().unwrap().published.len(), 9, "the others are published");
}

#[test]
fn sources_keep_the_servers_order_and_end_at_the_limit() {
    let (fake, api) = api(ServerState { entries: 8, ..ServerState::default() });
    let batch = [wanted("a")];
    let first = sources(&api, &batch, 4).unwrap();
    let order: Vec<UserName> = first.into_iter().map(|source| source.user).collect();
    assert_eq!(order, [2, 1, 0, 5].map(user));
    assert_eq!(fake.state.lock().unwrap().requests, 2);
    assert_eq!(sources(&api, &batch, 100).unwrap().len(), 8);
    fake.state.lock().unwrap().restart_in = Some(2);
    assert_eq!(sources(&api, &batch, 100).unwrap().len(), 8, "a restart starts the list again");
}

#[test]
fn each_file_of_a_batch_gets_its_sources() {
    let (_, api) = api(ServerState { entries: 20, ..ServerState::default() });
    let files: Vec<ContentRef> = (0..10).map(|at| wanted(&at.to_string())).collect();
    for (most, expected) in [(1, 10), (2, 20), (8, 20)] {
        let sources = sources(&api, &files, most).unwrap();
        assert_eq!(sources.len(), expected);
        assert_eq!(sources.iter().fold(0, |all, source| all | source.file_mask), 0x3ff, "at most {most} for each");
    }
}

#[test]
fn many_lists_are_pipelined() {
    let (fake, api) = api(ServerState { entries: 4, ..ServerState::default() });
    let names: Vec<FileName> = (0..5).map(name).collect();
    let found = api.resolve_many(&names).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4; 5]);
    assert!(found.iter().zip(&names).all(|(found, name)| found.iter().all(|entry| entry.name == *name)));
    assert_eq!(fake.state.lock().unwrap().pipelined, 5);
    let batches = [wanted("a"), wanted("b")];
    let batches: Vec<&[ContentRef]> = batches.chunks(1).collect();
    assert_eq!(api.sources_many(&batches, &[], 100).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(fake.state.lock().unwrap().pipelined, 7);
}

#[test]
fn source_batches_fit_and_leave_nothing_out() {
    let files: Vec<ContentRef> = (0..100).map(|at| wanted(&"n".repeat(1 + at * 2))).collect();
    let batches = source_batches(&files);
    assert_eq!(batches.concat(), files);
    for batch in batches {
        let bytes = encoded_len(&batch.to_vec());
        assert!(batch.len() <= BATCH_MAX_FILES && bytes <= SOURCES_REQUEST_MAX_BYTES, "{bytes} bytes");
    }
    assert!(source_batches(&[]).is_empty());
}

#[test]
fn an_unexpected_response_is_an_error() {
    struct UnexpectedResponses;
    impl RequestTransport for UnexpectedResponses {
        fn request(&self, _: Request) -> Result<Response, RequestError> {
            Ok(Response::AudienceStaged)
        }
        fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
            Ok(vec![Response::AudienceStaged; requests.len()])
        }
    }
    let api = ServerApi::with_transport(Arc::new(UnexpectedResponses));
    assert_eq!(api.peers(), Err(RequestError::Refused));
    let refused = PartialFailure { done: Vec::new(), error: RequestError::Refused };
    assert_eq!(api.unpublish(&[name(1)]), Err(refused));
    assert_eq!(sources(&api, &[wanted("a")], 1).err(), Some(RequestError::Refused));
    let refused = PartialFailure { done: Vec::new(), error: RequestError::Refused };
    assert_eq!(api.publish(&[file(1)], &PublishAudience::Audience(Audience::Everyone)), Err(refused));
}

#[test]
fn a_server_cannot_choose_the_name_that_a_download_is_saved_under() {
    let planted = [".bashrc", "Makefile"].map(|text| FileName::parse(text).unwrap()).to_vec();
    let (_, api) = api(ServerState { entries: 2, planted, ..ServerState::default() });
    let wanted = FileName::parse("report.pdf").unwrap();
    let found = api.resolve(NameQuery::Exact(wanted.clone()), ResolvePurpose::Download).unwrap();
    assert!(found.len() == 2 && found.iter().all(|entry| entry.name == wanted), "{found:?}");
    let found = api.resolve_many(std::slice::from_ref(&wanted)).unwrap();
    assert!(found[0].len() == 2 && found[0].iter().all(|entry| entry.name == wanted), "{found:?}");
    for query in [NameQuery::Prefix("file".into()), NameQuery::SubstringIgnoreCase("FILE 0".into())] {
        assert!(
            api.resolve(query, ResolvePurpose::Download)
                .unwrap()
                .iter()
                .all(|entry| entry.name.as_str().starts_with("file"))
        );
    }
    assert_eq!(api.search(NameQuery::Substring("file 0".into())), Ok(vec![name(0), name(1)]));
}

/// One page, always the same.
struct OnePage(Vec<AvailableContent>);

impl RequestTransport for OnePage {
    fn request(&self, _: Request) -> Result<Response, RequestError> {
        Ok(Response::Contents { entries: self.0.clone(), next: None })
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        requests.into_iter().map(|request| self.request(request)).collect()
    }
}

#[test]
fn a_hash_with_another_size_does_not_hide_the_content() {
    let found_with = |size, sources| {
        let content = Content { size, ..content(1) };
        AvailableContent { name: name(1), content, sources, age_s: 0, users: UsersDigest::default() }
    };
    for entries in [[found_with(10, 2), found_with(11, 1)], [found_with(11, 1), found_with(10, 2)]] {
        let api = ServerApi::with_transport(Arc::new(OnePage(entries.to_vec())));
        let found = api.resolve(NameQuery::Exact(name(1)), ResolvePurpose::Download);
        assert_eq!(found, Ok(vec![found_with(10, 2), found_with(11, 1)]));
    }
}

/// A false server: the same page for ever, or cursors that are always stale.
struct Endless(Response);

impl RequestTransport for Endless {
    fn request(&self, _: Request) -> Result<Response, RequestError> {
        Ok(self.0.clone())
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        requests.into_iter().map(|request| self.request(request)).collect()
    }
}

#[test]
fn a_list_without_an_end_is_an_error() {
    let next = Some(Cursor(vec![1]));
    let api = |response| ServerApi::with_transport(Arc::new(Endless(response)));
    let users = || vec![UserName::parse("vader").unwrap()];
    for users in [users(), Vec::new()] {
        let api = api(Response::Users { users, next: next.clone() });
        assert_eq!(api.audiences_of(&[name(1)]), Err(RequestError::EndlessList));
    }
    let peers = api(Response::Peers { peers: Vec::new(), next: next.clone() });
    assert_eq!(peers.peers(), Err(RequestError::EndlessList));
    let found = api(Response::SearchResults { names: vec![name(1)], next: next.clone() });
    assert_eq!(found.search(NameQuery::Substring(String::new())), Err(RequestError::EndlessList));
    let listed = api(Response::OwnPublications { entries: Vec::new(), next: next.clone() });
    assert_eq!(listed.published(), Err(RequestError::EndlessList));
    let resolved = api(Response::Contents { entries: Vec::new(), next: next.clone() });
    let query = NameQuery::Exact(name(1));
    assert_eq!(resolved.resolve(query, ResolvePurpose::Download), Err(RequestError::EndlessList));
    let offered = api(Response::Sources { sources: Vec::new(), next });
    assert_eq!(sources(&offered, &[wanted("a")], 1).err(), Some(RequestError::EndlessList));
    let restarting = api(Response::StaleCursor);
    assert_eq!(restarting.peers(), Err(RequestError::EndlessList));
    assert_eq!(sources(&restarting, &[wanted("a")], 1).err(), Some(RequestError::EndlessList));
}
