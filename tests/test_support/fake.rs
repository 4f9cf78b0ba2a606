//! Scripted servers and unauthenticated senders.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::packet::Packet;

use super::TIMEOUT;

/// A UDP socket on loopback with a read timeout of 100 ms, so that loops can check for the end.
pub fn loopback_socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
    socket
}

/// A server that replies to each datagram with the result of `answer`, until dropped.
pub struct FakeServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Starts it on a free port.
    pub fn start(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let socket = loopback_socket();
        let address = socket.local_addr().expect("a bound socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
                if let Some(reply) = answer(&datagram[..length]) {
                    socket.send_to(&reply, from).expect("loopback accepts datagrams of this size");
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the fake server does not panic");
        }
    }
}

/// A sender without an account.
pub struct UnauthenticatedSender {
    socket: UdpSocket,
    server: SocketAddr,
}

impl UnauthenticatedSender {
    /// Binds a loopback address of its own.
    pub fn new(server: SocketAddr) -> Self {
        Self { socket: loopback_socket(), server }
    }

    /// Sends one datagram.
    pub fn send(&self, datagram: &[u8]) {
        // A flood may fill the socket buffer.
        let _ = self.socket.send_to(datagram, self.server);
    }

    /// Validates the address for a handshake and returns the server's cookie.
    pub fn cookie(&self, nonce: [u8; 16]) -> [u8; 32] {
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let (mut buffer, end) = ([0; 2048], Instant::now() + TIMEOUT);
        loop {
            assert!(Instant::now() < end, "the server does not answer a HELLO");
            self.send(&hello);
            while let Ok(length) = self.socket.recv(&mut buffer) {
                if let Some(Packet::Retry { nonce: echoed, cookie }) = Packet::parse(&buffer[..length])
                    && echoed == nonce
                {
                    return cookie;
                }
            }
        }
    }

    /// Sends a valid HELLO until the server answers it; returns all datagrams received before that reply. The server handles
    /// datagrams in order, so replies to earlier ones are among them.
    pub fn drain_replies(&self, nonce: [u8; 16]) -> Vec<Vec<u8>> {
        let hello = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let (mut answers, mut buffer, end) = (Vec::new(), [0; 2048], Instant::now() + TIMEOUT);
        self.send(&hello);
        loop {
            assert!(Instant::now() < end, "the server does not answer a HELLO any more");
            let Ok(length) = self.socket.recv(&mut buffer) else {
                self.send(&hello);
                continue;
            };
            match Packet::parse(&buffer[..length]) {
                Some(Packet::Retry { nonce: echoed, .. }) if echoed == nonce => return answers,
                _ => answers.push(buffer[..length].to_vec()),
            }
        }
    }
}
