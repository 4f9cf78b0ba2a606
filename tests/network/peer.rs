//! One client: a session, and a user who publishes, withdraws and looks around at random, checking every answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{Event, RequestHandle, Session, SessionConfig};
use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::types::{Content, ContentHash, FileName, InstanceId, NamedContent, UserName};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

/// Names each user publishes under.
const NAMES: usize = 8;

/// What has happened to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands that were answered.
    pub commands: usize,
    /// Sessions that took the place of one that broke off.
    pub resumed: usize,
    /// Times the user was told that the connection is lost.
    pub lost: usize,
    /// Files published again.
    pub repaired: usize,
    /// Runs begun.
    pub runs: usize,
}

/// See the module.
pub struct Peer {
    pub user: UserName,
    pub address: SocketAddr,
    pub session: Session,
    pub counts: Counts,
    /// What the user has published, by the answers.
    pub files: BTreeMap<FileName, Content>,
    /// Whether the user keeps on giving commands, and how long it thinks at most before each.
    pub pace: Option<Duration>,
    /// When the next command comes, unless one is under way.
    pub next_command_at: Option<Instant>,
    /// Whether a result may differ from what the user expects, since the server has lost its memory.
    pub forgives: bool,
    under_way: Option<(RequestHandle, Request)>,
    answers: Vec<(RequestHandle, Response)>,
    run: Option<InstanceId>,
    rng: ChaCha20Rng,
}

impl Peer {
    pub fn new(user: UserName, address: SocketAddr, server: SocketAddr, mut rng: ChaCha20Rng) -> Self {
        let config = SessionConfig { servers: vec![server], tcp_port: 4_000, stretching: KeyStretching::Insecure };
        let session = Session::new(config, ChaCha20Rng::from_seed(rng.r#gen()));
        Self {
            user,
            address,
            session,
            counts: Counts::default(),
            files: BTreeMap::new(),
            pace: None,
            next_command_at: None,
            forgives: false,
            under_way: None,
            answers: Vec::new(),
            run: None,
            rng,
        }
    }

    pub fn login(&mut self, now: Instant) {
        self.session.login(now, self.user.clone(), Zeroizing::new(self.user.as_str().as_bytes().to_vec()));
    }

    /// Whether the first login has been answered.
    pub fn is_welcome(&self) -> bool {
        self.run.is_some()
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// Starts giving commands.
    pub fn work(&mut self, now: Instant, pace: Duration) {
        self.pace = Some(pace);
        self.next_command_at = Some(now);
    }

    /// Gives the next command if it is time.
    pub fn command(&mut self, now: Instant) {
        if self.under_way.is_some() || self.next_command_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let request = self.choose();
        let handle = self.session.request(now, request.clone());
        self.under_way = Some((handle, request));
    }

    /// The answer to a request that was asked from outside.
    pub fn take_answer(&mut self, handle: RequestHandle) -> Option<Response> {
        let at = self.answers.iter().position(|(answered, _)| *answered == handle)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// Takes what the session has to tell.
    pub fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Started { welcome, resumed, .. } => {
                    self.counts.resumed += usize::from(resumed);
                    self.counts.runs += usize::from(self.run.replace(welcome.instance) != Some(welcome.instance));
                }
                Event::LoginFinished(result) => drop(result.expect("the password is right")),
                Event::ConnectionLost => self.counts.lost += 1,
                Event::Resynced(files) => self.counts.repaired += files,
                Event::RequestFinished { request, result } => {
                    let response = result.unwrap_or_else(|error| panic!("{}: {error}", self.user));
                    self.answered(now, request, response);
                }
                Event::LoggedOut => panic!("{} was logged out", self.user),
                Event::LoggedOutByUser => {}
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

    fn answered(&mut self, now: Instant, handle: RequestHandle, response: Response) {
        let Some((_, request)) = self.under_way.take_if(|(under_way, _)| *under_way == handle) else {
            return self.answers.push((handle, response));
        };
        self.check(request, response);
        self.counts.commands += 1;
        self.next_command_at = self.pace.map(|pace| now + self.rng.gen_range(Duration::ZERO..pace));
    }

    fn check(&mut self, request: Request, response: Response) {
        match (request, response) {
            (Request::Publish { files, .. }, Response::Published { .. }) => {
                self.files.extend(files.into_iter().map(|file| (file.name, file.content)));
            }
            (Request::Unpublish { names }, Response::Unpublished { published_mask: found, .. }) => {
                let removed = names.iter().map(|name| self.files.remove(name).is_some());
                let expected = removed.zip(0..).fold(0, |bits, (was_there, at)| bits | u64::from(was_there) << at);
                assert!(self.forgives || found == expected, "{}: {found:b} is not {expected:b}", self.user);
            }
            (Request::OwnPublications { .. }, Response::OwnPublications { entries, next: None }) => {
                let listed: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.name, entry.content)).collect();
                assert!(self.forgives || listed == self.files, "{}: {listed:?} is not {:?}", self.user, self.files);
            }
            (Request::Peers { .. }, Response::Users { users, .. }) => assert!(!users.contains(&self.user)),
            (Request::Search { .. }, Response::SearchResults { names, .. }) => {
                assert!(!names.iter().any(|name| name.as_str().starts_with(self.user.as_str())));
            }
            (request, response) => panic!("{response:?} is no answer to {request:?}"),
        }
    }

    fn name(&self, at: usize) -> FileName {
        FileName::parse(&format!("{}/file {at}", self.user)).expect("a plain name")
    }

    fn content(&mut self) -> Content {
        Content { hash: ContentHash(self.rng.r#gen()), size: self.rng.r#gen(), mtime_ms: 0 }
    }
}
