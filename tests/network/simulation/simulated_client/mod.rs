//! A client: a session, and a user who publishes, unpublishes, lists, searches and waits at random and checks every response.

mod counts;
mod faults;
mod files;
mod own_publications;
mod trace;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{
    Event, FinishedWait, LoginError, RequestError, RequestHandle, Session, SessionConfig, WaitCondition, WaitId,
    WaitOutcome, WatchedList,
};
use fileshare::internals::common::limits::{HEARTBEAT_DEFAULT, LIVENESS_DEFAULT};
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::types::{Content, FileName, InstanceId, NamedContent, UserName};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

pub use self::counts::Counts;
use self::files::{file_name, names_of};
use self::own_publications::SimulatedPublications;
use self::trace::describe;
use crate::simulation::choices::Choices;
use crate::simulation::simulated_list::SimulatedList;
use crate::simulation::simulated_users::user;
use crate::simulation::user_history::UserHistory;
use crate::simulation::wait_oracle::ScriptWait;

/// Names each user publishes under, unless there are more.
const NAMES: usize = 8;
/// Users who are waited for, whose files are, or who may see a file: some of them never log in.
const PEERS: usize = 9;
/// Most waits of a script at once: more than there are subscriptions.
const WAITS_MAX: usize = 60;
/// Longest time from the end of a client to that of its session.
const SESSION_END_MAX: Duration = Duration::from_secs(LIVENESS_DEFAULT.as_secs() + HEARTBEAT_DEFAULT.as_secs());

/// A client and its user. See the module.
pub struct SimulatedClient {
    pub user: UserName,
    pub address: SocketAddr,
    pub session: Session,
    pub counts: Counts,
    /// Names that the user publishes under.
    names: usize,
    /// The user's publications according to the responses.
    pub files: BTreeMap<FileName, Content>,
    /// Longest wait before the user's next command; `None`: no more commands.
    pub think_time_max: Option<Duration>,
    /// When the next command is due, unless one is pending.
    pub next_command_at: Option<Instant>,
    /// Names whose last mutation had no response, or that the server may have lost.
    pub uncertain: BTreeSet<FileName>,
    /// Names that the session resynchronises: this client has had a response for them since it logged in.
    pub resynchronised: BTreeSet<FileName>,
    /// What has happened since it was last printed, if it is printed.
    pub trace: Option<Vec<String>>,
    /// In a storm: what fails is tried again.
    pub is_in_storm: bool,
    /// What the client serves, in a storm.
    pub own_publications: SimulatedPublications,
    /// Whether a result may differ from what the user expects: the server has lost data.
    pub tolerates_differences: bool,
    /// Waits of tests that have ended, and when.
    pub finished_waits: Vec<(Instant, FinishedWait)>,
    /// Waits of the script.
    pub waits: BTreeMap<WaitId, ScriptWait>,
    /// Waits of the script that have ended and are to be checked.
    pub ended_waits: Vec<(ScriptWait, Result<WaitOutcome, RequestError>)>,
    pub history: UserHistory,
    /// When the connection was lost or the address changed.
    pub disturbances: Vec<Instant>,
    /// Whether the script logs out now and then.
    pub comes_and_goes: bool,
    pub lists: Vec<SimulatedList>,
    /// Logged in.
    pub is_online: bool,
    /// Sessions that have begun.
    sessions: usize,
    pending: Option<(RequestHandle, Request)>,
    /// What is to be published when its audience is staged.
    to_publish: Option<(Vec<NamedContent>, BTreeSet<UserName>)>,
    responses: Vec<(RequestHandle, Response)>,
    instance: Option<InstanceId>,
    pub rng: Choices,
}

impl SimulatedClient {
    pub fn new(user: UserName, address: SocketAddr, server: SocketAddr, mut rng: Choices) -> Self {
        let config = SessionConfig { servers: vec![server], tcp_port: 4_000, stretching: KeyStretching::Insecure };
        let session = Session::new(config, ChaCha20Rng::from_seed(rng.arbitrary()));
        Self {
            user,
            address,
            session,
            counts: Counts::default(),
            names: NAMES,
            files: BTreeMap::new(),
            uncertain: BTreeSet::new(),
            resynchronised: BTreeSet::new(),
            trace: std::env::var_os("FILESHARE_STORM").map(|_| Vec::new()),
            is_in_storm: false,
            own_publications: SimulatedPublications::default(),
            think_time_max: None,
            next_command_at: None,
            tolerates_differences: false,
            finished_waits: Vec::new(),
            waits: BTreeMap::new(),
            ended_waits: Vec::new(),
            history: UserHistory::default(),
            disturbances: Vec::new(),
            comes_and_goes: false,
            lists: Vec::new(),
            is_online: false,
            sessions: 0,
            pending: None,
            to_publish: None,
            responses: Vec::new(),
            instance: None,
            rng,
        }
    }

