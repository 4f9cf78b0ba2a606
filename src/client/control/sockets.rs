//! The UDP sockets to the server: one connected socket for each of its addresses.
//!
//! Must not know what the datagrams mean.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::limits::DATAGRAM_MAX_BYTES;

/// For bursts of replies while this process is not scheduled; the system may grant less.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// The connected sockets, by the index of the server's address.
pub(super) struct Sockets {
    servers: Vec<SocketAddr>,
    /// Opened when first needed.
    sockets: Vec<Option<UdpSocket>>,
    buffer: Box<[u8; DATAGRAM_MAX_BYTES + 1]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendOutcome {
    /// The datagram was sent, or dropped because the buffer is full.
    Sent,
    /// The system reports that the address cannot be reached.
    Unreachable,
}

pub(super) enum Received<'a> {
    Datagram(SocketAddr, &'a mut [u8]),
    /// No server listens at this address.
    Unreachable(SocketAddr),
}

impl Sockets {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        let sockets = servers.iter().map(|_| None).collect();
        Self { servers, sockets, buffer: Box::new([0; DATAGRAM_MAX_BYTES + 1]) }
    }

    /// Closes all sockets: the next datagram takes the route that leads to the server then.
    pub fn reopen(&mut self) {
        self.sockets.fill_with(|| None);
    }

    pub fn send(&mut self, registry: &Registry, to: SocketAddr, datagram: &[u8]) -> SendOutcome {
        match self.try_send(registry, to, datagram) {
            Ok(()) => SendOutcome::Sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => SendOutcome::Sent,
            Err(error) => {
                log::debug!("cannot send to {to}: {error}");
                self.close(to);
                SendOutcome::Unreachable
            }
        }
    }

    /// This host may have another address now: the next datagram goes out by a new socket.
    fn close(&mut self, server: SocketAddr) {
        let sockets = self.servers.iter().zip(&mut self.sockets);
        sockets.filter(|(address, _)| **address == server).for_each(|(_, socket)| *socket = None);
    }

    fn try_send(&mut self, registry: &Registry, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let index = self.servers.iter().position(|&server| server == to).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = match &mut self.sockets[index] {
            Some(socket) => socket,
            empty => {
                let mut socket = connect_udp(to)?;
                registry.register(&mut socket, Token(index), Interest::READABLE)?;
                empty.insert(socket)
            }
        };
        match socket.send(datagram) {
            // A late report about an earlier datagram; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.send(datagram).map(drop),
            sent => sent.map(drop),
        }
    }

    /// The next datagram or error that has arrived at the socket of this index, if any.
    pub fn receive(&mut self, index: usize) -> Option<Received<'_>> {
        let socket = self.sockets.get(index)?.as_ref()?;
        let server = self.servers[index];
        match socket.recv(self.buffer.as_mut_slice()) {
            Ok(length) => Some(Received::Datagram(server, &mut self.buffer[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                log::debug!("{server}: {error}");
                Some(Received::Unreachable(server))
            }
        }
    }
}

fn connect_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        log::debug!("cannot enlarge the receive buffer: {error}");
    }
    socket.connect(&server.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
