//! A server, any number of clients, and a bad network between them, in virtual time and from one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fileshare::internals::common::message::{Cursor, Request, Response};
use fileshare::internals::common::opaque::{KeyStretching, PasswordRecord};
use fileshare::internals::common::types::{Content, FileName, UserName};
use fileshare::internals::server::auth::credentials::{Credential, Credentials};
use fileshare::internals::server::core::{Effects, Server, ServerConfig};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::line::Line;
use crate::peer::Peer;
use crate::store::{Disk, Store};

/// The wall clock when a world begins, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// Most users a world has.
const USERS_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    ToServer { from: SocketAddr, datagram: Vec<u8> },
    ToPeer { at: SocketAddr, datagram: Vec<u8> },
    Peer(usize),
    Server,
    Commit { life: u64 },
    Restart,
}

/// See the module.
pub struct World {
    seed: u64,
    start: Instant,
    pub now: Instant,
    pub rng: ChaCha20Rng,
    pub line: Line,
    pub peers: Vec<Option<Peer>>,
    pub store: Store,
    /// `None` while it is down.
    pub server: Option<Server>,
    /// How many sessions must stand at any moment, if somebody watches.
    pub watched: Option<usize>,
    server_address: SocketAddr,
    root_secret: [u8; 32],
    out: Effects,
    /// Counts servers: what an earlier one began must not end in a later one.
    life: u64,
    due: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    /// Orders what is due at the same moment.
    serial: u64,
    /// The timers in `due`, so that each deadline stands there once. One that comes too early finds nothing to do.
    server_timer: Option<Instant>,
    peer_timers: Vec<Option<Instant>>,
    addresses: HashMap<SocketAddr, usize>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed after {:?} of virtual time", self.seed, self.now - self.start);
        }
    }
}

