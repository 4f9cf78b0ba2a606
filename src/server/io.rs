//! The event sources of the server: the UDP socket and the signals.

#[cfg(feature = "testkit")]
use std::io::Write;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{debug, trace};
use mio::net::{UdpSocket, UnixStream};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level::pipe};
use socket2::{Domain, Protocol, Socket, Type};

/// Requested socket buffers; the system may allow less.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// A bound, nonblocking socket. Datagrams that cannot be sent are dropped: the protocol repeats them.
pub struct ServerSocket {
    pub udp: UdpSocket,
    is_v6: bool,
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
        Ok(Self { udp: UdpSocket::from_std(socket.into()), is_v6: listen.is_ipv6() })
    }

    /// Sends one datagram, or drops it.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        let target = match to {
            SocketAddr::V4(v4) if self.is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
            _ => to,
        };
        if let Err(error) = self.udp.send_to(bytes, target) {
            trace!("{to}: sending failed: {error}");
        }
    }
}

/// Flags set by the signal handlers, and a socket pair that wakes the event loop.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
    /// Readable after a signal.
    pub wakeups: UnixStream,
    wake: std::os::unix::net::UnixStream,
}

/// See [`Signals::stopper`].
#[cfg(feature = "testkit")]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    wake: std::os::unix::net::UnixStream,
}

#[cfg(feature = "testkit")]
impl Stopper {
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // A full socket pair wakes the event loop too.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Signals {
    /// Without handlers: only the test kit stops such a server.
    pub fn unhandled() -> io::Result<Self> {
        let (ours, wake) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload, report) = Default::default();
        Ok(Self { stop, reload, report, wakeups: UnixStream::from_std(ours), wake })
    }

    /// Installs the handlers for SIGHUP (reload) and SIGUSR1 (log the figures). SIGINT and SIGTERM still end the program
    /// at once.
    pub fn handle_reload() -> io::Result<Self> {
        let signals = Self::unhandled()?;
        signals.handle(SIGHUP, &signals.reload)?;
        signals.handle(SIGUSR1, &signals.report)?;
        Ok(signals)
    }

    /// Stops the server from another thread, as SIGTERM does.
    #[cfg(feature = "testkit")]
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper { stop: Arc::clone(&self.stop), wake: self.wake.try_clone()? })
    }

    /// Installs the handlers for SIGINT and SIGTERM (stop).
    pub fn handle_stop(&self) -> io::Result<()> {
        self.handle(SIGINT, &self.stop)?;
        self.handle(SIGTERM, &self.stop)
    }

    fn handle(&self, signal: i32, flag: &Arc<AtomicBool>) -> io::Result<()> {
        // Handlers run in the order of registration: the flag is set before the event loop wakes.
        flag::register(signal, Arc::clone(flag))?;
        pipe::register(signal, self.wake.try_clone()?)?;
        Ok(())
    }

    /// Empties the socket pair, so that the next signal wakes the event loop again.
    pub fn drain(&mut self) {
        while self.wakeups.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }

    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether SIGUSR1 has arrived since the last call.
    pub fn take_report(&self) -> bool {
        self.report.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGHUP has arrived since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
