//! A scripted server for the session's tests: just enough of the protocol, written with `common` alone.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::*;
use crate::common::handshake_keys::{LoginKey, LoginResult, ResumptionKey};
use crate::common::message::ServerMessage;
use crate::common::opaque::{PasswordRecord, ServerLogin};
use crate::common::packet::{Cookie, Nonce};
use crate::common::session_cipher::{SessionCipher, Side};
use crate::common::types::{InstanceId, PublicationsDigest, RequestId, SessionId};

pub const PASSWORD: &[u8] = b"falcon*solo";
pub const HEARTBEAT: Duration = Duration::from_secs(2);
pub const LIVENESS: Duration = Duration::from_secs(3);

pub fn hans() -> UserName {
    UserName::parse("hans").unwrap()
}

pub fn address(last: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), 12_000).into()
}

/// How the server answers a login or a resumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    Welcome,
    AlreadyActive,
    Refuse,
    Throttle,
}

pub struct ScriptedServer {
    pub address: SocketAddr,
    pub cookie: Cookie,
    pub on_login: Policy,
    pub on_resume: Policy,
    pub digest: PublicationsDigest,
    pub last_writer: InstanceId,
    pub run: InstanceId,
    /// Sealed messages in the order of arrival, except acknowledged heartbeats.
    pub messages: VecDeque<ClientMessage>,
    /// Whether heartbeats are acknowledged.
    pub acknowledges: bool,
    pub logins: usize,
    /// The instance that the last login continues.
    pub continued: Option<InstanceId>,
    pub resumptions: usize,
    record: PasswordRecord,
    rng: ChaCha20Rng,
    /// The login in progress, with the LOGIN2 that was sent.
    login: Option<(Nonce, ServerLogin, Vec<u8>)>,
    tickets: Vec<ResumptionKey>,
    session: Option<SessionCipher>,
}

impl ScriptedServer {
    pub fn new(address: SocketAddr) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let record = PasswordRecord::register(&mut rng, &hans(), PASSWORD, KeyStretching::Insecure);
        Self {
            address,
            cookie: [1; 32],
            on_login: Policy::Welcome,
            on_resume: Policy::Welcome,
            digest: PublicationsDigest::default(),
            last_writer: InstanceId(0),
            run: InstanceId(100),
            messages: VecDeque::new(),
            acknowledges: true,
            logins: 0,
            continued: None,
            resumptions: 0,
            record,
            rng,
            login: None,
            tickets: Vec::new(),
            session: None,
        }
    }

    pub fn reset_token(&self) -> [u8; 16] {
        [9; 16]
    }

    /// A RESET of the established session.
    pub fn reset(&self, delay_ms: u16) -> Vec<u8> {
        let id = self.session.as_ref().expect("an established session").id();
        Packet::Reset { id, tag: reset_tag(&self.reset_token(), delay_ms), delay_ms }.to_bytes()
    }

    pub fn seal(&mut self, message: &ServerMessage) -> Vec<u8> {
        let mut datagram = Vec::new();
        let session = self.session.as_mut().expect("an established session");
        session.seal_into(&mut datagram, |out| message.encode(out));
        datagram
    }

    /// Processes a datagram and returns the answer.
    pub fn handle(&mut self, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        match Packet::parse(&datagram)? {
            Packet::Hello { nonce, .. } => Some(Packet::Retry { nonce, cookie: self.cookie }.to_bytes()),
            Packet::Login1 { nonce, cookie, .. } | Packet::Resume { nonce, cookie, .. } if cookie != self.cookie => {
                Some(Packet::Retry { nonce, cookie: self.cookie }.to_bytes())
            }
            Packet::Login1 { nonce, .. } if self.on_login == Policy::Throttle => {
                Some(Packet::Throttled { nonce, retry_after_s: 7 }.to_bytes())
            }
            Packet::Login1 { nonce, ke1, .. } => {
                if let Some((_, _, login2)) = self.login.as_ref().filter(|login| login.0 == nonce) {
                    return Some(login2.clone());
                }
                let fake = PasswordRecord::fake(&Zeroizing::new([1; 32]), &hans());
                let record = if self.on_login == Policy::Refuse { &fake } else { &self.record };
                let (login, ke2) = ServerLogin::start(&mut self.rng, record, &hans(), ke1);
                let login2 = Packet::Login2 { nonce, ke2: &ke2 }.to_bytes();
                self.login = Some((nonce, login, login2.clone()));
                Some(login2)
            }
            Packet::Login3 { nonce, ke3, client_info } => {
                let (_, login, _) = self.login.take().filter(|login| login.0 == nonce)?;
                let key = login.finish(&hans(), ke3).ok().filter(|_| self.on_login != Policy::Refuse);
                let answer = match key {
                    Some(key) => {
                        self.continued = key.client_info(&nonce).open(client_info).ok().map(|info| info.instance);
                        self.login_result(nonce, &key)
                    }
                    None => {
                        let mut random = [0; 336];
                        self.rng.fill(&mut random[..]);
                        random
                    }
                };
                Some(Packet::Login4 { nonce, result: &answer }.to_bytes())
            }
            Packet::Resume { nonce, cookie, client_info: details, .. } => {
                let key = self.tickets.iter().position(|key| key.client_info(&nonce, &cookie).open(details).is_ok());
                let Some(key) = key.filter(|_| self.on_resume == Policy::Welcome) else {
                    return Some(Packet::Refused { nonce }.to_bytes());
                };
                let server_nonce = self.rng.r#gen();
                let params = self.params();
                let key = &self.tickets[key];
                let secret = key.session_secret(&nonce, &server_nonce);
                let answer = key.result(&nonce, &server_nonce).seal(&LoginResult::Accepted(params.clone()));
                self.resumptions += 1;
                self.establish(&params, &secret);
                Some(Packet::Resumed { nonce, server_nonce, result: &answer }.to_bytes())
            }
            Packet::Session { .. } => {
                let text = self.session.as_mut()?.open(&mut datagram).ok()?;
                match ClientMessage::decode(text).expect("a valid message") {
                    ClientMessage::Heartbeat(heartbeat) if self.acknowledges => {
                        Some(self.seal(&ServerMessage::HeartbeatAck { number: heartbeat.number, subscriptions: None }))
                    }
                    message => {
                        self.messages.push_back(message);
                        None
                    }
                }
            }
            _ => None,
        }
    }

    /// The next request among the messages: its id, the lowest pending id, and itself. Heartbeats are skipped.
    pub fn request(&mut self) -> Option<(RequestId, RequestId, Request)> {
        loop {
            if let ClientMessage::Request { id, lowest_pending: floor, request, .. } = self.messages.pop_front()? {
                return Some((id, floor, request));
            }
        }
    }

    fn login_result(&mut self, nonce: Nonce, key: &LoginKey) -> [u8; 336] {
        if self.on_login == Policy::AlreadyActive {
            return key.result(&nonce).seal(&LoginResult::AlreadyActive { liveness_ms: LIVENESS.as_millis() as u32 });
        }
        let params = self.params();
        self.logins += 1;
        self.establish(&params, &key.session_secret());
        key.result(&nonce).seal(&LoginResult::Accepted(params))
    }

    fn params(&mut self) -> SessionParams {
        SessionParams {
            session: SessionId(self.rng.r#gen()),
            instance: self.run,
            heartbeat_ms: HEARTBEAT.as_millis() as u32,
            liveness_ms: LIVENESS.as_millis() as u32,
            server_time_ms: 1_000,
            reset_token: self.reset_token().into(),
            ticket: vec![5; 100],
            digest: self.digest,
            last_writer: self.last_writer,
            local_only: false,
        }
    }

    fn establish(&mut self, params: &SessionParams, secret: &Secret) {
        self.session = Some(SessionCipher::new(Side::Server, params.session, secret));
        self.tickets.push(ResumptionKey::new(ResumptionKey::secret_for_ticket(secret)));
    }
}

