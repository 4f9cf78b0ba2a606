//! Relays between a client and a server, or a downloader and an uploader, that record all traffic. On request they drop or
//! replay datagrams.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::packet::Packet;

use super::{TIMEOUT, free_port};

/// One recorded datagram.
#[derive(Debug, Clone)]
pub struct RecordedDatagram {
    /// Whether the client sent it.
    pub to_server: bool,
    /// The whole datagram.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct RelayState {
    datagrams: Mutex<Vec<RecordedDatagram>>,
    changed: Condvar,
    client: Mutex<Option<SocketAddr>>,
    silent: AtomicBool,
    stop: AtomicBool,
}

/// A relay between one client and the server.
pub struct UdpRelay {
    state: Arc<RelayState>,
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpRelay {
    /// Forwards datagrams to `server`, which sees the client at the address `as_ip`.
    pub fn start(server: SocketAddr, as_ip: Ipv4Addr) -> Self {
        let bind = |ip: Ipv4Addr| {
            let socket = UdpSocket::bind((ip, 0)).expect("a free port");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
            Arc::new(socket)
        };
        let (near, far) = (bind(Ipv4Addr::LOCALHOST), bind(as_ip));
        far.connect(server).expect("loopback is reachable");
        let state = Arc::new(RelayState::default());
        let threads = [true, false].map(|to_server| {
            let (state, near, far) = (state.clone(), near.clone(), far.clone());
            thread::spawn(move || forward_datagrams(&state, &near, &far, to_server))
        });
        Self { state, near, far, threads: threads.into() }
    }

    /// The port that the client uses as the server's.
    pub fn port(&self) -> u16 {
        self.near.local_addr().expect("a bound socket").port()
    }

    /// All datagrams forwarded so far.
    pub fn recording(&self) -> Vec<RecordedDatagram> {
        self.state.datagrams.lock().expect("no relay panics").clone()
    }

    /// While silent, the relay drops all datagrams.
    pub fn set_silent(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::Relaxed);
    }

    /// Sends a datagram in the client's or the server's name.
    pub fn inject(&self, seen: &RecordedDatagram) {
        if seen.to_server {
            let _ = self.far.send(&seen.bytes);
        } else if let Some(client) = *self.state.client.lock().expect("no relay panics") {
            let _ = self.near.send_to(&seen.bytes, client);
        }
    }

    /// Like [`inject`](Self::inject), and waits until the server has handled the datagram: until it answers a HELLO sent
    /// after it.
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
        let seen = self.state.datagrams.lock().expect("no relay panics");
        let waited = self.state.changed.wait_timeout_while(seen, TIMEOUT, |seen| !seen[before..].iter().any(is_answer));
        assert!(!waited.expect("no relay panics").1.timed_out(), "the server answers");
    }
}

impl Drop for UdpRelay {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("no relay panics");
        }
    }
}

fn forward_datagrams(state: &RelayState, near: &UdpSocket, far: &UdpSocket, to_server: bool) {
    let mut buffer = [0; 2048];
    while !state.stop.load(Ordering::Relaxed) {
        let from = if to_server { near } else { far };
        let Ok((length, address)) = from.recv_from(&mut buffer) else { continue };
        if to_server {
            *state.client.lock().expect("no relay panics") = Some(address);
        }
        if state.silent.load(Ordering::Relaxed) {
            continue;
        }
        let bytes = buffer[..length].to_vec();
        state.datagrams.lock().expect("no relay panics").push(RecordedDatagram { to_server, bytes });
        state.changed.notify_all();
        let client = *state.client.lock().expect("no relay panics");
        match client {
            _ if to_server => drop(far.send(&buffer[..length])),
            Some(client) => drop(near.send_to(&buffer[..length], client)),
            None => {}
        }
    }
}

/// A relay between downloaders and one uploader. It listens at one loopback address on the same port as the uploader at
/// another, so that a server which sees the uploader at the relay's address sends downloaders to the relay.
pub struct TcpRelay {
    listener: SocketAddr,
    recording: Arc<(Mutex<Vec<u8>>, Condvar)>,
}

impl TcpRelay {
    /// Listens at `at`; `port` is where the uploader must listen on 127.0.0.1.
    pub fn start(at: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((at, free_port())).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let uploader = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
        let recording = Arc::<(Mutex<Vec<u8>>, Condvar)>::default();
        let recorder = recording.clone();
        // Ends with the process: accepting cannot be interrupted without unsafe code, and the thread owns nothing else.
        thread::spawn(move || {
            while let Ok((downloader, _)) = listener.accept() {
                let Ok(uploader) = TcpStream::connect(uploader) else { continue };
                let (d, u) = (downloader.try_clone(), uploader.try_clone());
                let (Ok(d), Ok(u)) = (d, u) else { continue };
                let recordings = (recorder.clone(), recorder.clone());
                thread::spawn(move || forward_stream(downloader, uploader, &recordings.0));
                thread::spawn(move || forward_stream(u, d, &recordings.1));
            }
        });
        Self { listener: address, recording }
    }

    /// The port of the relay, at which the uploader must listen too.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// Number of bytes forwarded so far in both directions.
    pub fn forwarded(&self) -> usize {
        self.recording.0.lock().expect("no relay panics").len()
    }

    /// Waits until this number of bytes has been forwarded.
    pub fn wait_forwarded(&self, bytes: usize) {
        let (lock, grown) = &*self.recording;
        let recording = lock.lock().expect("no relay panics");
        let (recording, timeout) =
            grown.wait_timeout_while(recording, TIMEOUT, |recording| recording.len() < bytes).expect("no relay panics");
        assert!(!timeout.timed_out(), "only {} of {bytes} bytes forwarded", recording.len());
    }

    /// All bytes forwarded so far, both directions interleaved.
    pub fn recording(&self) -> Vec<u8> {
        self.recording.0.lock().expect("no relay panics").clone()
    }
}

fn forward_stream(mut from: TcpStream, mut to: TcpStream, recording: &(Mutex<Vec<u8>>, Condvar)) {
    let mut chunk = [0; 16 << 10];
    while let Ok(length) = from.read(&mut chunk) {
        recording.0.lock().expect("no relay panics").extend_from_slice(&chunk[..length]);
        recording.1.notify_all();
        if length == 0 || to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