impl World {
    /// A running server, and that many clients that are logging in.
    pub fn new(seed: u64, peers: usize, line: Line) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let start = epoch();
        let mut world = Self {
            seed,
            start,
            now: start,
            line,
            peers: Vec::new(),
            store: Store::default(),
            server: None,
            watched: None,
            server_address: (Ipv4Addr::new(10, 0, 0, 1), 12_000).into(),
            root_secret: rng.r#gen(),
            out: Effects::new(),
            life: 0,
            due: BinaryHeap::new(),
            serial: 0,
            server_timer: None,
            peer_timers: Vec::new(),
            addresses: HashMap::new(),
            rng,
        };
        world.start_server();
        for number in 0..peers {
            world.join(number);
        }
        world
    }

    /// A world in which all clients have logged in, over whatever line there will be.
    pub fn settled(seed: u64, peers: usize, line: Line) -> Self {
        let mut world = Self::new(seed, peers, Line::perfect());
        world.run_for(Duration::from_secs(2));
        assert!(world.peers().all(Peer::is_welcome), "over a perfect line");
        world.line = line;
        world
    }

    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    pub fn peers_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.peers.iter_mut().flatten()
    }

    /// All users start giving commands.
    pub fn work(&mut self, pace: Duration) {
        let now = self.now;
        for peer in 0..self.peers.len() {
            self.with_peer(peer, |peer| peer.work(now, pace));
        }
    }

    /// No user gives another command; waits until those under way are answered.
    pub fn finish_work(&mut self) {
        for peer in self.peers_mut() {
            (peer.pace, peer.next_command_at) = (None, None);
        }
        let end = self.now + Duration::from_secs(60);
        while self.peers().any(|peer| !peer.is_idle()) {
            assert!(self.now < end, "a command is never answered");
            self.step();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.due.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Asks on behalf of a user, and runs the world until the answer is there.
    pub fn ask(&mut self, peer: usize, request: Request) -> Response {
        let now = self.now;
        let handle = self.with_peer(peer, |peer| peer.session.request(now, request));
        loop {
            if let Some(response) = self.peers[peer].as_mut().and_then(|peer| peer.take_answer(handle)) {
                return response;
            }
            self.step();
        }
    }

    /// All that the server says a user publishes.
    pub fn listing(&mut self, peer: usize) -> BTreeMap<FileName, Content> {
        let mut listed = BTreeMap::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            match self.ask(peer, Request::OwnPublications { user_initiated: false, cursor: cursor.take() }) {
                Response::OwnPublications { entries, next } => {
                    listed.extend(entries.into_iter().map(|entry| (entry.name, entry.content)));
                    cursor = next;
                    if cursor.is_none() {
                        return listed;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// What every user was told, the server says and the disk holds is the same.
    pub fn check_all(&mut self) {
        for number in 0..self.peers.len() {
            let Some(peer) = &self.peers[number] else { continue };
            let (user, files) = (peer.user.clone(), peer.files.clone());
            assert_eq!(self.listing(number), files, "what {user} sees");
            assert_eq!(self.store.files_of(&user), files, "what is stored of {user}");
        }
    }

    /// A client dies without a word.
    pub fn kill(&mut self, peer: usize) {
        self.peers[peer] = None;
    }

    /// A client's address changes.
    pub fn move_peer(&mut self, peer: usize) {
        let moved = address(peer, self.rng.gen_range(10_000..60_000));
        self.addresses.retain(|_, of| *of != peer);
        self.addresses.insert(moved, peer);
        self.with_peer(peer, |peer| peer.address = moved);
    }

    /// The server dies at once and starts again after a while.
    pub fn crash(&mut self, down: Duration) {
        if self.server.take().is_some() {
            self.store.crash(&mut self.rng);
            self.out = Effects::new();
            self.life += 1;
            self.push(self.now + down, Due::Restart);
        }
    }

    /// The server forgets what it was never told to keep, as under `--ephemeral`.
    pub fn forget_everything(&mut self) {
        self.root_secret = self.rng.r#gen();
        self.store.restore(Disk::default());
    }

    fn join(&mut self, number: usize) {
        let address = address(number, 5_000);
        let rng = ChaCha20Rng::from_seed(self.rng.r#gen());
        let peer = Peer::new(user(number), address, self.server_address, rng);
        self.addresses.insert(address, number);
        self.peers.push(Some(peer));
        self.peer_timers.push(None);
        let now = self.now;
        self.with_peer(number, |peer| peer.login(now));
    }

    fn start_server(&mut self) {
        let config = ServerConfig { root_secret: self.root_secret.into(), ..ServerConfig::default() };
        let wall_ms = WALL_MS + (self.now - self.start).as_millis() as u64;
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut server = Server::new(config, self.store.load(), seed, self.now, wall_ms);
        let waiting = server.handle_credentials(credentials(), &mut self.out);
        assert!(waiting.is_empty(), "all users have records");
        self.server = Some(server);
    }

    fn step(&mut self) {
        let Reverse((at, _, due)) = self.due.pop().expect("there is always something to come");
        self.now = self.now.max(at);
        let now = self.now;
        match due {
            Due::ToServer { from, mut datagram } => {
                self.with_server(|server, out| server.handle_datagram(now, from, &mut datagram, out));
            }
            Due::ToPeer { at, mut datagram } => {
                if let Some(&peer) = self.addresses.get(&at)
                    && self.peers[peer].is_some()
                {
                    let from = self.server_address;
                    self.with_peer(peer, |peer| peer.session.handle_datagram(now, from, &mut datagram));
                }
            }
            Due::Server => {
                self.server_timer = None;
                self.with_server(|server, out| {
                    if server.poll_timeout().is_some_and(|due| due <= now) {
                        server.handle_timeout(now, out);
                    }
                });
            }
            Due::Peer(peer) => {
                self.peer_timers[peer] = None;
                if self.peers[peer].is_some() {
                    self.with_peer(peer, |peer| {
                        if peer.session.poll_timeout().is_some_and(|due| due <= now) {
                            peer.session.handle_timeout(now);
                        }
                    });
                }
            }
            Due::Commit { life } if life == self.life => {
                let (durable, more) = self.store.commit();
                if more {
                    self.begin_commit();
                }
                self.with_server(|server, out| server.handle_durable(now, durable, out));
            }
            Due::Commit { .. } => {}
            Due::Restart => self.start_server(),
        }
        if let (Some(watched), Some(server)) = (self.watched, &self.server) {
            assert_eq!(server.session_count(), watched, "sessions that the server takes for alive");
        }
    }

    /// Runs the server's part and carries out what comes of it.
    fn with_server(&mut self, act: impl FnOnce(&mut Server, &mut Effects)) {
        let Some(server) = &mut self.server else { return };
        act(server, &mut self.out);
        while server.poll_timeout().is_some_and(|due| due <= self.now) {
            server.handle_timeout(self.now, &mut self.out);
        }
        let next = server.poll_timeout();
        let mut begins = false;
        for mutation in std::mem::take(&mut self.out.mutations) {
            begins |= self.store.push(mutation);
        }
        if begins {
            self.begin_commit();
        }
        for datagram in std::mem::take(&mut self.out.datagrams) {
            for delay in self.line.arrivals(&mut self.rng) {
                let due = Due::ToPeer { at: datagram.to, datagram: datagram.bytes.clone() };
                self.push(self.now + delay, due);
            }
        }
        if let Some(next) = next.filter(|next| self.server_timer.is_none_or(|set| *next < set)) {
            self.server_timer = Some(next);
            self.push(next, Due::Server);
        }
    }

    /// Runs a peer's part and carries out what comes of it.
    fn with_peer<T>(&mut self, number: usize, act: impl FnOnce(&mut Peer) -> T) -> T {
        let now = self.now;
        let peer = self.peers[number].as_mut().expect("the peer is alive");
        let result = act(peer);
        peer.take_events(now);
        peer.command(now);
        peer.take_events(now);
        let next = peer.session.poll_timeout().into_iter().chain(peer.next_command_at).min();
        let (from, mut datagrams) = (peer.address, Vec::new());
        while let Some((_, datagram)) = peer.session.poll_transmit() {
            datagrams.push(datagram);
        }
        for datagram in datagrams {
            for delay in self.line.arrivals(&mut self.rng) {
                self.push(now + delay, Due::ToServer { from, datagram: datagram.clone() });
            }
        }
        if let Some(next) = next.filter(|next| self.peer_timers[number].is_none_or(|set| *next < set)) {
            self.peer_timers[number] = Some(next);
            self.push(next, Due::Peer(number));
        }
        result
    }

    /// Mostly a quick disk, sometimes a very slow one.
    fn begin_commit(&mut self) {
        self.store.begin();
        let longest = if self.rng.gen_bool(0.02) { 2_500 } else { 20 };
        let time = Duration::from_millis(self.rng.gen_range(1..=longest));
        self.push(self.now + time, Due::Commit { life: self.life });
    }

    fn push(&mut self, at: Instant, due: Due) {
        self.serial += 1;
        self.due.push(Reverse((at, self.serial, due)));
    }
}

fn address(peer: usize, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 1, peer as u8), port).into()
}

fn user(number: usize) -> UserName {
    UserName::parse(&format!("user{number:03}")).expect("a plain name")
}

/// Everyone's record; a user's password is its name.
fn credentials() -> Credentials {
    static RECORDS: OnceLock<Vec<(UserName, PasswordRecord)>> = OnceLock::new();
    let records = RECORDS.get_or_init(|| {
        let mut rng = ChaCha20Rng::seed_from_u64(0);
        let mut enrol = |user: UserName| {
            let record = PasswordRecord::register(&mut rng, &user, user.as_str().as_bytes(), KeyStretching::Insecure);
            (user, record)
        };
        (0..USERS_MAX).map(|number| enrol(user(number))).collect()
    });
    let credential =
        |(user, record): &(UserName, PasswordRecord)| (user.clone(), Credential::Record(Box::new(record.clone())));
    Credentials { users: records.iter().map(credential).collect(), warnings: Vec::new() }
}

/// The moment at which virtual time starts.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; nothing is measured by it")]
fn epoch() -> Instant {
    Instant::now()
}
