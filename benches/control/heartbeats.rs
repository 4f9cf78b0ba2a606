//! Heartbeats of a busy server: its CPU time for each, beside that of a bare echo through the same socket code.
//!
//! The server is stopped while a burst arrives, so that it always finds full batches, and the clients read nothing while it
//! answers, so that it wakes nobody. Only its own CPU time counts.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use fileshare::internals::server::core::Datagram;
use fileshare::internals::server::socket::{BATCH_MAX, ReceiveBatch, ServerSocket};
use mio::net::UdpSocket;
use mio::{Interest, Poll, Token};
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
    let mut clients = LoadClients::new(server.address(), BURST);
    clients.log_in();
    let mut echo = Echo::new();
    let (mut heartbeats, mut echoes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let heartbeat = median((0..BURSTS_PER_ROUND).map(|_| burst(&mut server, &mut clients)).collect());
        let bare = median((0..BURSTS_PER_ROUND).map(|_| echo.burst()).collect());
        heartbeats.push(1.0 / heartbeat);
        echoes.push(1.0 / bare);
        ratios.push(bare / heartbeat);
    }
    println!(
        "bursts of {BURST} heartbeats: one CPU acknowledges {:.0} a second; a bare echo through the same socket {:.0}; \
         ratio {:.2}",
        median(heartbeats),
        median(echoes),
        median(ratios)
    );
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

struct Echo {
    socket: ServerSocket,
    batch: ReceiveBatch,
    /// The datagrams of a batch; their buffers are reused, as the server does.
    echoes: Vec<Datagram>,
    clients: Vec<UdpSocket>,
    /// Watches the clients' sockets, as that of the load clients does; nobody waits for it.
    _poll: Poll,
}

impl Echo {
    fn new() -> Self {
        let socket = ServerSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let address = socket.udp.local_addr().expect("an address");
        let poll = Poll::new().expect("a poll");
        let client = |number| {
            let mut client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
            client.connect(address).expect("connected");
            poll.registry().register(&mut client, Token(number), Interest::READABLE).expect("registered");
            client
        };
        let echoes = vec![Datagram { to: address, bytes: Vec::new() }; BATCH_MAX];
        let clients = (0..BURST).map(client).collect();
        Self { socket, batch: ReceiveBatch::default(), echoes, clients, _poll: poll }
    }

    /// Returns the CPU time of each echo, seconds.
    fn burst(&mut self) -> f64 {
        self.clients.iter().for_each(|client| _ = client.send(&[0; ECHO_BYTES]).expect("sent"));
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
            let count = self.socket.receive(&mut self.batch, BATCH_MAX, handle).expect("a datagram");
            self.socket.send(&self.echoes[..count]);
            done += count;
        }
        let each = (cpu_s() - start) / BURST as f64;
        let mut buffer = [0; ECHO_BYTES];
        self.clients.iter().for_each(|client| _ = client.recv(&mut buffer).expect("received"));
        each
    }
}

/// The CPU time of this thread, seconds.
fn cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
