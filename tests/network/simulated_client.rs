//! A client: a session, and a user who publishes, unpublishes, lists and searches at random and checks every response.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{
    Event, FinishedWait, LoginError, RequestError, RequestHandle, Session, SessionConfig, WaitId, WatchedList,
};
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::types::{Content, ContentHash, FileName, InstanceId, NamedContent, UserName};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use crate::simulated_list::SimulatedList;

/// Names each user publishes under.
const NAMES: usize = 8;

/// Counts of a client's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands that got their response.
    pub commands: usize,
    /// Sessions that replaced one that had ended.
    pub resumed: usize,
    /// Reports of a lost connection.
    pub lost: usize,
    /// Files published again after a reconnect.
    pub resynced: usize,
    /// Client instances that the server has begun.
    pub instances: usize,
}

/// A client and its user. See the module.
pub struct SimulatedClient {
    pub user: UserName,
    pub address: SocketAddr,
    pub session: Session,
    pub counts: Counts,
    /// The user's publications according to the responses.
    pub files: BTreeMap<FileName, Content>,
    /// Longest wait before the user's next command; `None`: no more commands.
    pub think_time_max: Option<Duration>,
    /// When the next command is due, unless one is pending.
    pub next_command_at: Option<Instant>,
    /// Whether a result may differ from what the user expects: the server has lost data.
    pub tolerates_differences: bool,
    /// Waits that have ended, and when.
    pub finished_waits: Vec<(Instant, FinishedWait)>,
    pub lists: Vec<SimulatedList>,
    /// Logged in.
    pub is_online: bool,
    /// Sessions that have begun.
    sessions: usize,
    pending: Option<(RequestHandle, Request)>,
    responses: Vec<(RequestHandle, Response)>,
    instance: Option<InstanceId>,
    rng: ChaCha20Rng,
}

