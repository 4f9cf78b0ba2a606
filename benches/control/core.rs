//! The core alone: the cost of a login and of a heartbeat without the socket, the part of it that is sealing, and the cost
//! of the socket.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fileshare::internals::common::handshake_keys::{ClientInfo, LoginResult};
use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::message::{ClientMessage, Heartbeat, ServerMessage};
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching, PasswordRecord};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::session_cipher::{SessionCipher, Side};
use fileshare::internals::server::auth::credentials::{Credential, Credentials};
use fileshare::internals::server::core::{Effects, LoadedState, Server, ServerConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::test_support::{median, user};

const ROUNDS: usize = 9;
/// Datagrams that fit into a socket's buffer.
const BURST: usize = 100;

/// The client's cipher of a session, and a second server's cipher with the same keys, to measure the sealing alone.
pub struct SessionEnds {
    pub address: SocketAddr,
    pub client: SessionCipher,
    server: SessionCipher,
}

pub struct Bench {
    pub server: Server,
    pub out: Effects,
    rng: ChaCha20Rng,
    pub now: Instant,
    /// Time spent in the core.
    spent: Duration,
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
        self.server.handle_datagram(self.now, from, &mut datagram, &mut self.out);
        self.server.handle_timeout(self.now, &mut self.out);
        self.spent += start.elapsed();
        let mut reply = Vec::new();
        self.out.flush(|datagrams| {
            let last = datagrams.iter().rfind(|datagram| datagram.to == from);
            reply = last.map(|datagram| datagram.bytes.clone()).unwrap_or_default();
        });
        reply
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
        let client_info = key.client_info(&nonce).seal(&ClientInfo { tcp_port: 1, free_slots: 1 });
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

pub fn measure(users: usize) {
    let (mut bench, count) = (Bench::new(users), users);
    let mut ends: Vec<SessionEnds> = (0..count).map(|number| bench.log_in(number)).collect();
    println!("login: {:.3} ms in the core", bench.spent.as_secs_f64() * 1e3 / count as f64);

    let (mut whole, mut sealed_loop, mut clear_loop) = (Vec::new(), Vec::new(), Vec::new());
    let mut size = 0;
    for number in 1..=ROUNDS as u32 {
        let message = ClientMessage::Heartbeat(Heartbeat { number, free_slots: 1 });
        let mut datagrams: Vec<Vec<u8>> =
            ends.iter_mut().map(|ends| sealed(&mut ends.client, |text| message.encode(text))).collect();
        size = datagrams[0].len();
        let mut copies = datagrams.clone();
        let start = Instant::now();
        for (ends, datagram) in ends.iter().zip(&mut datagrams) {
            bench.server.handle_datagram(bench.now, ends.address, datagram, &mut bench.out);
            bench.out.flush(|datagrams| assert_eq!(datagrams.len(), 1));
        }
        whole.push(start.elapsed());
        let ack = ServerMessage::HeartbeatAck { number, subscriptions: None };
        let mut buffer = Vec::new();
        let start = Instant::now();
        for (ends, datagram) in ends.iter_mut().zip(&mut copies) {
            let opened = ends.server.open(datagram).expect("a sealed datagram");
            assert!(!opened.is_empty());
            ends.server.seal_into(&mut buffer, |text| ack.encode(text));
        }
        sealed_loop.push(start.elapsed());
        clear_loop.push(in_clear(&ends, &copies, &ack));
    }
    let each = |times: Vec<Duration>| median(times).as_secs_f64() * 1e6 / count as f64;
    let sealing = each(sealed_loop) - each(clear_loop);
    let (whole, socket) = (each(whole), socket_us(size));
    println!("heartbeat: {whole:.2} µs in the core, {sealing:.2} of them for sealing; the socket takes {socket:.2} µs");
    let without = whole - sealing + socket;
    println!("sealing adds {:.1} % to a heartbeat", sealing / without * 100.0);
}

/// The same exchange without sealing: the session id is compared, and the reply is written after a head. This cost is not a
/// cost of the sealing.
fn in_clear(ends: &[SessionEnds], datagrams: &[Vec<u8>], ack: &ServerMessage) -> Duration {
    let mut buffer = Vec::new();
    let start = Instant::now();
    for (ends, datagram) in ends.iter().zip(datagrams) {
        assert!(datagram[1..17] == ends.server.id().0);
        buffer.clear();
        buffer.extend_from_slice(&datagram[..25]);
        ack.encode(&mut buffer);
        std::hint::black_box(&buffer);
    }
    start.elapsed()
}

pub fn sealed(cipher: &mut SessionCipher, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = Vec::new();
    cipher.seal_into(&mut datagram, write);
    datagram
}

/// The time to receive a datagram of `size` bytes and to send one, over loopback, microseconds.
fn socket_us(size: usize) -> f64 {
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let (server, client) = (socket(), socket());
    client.connect(server.local_addr().expect("an address")).expect("connected");
    let (datagram, mut buffer) = (vec![0; size], [0; 1_500]);
    let mut times = Vec::new();
    for _ in 0..200 {
        (0..BURST).for_each(|_| _ = client.send(&datagram).expect("sent"));
        let start = Instant::now();
        for _ in 0..BURST {
            let (bytes, from) = server.recv_from(&mut buffer).expect("received");
            server.send_to(&buffer[..bytes], from).expect("sent");
        }
        times.push(start.elapsed());
        (0..BURST).for_each(|_| _ = client.recv(&mut buffer).expect("received"));
    }
    median(times).as_secs_f64() * 1e6 / BURST as f64
}
