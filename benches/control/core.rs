//! The core alone: the cost of a login and of a heartbeat without the socket, the part of it that is sealing, and the cost
//! of the socket.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use fileshare::internals::common::message::{ClientMessage, Heartbeat, ServerMessage};

use super::test_support::{Bench, SessionEnds, median, sealed};

const ROUNDS: usize = 9;
/// Datagrams that fit into a socket's buffer.
const BURST: usize = 100;

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
