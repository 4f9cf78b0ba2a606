//! Heartbeats of a busy server: its CPU time for each, beside that of a bare echo through the same socket code.
//!
//! The server is stopped while a burst arrives, so that it always finds full batches, and the clients read nothing while it
//! answers, so that it wakes nobody. Only its own CPU time counts. Server and echo run on one CPU, the clients of both on another
//! if there is one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fileshare::internals::server::core::Datagram;
use fileshare::internals::server::socket::{BATCH_MAX, ReceiveBatch, ServerSocket};
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::test_support::{LoadClients, ServerProcess, median};

/// Datagrams that fit into the server's receive buffer where the system keeps it at its default.
const BURST: usize = 256;
const ROUNDS: usize = 9;
const BURSTS_PER_ROUND: usize = 100;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Of a sealed heartbeat with its UDP payload.
const ECHO_BYTES: usize = 49;

pub fn measure() {
    let mut server = ServerProcess::new(BURST);
    server.arguments = ["--ephemeral", "--heartbeat", "1", "--liveness", "60"].map(String::from).into();
    server.start();
    let (first, last) = cpus();
    pin(Some(server.pid()), first);
    let everywhere = sched_getaffinity(None).expect("the CPUs of this thread");
    pin(None, last);
    let mut clients = LoadClients::new(server.address(), BURST);
    clients.log_in();
    let mut echo = Echo::new(first);
    let (mut heartbeats, mut echoes, mut ratios, mut saved) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let heartbeat = median((0..BURSTS_PER_ROUND).map(|_| burst(&mut server, &mut clients)).collect());
        let bare = median((0..BURSTS_PER_ROUND).map(|_| echo.burst(BATCH_MAX)).collect());
        let one_at_a_time = median((0..BURSTS_PER_ROUND).map(|_| echo.burst(1)).collect());
        heartbeats.push(1.0 / heartbeat);
        echoes.push(1.0 / bare);
        ratios.push(bare / heartbeat);
        saved.push(one_at_a_time - bare);
    }
    println!(
        "bursts of {BURST} heartbeats: one CPU acknowledges {:.0} a second; a bare echo through the same socket {:.0}; \
         ratio {:.2}; batches save {:.2} µs each",
        median(heartbeats),
        median(echoes),
        median(ratios),
        median(saved) * 1e6
    );
    sched_setaffinity(None, &everywhere).expect("the CPUs of before");
}

/// The first and the last CPU that this process may use.
fn cpus() -> (usize, usize) {
    let usable = sched_getaffinity(None).expect("the CPUs of this thread");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|&cpu| usable.is_set(cpu));
    let first = cpus.next().expect("a CPU");
    (first, cpus.next_back().unwrap_or(first))
}

/// Keeps a single-threaded process, or this thread, on one CPU.
fn pin(process: Option<Pid>, cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(process, &cpus).expect("one of the usable CPUs");
}

/// Returns the CPU time of the server's event loop for each acknowledgement, seconds.
fn burst(server: &mut ServerProcess, clients: &mut LoadClients) -> f64 {
    server.suspend();
    let (sent, received) = (clients.sent(), clients.received());
    while clients.sent() < sent + BURST as u64 {
        clients.advance(HEARTBEAT / 4);
        clients.poll(Duration::ZERO);
    }
    let before = server.event_loop_cpu_s();
    server.resume();
    let mut after = before;
    loop {
        thread::sleep(Duration::from_millis(2));
        let now = server.event_loop_cpu_s();
        if now == after && now > before {
            break;
        }
        after = now;
    }
    clients.poll(Duration::ZERO);
    // A lost datagram, or its lost acknowledgement, does not count.
    (after - before) / (clients.received() - received).max(1) as f64
}

/// Clients, and a thread that sends back what it receives.
struct Echo {
    clients: Vec<UdpSocket>,
    /// Watches the clients' sockets, as that of the load clients does; nobody waits for it.
    _poll: Poll,
    /// Tells the thread to serve a burst, in batches of at most so many.
    start: Sender<usize>,
    /// The CPU time of each burst, seconds.
    cpu_s: Receiver<f64>,
}

impl Echo {
    fn new(cpu: usize) -> Self {
        let socket = ServerSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let address = socket.udp.local_addr().expect("an address");
        let poll = Poll::new().expect("a poll");
        let client = |number| {
            let mut client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
            client.connect(address).expect("connected");
            poll.registry().register(&mut client, Token(number), Interest::READABLE).expect("registered");
            client
        };
        let clients = (0..BURST).map(client).collect();
        let ((start, starts), (took, cpu_s)) = (channel(), channel());
        thread::spawn(move || {
            pin(None, cpu);
            let mut server = EchoServer::new(socket, address);
            starts.iter().try_for_each(|batch| took.send(server.burst(batch)))
        });
        Self { clients, _poll: poll, start, cpu_s }
    }

    /// Returns the CPU time of each echo, seconds, in batches of at most so many.
    fn burst(&mut self, batch: usize) -> f64 {
        self.clients.iter().for_each(|client| _ = client.send(&[0; ECHO_BYTES]).expect("sent"));
        self.start.send(batch).expect("the thread runs");
        let took = self.cpu_s.recv().expect("the thread runs");
        let mut buffer = [0; ECHO_BYTES];
        self.clients.iter().for_each(|client| _ = client.recv(&mut buffer).expect("received"));
        took / BURST as f64
    }
}

struct EchoServer {
    socket: ServerSocket,
    batch: ReceiveBatch,
    /// The datagrams of a batch; their buffers are reused, as the server does.
    echoes: Vec<Datagram>,
}

impl EchoServer {
    fn new(socket: ServerSocket, address: SocketAddr) -> Self {
        let echoes = vec![Datagram { to: address, bytes: Vec::new() }; BATCH_MAX];
        Self { socket, batch: ReceiveBatch::default(), echoes }
    }

    /// Serves a burst that has arrived, in batches of at most so many. Returns the CPU time, seconds.
    fn burst(&mut self, batch: usize) -> f64 {
        let start = cpu_s();
        let mut done = 0;
        while done < BURST {
            let mut echoes = self.echoes.iter_mut();
            let handle = |from, bytes: &mut [u8]| {
                let echo = echoes.next().expect("at most BATCH_MAX");
                echo.to = from;
                echo.bytes.clear();
                echo.bytes.extend_from_slice(bytes);
            };
            let count = self.socket.receive(&mut self.batch, batch, handle).expect("a datagram");
            self.socket.send(&self.echoes[..count]);
            done += count;
        }
        cpu_s() - start
    }
}

/// The CPU time of this thread, seconds.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
