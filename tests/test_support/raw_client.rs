//! A minimal client that sends the packets of a login one by one and measures the time of each reply.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use fileshare::internals::common::handshake_keys::{ClientInfo, LoginResult};
use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::message::{ClientMessage, Heartbeat, ServerMessage};
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching};
use fileshare::internals::common::packet::{KE3_BYTES, Packet};
use fileshare::internals::common::session_cipher::{SessionCipher, Side};
use fileshare::internals::common::types::{InstanceId, UserName};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::TIMEOUT;

/// Time without a reply after which a packet is sent again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Time without an acknowledgement after which a heartbeat is sent again.
const HEARTBEAT_RETRY_INTERVAL: Duration = Duration::from_millis(85);

/// A minimal client, see the module.
pub struct RawClient {
    socket: UdpSocket,
    rng: StdRng,
}

/// Result of a password guess.
pub enum GuessOutcome {
    /// Times from LOGIN1 to LOGIN2 and from LOGIN3 to LOGIN4; bytes of both replies.
    Answered { login2: Duration, answer: Duration, bytes: [usize; 2] },
    /// The guess was throttled.
    Throttled,
}

/// A session of a raw client.
pub struct RawSession {
    client: RawClient,
    channel: SessionCipher,
    beats: u32,
}

impl RawClient {
    /// Binds a port at `at`; `seed` determines the randomness.
    pub fn new(at: IpAddr, server: SocketAddr, seed: u64) -> Self {
        let socket = UdpSocket::bind((at, 0)).expect("a free port");
        socket.connect(server).expect("loopback is reachable");
        Self { socket, rng: StdRng::seed_from_u64(seed) }
    }

    /// Sends `packet` until `accepts` accepts a reply. Returns the reply and its time since the last transmission.
    fn request(&self, packet: &[u8], mut accepts: impl FnMut(&mut [u8]) -> bool) -> (Vec<u8>, Duration) {
        let end = Instant::now() + TIMEOUT;
        while Instant::now() < end {
            if let Some(answered) = self.request_once(packet, RETRY_INTERVAL, &mut accepts) {
                return answered;
            }
        }
        panic!("the server does not reply any more");
    }

