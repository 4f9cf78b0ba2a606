//! What the event loop waits for: the UDP socket and the signals.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{debug, trace};
use mio::net::{UdpSocket, UnixStream};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use socket2::{Domain, Protocol, Socket, Type};

/// What the socket is asked to hold while the loop is busy, bytes; the system may allow less.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A bound socket that never stops the loop: what cannot be sent is dropped, since everything is repeated.
pub struct ServerSocket {
    /// To be registered with the poll.
    pub udp: UdpSocket,
    is_v6: bool,
}

impl ServerSocket {
    /// Binds `listen`. The unspecified IPv6 address takes IPv4 too, where the system has both.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
        if listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
            debug!("the receive buffer stays as it is: {error}");
        }
        if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES) {
            debug!("the send buffer stays as it is: {error}");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&listen.into())?;
        Ok(Self { udp: UdpSocket::from_std(socket.into()), is_v6: listen.is_ipv6() })
    }

    /// The real address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Sends one datagram, or drops it.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let target = match to {
            SocketAddr::V4(v4) if self.is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
            _ => to,
        };
        if let Err(error) = self.udp.send_to(bytes, target) {
            trace!("{to}: not sent: {error}");
        }
    }
}

/// The signals that mean something to the server.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    /// To be registered with the poll.
    pub wakeups: UnixStream,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, flag) in [(SIGINT, &stop), (SIGTERM, &stop), (SIGHUP, &reload)] {
            // In this order: who is woken finds the flag set.
            flag::register(signal, Arc::clone(flag))?;
            pipe::register(signal, theirs.try_clone()?)?;
        }
        Ok(Self { stop, reload, wakeups: UnixStream::from_std(ours) })
    }

    /// Empties the pipe, so that the next signal wakes the loop again.
    pub fn clear(&mut self) {
        while self.wakeups.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }

    /// Whether the server is to stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the credentials are to be read again; asked once for each signal.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
