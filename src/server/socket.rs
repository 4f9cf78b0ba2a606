//! The server's UDP socket, which receives and sends several datagrams with one system call.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;

use log::{debug, trace};
use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, Protocol, Socket, Type};

use super::core::{Datagram, Traffic};
use crate::common::limits::DATAGRAM_MAX_BYTES;

/// Maximum of datagrams in one system call.
pub const BATCH_MAX: usize = 32;

/// Requested socket buffers; the system may allow less.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A bound, nonblocking socket. Datagrams that cannot be sent are dropped: the protocol repeats them.
pub struct ServerSocket {
    pub udp: UdpSocket,
    is_v6: bool,
    /// Whether the system has recvmmsg and sendmmsg; a sandbox may refuse them.
    has_batches: bool,
    /// What the system has taken.
    pub sent: Traffic,
    /// Datagrams that the system did not take.
    pub send_failures: u64,
}

/// Space for the datagrams that one system call receives.
pub struct ReceiveBatch {
    headers: MultiHeaders<SockaddrStorage>,
    /// A longer datagram is recognised by the last byte.
    buffers: Vec<[u8; DATAGRAM_MAX_BYTES + 1]>,
}

impl Default for ReceiveBatch {
    fn default() -> Self {
        let buffers = vec![[0; DATAGRAM_MAX_BYTES + 1]; BATCH_MAX];
        Self { headers: MultiHeaders::preallocate(BATCH_MAX, None), buffers }
    }
}

impl ServerSocket {
    /// Binds `listen`. The unspecified IPv6 address receives IPv4 too, where the system supports both.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            debug!("the receive buffer keeps its size: {error}");
        }
        if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES) {
            debug!("the send buffer keeps its size: {error}");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        Ok(Self {
            udp: UdpSocket::from_std(socket.into()),
            is_v6: listen.is_ipv6(),
            has_batches: true,
            sent: Traffic::default(),
            send_failures: 0,
        })
    }

    /// Passes the datagrams of one system call to `handle`, each with its sender, and returns how many they were: from 1
    /// to `max`, of at most [`BATCH_MAX`]. [`io::ErrorKind::WouldBlock`] if there is none.
    pub fn receive(
        &mut self,
        batch: &mut ReceiveBatch,
        max: usize,
        mut handle: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        if !self.has_batches {
            let buffer = &mut batch.buffers[0];
            let (bytes, from) = self.udp.recv_from(buffer)?;
            handle(from, &mut buffer[..bytes]);
            return Ok(1);
        }
        let received = match receive_batch(&self.udp, batch, max) {
            Err(Errno::ENOSYS | Errno::EPERM) => {
                debug!("the system has no recvmmsg: datagrams are received one at a time");
                self.has_batches = false;
                return self.receive(batch, max, handle);
            }
            received => received?,
        };
        for (buffer, message) in batch.buffers.iter_mut().zip(&received) {
            if let Some((bytes, from)) = message {
                handle(*from, &mut buffer[..*bytes]);
            }
        }
        Ok(received.iter().flatten().count())
    }

    /// Sends the datagrams, in order. Drops those that cannot be sent.
    pub fn send(&mut self, datagrams: &[Datagram]) {
        for chunk in datagrams.chunks(BATCH_MAX) {
            let mut rest = chunk;
            while let [first, ..] = rest {
                let sent = match rest.len() {
                    2.. if self.has_batches => self.send_batch(rest),
                    _ => self.udp.send_to(&first.bytes, self.target(first.to)).map(|_| 1),
                };
                let done = match sent {
                    Ok(count) => {
                        rest[..count].iter().for_each(|datagram| self.sent.add(datagram.bytes.len()));
                        count
                    }
                    // What is sent together with others fails only as the first one.
                    Err(error) => {
                        trace!("{}: sending failed: {error}", first.to);
                        self.send_failures += 1;
                        1
                    }
                };
                rest = &rest[done..];
            }
        }
    }

    /// Returns how many were sent: at least the first one.
    fn send_batch(&mut self, datagrams: &[Datagram]) -> io::Result<usize> {
        let targets: Vec<_> = datagrams.iter().map(|datagram| self.target(datagram.to).as_any()).collect();
        let bytes: Vec<_> = datagrams.iter().map(|datagram| [IoSlice::new(&datagram.bytes)]).collect();
        let mut control: Vec<_> = datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut headers: Vec<_> = targets
            .iter()
            .zip(&bytes)
            .zip(&mut control)
            .map(|((target, bytes), control)| MMsgHdr::new_with_addr(target, bytes, control))
            .collect();
        match sendmmsg(&self.udp, &mut headers, SendFlags::empty()) {
            Err(rustix::io::Errno::NOSYS) => {
                self.has_batches = false;
                Ok(0)
            }
            sent => Ok(sent?),
        }
    }

    /// The address as the socket takes it.
    fn target(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
            _ => to,
        }
    }
}

