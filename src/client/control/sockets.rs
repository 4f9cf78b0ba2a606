//! The UDP sockets towards the server: one connected socket for each of its addresses.
//!
//! Must not know what the datagrams mean.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::common::limits::DATAGRAM_MAX_BYTES;

/// Room for bursts of replies while this process is not scheduled; the system may give less.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// See the module.
pub(super) struct Sockets {
    servers: Vec<SocketAddr>,
    /// Made when first needed.
    sockets: Vec<Option<UdpSocket>>,
    buffer: Box<[u8; DATAGRAM_MAX_BYTES + 1]>,
}

impl Sockets {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        let sockets = servers.iter().map(|_| None).collect();
        Self { servers, sockets, buffer: Box::new([0; DATAGRAM_MAX_BYTES + 1]) }
    }

    /// Closes all: the next datagram goes out by whatever way leads to the server then.
    pub fn renew(&mut self) {
        self.sockets.fill_with(|| None);
    }

    /// Sends one datagram; `false` when the system says that it cannot arrive. A full buffer is a lost datagram.
    pub fn send(&mut self, registry: &Registry, to: SocketAddr, datagram: &[u8]) -> bool {
        match self.try_send(registry, to, datagram) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Err(error) => {
                log::debug!("cannot send to {to}: {error}");
                self.close(to);
                false
            }
        }
    }

    /// This host may have got another address: the next datagram goes out by a new socket.
    fn close(&mut self, server: SocketAddr) {
        let sockets = self.servers.iter().zip(&mut self.sockets);
        sockets.filter(|(address, _)| **address == server).for_each(|(_, socket)| *socket = None);
    }

    fn try_send(&mut self, registry: &Registry, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let at = self.servers.iter().position(|&server| server == to).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = match &mut self.sockets[at] {
            Some(socket) => socket,
            empty => {
                let mut socket = connected(to)?;
                registry.register(&mut socket, Token(at), Interest::READABLE)?;
                empty.insert(socket)
            }
        };
        match socket.send(datagram) {
            // Told late about an earlier datagram; this one was not sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.send(datagram).map(drop),
            sent => sent.map(drop),
        }
    }

    /// The next datagram that has come in, with where it is from, or as an error the address at which nobody listens.
    /// `None`: that was all.
    pub fn receive(&mut self, at: usize) -> Option<Result<(SocketAddr, &mut [u8]), SocketAddr>> {
        let socket = self.sockets.get(at)?.as_ref()?;
        let server = self.servers[at];
        match socket.recv(self.buffer.as_mut_slice()) {
            Ok(length) => Some(Ok((server, &mut self.buffer[..length]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                log::debug!("{server}: {error}");
                Some(Err(server))
            }
        }
    }
}

fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        log::debug!("the receive buffer stays as it is: {error}");
    }
    socket.connect(&server.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}
