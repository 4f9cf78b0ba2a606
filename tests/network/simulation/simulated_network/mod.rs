//! A server, any number of clients, and a faulty link between them, in virtual time. One seed determines everything.

mod checks;
mod faults;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fileshare::internals::client::session::WaitOutcome;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::server::core::{Effects, Server, ServerConfig};
use rand::{Rng, RngCore};

pub use self::faults::Cut;
use crate::simulation::choices::Choices;
use crate::simulation::faulty_link::FaultyLink;
use crate::simulation::liveness::LivenessOracle;
use crate::simulation::simulated_client::SimulatedClient;
use crate::simulation::simulated_journal::SimulatedJournal;
use crate::simulation::simulated_users::{address, credentials, user};
use crate::simulation::wait_oracle::{ObservedUser, World};

/// The wall clock at the start, milliseconds since 1970.
const WALL_MS: u64 = 1_700_000_000_000;
/// How often it is looked whether a stopped server goes on, for what its journal has stored.
const STEP_OF_STOPPED: Duration = Duration::from_millis(10);
/// Publications that fit into one request.
const PUBLISHED_TOGETHER: usize = 12;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scheduled {
    ToServer {
        from: SocketAddr,
        datagram: Vec<u8>,
    },
    ToClient {
        at: SocketAddr,
        datagram: Vec<u8>,
    },
    ClientTimer(usize),
    ServerTimer,
    Commit {
        generation: u64,
    },
    Restart,
    /// The server's process goes on.
    ServerContinues,
}

/// A server, its clients and the link. See the module.
pub struct SimulatedNetwork {
    seed: u64,
    start: Instant,
    pub now: Instant,
    pub rng: Choices,
    pub link: FaultyLink,
    pub clients: Vec<Option<SimulatedClient>>,
    /// Clients that have died, by number.
    dead: BTreeMap<usize, SimulatedClient>,
    /// When the server died, and when it started.
    restarts: Vec<Instant>,
    /// Waits of scripts that have ended, and those of them whose condition was met.
    pub waits_checked: usize,
    pub waits_met: usize,
    pub journal: SimulatedJournal,
    /// `None` while it is down.
    pub server: Option<Server>,
    /// The number of sessions that the server must have at any moment, where a test checks it.
    pub expected_sessions: Option<usize>,
    /// What the server has heard, where its sessions are checked against it.
    pub liveness: Option<LivenessOracle>,
    /// Datagrams sent by the server and all clients.
    pub datagrams: u64,
    server_address: SocketAddr,
    root_secret: [u8; 32],
    out: Effects,
    /// Counts the starts of the server: a commit that an earlier one began must not complete in a later one.
    generation: u64,
    events: BinaryHeap<Reverse<(Instant, u64, Scheduled)>>,
    /// Orders the events of one moment.
    serial: u64,
    /// The timers in `events`, so that each deadline is there once. A timer that expires too early does nothing.
    server_timer: Option<Instant>,
    client_timers: Vec<Option<Instant>>,
    addresses: HashMap<SocketAddr, usize>,
    /// Clients that are cut off, by number.
    pub cuts: HashMap<usize, Cut>,
    /// Clients whose process stands still, and until when.
    pub stopped_clients: HashMap<usize, Instant>,
    /// What the server's socket has received while its process stands still.
    stopped_server: Option<Vec<(SocketAddr, Vec<u8>)>>,
    /// The disk was replaced by an older one.
    has_lost_data: bool,
    /// Whether what happens is printed.
    is_traced: bool,
    /// How far the wall clock is set ahead of the virtual time, milliseconds.
    clock_offset_ms: i64,
}

impl Drop for SimulatedNetwork {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed after {:?} of virtual time", self.seed, self.now - self.start);
        }
    }
}