impl SimulatedClient {
    pub fn new(user: UserName, address: SocketAddr, server: SocketAddr, mut rng: ChaCha20Rng) -> Self {
        let config = SessionConfig { servers: vec![server], tcp_port: 4_000, stretching: KeyStretching::Insecure };
        let session = Session::new(config, ChaCha20Rng::from_seed(rng.r#gen()));
        Self {
            user,
            address,
            session,
            counts: Counts::default(),
            files: BTreeMap::new(),
            think_time_max: None,
            next_command_at: None,
            tolerates_differences: false,
            finished_waits: Vec::new(),
            lists: Vec::new(),
            is_online: false,
            sessions: 0,
            pending: None,
            responses: Vec::new(),
            instance: None,
            rng,
        }
    }

    pub fn login(&mut self, now: Instant) {
        self.session.login(now, self.user.clone(), Zeroizing::new(self.user.as_str().as_bytes().to_vec()));
    }

    /// Whether the first login has succeeded.
    pub fn has_logged_in(&self) -> bool {
        self.instance.is_some()
    }

    pub fn is_idle(&self) -> bool {
        self.pending.is_none()
    }

    /// The user starts to give commands.
    pub fn start_commands(&mut self, now: Instant, think_time_max: Duration) {
        self.think_time_max = Some(think_time_max);
        self.next_command_at = Some(now);
    }

    /// Gives the next command if it is due.
    pub fn command(&mut self, now: Instant) {
        if self.pending.is_some() || self.next_command_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let request = self.choose();
        let handle = self.session.request(now, request.clone());
        self.pending = Some((handle, request));
    }

    /// The response to a request that a test has made on the user's behalf.
    pub fn take_response(&mut self, handle: RequestHandle) -> Option<Response> {
        let at = self.responses.iter().position(|(request, _)| *request == handle)?;
        Some(self.responses.swap_remove(at).1)
    }

    pub fn watch(&mut self, now: Instant, id: WaitId, list: WatchedList) {
        self.session.watch(now, id, list.clone()).expect("there are not too many");
        self.lists.push(SimulatedList::new(id, list));
    }

    /// Processes the session's events.
    pub fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Started { params, resumed, .. } => {
                    self.is_online = true;
                    self.sessions += 1;
                    self.counts.resumed += usize::from(resumed);
                    let is_new = self.instance.replace(params.instance) != Some(params.instance);
                    self.counts.instances += usize::from(is_new);
                }
                // The server was down for nearly as long as a login takes: the user tries again.
                Event::LoginFinished(Err(LoginError::Unreachable)) if !self.lists.is_empty() => self.login(now),
                Event::LoginFinished(result) => drop(result.expect("the password is right")),
                Event::ConnectionLost => self.counts.lost += 1,
                Event::Resynced(files) => self.counts.resynced += files,
                Event::RequestFinished { request, result: Ok(response) }
                    if let Some(list) = self.lists.iter_mut().find(|list| list.is_listing(request)) =>
                {
                    list.on_response(now, response, &mut self.session, self.sessions);
                }
                // The user has logged out meanwhile.
                Event::RequestFinished { request, result: Err(RequestError::NotAuthenticated) }
                    if self.lists.iter().any(|list| list.is_listing(request)) => {}
                Event::RequestFinished { request, result } => {
                    let response = result.unwrap_or_else(|error| panic!("{}: {error}", self.user));
                    self.on_response(now, request, response);
                }
                Event::LoggedOut => panic!("{} was logged out", self.user),
                Event::LoggedOutByUser => {
                    self.is_online = false;
                    self.lists.iter_mut().for_each(SimulatedList::forget);
                }
                Event::ListChanged(change) => {
                    let list = self.lists.iter_mut().find(|list| list.id == change.list).expect("a watched list");
                    list.on_changed(now, change, &mut self.session, self.sessions);
                }
                Event::WaitFinished(finished) => self.finished_waits.push((now, finished)),
            }
        }
    }

    fn choose(&mut self) -> Request {
        let mut names: Vec<FileName> = (0..NAMES).map(|at| self.name(at)).collect();
        names.shuffle(&mut self.rng);
        names.truncate(self.rng.gen_range(1..=3));
        match self.rng.gen_range(0..10) {
            0..4 => {
                let file = |name| NamedContent { name, content: self.content() };
                Request::Publish { files: names.into_iter().map(file).collect(), audience: AudienceRef::Everyone }
            }
            4..7 => Request::Unpublish { names },
            7 => Request::OwnPublications { user_initiated: true, cursor: None },
            8 => Request::Peers { cursor: None },
            _ => Request::Search { query: NameQuery::Substring("file".into()), cursor: None },
        }
    }

    fn on_response(&mut self, now: Instant, handle: RequestHandle, response: Response) {
        let Some((_, request)) = self.pending.take_if(|(pending, _)| *pending == handle) else {
            return self.responses.push((handle, response));
        };
        self.check(request, response);
        self.counts.commands += 1;
        self.next_command_at = self.think_time_max.map(|max| now + self.rng.gen_range(Duration::ZERO..max));
    }

    fn check(&mut self, request: Request, response: Response) {
        match (request, response) {
            (Request::Publish { files, .. }, Response::Published { .. }) => {
                self.files.extend(files.into_iter().map(|file| (file.name, file.content)));
            }
            (Request::Unpublish { names }, Response::Unpublished { published_mask, .. }) => {
                let removed = names.iter().map(|name| self.files.remove(name).is_some());
                let expected = removed.zip(0..).fold(0, |bits, (was_there, at)| bits | u64::from(was_there) << at);
                let is_expected = published_mask == expected;
                assert!(self.tolerates_differences || is_expected, "{}: {published_mask:b} {expected:b}", self.user);
            }
            (Request::OwnPublications { .. }, Response::OwnPublications { entries, next: None }) => {
                let listed: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.name, entry.content)).collect();
                let is_expected = listed == self.files;
                assert!(self.tolerates_differences || is_expected, "{}: {listed:?} {:?}", self.user, self.files);
            }
            (Request::Peers { .. }, Response::Peers { peers, .. }) => {
                assert!(!peers.iter().any(|peer| peer.user == self.user));
            }
            (Request::Search { .. }, Response::SearchResults { names, .. }) => {
                assert!(!names.iter().any(|name| name.as_str().starts_with(self.user.as_str())));
            }
            (request, response) => panic!("{response:?} to {request:?}"),
        }
    }

    fn name(&self, at: usize) -> FileName {
        FileName::parse(&format!("{}/file {at}", self.user)).expect("a valid name")
    }

    fn content(&mut self) -> Content {
        Content { hash: ContentHash(self.rng.r#gen()), size: self.rng.r#gen(), mtime_ms: 0 }
    }
}
