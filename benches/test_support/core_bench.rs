//! The server's core alone, without sockets, clocks and a journal, and the client's ends of its sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fileshare::internals::common::handshake_keys::{ClientInfo, LoginResult};
use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::message::{ClientMessage, Heartbeat};
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching, PasswordRecord};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::session_cipher::{SessionCipher, Side};
use fileshare::internals::common::types::InstanceId;
use fileshare::internals::server::auth::credentials::{Credential, Credentials};
use fileshare::internals::server::core::{Effects, LoadedState, Server, ServerConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::user;

/// The client's cipher of a session, and a second server's cipher with the same keys, to measure the sealing alone.
pub struct SessionEnds {
    pub address: SocketAddr,
    pub client: SessionCipher,
    pub server: SessionCipher,
}

pub struct Bench {
    pub server: Server,
    pub out: Effects,
    rng: ChaCha20Rng,
    pub now: Instant,
    /// Time spent in the core.
    pub spent: Duration,
}

impl Bench {
    /// A server with records of `users` users.
    pub fn new(users: usize) -> Self {
        let (mut rng, now) = (ChaCha20Rng::seed_from_u64(3), Instant::now());
        let config = ServerConfig { liveness: Duration::from_secs(1 << 20), ..ServerConfig::default() };
        let mut server = Server::new(config, LoadedState::new(), [1; 32], now, 1_800_000_000_000);
        let mut out = Effects::default();
        let record = |number| {
            let user = user(number);
            let record = PasswordRecord::register(&mut rng, &user, user.as_str().as_bytes(), KeyStretching::Insecure);
            (user, Credential::Record(Box::new(record)))
        };
        let users = (0..users).map(record).collect();
        let credentials = Credentials { users, warnings: Vec::new() };
        server.set_credentials(credentials.versioned(&server.version_key()), &mut out);
        server.handle_enrolment_done();
        Self { server, out, rng, now, spent: Duration::ZERO }
    }

    /// Passes a datagram to the core and returns its reply.
    fn exchange(&mut self, from: SocketAddr, mut datagram: Vec<u8>) -> Vec<u8> {
        let start = Instant::now();
        self.serve_login(from, &mut datagram);
        self.spent += start.elapsed();
        let mut reply = Vec::new();
        self.out.flush(|datagrams| {
            let last = datagrams.iter().rfind(|datagram| datagram.to == from);
            reply = last.map(|datagram| datagram.bytes.clone()).unwrap_or_default();
        });
        reply
    }

    /// A function of its own, because `benches/instructions.rs` counts what it does.
    #[inline(never)]
    fn serve_login(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        self.server.handle_datagram(self.now, from, datagram, &mut self.out);
        self.server.handle_timeout(self.now, &mut self.out);
    }

    pub fn log_in(&mut self, number: usize) -> SessionEnds {
        let address = SocketAddr::new(Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8).into(), 4_000);
        let (user, nonce) = (user(number), [number as u8; 16]);
        let password = user.as_str().as_bytes();
        let retry = self.exchange(address, Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes());
        let Some(Packet::Retry { cookie, .. }) = Packet::parse(&retry) else { panic!("no RETRY") };
        let (login, ke1) = ClientLogin::start(&mut self.rng, password);
        let login1 = Packet::Login1 { nonce, cookie, user: user.as_str(), ke1: &ke1 }.to_bytes();
        let login2 = self.exchange(address, login1);
        let Some(Packet::Login2 { ke2, .. }) = Packet::parse(&login2) else { panic!("no LOGIN2") };
        let finished = login.finish(&mut self.rng, &user, password, ke2, KeyStretching::Insecure);
        let (key, ke3) = finished.expect("the password is right");
        let client_info =
            key.client_info(&nonce).seal(&ClientInfo { tcp_port: 1, free_slots: 1, instance: InstanceId(0) });
        let login4 = self.exchange(address, Packet::Login3 { nonce, ke3: &ke3, client_info: &client_info }.to_bytes());
        let Some(Packet::Login4 { result, .. }) = Packet::parse(&login4) else { panic!("no LOGIN4") };
        let Ok(LoginResult::Accepted(params)) = key.result(&nonce).open(result) else { panic!("refused") };
        let secret = key.session_secret();
        let end = |side| SessionCipher::new(side, params.session, &secret);
        let mut ends = SessionEnds { address, client: end(Side::Client), server: end(Side::Server) };
        // The first heartbeat confirms the session: the server drops the state of the login.
        let heartbeat = ClientMessage::Heartbeat(Heartbeat { number: 0, free_slots: 1 });
        let heartbeat = sealed(&mut ends.client, |text| heartbeat.encode(text));
        self.exchange(address, heartbeat);
        ends
    }
}

pub fn sealed(cipher: &mut SessionCipher, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = Vec::new();
    cipher.seal_into(&mut datagram, write);
    datagram
}
