//! A server core and a minimal client in virtual time, for the core's tests.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use log::Level;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::auth::credentials::{Credential, Credentials};
use super::core::{Datagram, Effects, LoadedState, Plaintext, Server, ServerConfig};
use super::journal::{JournalSeq, Mutation};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::{ClientInfo, LoginResult, ResumptionKey, SessionParams};
use crate::common::limits::PROTOCOL_VERSION;
use crate::common::message::{ClientMessage, Heartbeat, Request, Response, ServerMessage};
use crate::common::opaque::{ClientLogin, KeyStretching, PasswordRecord};
use crate::common::packet::{Cookie, KE3_BYTES, Nonce, Packet};
use crate::common::session_cipher::{SessionCipher, Side};
use crate::common::types::{Content, ContentHash, ContentRef, FileName, InstanceId, NamedContent, RequestId, UserName};

/// Milliseconds since 1970 when virtual time begins.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;
/// The client info in every handshake.
pub(crate) const CLIENT_INFO: ClientInfo = ClientInfo { tcp_port: 7_000, free_slots: 4, instance: InstanceId(0) };

pub(crate) fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

pub(crate) fn name(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn file(text: &str) -> NamedContent {
    let hash = ContentHash(*blake3::hash(text.as_bytes()).as_bytes());
    NamedContent { name: name(text), content: Content { hash, size: 10, mtime_ms: 5 } }
}

/// The reference by which [`file`] is requested.
pub(crate) fn wanted(text: &str) -> ContentRef {
    let NamedContent { name, content } = file(text);
    ContentRef { name, hash: content.hash, size: content.size }
}

/// Credentials of record lines; each password is the user's name and `-pw`.
pub(crate) fn credentials(names: &[&str]) -> Credentials {
    let mut rng = ChaCha20Rng::seed_from_u64(99);
    let record = |name: &&str| {
        let user = user(name);
        let password = format!("{name}-pw");
        let record = PasswordRecord::register(&mut rng, &user, password.as_bytes(), KeyStretching::Insecure);
        (user, Credential::Record(Box::new(record)))
    };
    let users: BTreeMap<_, _> = names.iter().map(record).collect();
    Credentials { users, warnings: Vec::new() }
}

/// A server, its journal and the time.
pub(crate) struct TestServer {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    pub(crate) out: Effects,
    /// The mutations that the journal has received.
    pub(crate) journal: Vec<Mutation>,
    /// Whether the journal stores mutations at once.
    pub(crate) journal_stores: bool,
    /// Every datagram sent to the server, as an on-path attacker sees it.
    pub(crate) recorded: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) rng: ChaCha20Rng,
}