    fn request_once(
        &self,
        packet: &[u8],
        timeout: Duration,
        mut accepts: impl FnMut(&mut [u8]) -> bool,
    ) -> Option<(Vec<u8>, Duration)> {
        let (start, mut buffer) = (Instant::now(), [0; 2048]);
        let _ = self.socket.send(packet);
        while let Some(left) = timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("a timeout can be set");
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let took = start.elapsed();
                    if accepts(&mut buffer[..length]) {
                        return Some((buffer[..length].to_vec(), took));
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // The port is refused while the server is starting.
                Err(_) => {}
            }
        }
        None
    }

    fn login1(&mut self, user: &str, ke1: &[u8; 96]) -> ([u8; 16], Vec<u8>) {
        let nonce = self.rng.r#gen();
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let is_retry =
            |bytes: &mut [u8]| matches!(Packet::parse(bytes), Some(Packet::Retry { nonce: n, .. }) if n == nonce);
        let (retry, _) = self.request(&hello, is_retry);
        let Some(Packet::Retry { cookie, .. }) = Packet::parse(&retry) else { unreachable!("checked above") };
        (nonce, Packet::Login1 { nonce, cookie, user, ke1 }.to_bytes())
    }

    /// Makes a login attempt with a wrong password, like a client that could not process KE2.
    pub fn guess(&mut self, user: &str) -> GuessOutcome {
        let (_, ke1) = ClientLogin::start(&mut self.rng, b"guess");
        let (nonce, login1) = self.login1(user, &ke1);
        let is_answer = |bytes: &mut [u8]| match Packet::parse(bytes) {
            Some(Packet::Login2 { nonce: n, .. } | Packet::Throttled { nonce: n, .. }) => n == nonce,
            _ => false,
        };
        let (first, login2) = self.request(&login1, is_answer);
        if let Some(Packet::Throttled { .. }) = Packet::parse(&first) {
            return GuessOutcome::Throttled;
        }
        let (mut ke3, mut details) = ([0; KE3_BYTES], [0; 48]);
        self.rng.fill_bytes(&mut ke3);
        self.rng.fill_bytes(&mut details);
        let login3 = Packet::Login3 { nonce, ke3: &ke3, client_info: &details }.to_bytes();
        let is_answer =
            |bytes: &mut [u8]| matches!(Packet::parse(bytes), Some(Packet::Login4 { nonce: n, .. }) if n == nonce);
        let (second, answer) = self.request(&login3, is_answer);
        GuessOutcome::Answered { login2, answer, bytes: [first.len(), second.len()] }
    }

    /// Sends a HELLO, and a LOGIN1 for every cookie received so far, without waiting. Many calls make a flood.
    pub fn flood_login(&mut self, user: &str) {
        let nonce = self.rng.r#gen();
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let _ = self.socket.send(&hello);
        self.socket.set_nonblocking(true).expect("a socket can be set so");
        let mut buffer = [0; 2048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            if let Some(Packet::Retry { nonce, cookie }) = Packet::parse(&buffer[..length]) {
                let (_, ke1) = ClientLogin::start(&mut self.rng, b"guess");
                let _ = self.socket.send(&Packet::Login1 { nonce, cookie, user, ke1: &ke1 }.to_bytes());
            }
        }
        self.socket.set_nonblocking(false).expect("a socket can be set so");
    }

    /// Logs in.
    pub fn log_in(mut self, user: &str, password: &[u8], stretching: KeyStretching) -> RawSession {
        let name = UserName::parse(user).expect("a name");
        let (login, ke1) = ClientLogin::start(&mut self.rng, password);
        let (nonce, login1) = self.login1(user, &ke1);
        let is_login2 =
            |bytes: &mut [u8]| matches!(Packet::parse(bytes), Some(Packet::Login2 { nonce: n, .. }) if n == nonce);
        let (login2, _) = self.request(&login1, is_login2);
        let Some(Packet::Login2 { ke2, .. }) = Packet::parse(&login2) else { unreachable!("checked above") };
        let (key, ke3) = login.finish(&mut self.rng, &name, password, ke2, stretching).expect("the right password");
        let details = key.client_info(&nonce).seal(&ClientInfo { tcp_port: 9, free_slots: 0, instance: InstanceId(0) });
        let login3 = Packet::Login3 { nonce, ke3: &ke3, client_info: &details }.to_bytes();
        let mut welcome = None;
        self.request(&login3, |bytes| match Packet::parse(bytes) {
            Some(Packet::Login4 { nonce: n, result: answer }) if n == nonce => {
                welcome = key.result(&nonce).open(answer).ok();
                true
            }
            _ => false,
        });
        let Some(LoginResult::Accepted(welcome)) = welcome else { panic!("{user} is refused") };
        let channel = SessionCipher::new(Side::Client, welcome.session, &key.session_secret());
        RawSession { client: self, channel, beats: 0 }
    }
}

impl RawSession {
    /// Sends a heartbeat and waits for the acknowledgement; returns the time since the first transmission.
    pub fn heartbeat(&mut self) -> Duration {
        self.beats += 1;
        let (start, number, channel) = (Instant::now(), self.beats, &mut self.channel);
        while start.elapsed() < TIMEOUT {
            let mut datagram = Vec::new();
            let beat = ClientMessage::Heartbeat(Heartbeat { number, free_slots: 0 });
            channel.seal_into(&mut datagram, |out| beat.encode(out));
            let answered = self.client.request_once(&datagram, HEARTBEAT_RETRY_INTERVAL, |bytes| {
                let Ok(text) = channel.open(bytes) else { return false };
                matches!(ServerMessage::decode(text), Ok(ServerMessage::HeartbeatAck { number: n, .. }) if n == number)
            });
            if answered.is_some() {
                return start.elapsed();
            }
        }
        panic!("a heartbeat is never acknowledged")
    }
}