/// The length and the sender of each datagram that one system call received.
type ReceivedBatch = [Option<(usize, SocketAddr)>; BATCH_MAX];

fn receive_batch(socket: &UdpSocket, batch: &mut ReceiveBatch, max: usize) -> nix::Result<ReceivedBatch> {
    let mut slices: Vec<_> = batch.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let mut results = recvmmsg(socket.as_raw_fd(), &mut batch.headers, slices.iter_mut().take(max), flags, None)?;
    Ok(std::array::from_fn(|_| {
        let message = results.next()?;
        let from = message.address?;
        let v4 = || Some(SocketAddr::V4((*from.as_sockaddr_in()?).into()));
        let v6 = || Some(SocketAddr::V6((*from.as_sockaddr_in6()?).into()));
        Some((message.bytes, v4().or_else(v6)?))
    }))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket as StdSocket};

    use super::*;

    /// More than one system call takes.
    const DATAGRAMS: usize = 3 * BATCH_MAX + 5;

    /// A server socket, and a client that is connected to it from 127.0.0.1.
    fn pair(listen: &str, has_batches: bool) -> (ServerSocket, StdSocket) {
        let mut server = ServerSocket::bind(listen.parse().unwrap()).unwrap();
        server.has_batches = has_batches;
        let client = StdSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect((Ipv4Addr::LOCALHOST, server.udp.local_addr().unwrap().port())).unwrap();
        (server, client)
    }

    /// Receives all that there is.
    fn receive_all(server: &mut ServerSocket) -> Vec<Datagram> {
        let (mut batch, mut all) = (ReceiveBatch::default(), Vec::new());
        loop {
            let handle = |to, bytes: &mut [u8]| all.push(Datagram { to, bytes: bytes.to_vec() });
            match server.receive(&mut batch, BATCH_MAX, handle) {
                Ok(count) => assert!((1..=BATCH_MAX).contains(&count)),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return all;
                }
            }
        }
    }

    #[test]
    fn datagrams_are_received_and_sent_whole_and_in_order() {
        for (listen, has_batches) in
            [("127.0.0.1:0", true), ("127.0.0.1:0", false), ("[::]:0", true), ("[::]:0", false)]
        {
            let (mut server, client) = pair(listen, has_batches);
            let sent: Vec<_> = (0..DATAGRAMS).map(|number| vec![number as u8; number % 7 * 200]).collect();
            sent.iter().for_each(|bytes| assert_eq!(client.send(bytes).unwrap(), bytes.len()));
            let received = receive_all(&mut server);
            assert!(received.iter().map(|datagram| &datagram.bytes).eq(&sent), "{listen} {has_batches}");
            assert!(received.iter().all(|datagram| datagram.to.port() == client.local_addr().unwrap().port()));
            server.send(&received);
            for bytes in &sent {
                let mut buffer = [0; DATAGRAM_MAX_BYTES];
                assert_eq!(client.recv(&mut buffer).map(|length| &buffer[..length]).unwrap(), bytes);
            }
            let bytes = sent.iter().map(Vec::len).sum::<usize>() as u64;
            assert_eq!((server.sent, server.send_failures), (Traffic { datagrams: DATAGRAMS as u64, bytes }, 0));
        }
    }

    #[test]
    fn a_datagram_beyond_the_maximum_is_received_longer_than_the_maximum() {
        for has_batches in [true, false] {
            let (mut server, client) = pair("127.0.0.1:0", has_batches);
            client.send(&[7; DATAGRAM_MAX_BYTES + 100]).unwrap();
            assert_eq!(receive_all(&mut server)[0].bytes.len(), DATAGRAM_MAX_BYTES + 1);
        }
    }

    #[test]
    fn what_cannot_be_sent_holds_up_nothing_else() {
        for has_batches in [true, false] {
            let (mut server, client) = pair("127.0.0.1:0", has_batches);
            let (good, bad) = (client.local_addr().unwrap(), "[::1]:9".parse().unwrap());
            let datagram =
                |number: u8| Datagram { to: if number.is_multiple_of(3) { bad } else { good }, bytes: vec![number] };
            server.send(&(0..100).map(datagram).collect::<Vec<_>>());
            let mut buffer = [0; 2];
            for number in (0..100).filter(|number: &u8| !number.is_multiple_of(3)) {
                assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, number));
            }
            assert_eq!((server.sent, server.send_failures), (Traffic { datagrams: 66, bytes: 66 }, 34));
        }
    }
}