impl SimulatedNetwork {
    /// A running server, and clients that are logging in.
    pub fn new(seed: u64, clients: usize, link: FaultyLink) -> Self {
        let mut rng = Choices::from_seed(seed);
        let start = epoch();
        let mut network = Self {
            seed,
            start,
            now: start,
            link,
            clients: Vec::new(),
            dead: BTreeMap::new(),
            restarts: Vec::new(),
            waits_checked: 0,
            waits_met: 0,
            journal: SimulatedJournal::default(),
            server: None,
            expected_sessions: None,
            liveness: None,
            datagrams: 0,
            server_address: (Ipv4Addr::new(10, 0, 0, 1), 12_000).into(),
            root_secret: rng.arbitrary(),
            out: Effects::default(),
            generation: 0,
            events: BinaryHeap::new(),
            serial: 0,
            server_timer: None,
            client_timers: Vec::new(),
            addresses: HashMap::new(),
            cuts: HashMap::new(),
            stopped_clients: HashMap::new(),
            stopped_server: None,
            has_lost_data: false,
            is_traced: std::env::var_os("FILESHARE_STORM").is_some(),
            clock_offset_ms: 0,
            rng,
        };
        network.start_server();
        for number in 0..clients {
            network.join(number);
        }
        network
    }

    /// A network in which all clients have logged in; `link` is used from then on.
    pub fn with_clients_logged_in(seed: u64, clients: usize, link: FaultyLink) -> Self {
        let mut network = Self::new(seed, clients, FaultyLink::perfect());
        network.run_for(Duration::from_secs(2));
        assert!(network.clients().all(SimulatedClient::has_logged_in), "over a perfect link");
        network.link = link;
        network
    }

    pub fn clients(&self) -> impl Iterator<Item = &SimulatedClient> {
        self.clients.iter().flatten()
    }

    pub fn clients_mut(&mut self) -> impl Iterator<Item = &mut SimulatedClient> {
        self.clients.iter_mut().flatten()
    }

    /// What the users and the network decide next follows from this input.
    pub fn feed(&mut self, input: &[u8]) {
        let mut shares = input.chunks(input.len().div_ceil(self.clients.len() + 1).max(1));
        self.clients.iter_mut().flatten().for_each(|client| client.rng.feed(shares.next().unwrap_or_default()));
        self.rng.feed(shares.next().unwrap_or_default());
    }

    /// All users start to give commands.
    pub fn start_commands(&mut self, think_time_max: Duration) {
        let now = self.now;
        for client in 0..self.clients.len() {
            self.with_client(client, |client| client.start_commands(now, think_time_max));
        }
    }

    /// No user gives another command.
    pub fn stop_commands(&mut self) {
        self.trace(|| "the users give no more commands".into());
        self.clients_mut().for_each(|client| client.think_time_max = None);
    }

    /// No user gives another command; runs until the pending ones have their responses. No wait must be late.
    pub fn finish_commands(&mut self) {
        let waits = self.clients().flat_map(|client| client.waits.values().map(move |wait| (client, wait)));
        for (client, wait) in waits.filter(|(client, _)| !client.is_in_storm) {
            self.world().check(&client.user, wait, self.now, None);
        }
        for client in self.clients_mut() {
            (client.think_time_max, client.next_command_at) = (None, None);
        }
        let end = self.now + Duration::from_secs(60);
        while self.clients().any(|client| !client.is_idle()) {
            assert!(self.now < end, "a command never gets its response");
            self.step();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Makes a request on behalf of a user, and runs until the response has arrived.
    pub fn request(&mut self, client: usize, request: Request) -> Response {
        let now = self.now;
        let handle = self.with_client(client, |client| client.session.request(now, request));
        loop {
            if let Some(response) = self.clients[client].as_mut().and_then(|client| client.take_response(handle)) {
                return response;
            }
            self.step();
        }
    }

    /// A user publishes this many names.
    pub fn publish_many(&mut self, client: usize, count: usize) {
        let now = self.now;
        for files in self.with_client(client, |client| client.new_files(count)).chunks(PUBLISHED_TOGETHER) {
            let request = Request::Publish { files: files.to_vec(), audience: AudienceRef::Everyone };
            self.with_client(client, |client| client.publishing(now, &request));
            let response = self.request(client, request);
            assert!(matches!(response, Response::Published { .. }), "{response:?}");
            let now = self.now;
            self.with_client(client, |client| client.published(now, files));
        }
    }

    /// Prints what happens if a storm is run alone.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>9.3} s  {}", (self.now - self.start).as_secs_f64(), text());
        }
    }