impl TestServer {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::start(names, ServerConfig::default(), origin())
    }

    /// Also used to restart: the same root secret, another seed, a later time.
    pub(crate) fn start(names: &[&str], config: ServerConfig, now: Instant) -> Self {
        let wall_ms = WALL_MS + u64::try_from((now - origin()).as_millis()).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(wall_ms);
        let mut server = Server::new(config, LoadedState::new(), rng.r#gen(), now, wall_ms);
        let mut out = Effects::default();
        let credentials = credentials(names).versioned(&server.version_key());
        assert!(server.set_credentials(credentials, &mut out).is_empty());
        Self { server, now, out, journal: Vec::new(), journal_stores: true, recorded: Vec::new(), rng }
    }

    pub(crate) fn set_credentials(&mut self, credentials: Credentials) -> Vec<Plaintext> {
        let credentials = credentials.versioned(&self.server.version_key());
        self.server.set_credentials(credentials, &mut self.out)
    }

    /// Creates a session without the work of a login, for a user who needs no credential.
    pub(crate) fn insert_session(&mut self, name: &str) -> TestClient {
        let number = u32::try_from(self.server.session_count()).unwrap();
        let address = SocketAddr::new(Ipv4Addr::from_bits(0x7f01_0000 + number).into(), 5_000);
        let secret = Zeroizing::new(self.rng.r#gen::<[u8; 32]>());
        let params = self.server.insert_session(self.now, user(name), address, CLIENT_INFO, secret.clone());
        TestClient::new(address, secret, params)
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// Passes in one datagram and runs the server until it is idle. Returns the datagrams that it sends.
    pub(crate) fn send(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Datagram> {
        let mut bytes = bytes.to_vec();
        self.recorded.push((from, bytes.clone()));
        self.server.handle_datagram(self.now, from, &mut bytes, &mut self.out);
        self.run_until_idle()
    }

    /// Runs the server until it waits for time to pass. Returns the datagrams that it sends.
    pub(crate) fn run_until_idle(&mut self) -> Vec<Datagram> {
        loop {
            self.journal.extend(self.out.mutations.drain(..));
            if self.journal_stores {
                self.make_durable();
            }
            if self.server.poll_timeout().is_none_or(|due| due > self.now) {
                return std::mem::take(&mut self.out.datagrams);
            }
            self.server.handle_timeout(self.now, &mut self.out);
        }
    }

    /// Everything queued becomes durable.
    pub(crate) fn make_durable(&mut self) {
        self.server.handle_durable(JournalSeq(self.journal.len() as u64));
    }

    /// Validates an address. Returns a nonce and its cookie.
    pub(crate) fn cookie(&mut self, from: SocketAddr) -> (Nonce, Cookie) {
        let nonce = self.rng.r#gen();
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let reply = self.send(from, &hello);
        match Packet::parse(&reply[0].bytes) {
            Some(Packet::Retry { nonce: theirs, cookie }) if theirs == nonce => (nonce, cookie),
            other => panic!("{other:?}"),
        }
    }

    /// Performs a login up to LOGIN3, which is not sent. The error holds the replies to LOGIN1.
    pub(crate) fn begin_login(&mut self, from: SocketAddr, name: &str, password: &str) -> Result<Login, Vec<Datagram>> {
        self.begin_login_with(from, name, password, CLIENT_INFO)
    }

    fn begin_login_with(
        &mut self,
        from: SocketAddr,
        name: &str,
        password: &str,
        client_info: ClientInfo,
    ) -> Result<Login, Vec<Datagram>> {
        let (nonce, cookie) = self.cookie(from);
        let user = user(name);
        let (client, ke1) = ClientLogin::start(&mut self.rng, password.as_bytes());
        let login1 = Packet::Login1 { nonce, cookie, user: name, ke1: &ke1 }.to_bytes();
        let login2 = self.send(from, &login1);
        let Some(Packet::Login2 { ke2, .. }) = login2.first().and_then(|first| Packet::parse(&first.bytes)) else {
            return Err(login2);
        };
        let finished = client.finish(&mut self.rng, &user, password.as_bytes(), ke2, KeyStretching::Insecure);
        let (key, login3) = match finished {
            Ok((key, ke3)) => {
                let client_info = key.client_info(&nonce).seal(&client_info);
                (Some(key), Packet::Login3 { nonce, ke3: &ke3, client_info: &client_info }.to_bytes())
            }
            Err(_) => {
                let (mut ke3, mut client_info) = ([0; KE3_BYTES], [0; 48]);
                self.rng.fill_bytes(&mut ke3);
                self.rng.fill_bytes(&mut client_info);
                (None, Packet::Login3 { nonce, ke3: &ke3, client_info: &client_info }.to_bytes())
            }
        };
        Ok(Login { nonce, key, login1, login2: login2[0].bytes.clone(), login3 })
    }

    /// Logs in. `None` if the login was refused.
    pub(crate) fn try_login(&mut self, from: SocketAddr, name: &str, password: &str) -> Option<LoginOutcome> {
        let login = self.begin_login(from, name, password).ok()?;
        let reply = self.send(from, &login.login3);
        login.outcome(from, &reply[0].bytes)
    }

    /// Logs in with the right password.
    pub(crate) fn login(&mut self, from: &str, name: &str) -> TestClient {
        match self.try_login(address(from), name, &format!("{name}-pw")) {
            Some(LoginOutcome::Accepted(client)) => *client,
            _ => panic!("{name} was refused"),
        }
    }

    /// Logs in as a client does whose ticket was refused.
    pub(crate) fn log_in_again(&mut self, client: &TestClient, name: &str) -> TestClient {
        let client_info = ClientInfo { instance: client.params.instance, ..CLIENT_INFO };
        let login = self.begin_login_with(client.address, name, &format!("{name}-pw"), client_info).expect("LOGIN2");
        let reply = self.send(client.address, &login.login3);
        match login.outcome(client.address, &reply[0].bytes) {
            Some(LoginOutcome::Accepted(again)) => TestClient { next_id: client.next_id, ..*again },
            _ => panic!("{name} was refused"),
        }
    }

    /// Sends a message in a session. Returns the messages to that client.
    pub(crate) fn send_message(&mut self, client: &mut TestClient, message: &ClientMessage) -> Vec<ServerMessage> {
        let bytes = client.seal(message);
        let sent = self.send(client.address, &bytes);
        client.receive(sent)
    }

    /// Sends a request. Returns the reply if it comes at once.
    pub(crate) fn try_request(&mut self, client: &mut TestClient, request: Request) -> Option<Response> {
        client.next_id += 1;
        let id = RequestId(client.next_id);
        let message = ClientMessage::Request { id, lowest_pending: id, pages: 1, request };
        match self.send_message(client, &message).pop() {
            Some(ServerMessage::Reply { id: theirs, page: 0, response }) if theirs == id => Some(response),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn request(&mut self, client: &mut TestClient, request: Request) -> Response {
        if let Some(response) = self.try_request(client, request) {
            return response;
        }
        // The session has used up its share: the reply comes when it has some again.
        loop {
            self.now = self.server.poll_timeout().expect("a reply").max(self.now);
            let sent = self.run_until_idle();
            if let Some(ServerMessage::Reply { response, .. }) = client.receive(sent).pop() {
                return response;
            }
        }
    }

    pub(crate) fn heartbeat(&mut self, client: &mut TestClient) -> Vec<ServerMessage> {
        self.send_message(client, &ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 3 }))
    }

    /// Tries to resume a client's session from an address.
    pub(crate) fn resume(&mut self, client: &TestClient, from: SocketAddr) -> Option<TestClient> {
        let (nonce, resume) = self.resume_packet(client, from);
        let reply = self.send(from, &resume);
        client.resumed(from, nonce, &reply[0].bytes)
    }

    pub(crate) fn resume_packet(&mut self, client: &TestClient, from: SocketAddr) -> (Nonce, Vec<u8>) {
        let (nonce, cookie) = self.cookie(from);
        let client_info = client.resumption().client_info(&nonce, &cookie).seal(&CLIENT_INFO);
        let packet = Packet::Resume { nonce, cookie, client_info: &client_info, ticket: &client.params.ticket };
        (nonce, packet.to_bytes())
    }
}

/// A login whose LOGIN3 has not been sent.
pub(crate) struct Login {
    pub(crate) nonce: Nonce,
    pub(crate) key: Option<crate::common::handshake_keys::LoginKey>,
    pub(crate) login1: Vec<u8>,
    pub(crate) login2: Vec<u8>,
    pub(crate) login3: Vec<u8>,
}

/// The result of a login, as the client reads it.
pub(crate) enum LoginOutcome {
    Accepted(Box<TestClient>),
    AlreadyActive { liveness_ms: u32 },
}

impl Login {
    pub(crate) fn outcome(&self, from: SocketAddr, reply: &[u8]) -> Option<LoginOutcome> {
        let Some(Packet::Login4 { nonce, result }) = Packet::parse(reply) else { panic!("no LOGIN4") };
        assert_eq!(nonce, self.nonce);
        let key = self.key.as_ref()?;
        Some(match key.result(&nonce).open(result).ok()? {
            LoginResult::Accepted(params) => {
                LoginOutcome::Accepted(Box::new(TestClient::new(from, key.session_secret(), params)))
            }
            LoginResult::AlreadyActive { liveness_ms } => LoginOutcome::AlreadyActive { liveness_ms },
        })
    }
}

/// A minimal client.
pub(crate) struct TestClient {
    pub(crate) address: SocketAddr,
    pub(crate) secret: Secret,
    pub(crate) params: SessionParams,
    pub(crate) cipher: SessionCipher,
    pub(crate) next_id: u64,
}

impl TestClient {
    fn new(address: SocketAddr, secret: Secret, params: SessionParams) -> Self {
        let cipher = SessionCipher::new(Side::Client, params.session, &secret);
        Self { address, secret, params, cipher, next_id: 0 }
    }

    pub(crate) fn resumption(&self) -> ResumptionKey {
        ResumptionKey::new(ResumptionKey::secret_for_ticket(&self.secret))
    }

    pub(crate) fn resumed(&self, from: SocketAddr, nonce: Nonce, reply: &[u8]) -> Option<TestClient> {
        match Packet::parse(reply)? {
            Packet::Resumed { nonce: theirs, server_nonce, result } if theirs == nonce => {
                let keys = self.resumption();
                let Ok(LoginResult::Accepted(params)) = keys.result(&nonce, &server_nonce).open(result) else {
                    panic!("RESUMED does not open");
                };
                let mut client = TestClient::new(from, keys.session_secret(&nonce, &server_nonce), params);
                client.next_id = self.next_id;
                Some(client)
            }
            Packet::Refused { nonce: theirs } if theirs == nonce => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn seal(&mut self, message: &ClientMessage) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.cipher.seal_into(&mut bytes, |text| message.encode(text));
        bytes
    }

    /// Decrypts the datagrams to this client.
    pub(crate) fn receive(&mut self, sent: Vec<Datagram>) -> Vec<ServerMessage> {
        let ours = sent.into_iter().filter(|datagram| datagram.to == self.address);
        ours.filter_map(|mut datagram| {
            let text = self.cipher.open(&mut datagram.bytes).ok()?;
            Some(ServerMessage::decode(text).expect("the server's own message"))
        })
        .collect()
    }
}

/// The lines that `act` logs on this thread at `level` or above.
pub(crate) fn logged(level: Level, act: impl FnOnce()) -> Vec<String> {
    static CAPTURE: std::sync::Once = std::sync::Once::new();
    CAPTURE.call_once(|| {
        log::set_logger(&Capture).expect("no other test sets a logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
    CAPTURED.set(Some((level, Vec::new())));
    act();
    CAPTURED.take().map(|(_, lines)| lines).unwrap_or_default()
}

thread_local! {
    static CAPTURED: RefCell<Option<(Level, Vec<String>)>> = const { RefCell::new(None) };
}

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        CAPTURED.with_borrow_mut(|captured| match captured {
            Some((level, lines)) if record.level() <= *level => lines.push(record.args().to_string()),
            _ => {}
        });
    }

    fn flush(&self) {}
}

/// The start of virtual time.
#[expect(clippy::disallowed_methods, reason = "the only source of an Instant; read once")]
pub(crate) fn origin() -> Instant {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}
