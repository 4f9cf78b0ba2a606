//! The TCP listener thread: takes connections, reads their tickets, and hands the good ones to upload threads.
//!
//! Defended: a stranger costs one descriptor and a kilobyte for at most the handshake time, never a thread; there is room
//! for a bounded number of them, for fewer from one address, and the one that has waited longest makes place, so a flood
//! does not keep an honest peer out. Without descriptors the thread rests instead of spinning. Strangers are answered
//! with nothing. A slot is given to who has asked for something under the ticket's key: a recorded opening played again
//! takes none, and does not even learn whether there are any.

use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit};

use super::UploadService;
use super::pending::{PendingConnection, Progress};
use super::rate::RateLimiter;
use super::upload::{self, AcceptedUpload};
use crate::client::transport;
use crate::common::sync::lock;

/// Who finds all slots taken is told to come back after this time, milliseconds.
pub(super) const BUSY_RETRY_MS: u16 = 300;
/// Connections taken in one turn before those that wait are looked at again.
const ACCEPTS_PER_TURN: usize = 32;
/// Rest when the system cannot give another descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How long one that was sent away may take to read it.
const BUSY_LINGER: Duration = Duration::from_secs(1);

/// Time limits and bounds of the listener; the defaults are for people, shorter ones for tests.
#[derive(Debug, Clone)]
pub struct UploadLimits {
    /// A connection shows its ticket within this time.
    pub handshake: Duration,
    /// Who has shown a ticket asks for something within this time, and then again and again.
    pub idle: Duration,
    /// After this time without a request a downloader loses its slot if another one waits for it.
    pub idle_yield: Duration,
    /// While something waits to be sent, a downloader takes [`stall_least_bytes`](Self::stall_least_bytes) within this
    /// time. A kernel wakes a sender only when a third of its buffer is free: a shorter time would hit honest slow links.
    pub stall: Duration,
    /// See [`stall`](Self::stall).
    pub stall_least_bytes: usize,
    /// Connections that have not proven yet that they hold their ticket's key, in all.
    pub pending_max: usize,
    /// The same from one address (IPv6: one /64).
    pub pending_per_prefix_max: usize,
}

impl Default for UploadLimits {
    fn default() -> Self {
        // Strangers may take a quarter of all descriptors at most: files and uploads need the others.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
        let pending_max = (descriptors / 4).clamp(4, 64);
        Self {
            handshake: transport::HANDSHAKE_TIMEOUT,
            idle: Duration::from_secs(30),
            idle_yield: Duration::from_secs(1),
            stall: Duration::from_secs(15),
            stall_least_bytes: 4 << 10,
            pending_max,
            pending_per_prefix_max: pending_max.div_ceil(2),
        }
    }
}

/// The TCP listener thread and its upload workers; ends when dropped.
pub struct Listener {
    shared: Arc<ListenerShared>,
    port: u16,
    wake: UnixStream,
    door: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds and starts the thread. `limit_rate`: bytes a second over all uploads.
    pub fn start(share: Arc<UploadService>, listen: SocketAddr, limit_rate: Option<u64>) -> io::Result<Self> {
        Self::start_with(share, listen, limit_rate, UploadLimits::default())
    }

    /// Like [`start`](Self::start) with other limits.
    pub fn start_with(
        share: Arc<UploadService>,
        listen: SocketAddr,
        limit_rate: Option<u64>,
        limits: UploadLimits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (wake, woken) = UnixStream::pair()?;
        let shared = Arc::new(ListenerShared {
            share,
            limits,
            limiter: limit_rate.map(RateLimiter::new),
            stop: AtomicBool::new(false),
            uploads: Mutex::default(),
            #[cfg(test)]
            turns: std::sync::atomic::AtomicU64::new(0),
        });
        let door = AcceptLoop { shared: shared.clone(), listener, woken, pending: Vec::new(), resting_until: None };
        let door = thread::Builder::new().name("listener".into()).spawn(move || door.run())?;
        Ok(Self { shared, port, wake, door: Some(door) })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often the thread has looked around so far.
    #[cfg(test)]
    pub(super) fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // The thread sees the end of the stream.
        let _ = self.wake.shutdown(Shutdown::Both);
        if let Some(door) = self.door.take() {
            let _ = door.join();
        }
        let uploads = std::mem::take(&mut *lock(&self.shared.uploads));
        for upload in &uploads {
            if let Some(stream) = upload.stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        for upload in uploads {
            let _ = upload.thread.join();
        }
    }
}

/// What the listener and its uploads share.
pub(super) struct ListenerShared {
    pub(super) share: Arc<UploadService>,
    pub(super) limits: UploadLimits,
    pub(super) limiter: Option<RateLimiter>,
    pub(super) stop: AtomicBool,
    uploads: Mutex<Vec<RunningUpload>>,
    #[cfg(test)]
    turns: std::sync::atomic::AtomicU64,
}

impl ListenerShared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// An upload's thread, and its connection for as long as it has one.
struct RunningUpload {
    thread: JoinHandle<()>,
    stream: Weak<TcpStream>,
}

struct AcceptLoop {
    shared: Arc<ListenerShared>,
    listener: TcpListener,
    woken: UnixStream,
    /// Those who came first stand first.
    pending: Vec<PendingConnection>,
    resting_until: Option<Instant>,
}

impl AcceptLoop {
    fn run(mut self) {
        while !self.shared.is_stopping() {
            #[cfg(test)]
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            let (ready, caller) = self.wait();
            let now = Instant::now();
            let mut index = 0;
            for ready in ready {
                // Looking at one removes none but itself.
                if self.drive_connection(index, ready, now) {
                    index += 1;
                }
            }
            if caller {
                self.accept_pending(now);
            }
        }
    }