    /// The next client logs in for the first time.
    pub fn join(&mut self, number: usize) {
        let client = self.client(number);
        self.clients.push(Some(client));
        self.client_timers.push(None);
        let now = self.now;
        self.with_client(number, |client| client.login(now));
    }

    fn client(&mut self, number: usize) -> SimulatedClient {
        let address = address(number, 5_000);
        let rng = self.rng.split();
        self.addresses.insert(address, number);
        SimulatedClient::new(user(number), address, self.server_address, rng)
    }

    /// What the ends of waits are checked against.
    fn world(&self) -> World<'_> {
        let users = self.clients().chain(self.dead.values());
        let users = users.map(|client| {
            let SimulatedClient { user, history, disturbances, .. } = client;
            ObservedUser { user, history, disturbances }
        });
        let has_lost_data = self.clients().any(|client| client.tolerates_differences);
        World { users: users.collect(), restarts: &self.restarts, has_lost_data }
    }

    fn start_server(&mut self) {
        self.restarts.push(self.now);
        let config = ServerConfig { root_secret: self.root_secret.into(), ..ServerConfig::default() };
        let wall_ms = self.wall_ms();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let mut server = Server::new(config, self.journal.load(), seed, self.now, wall_ms);
        let waiting = server.set_credentials(credentials().versioned(&server.version_key()), &mut self.out);
        assert!(waiting.is_empty(), "all users have records");
        self.server = Some(server);
        self.liveness.iter_mut().for_each(LivenessOracle::on_restart);
    }

    fn step(&mut self) {
        let Reverse((at, _, event)) = self.events.pop().expect("there is always a next event");
        self.now = self.now.max(at);
        let now = self.now;
        match event {
            Scheduled::ToServer { from, .. } if self.is_cut(from, |cut| cut.to_server) => {}
            Scheduled::ToClient { at, .. } if self.is_cut(at, |cut| cut.to_client) => {}
            Scheduled::ToServer { from, datagram } if self.stopped_server.is_some() => {
                self.stopped_server.iter_mut().for_each(|received| received.push((from, datagram.clone())));
            }
            // An earlier one took its place.
            Scheduled::ServerTimer if self.server_timer != Some(at) => {}
            Scheduled::ClientTimer(client) if self.client_timers[client] != Some(at) => {}
            Scheduled::ServerTimer if self.stopped_server.is_some() => self.server_timer = None,
            Scheduled::Commit { .. } if self.stopped_server.is_some() => self.push(now + STEP_OF_STOPPED, event),
            Scheduled::ServerContinues => self.continue_server(),
            Scheduled::ToClient { at, .. } if self.stopped_until(self.addresses.get(&at)).is_some() => {
                let until = self.stopped_until(self.addresses.get(&at)).expect("just seen");
                self.push(until, event);
            }
            Scheduled::ClientTimer(client) if self.stopped_until(Some(&client)).is_some() => {
                let until = self.stopped_until(Some(&client)).expect("just seen");
                self.client_timers[client] = Some(until);
                self.push(until, event);
            }
            Scheduled::ToServer { from, mut datagram } => {
                self.server_hears(from, &datagram);
                self.with_server(|server, out| server.handle_datagram(now, from, &mut datagram, out));
            }
            Scheduled::ToClient { at, mut datagram } => {
                if let Some(&client) = self.addresses.get(&at)
                    && self.clients[client].is_some()
                {
                    let from = self.server_address;
                    self.with_client(client, |client| client.session.handle_datagram(now, from, &mut datagram));
                }
            }
            Scheduled::ServerTimer => {
                self.server_timer = None;
                self.with_server(|server, out| {
                    if server.poll_timeout().is_some_and(|due| due <= now) {
                        server.handle_timeout(now, out);
                    }
                });
            }
            Scheduled::ClientTimer(client) => {
                self.client_timers[client] = None;
                if self.clients[client].is_some() {
                    self.with_client(client, |client| {
                        if client.session.poll_timeout().is_some_and(|due| due <= now) {
                            client.session.handle_timeout(now);
                        }
                    });
                }
            }
            Scheduled::Commit { generation } if generation == self.generation => {
                let (durable, more) = self.journal.commit();
                if more {
                    self.begin_commit();
                }
                self.with_server(|server, _| server.handle_durable(durable));
            }
            Scheduled::Commit { .. } => {}
            Scheduled::Restart => self.start_server(),
        }
        if let (Some(expected), Some(server)) = (self.expected_sessions, &self.server) {
            assert_eq!(server.session_count(), expected, "sessions that have not expired");
        }
    }

    /// Runs `act` on the server and carries out its effects.
    fn with_server(&mut self, act: impl FnOnce(&mut Server, &mut Effects)) {
        let Some(server) = &mut self.server else { return };
        act(server, &mut self.out);
        while server.poll_timeout().is_some_and(|due| due <= self.now) {
            server.handle_timeout(self.now, &mut self.out);
        }
        let next = server.poll_timeout();
        if let Some(oracle) = self.liveness.as_mut().filter(|_| self.stopped_server.is_none()) {
            oracle.check(self.now, server);
        }
        let mut must_begin = false;
        for mutation in std::mem::take(&mut self.out.mutations) {
            must_begin |= self.journal.push(mutation);
        }
        if must_begin {
            self.begin_commit();
        }
        for datagram in std::mem::take(&mut self.out.datagrams) {
            self.datagrams += 1;
            for delay in self.link.arrivals(&mut self.rng) {
                let event = Scheduled::ToClient { at: datagram.to, datagram: datagram.bytes.clone() };
                self.push(self.now + delay, event);
            }
        }
        if let Some(next) = next.filter(|next| self.server_timer.is_none_or(|set| *next < set)) {
            self.server_timer = Some(next);
            self.push(next, Scheduled::ServerTimer);
        }
    }

    /// Runs `act` on a client and carries out its effects.
    pub fn with_client<T>(&mut self, number: usize, act: impl FnOnce(&mut SimulatedClient) -> T) -> T {
        let now = self.now;
        let client = self.clients[number].as_mut().expect("the client is alive");
        let result = act(client);
        client.handle_events(now);
        client.command(now);
        client.handle_events(now);
        let traced = client.trace.as_mut().map(std::mem::take).unwrap_or_default();
        traced.into_iter().for_each(|line| self.trace(|| format!("{}: {line}", user(number))));
        let client = self.clients[number].as_mut().expect("the client is alive");
        let mut ended = std::mem::take(&mut client.ended_waits);
        if client.is_in_storm {
            // The oracle does not know all faults of a storm.
            ended.clear();
        }
        let next = client.session.poll_timeout().into_iter().chain(client.next_command_at).min();
        let (from, mut datagrams) = (client.address, Vec::new());
        while let Some((_, datagram)) = client.session.poll_transmit() {
            datagrams.push(datagram);
        }
        for datagram in datagrams {
            self.datagrams += 1;
            for delay in self.link.arrivals(&mut self.rng) {
                self.push(now + delay, Scheduled::ToServer { from, datagram: datagram.clone() });
            }
        }
        if let Some(next) = next.filter(|next| self.client_timers[number].is_none_or(|set| *next < set)) {
            self.client_timers[number] = Some(next);
            self.push(next, Scheduled::ClientTimer(number));
        }
        self.waits_checked += ended.len();
        self.waits_met += ended.iter().filter(|(_, result)| *result == Ok(WaitOutcome::Met)).count();
        let asker = user(number);
        ended.into_iter().for_each(|(wait, result)| self.world().check(&asker, &wait, now, Some(result)));
        result
    }

    /// Mostly fast, sometimes very slow.
    fn begin_commit(&mut self) {
        self.journal.begin();
        let longest = if self.rng.gen_bool(0.02) { 2_500 } else { 20 };
        let time = Duration::from_millis(self.rng.gen_range(1..=longest));
        self.push(self.now + time, Scheduled::Commit { generation: self.generation });
    }

    fn push(&mut self, at: Instant, event: Scheduled) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }
}

/// The start of virtual time.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; nothing is measured by it")]
fn epoch() -> Instant {
    Instant::now()
}
