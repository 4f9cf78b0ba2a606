//! The server's core and clients' sessions that exchange datagrams over a perfect link, with fixed randomness. Every
//! datagram is recorded.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{Event, Session, SessionConfig};
use fileshare::internals::common::message::{Request, Response};
use fileshare::internals::common::opaque::{KeyStretching, PasswordRecord};
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::{Credential, Credentials};
use fileshare::internals::server::core::{Effects, LoadedState, Server, ServerConfig};
use fileshare::internals::server::journal::{Change, JournalSeq, LastMutation, LoadSink, StoredPublication};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

/// The server's wall clock at the start, milliseconds since 1970.
const WALL_MS: u64 = 1_780_000_000_000;
const ROOT_SECRET: [u8; 32] = [0x77; 32];
/// Users and their passwords.
pub const USERS: [(&str, &str); 2] = [("hans", "falcon*solo"), ("vader", "sithlord**")];

/// A client and the datagrams that it has sent and received, in order.
pub struct RecordedClient {
    session: Session,
    address: SocketAddr,
    pub seed: [u8; 32],
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    responses: Vec<Response>,
}

impl RecordedClient {
    /// The datagrams of this kind that the client has sent, and forgets them.
    pub fn take_sent(&mut self, kind: u8) -> Vec<Vec<u8>> {
        self.sent.extract_if(.., |datagram| datagram[0] == kind).collect()
    }

    /// The same of those that it has received.
    pub fn take_received(&mut self, kind: u8) -> Vec<Vec<u8>> {
        self.received.extract_if(.., |datagram| datagram[0] == kind).collect()
    }

    /// The only datagram of this kind that the client has sent.
    pub fn sent(&mut self, kind: u8) -> Vec<u8> {
        only(self.take_sent(kind))
    }

    /// The only datagram of this kind that the client has received.
    pub fn received(&mut self, kind: u8) -> Vec<u8> {
        only(self.take_received(kind))
    }
}

/// See the module.
pub struct Exchange {
    now: Instant,
    start: Instant,
    server: Server,
    server_address: SocketAddr,
    out: Effects,
    clients: Vec<RecordedClient>,
    stored: Vec<StoredPublication>,
    last_mutation: Option<(UserName, LastMutation)>,
    durable: JournalSeq,
}

impl Exchange {
    pub fn new() -> Self {
        let now = epoch();
        Self {
            now,
            start: now,
            server: server(LoadedState::new(), 1, now, WALL_MS),
            server_address: (Ipv4Addr::LOCALHOST, 12_000).into(),
            out: Effects::default(),
            clients: Vec::new(),
            stored: Vec::new(),
            last_mutation: None,
            durable: JournalSeq(0),
        }
    }

    /// A user of [`USERS`] logs in; the number of the client.
    pub fn log_in(&mut self, user: usize) -> usize {
        let seed = [0x11 * (user as u8 + 1); 32];
        let address = (Ipv4Addr::LOCALHOST, 40_000 + user as u16).into();
        let config = SessionConfig {
            servers: vec![self.server_address],
            tcp_port: 4_000 + user as u16,
            stretching: KeyStretching::Argon2id,
        };
        let mut session = Session::new(config, ChaCha20Rng::from_seed(seed));
        session.set_free_slots(8);
        let (name, password) = USERS[user];
        session.login(self.now, name.parse().expect("a name"), Zeroizing::new(password.as_bytes().to_vec()));
        let (sent, received, responses) = (Vec::new(), Vec::new(), Vec::new());
        self.clients.push(RecordedClient { session, address, seed, sent, received, responses });
        self.deliver();
        self.clients.len() - 1
    }

    pub fn client(&mut self, number: usize) -> &mut RecordedClient {
        &mut self.clients[number]
    }

    /// Makes a request and returns the response.
    pub fn request(&mut self, client: usize, request: Request) -> Response {
        let now = self.now;
        self.clients[client].session.request(now, request);
        self.deliver();
        self.clients[client].responses.pop().expect("nothing is lost")
    }