    /// Sleeps until something is to be done: which pending have something to say, and whether new ones stand outside.
    fn wait(&mut self) -> (Vec<bool>, bool) {
        let now = Instant::now();
        self.resting_until.take_if(|until| *until <= now);
        let deadline = self.pending.iter().map(|connection| connection.until).chain(self.resting_until).min();
        let timeout = deadline.map(|deadline| {
            // Rounded up: waking early would only mean to look again.
            let left = deadline.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
        });
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(self.pending.iter().map(|connection| PollFd::new(&connection.stream, PollFlags::IN)));
        if self.resting_until.is_none() {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let polled = poll(&mut fds, timeout.as_ref());
        let ready = |fd: &PollFd<'_>| polled.is_ok() && !fd.revents().is_empty();
        let count = self.pending.len();
        (fds[1..=count].iter().map(ready).collect(), fds.get(count + 1).is_some_and(ready))
    }

    /// Gets on with one connection; whether it stays.
    fn drive_connection(&mut self, index: usize, ready: bool, now: Instant) -> bool {
        let connection = &mut self.pending[index];
        let mut progress = if ready { connection.read() } else { Progress::Pending };
        if matches!(progress, Progress::PreambleComplete) {
            let open = |ticket: &[u8]| lock(&self.shared.share.tickets).open(ticket, now);
            // Most ask for something in the same breath.
            progress = match connection.respond(open, now + self.shared.limits.idle) {
                true => connection.read(),
                false => Progress::Closed,
            };
        }
        let stays = match progress {
            Progress::Pending => now < connection.until,
            Progress::PreambleComplete | Progress::Closed => false,
            Progress::Ready(peer, first) => match self.shared.share.slots.take(&peer.ticket.downloader, now) {
                Some(slot) => {
                    let stream = connection.stream.clone();
                    self.admit(stream, AcceptedUpload { peer: *peer, first, slot });
                    false
                }
                None => {
                    log::debug!("{} was told to come back: all upload slots are taken", peer.ticket.downloader);
                    connection.reject_busy(*peer, now + BUSY_LINGER)
                }
            },
        };
        if !stays {
            self.pending.remove(index);
        }
        stays
    }

    fn admit(&self, stream: Arc<TcpStream>, admitted: AcceptedUpload) {
        if stream.set_nonblocking(false).is_err() {
            return;
        }
        let shared = self.shared.clone();
        let spawned = thread::Builder::new().name("upload".into()).spawn(move || upload::run(&shared, admitted));
        let mut uploads = lock(&self.shared.uploads);
        uploads.retain(|upload| !upload.thread.is_finished());
        match spawned {
            Ok(thread) => uploads.push(RunningUpload { thread, stream: Arc::downgrade(&stream) }),
            Err(error) => log::error!("an upload could not be started: {error}"),
        }
    }

    fn accept_pending(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, from)) => self.admit_connection(stream, from, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // Gone again before we looked.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                    _ => {
                        // No descriptors, no memory: whoever has waited longest gives up a place, and we rest.
                        log::debug!("a connection could not be taken: {error}");
                        if !self.pending.is_empty() {
                            self.pending.remove(0);
                        }
                        self.resting_until = Some(now + ACCEPT_BACKOFF);
                        return;
                    }
                },
            }
        }
    }

    fn admit_connection(&mut self, stream: TcpStream, from: SocketAddr, now: Instant) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let (address, limits) = (neighbourhood(from.ip()), &self.shared.limits);
        let from_there = self.pending.iter().filter(|connection| connection.address == address).count();
        let makes_place = match () {
            () if from_there >= limits.pending_per_prefix_max => {
                self.eviction_candidate(|connection| connection.address == address)
            }
            () if self.pending.len() >= limits.pending_max.max(1) => self.eviction_candidate(|_| true),
            () => None,
        };
        if let Some(oldest) = makes_place {
            self.pending.remove(oldest);
        }
        self.pending.push(PendingConnection::new(stream, address, now + limits.handshake));
        // Most have sent their ticket by now.
        self.drive_connection(self.pending.len() - 1, true, now);
    }

    /// The one of them that has waited longest; one without a ticket if there is any.
    fn eviction_candidate(&self, among: impl Fn(&PendingConnection) -> bool) -> Option<usize> {
        let stranger = self.pending.iter().position(|connection| among(connection) && connection.is_unauthenticated());
        stranger.or_else(|| self.pending.iter().position(among))
    }
}

/// What counts as one address: a host can have a whole /64 of IPv6.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;
