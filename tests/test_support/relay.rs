//! Someone in the middle: passes everything between a client and a server, or a downloader and an uploader, and writes
//! it down. On request it goes silent, or says things again.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::packet::Packet;

use super::TIMEOUT;

/// One datagram as it was seen.
#[derive(Debug, Clone)]
pub struct RecordedDatagram {
    /// From the client rather than to it.
    pub to_server: bool,
    /// All of it.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct RelayState {
    seen: Mutex<Vec<RecordedDatagram>>,
    news: Condvar,
    client: Mutex<Option<SocketAddr>>,
    silent: AtomicBool,
    stop: AtomicBool,
}

/// Between one client and the server.
pub struct UdpRelay {
    tape: Arc<RelayState>,
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpRelay {
    /// Passes datagrams to `server`, which sees the client at the address `as_ip`.
    pub fn start(server: SocketAddr, as_ip: Ipv4Addr) -> Self {
        let bind = |ip: Ipv4Addr| {
            let socket = UdpSocket::bind((ip, 0)).expect("a free port");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
            Arc::new(socket)
        };
        let (near, far) = (bind(Ipv4Addr::LOCALHOST), bind(as_ip));
        far.connect(server).expect("loopback is reachable");
        let tape = Arc::new(RelayState::default());
        let threads = [true, false].map(|to_server| {
            let (tape, near, far) = (tape.clone(), near.clone(), far.clone());
            thread::spawn(move || pass_datagrams(&tape, &near, &far, to_server))
        });
        Self { tape, near, far, threads: threads.into() }
    }

    /// The port that the client is to be given as the server's.
    pub fn port(&self) -> u16 {
        self.near.local_addr().expect("a bound socket").port()
    }

    /// Everything passed so far.
    pub fn recording(&self) -> Vec<RecordedDatagram> {
        self.tape.seen.lock().expect("no relay panics").clone()
    }

    /// While silent, nothing passes.
    pub fn set_silent(&self, silent: bool) {
        self.tape.silent.store(silent, Ordering::Relaxed);
    }

    /// Says something in the client's or the server's name.
    pub fn inject(&self, seen: &RecordedDatagram) {
        if seen.to_server {
            let _ = self.far.send(&seen.bytes);
        } else if let Some(client) = *self.tape.client.lock().expect("no relay panics") {
            let _ = self.near.send_to(&seen.bytes, client);
        }
    }

    /// The same, and waits until the server has taken it in and done what it does about it: until it answers a HELLO that
    /// comes after it.
    pub fn inject_and_wait(&self, seen: &RecordedDatagram) {
        self.inject(seen);
        if !seen.to_server {
            return;
        }
        let nonce = rand::random();
        let bytes = Packet::Hello { version: PROTOCOL_VERSION, nonce }.to_bytes();
        let before = self.recording().len();
        self.inject(&RecordedDatagram { to_server: true, bytes });
        let is_answer = |seen: &RecordedDatagram| matches!(Packet::parse(&seen.bytes), Some(Packet::Retry { nonce: n, .. }) if n == nonce);
        let seen = self.tape.seen.lock().expect("no relay panics");
        let waited = self.tape.news.wait_timeout_while(seen, TIMEOUT, |seen| !seen[before..].iter().any(is_answer));
        assert!(!waited.expect("no relay panics").1.timed_out(), "the server answers");
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.tape.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no relay panics");
        }
    }
}

fn pass_datagrams(tape: &RelayState, near: &UdpSocket, far: &UdpSocket, to_server: bool) {
    let mut buffer = [0; 2048];
    while !tape.stop.load(Ordering::Relaxed) {
        let from = if to_server { near } else { far };
        let Ok((length, address)) = from.recv_from(&mut buffer) else { continue };
        if to_server {
            *tape.client.lock().expect("no relay panics") = Some(address);
        }
        if tape.silent.load(Ordering::Relaxed) {
            continue;
        }
        let bytes = buffer[..length].to_vec();
        tape.seen.lock().expect("no relay panics").push(RecordedDatagram { to_server, bytes });
        tape.news.notify_all();
        let client = *tape.client.lock().expect("no relay panics");
        match client {
            _ if to_server => drop(far.send(&buffer[..length])),
            Some(client) => drop(near.send_to(&buffer[..length], client)),
            None => {}
        }
    }
}

/// Between downloaders and one uploader: listens at one loopback address on the very port at which the uploader listens
/// at another, so that a server which sees the uploader at the relay's address sends downloaders here.
pub struct TcpRelay {
    listener: SocketAddr,
    tape: Arc<(Mutex<Vec<u8>>, Condvar)>,
}

impl TcpRelay {
    /// Listens at `at`; `port` is where the uploader must listen on 127.0.0.1.
    pub fn start(at: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((at, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let uploader = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        let tape = Arc::<(Mutex<Vec<u8>>, Condvar)>::default();
        let recorder = tape.clone();
        // Ends with the process: accepting cannot be interrupted without unsafe code, and it holds nothing else.
        thread::spawn(move || {
            while let Ok((downloader, _)) = listener.accept() {
                let Ok(uploader) = TcpStream::connect(uploader) else { continue };
                let (d, u) = (downloader.try_clone(), uploader.try_clone());
                let (Ok(d), Ok(u)) = (d, u) else { continue };
                let tapes = (recorder.clone(), recorder.clone());
                thread::spawn(move || pass_stream(downloader, uploader, &tapes.0));
                thread::spawn(move || pass_stream(u, d, &tapes.1));
            }
        });
        Self { listener: address, tape }
    }

    /// Where the relay listens, and the uploader must.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// How many bytes have passed so far, both directions together.
    pub fn passed(&self) -> usize {
        self.tape.0.lock().expect("no relay panics").len()
    }

    /// Waits until so many have.
    pub fn wait_passed(&self, bytes: usize) {
        let (lock, grown) = &*self.tape;
        let tape = lock.lock().expect("no relay panics");
        let (tape, timeout) =
            grown.wait_timeout_while(tape, TIMEOUT, |tape| tape.len() < bytes).expect("no relay panics");
        assert!(!timeout.timed_out(), "only {} of {bytes} bytes passed", tape.len());
    }

    /// Everything passed so far, both directions mixed.
    pub fn recording(&self) -> Vec<u8> {
        self.tape.0.lock().expect("no relay panics").clone()
    }
}

fn pass_stream(mut from: TcpStream, mut to: TcpStream, tape: &(Mutex<Vec<u8>>, Condvar)) {
    let mut chunk = [0; 16 << 10];
    while let Ok(length) = from.read(&mut chunk) {
        tape.0.lock().expect("no relay panics").extend_from_slice(&chunk[..length]);
        tape.1.notify_all();
        if length == 0 || to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