    /// The server stops and starts again with the same data file.
    pub fn restart_server(&mut self) {
        let mut loaded = LoadedState::new();
        self.stored.iter().for_each(|publication| loaded.publication(publication.clone()));
        self.last_mutation.iter().for_each(|(user, last)| loaded.last_mutation(user.clone(), last.clone()));
        let wall_ms = WALL_MS + (self.now - self.start).as_millis() as u64;
        self.server = server(loaded, 2, self.now, wall_ms);
        self.durable = JournalSeq(0);
    }

    /// Time passes until a client's next heartbeat.
    pub fn wait_for_heartbeat(&mut self) {
        self.now += Duration::from_secs(2);
        let now = self.now;
        self.clients.iter_mut().for_each(|client| client.session.handle_timeout(now));
        self.deliver();
    }

    /// Delivers datagrams until there are no more.
    fn deliver(&mut self) {
        loop {
            let mut is_idle = true;
            for client in &mut self.clients {
                while let Some((_, mut datagram)) = client.session.poll_transmit() {
                    is_idle = false;
                    client.sent.push(datagram.clone());
                    self.server.handle_datagram(self.now, client.address, &mut datagram, &mut self.out);
                }
                while let Some(event) = client.session.poll_event() {
                    client.responses.extend(response(event));
                }
            }
            while self.server.poll_timeout().is_some_and(|due| due <= self.now) {
                self.server.handle_timeout(self.now, &mut self.out);
            }
            self.store();
            for datagram in std::mem::take(&mut self.out.datagrams) {
                is_idle = false;
                let client = self.clients.iter_mut().find(|client| client.address == datagram.to);
                let client = client.expect("a client's address");
                client.received.push(datagram.bytes.clone());
                client.session.handle_datagram(self.now, self.server_address, &mut datagram.bytes.clone());
            }
            if is_idle {
                return;
            }
        }
    }

    /// Takes the place of the journal.
    fn store(&mut self) {
        for mutation in std::mem::take(&mut self.out.mutations) {
            self.durable.0 += 1;
            let last = LastMutation { instance: mutation.instance, request: mutation.request, found: None };
            self.last_mutation = Some((mutation.user.clone(), last));
            if let Change::Publish { files, audience, published_s } = mutation.change {
                self.stored.extend(files.into_iter().map(|file| StoredPublication {
                    user: mutation.user.clone(),
                    file,
                    audience: Arc::clone(&audience),
                    published_s,
                }));
            }
            self.server.handle_durable(self.durable);
            self.server.handle_timeout(self.now, &mut self.out);
        }
    }
}

fn response(event: Event) -> Option<Response> {
    match event {
        Event::RequestFinished { result, .. } => Some(result.expect("nothing is lost")),
        Event::LoginFinished(result) => {
            result.expect("the password is right");
            None
        }
        Event::Started { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn server(loaded: LoadedState, seed: u8, now: Instant, wall_ms: u64) -> Server {
    let config = ServerConfig { root_secret: ROOT_SECRET.into(), ..ServerConfig::default() };
    let mut server = Server::new(config, loaded, [seed; 32], now, wall_ms);
    let mut rng = ChaCha20Rng::from_seed([0x99; 32]);
    let users = USERS.map(|(user, password)| {
        let user: UserName = user.parse().expect("a name");
        let record = PasswordRecord::register(&mut rng, &user, password.as_bytes(), KeyStretching::Argon2id);
        (user, Credential::Record(Box::new(record)))
    });
    let credentials = Credentials { users: users.into_iter().collect(), warnings: Vec::new() };
    let waiting = server.set_credentials(credentials.versioned(&server.version_key()), &mut Effects::default());
    assert!(waiting.is_empty(), "all users have records");
    server
}

fn only(mut datagrams: Vec<Vec<u8>>) -> Vec<u8> {
    assert_eq!(datagrams.len(), 1, "over a perfect link nothing is repeated");
    datagrams.pop().expect("counted above")
}

/// The start of virtual time.
#[expect(clippy::disallowed_methods, reason = "an Instant cannot be made from nothing; nothing is measured by it")]
fn epoch() -> Instant {
    Instant::now()
}
