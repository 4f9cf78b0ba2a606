//! A server core and the smallest client there is, in virtual time: for the core's own tests.

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
use crate::common::types::{Content, ContentHash, ContentRef, FileName, NamedContent, RequestId, UserName};

/// Milliseconds since 1970 when virtual time begins.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;
/// What clients tell of themselves.
pub(crate) const CLIENT_INFO: ClientInfo = ClientInfo { tcp_port: 7_000, free_slots: 4 };

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

/// What is asked for to fetch [`file`].
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
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) now: Instant,
    pub(crate) out: Effects,
    /// What the journal was given.
    pub(crate) journal: Vec<Mutation>,
    /// Whether the journal stores at once.
    pub(crate) stores: bool,
    /// Every datagram to the server, as somebody on the line would see it.
    pub(crate) recorded: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) rng: ChaCha20Rng,
}

impl World {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::start(names, ServerConfig::default(), origin())
    }

    /// Also used to restart: the same root secret, another seed, a later time.
    pub(crate) fn start(names: &[&str], config: ServerConfig, now: Instant) -> Self {
        let wall_ms = WALL_MS + u64::try_from((now - origin()).as_millis()).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(wall_ms);
        let mut server = Server::new(config, LoadedState::new(), rng.r#gen(), now, wall_ms);
        let mut out = Effects::new();
        let credentials = credentials(names).versioned(&server.version_key());
        assert!(server.set_credentials(credentials, &mut out).is_empty());
        Self { server, now, out, journal: Vec::new(), stores: true, recorded: Vec::new(), rng }
    }

    pub(crate) fn set_credentials(&mut self, credentials: Credentials) -> Vec<Plaintext> {
        let credentials = credentials.versioned(&self.server.version_key());
        self.server.set_credentials(credentials, &mut self.out)
    }

    /// Creates a session without the work of a login, for a user who needs no credential.
    pub(crate) fn insert_session(&mut self, name: &str) -> Client {
        let number = u32::try_from(self.server.session_count()).unwrap();
        let address = SocketAddr::new(Ipv4Addr::from_bits(0x7f01_0000 + number).into(), 5_000);
        let secret = Zeroizing::new(self.rng.r#gen::<[u8; 32]>());
        let welcome = self.server.insert_session(self.now, user(name), address, CLIENT_INFO, secret.clone());
        Client::new(address, secret, welcome)
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// Hands in one datagram and settles; gives what the server sends.
    pub(crate) fn send(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Datagram> {
        let mut bytes = bytes.to_vec();
        self.recorded.push((from, bytes.clone()));
        self.server.handle_datagram(self.now, from, &mut bytes, &mut self.out);
        self.settle()
    }

    /// Lets the server do all that it can now.
    pub(crate) fn settle(&mut self) -> Vec<Datagram> {
        loop {
            self.journal.extend(self.out.mutations.drain(..));
            if self.stores {
                self.store();
            }
            if self.server.poll_timeout().is_none_or(|due| due > self.now) {
                return std::mem::take(&mut self.out.datagrams);
            }
            self.server.handle_timeout(self.now, &mut self.out);
        }
    }

    /// Everything queued becomes durable.
    pub(crate) fn store(&mut self) {
        self.server.handle_durable(self.now, JournalSeq(self.journal.len() as u64), &mut self.out);
    }

    /// Proves the address: a nonce and its cookie.
    pub(crate) fn cookie(&mut self, from: SocketAddr) -> (Nonce, Cookie) {
        let nonce = self.rng.r#gen();
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let reply = self.send(from, &hello);
        match Packet::parse(&reply[0].bytes) {
            Some(Packet::Retry { nonce: theirs, cookie }) if theirs == nonce => (nonce, cookie),
            other => panic!("{other:?}"),
        }
    }

    /// Everything up to LOGIN3, which is not yet sent; `Err` is what LOGIN1 drew.
    pub(crate) fn begin_login(&mut self, from: SocketAddr, name: &str, password: &str) -> Result<Login, Vec<Datagram>> {
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
                let details = key.seal_client_info(&nonce, &CLIENT_INFO);
                (Some(key), Packet::Login3 { nonce, ke3: &ke3, client_info: &details }.to_bytes())
            }
            Err(_) => {
                let (mut ke3, mut details) = ([0; KE3_BYTES], [0; 48]);
                self.rng.fill_bytes(&mut ke3);
                self.rng.fill_bytes(&mut details);
                (None, Packet::Login3 { nonce, ke3: &ke3, client_info: &details }.to_bytes())
            }
        };
        Ok(Login { nonce, key, login1, login2: login2[0].bytes.clone(), login3 })
    }

    /// Logs in; `None` when refused without a word.
    pub(crate) fn try_login(&mut self, from: SocketAddr, name: &str, password: &str) -> Option<LoginOutcome> {
        let login = self.begin_login(from, name, password).ok()?;
        let reply = self.send(from, &login.login3);
        login.outcome(from, &reply[0].bytes)
    }

    /// Logs in with the right password.
    pub(crate) fn login(&mut self, from: &str, name: &str) -> Client {
        match self.try_login(address(from), name, &format!("{name}-pw")) {
            Some(LoginOutcome::Welcome(client)) => *client,
            _ => panic!("{name} was refused"),
        }
    }

    /// Sends a message in a session; gives what comes back to that client.
    pub(crate) fn say(&mut self, client: &mut Client, message: &ClientMessage) -> Vec<ServerMessage> {
        let bytes = client.seal(message);
        let sent = self.send(client.address, &bytes);
        client.hear(sent)
    }

    /// Asks and gets the reply, if it comes at once.
    pub(crate) fn try_ask(&mut self, client: &mut Client, request: Request) -> Option<Response> {
        client.next_id += 1;
        let id = RequestId(client.next_id);
        let message = ClientMessage::Request { id, lowest_pending: id, request };
        match self.say(client, &message).pop() {
            Some(ServerMessage::Reply { id: theirs, response }) if theirs == id => Some(response),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, client: &mut Client, request: Request) -> Response {
        self.try_ask(client, request).expect("a reply")
    }

    pub(crate) fn heartbeat(&mut self, client: &mut Client) -> Vec<ServerMessage> {
        self.say(client, &ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 3 }))
    }

    /// Tries to take a client's session up again from an address.
    pub(crate) fn resume(&mut self, client: &Client, from: SocketAddr) -> Option<Client> {
        let (nonce, resume) = self.resume_packet(client, from);
        let reply = self.send(from, &resume);
        client.resumed(from, nonce, &reply[0].bytes)
    }

    pub(crate) fn resume_packet(&mut self, client: &Client, from: SocketAddr) -> (Nonce, Vec<u8>) {
        let (nonce, cookie) = self.cookie(from);
        let details = client.resumption().seal_client_info(&nonce, &cookie, &CLIENT_INFO);
        let packet = Packet::Resume { nonce, cookie, client_info: &details, ticket: &client.welcome.ticket };
        (nonce, packet.to_bytes())
    }
}