/// A session and its server. No datagram is lost.
pub struct Pair {
    pub now: Instant,
    pub session: Session,
    pub server: ScriptedServer,
    /// Datagrams to other addresses.
    pub misdirected: Vec<(SocketAddr, Vec<u8>)>,
    /// Whether datagrams arrive.
    pub connected: bool,
    pub events: VecDeque<Event>,
}

impl Pair {
    pub fn new() -> Self {
        Self::with_servers(vec![address(1)])
    }

    pub fn with_servers(servers: Vec<SocketAddr>) -> Self {
        let config = SessionConfig { servers, tcp_port: 4_000, stretching: KeyStretching::Insecure };
        Self {
            now: test_epoch(),
            session: Session::new(config, ChaCha20Rng::seed_from_u64(2)),
            server: ScriptedServer::new(address(1)),
            misdirected: Vec::new(),
            connected: true,
            events: VecDeque::new(),
        }
    }

    /// With an established session, whose events are taken.
    pub fn established() -> Self {
        let mut pair = Self::new();
        pair.login(PASSWORD);
        assert!(matches!(pair.event(), Event::Started { resumed: false, .. }));
        assert!(matches!(pair.event(), Event::LoginFinished(Ok(_))));
        pair
    }

    pub fn login(&mut self, password: &[u8]) {
        self.session.login(self.now, hans(), Zeroizing::new(password.to_vec()));
        self.exchange();
    }

    pub fn request(&mut self, request: Request) -> RequestHandle {
        let handle = self.session.request(self.now, request);
        self.exchange();
        handle
    }

    pub fn deliver(&mut self, mut datagram: Vec<u8>) {
        self.session.handle_datagram(self.now, self.server.address, &mut datagram);
        self.exchange();
    }

    pub fn reply(&mut self, id: RequestId, response: Response) {
        self.reply_page(id, 0, response);
    }

    pub fn reply_page(&mut self, id: RequestId, page: u8, response: Response) {
        let datagram = self.server.seal(&ServerMessage::Reply { id, page, response });
        self.deliver(datagram);
    }

    /// Delivers datagrams until neither side has any.
    pub fn exchange(&mut self) {
        while let Some((to, datagram)) = self.session.poll_transmit() {
            if to != self.server.address {
                self.misdirected.push((to, datagram));
            } else if self.connected
                && let Some(mut answer) = self.server.handle(datagram)
            {
                self.session.handle_datagram(self.now, to, &mut answer);
            }
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Advances the time, timeout by timeout.
    pub fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now || self.session.poll_timeout().is_some());
            self.now = due.max(self.now);
            self.session.handle_timeout(self.now);
            self.exchange();
            let next = self.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a handled timeout is due again at once");
        }
        self.now = end;
    }

    pub fn event(&mut self) -> Event {
        self.events.pop_front().expect("an event")
    }

    pub fn no_event(&self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
    }
}