    pub fn login(&mut self, now: Instant) {
        self.history.logging_in(now);
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

    /// Gives the next command if it is due, and now and then starts or cancels a wait.
    pub fn command(&mut self, now: Instant) {
        if self.pending.is_some() || self.next_command_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        if !self.is_online && (self.comes_and_goes || self.is_in_storm) {
            return self.login(now);
        }
        if self.think_time_max.is_none() {
            return;
        }
        if self.comes_and_goes && self.rng.gen_bool(0.02) {
            self.next_command_at =
                Some(now + SESSION_END_MAX + self.rng.gen_range(Duration::ZERO..SESSION_END_MAX * 3));
            self.history.leaving(now, now + SESSION_END_MAX);
            return self.session.logout(now);
        }
        if self.rng.gen_bool(0.5) && self.waits.len() < WAITS_MAX {
            self.wait(now);
        }
        let request = self.choose();
        self.start(now, request);
    }

    fn start(&mut self, now: Instant, request: Request) {
        match &request {
            Request::Publish { audience, .. } => {
                let users = self.to_publish.take().map(|(_, users)| users);
                assert_eq!(users.is_none(), *audience == AudienceRef::Everyone);
                self.own_publications.requested(&request, users.as_ref());
                self.history.changing(now, &names_of(&request), Some(&users));
            }
            Request::Unpublish { names } => self.history.changing(now, names, None),
            _ => {}
        }
        self.trace(|| format!("asks: {}", describe(&request)));
        let handle = self.session.request(now, request.clone());
        self.pending = Some((handle, request));
    }

    fn wait(&mut self, now: Instant) {
        let peer = user(self.rng.gen_range(0..PEERS));
        let condition = match self.rng.gen_range(0..4) {
            0 => WaitCondition::PeerActive(peer),
            1 => WaitCondition::PeerGone(peer),
            _ => WaitCondition::FileAvailable(file_name(&peer, self.rng.gen_range(0..NAMES))),
        };
        let longest_ms = [0, 1, 5_000, 30_000, 90_000][self.rng.gen_range(0..5)];
        let timeout = Duration::from_millis(self.rng.gen_range(0..=longest_ms));
        let mut wait = ScriptWait { condition, started: now, deadline: now + timeout, topics: 0, is_cancelled: false };
        let others = self.waits.values().map(ScriptWait::topic).collect::<BTreeSet<_>>();
        wait.topics = others.len() + usize::from(!others.contains(&wait.topic()));
        let id = WaitId(self.rng.arbitrary());
        self.session.wait(now, id, wait.condition.clone(), timeout);
        self.waits.insert(id, wait);
        let chosen = self.rng.gen_range(0..self.waits.len());
        if let Some((&id, wait)) = self.waits.iter_mut().nth(chosen).filter(|_| self.rng.gen_bool(0.1)) {
            wait.is_cancelled = true;
            self.session.cancel_wait(now, id);
        }
    }

    /// The server has changed these names.
    fn on_changed(&mut self, names: &[FileName]) {
        self.uncertain.retain(|name| !names.contains(name));
        self.resynchronised.extend(names.iter().cloned());
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
            self.trace_event(&event);
            match event {
                Event::Started { params, resumed, .. } => {
                    self.is_online = true;
                    // A session that the server has begun so long before may have ended there.
                    let is_slow = self.history.online(now) > LIVENESS_DEFAULT;
                    if resumed || is_slow {
                        self.disturbances.push(now);
                    }
                    if !resumed && self.is_in_storm {
                        self.own_publications.load(now, &mut self.session);
                    }
                    if !resumed && self.comes_and_goes && self.think_time_max.is_some() {
                        self.next_command_at = Some(now);
                    }
                    self.sessions += 1;
                    self.counts.resumed += usize::from(resumed);
                    let is_new = self.instance.replace(params.instance) != Some(params.instance);
                    self.counts.instances += usize::from(is_new);
                }
                Event::LoginFinished(Err(_)) if self.is_in_storm => self.try_again(now),
                // The server was down for nearly as long as a login takes: the user tries again.
                Event::LoginFinished(Err(LoginError::Unreachable)) if !self.lists.is_empty() || self.comes_and_goes => {
                    self.login(now);
                }
                // The session of the client that has died has not ended.
                Event::LoginFinished(Err(LoginError::AlreadyActive { liveness })) if self.comes_and_goes => {
                    self.next_command_at = Some(now + liveness);
                }
                Event::LoginFinished(result) => drop(result.expect("the password is right")),
                Event::ConnectionLost => {
                    self.counts.lost += 1;
                    self.disturbances.push(now);
                }
                Event::Resynced(files) => self.counts.resynced += files,
                Event::RequestFinished { request, result } if self.own_publications.is_loading(request) => {
                    self.own_publications.on_result(now, request, result, &mut self.session);
                }
                Event::RequestFinished { request, result: Ok(response) }
                    if let Some(list) = self.lists.iter_mut().find(|list| list.is_listing(request)) =>
                {
                    list.on_response(now, response, &mut self.session, self.sessions);
                }
                Event::RequestFinished { request, result: Err(_) }
                    if self.is_in_storm && self.pending.as_ref().is_some_and(|(pending, _)| *pending == request) =>
                {
                    self.try_again(now);
                }
                // The user has logged out meanwhile.
                Event::RequestFinished { request, result: Err(RequestError::NotAuthenticated) }
                    if self.lists.iter().any(|list| list.is_listing(request)) => {}
                Event::RequestFinished { request, result } => {
                    let response = result.unwrap_or_else(|error| panic!("{}: {error}", self.user));
                    self.on_response(now, request, response);
                }
                Event::LoggedOut if self.is_in_storm => {
                    self.is_online = false;
                    self.resynchronised.clear();
                    if self.tolerates_differences {
                        self.lose_track();
                    }
                    self.history.leaving(now, now);
                    self.counts.logged_out += 1;
                    self.try_again(now);
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
                Event::WaitFinished(finished) => match self.waits.remove(&finished.wait) {
                    Some(wait) => self.ended_waits.push((wait, finished.result)),
                    None => self.finished_waits.push((now, finished)),
                },
            }
        }
    }

    fn choose(&mut self) -> Request {
        let mut names: Vec<FileName> = (0..self.names).map(|at| self.name(at)).collect();
        names.shuffle(&mut self.rng);
        names.truncate(self.rng.gen_range(1..=3));
        match self.rng.gen_range(0..10) {
            0..4 => {
                let file = |name| NamedContent { name, content: self.content() };
                let files = names.into_iter().map(file).collect();
                if self.rng.gen_bool(0.6) {
                    return Request::Publish { files, audience: AudienceRef::Everyone };
                }
                let users: BTreeSet<_> =
                    (0..3).map(|_| self.rng.gen_range(0..PEERS)).map(user).filter(|user| *user != self.user).collect();
                if users.is_empty() {
                    return Request::Unpublish {
                        names: files.into_iter().map(|file: NamedContent| file.name).collect(),
                    };
                }
                self.to_publish = Some((files, users.clone()));
                Request::StageAudience { key: 1, part: 0, users: users.into_iter().collect() }
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
        if let (Request::StageAudience { .. }, Response::AudienceStaged) = (&request, &response) {
            let files = self.to_publish.as_ref().map(|(files, _)| files.clone()).expect("it was staged for them");
            return self.start(now, Request::Publish { files, audience: AudienceRef::Staged(1) });
        }
        self.check(now, request, response);
        self.counts.commands += 1;
        self.next_command_at = self.think_time_max.map(|max| now + self.rng.gen_range(Duration::ZERO..max));
    }

    fn check(&mut self, now: Instant, request: Request, response: Response) {
        self.trace(|| match &response {
            Response::UnknownAudience => "is refused: the audience is unknown".into(),
            Response::Unpublished { published_mask, .. } => format!("has withdrawn {published_mask:b}"),
            _ => "has a response".into(),
        });
        let names = names_of(&request);
        let was_uncertain = names.iter().any(|name| self.uncertain.contains(name));
        match response {
            Response::UnknownAudience => self.history.unchanged(now, &names),
            _ => {
                self.history.changed(now, &names);
                self.own_publications.executed(&request);
            }
        }
        match (request, response) {
            // The session has ended since the audience was staged, or a resync has staged another one.
            (
                Request::StageAudience { .. } | Request::Publish { audience: AudienceRef::Staged(_), .. },
                Response::UnknownAudience,
            ) => self.to_publish = None,
            (Request::Publish { files, .. }, Response::Published { .. }) => {
                self.on_changed(&names);
                self.files.extend(files.into_iter().map(|file| (file.name, file.content)));
            }
            (Request::Unpublish { names }, Response::Unpublished { published_mask, .. }) => {
                let removed = names.iter().map(|name| self.files.remove(name).is_some());
                let expected = removed.zip(0..).fold(0, |bits, (was_there, at)| bits | u64::from(was_there) << at);
                self.on_changed(&names);
                let is_expected = published_mask == expected || was_uncertain;
                assert!(self.tolerates_differences || is_expected, "{}: {published_mask:b} {expected:b}", self.user);
            }
            // The first page, where there are several.
            (Request::OwnPublications { .. }, Response::OwnPublications { entries, next }) => {
                let listed: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.name, entry.content)).collect();
                let is_part =
                    next.is_some() && listed.iter().all(|(name, content)| self.files.get(name) == Some(content));
                let is_expected = listed == self.files || is_part || !self.uncertain.is_empty();
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
}