/// A login whose last step is still to be sent.
pub(crate) struct Login {
    pub(crate) nonce: Nonce,
    pub(crate) key: Option<crate::common::handshake_keys::LoginKey>,
    pub(crate) login1: Vec<u8>,
    pub(crate) login2: Vec<u8>,
    pub(crate) login3: Vec<u8>,
}

/// What a login came to.
pub(crate) enum LoginOutcome {
    Welcome(Box<Client>),
    AlreadyActive { liveness_ms: u32 },
}

impl Login {
    pub(crate) fn outcome(&self, from: SocketAddr, answer: &[u8]) -> Option<LoginOutcome> {
        let Some(Packet::Login4 { nonce, result: answer }) = Packet::parse(answer) else { panic!("no ANSWER") };
        assert_eq!(nonce, self.nonce);
        let key = self.key.as_ref()?;
        Some(match key.open_result(&nonce, answer).ok()? {
            LoginResult::Accepted(welcome) => {
                LoginOutcome::Welcome(Box::new(Client::new(from, key.session_secret(), welcome)))
            }
            LoginResult::AlreadyActive { liveness_ms } => LoginOutcome::AlreadyActive { liveness_ms },
        })
    }
}

/// The smallest client there is.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) secret: Secret,
    pub(crate) welcome: SessionParams,
    pub(crate) channel: SessionCipher,
    pub(crate) next_id: u64,
}

impl Client {
    fn new(address: SocketAddr, secret: Secret, welcome: SessionParams) -> Self {
        let channel = SessionCipher::new(Side::Client, welcome.session, &secret);
        Self { address, secret, welcome, channel, next_id: 0 }
    }

    pub(crate) fn resumption(&self) -> ResumptionKey {
        ResumptionKey::new(ResumptionKey::secret_for_ticket(&self.secret))
    }

    pub(crate) fn resumed(&self, from: SocketAddr, nonce: Nonce, reply: &[u8]) -> Option<Client> {
        match Packet::parse(reply)? {
            Packet::Resumed { nonce: theirs, server_nonce, result: answer } if theirs == nonce => {
                let keys = self.resumption();
                let Ok(LoginResult::Accepted(welcome)) = keys.open_result(&nonce, &server_nonce, answer) else {
                    panic!("a RESUMED that does not open");
                };
                let mut client = Client::new(from, keys.session_secret(&nonce, &server_nonce), welcome);
                client.next_id = self.next_id;
                Some(client)
            }
            Packet::Refused { nonce: theirs } if theirs == nonce => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn seal(&mut self, message: &ClientMessage) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.channel.seal_into(&mut bytes, |text| message.encode(text));
        bytes
    }

    /// Opens what is for this client.
    pub(crate) fn hear(&mut self, sent: Vec<Datagram>) -> Vec<ServerMessage> {
        let ours = sent.into_iter().filter(|datagram| datagram.to == self.address);
        ours.filter_map(|mut datagram| {
            let text = self.channel.open(&mut datagram.bytes).ok()?;
            Some(ServerMessage::decode(text).expect("the server's own message"))
        })
        .collect()
    }
}

/// What `act` logs on this thread at `level` or above.
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

/// The beginning of virtual time.
#[expect(clippy::disallowed_methods, reason = "an Instant can be had no other way; it is read once")]
pub(crate) fn origin() -> Instant {
    static ORIGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}
