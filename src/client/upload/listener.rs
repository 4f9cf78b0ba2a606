//! The TCP listener thread: accepts connections, authenticates them by their tickets, and starts uploads.
//!
//! Defended: an unauthenticated connection costs one file descriptor and 1 KiB, and at most the handshake timeout; it
//! never gets a thread. Their number is bounded, in total and per address prefix; when it is reached, the oldest is closed,
//! so a flood does not keep authorized peers out. Without file descriptors the thread backs off instead of spinning.
//! Unauthenticated peers get no reply. Only a peer that has sent a request under the ticket's key gets a slot: a replayed
//! handshake takes none, and does not even learn whether there are any.

use std::convert::Infallible;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit};

use super::UploadService;
use super::connection::{self, AcceptedUpload};
use super::limits::RateLimiter;
use super::pending::{PendingConnection, Progress};
use crate::client::transport::{self, Waker};
use crate::common::net::AddressPrefix;
use crate::common::sync::lock;

/// A downloader that finds all slots taken retries after this time, milliseconds.
pub(super) const BUSY_RETRY_MS: u16 = 300;
/// Connections accepted before the pending ones are driven again.
const ACCEPT_BATCH: usize = 32;
/// Pause of accepting when the system has no file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A rejected peer reads the rejection within this time.
const BUSY_LINGER: Duration = Duration::from_secs(1);

/// Timeouts and bounds of the listener. The defaults are for users, shorter ones for tests.
#[derive(Debug, Clone)]
pub struct UploadLimits {
    /// A connection presents its ticket within this time.
    pub handshake: Duration,
    /// A peer with a ticket sends its first request within this time, and its next one after everything was sent.
    pub idle: Duration,
    /// After this time without a request a downloader loses its slot if another one waits for it.
    pub idle_yield: Duration,
    /// While there is something to send, a downloader receives [`stall_min_bytes`](Self::stall_min_bytes) within this
    /// time. A kernel wakes a sender only when a third of its buffer is free: a shorter time would disconnect slow links.
    pub stall: Duration,
    /// See [`stall`](Self::stall).
    pub stall_min_bytes: usize,
    /// Most pending connections.
    pub pending_max: usize,
    /// The same from one address prefix.
    pub pending_per_prefix_max: usize,
}

impl Default for UploadLimits {
    fn default() -> Self {
        // A quarter of all descriptors: files and uploads need the others.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let pending_max = (descriptors / 4).clamp(4, 64);
        Self {
            handshake: transport::HANDSHAKE_TIMEOUT,
            idle: Duration::from_secs(30),
            idle_yield: Duration::from_secs(1),
            stall: Duration::from_secs(15),
            stall_min_bytes: 4 << 10,
            pending_max,
            pending_per_prefix_max: pending_max.div_ceil(2),
        }
    }
}

/// The listener thread and its uploads. Dropping it ends them.
pub struct Listener {
    shared: Arc<ListenerShared>,
    port: u16,
    /// Dropped to shut down.
    shutdown: Option<Sender<Infallible>>,
    waker: Arc<Waker>,
    accept_loop: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds and starts the thread. `limit_rate`: bytes a second of all uploads together.
    pub fn start(service: Arc<UploadService>, listen: SocketAddr, limit_rate: Option<u64>) -> io::Result<Self> {
        Self::start_with(service, listen, limit_rate, UploadLimits::default())
    }

    /// Like [`start`](Self::start), with other limits.
    pub fn start_with(
        service: Arc<UploadService>,
        listen: SocketAddr,
        limit_rate: Option<u64>,
        limits: UploadLimits,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let waker = Arc::new(Waker::new()?);
        let (sender, shutdown) = bounded(0);
        let shared = Arc::new(ListenerShared {
            service,
            limits,
            rate_limiter: limit_rate.map(RateLimiter::new),
            shutdown,
            uploads: Mutex::default(),
            #[cfg(test)]
            iterations: std::sync::atomic::AtomicU64::new(0),
        });
        let accept_loop = AcceptLoop {
            shared: shared.clone(),
            listener,
            waker: waker.clone(),
            pending: Vec::new(),
            accept_again_at: None,
        };
        let accept_loop = thread::Builder::new().name("listener".into()).spawn(move || accept_loop.run())?;
        Ok(Self { shared, port, shutdown: Some(sender), waker, accept_loop: Some(accept_loop) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Number of iterations of the accept loop so far.
    #[cfg(test)]
    pub(super) fn iterations(&self) -> u64 {
        self.shared.iterations.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        self.waker.wake();
        if let Some(accept_loop) = self.accept_loop.take() {
            let _ = accept_loop.join();
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
    pub(super) service: Arc<UploadService>,
    pub(super) limits: UploadLimits,
    pub(super) rate_limiter: Option<RateLimiter>,
    /// Disconnected when the listener shuts down.
    pub(super) shutdown: Receiver<Infallible>,
    uploads: Mutex<Vec<RunningUpload>>,
    #[cfg(test)]
    iterations: std::sync::atomic::AtomicU64,
}

impl ListenerShared {
    pub(super) fn is_shutting_down(&self) -> bool {
        self.shutdown.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Lets idle uploads check whether a downloader waits for a slot.
    fn wake_uploads(&self) {
        lock(&self.uploads).iter().for_each(|upload| upload.waker.wake());
    }
}

struct RunningUpload {
    thread: JoinHandle<()>,
    stream: Weak<TcpStream>,
    waker: Arc<Waker>,
}

struct AcceptLoop {
    shared: Arc<ListenerShared>,
    listener: TcpListener,
    waker: Arc<Waker>,
    /// The oldest first.
    pending: Vec<PendingConnection>,
    /// End of a backoff.
    accept_again_at: Option<Instant>,
}

/// What [`AcceptLoop::wait`] found.
struct Readiness {
    /// For each pending connection, whether there is input.
    pending: Vec<bool>,
    listener: bool,
}

impl AcceptLoop {
    fn run(mut self) {
        while !self.shared.is_shutting_down() {
            #[cfg(test)]
            self.shared.iterations.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let ready = self.wait();
            let now = Instant::now();
            let mut pending = std::mem::take(&mut self.pending);
            let mut has_input = ready.pending.into_iter();
            pending.retain_mut(|connection| {
                self.drive_connection(connection, has_input.next() == Some(true), now).is_pending()
            });
            self.pending = pending;
            if ready.listener {
                self.accept_pending(now);
            }
        }
    }

    /// Waits for input, a new connection, a deadline or the shutdown.
    fn wait(&mut self) -> Readiness {
        let now = Instant::now();
        self.accept_again_at.take_if(|at| *at <= now);
        let deadline = self.pending.iter().map(|connection| connection.deadline).chain(self.accept_again_at).min();
        // Rounded up, so that the deadline has passed.
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(now) + Duration::from_millis(1));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut fds = vec![PollFd::new(&*self.waker, PollFlags::IN)];
        fds.extend(self.pending.iter().map(|connection| PollFd::new(&connection.stream, PollFlags::IN)));
        if self.accept_again_at.is_none() {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let polled = poll(&mut fds, timeout.as_ref());
        let is_ready = |fd: &PollFd<'_>| polled.is_ok() && !fd.revents().is_empty();
        let count = self.pending.len();
        Readiness {
            pending: fds[1..=count].iter().map(is_ready).collect(),
            listener: fds.get(count + 1).is_some_and(is_ready),
        }
    }

    /// Advances one connection: authenticates it, starts its upload, or rejects it.
    fn drive_connection(&self, connection: &mut PendingConnection, has_input: bool, now: Instant) -> Progress {
        let service = &self.shared.service;
        let mut progress = if has_input { connection.read() } else { Progress::Pending };
        if matches!(progress, Progress::PreambleComplete) {
            progress = connection.respond(|ticket| service.open_ticket(ticket, now), now + self.shared.limits.idle);
        }
        if let Progress::Ready(peer, first_request) = progress {
            progress = match service.slots.acquire(&peer.ticket.downloader, now) {
                Some(slot) => {
                    self.start_upload(connection.stream.clone(), |waker| AcceptedUpload {
                        peer: *peer,
                        first_request,
                        slot,
                        waker,
                    });
                    Progress::Closed
                }
                None => {
                    log::debug!("{} was rejected: all upload slots are taken", peer.ticket.downloader);
                    self.shared.wake_uploads();
                    connection.reject_busy(*peer, now + BUSY_LINGER)
                }
            };
        }
        if now < connection.deadline { progress } else { Progress::Closed }
    }

    fn start_upload(&self, stream: Arc<TcpStream>, accepted: impl FnOnce(Arc<Waker>) -> AcceptedUpload) {
        let started = stream.set_nonblocking(false).and_then(|()| {
            let waker = Arc::new(Waker::new()?);
            let (shared, accepted) = (self.shared.clone(), accepted(waker.clone()));
            let thread =
                thread::Builder::new().name("upload".into()).spawn(move || connection::run(&shared, accepted))?;
            Ok(RunningUpload { thread, stream: Arc::downgrade(&stream), waker })
        });
        let mut uploads = lock(&self.shared.uploads);
        uploads.retain(|upload| !upload.thread.is_finished());
        match started {
            Ok(upload) => uploads.push(upload),
            Err(error) => log::error!("cannot start an upload: {error}"),
        }
    }

    fn accept_pending(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            match self.listener.accept() {
                Ok((stream, from)) => self.admit_connection(stream, from, now),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The peer has closed the connection already.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                    _ => {
                        // No descriptors or no memory: close the oldest connection and back off.
                        log::debug!("cannot accept a connection: {error}");
                        if !self.pending.is_empty() {
                            self.pending.remove(0);
                        }
                        self.accept_again_at = Some(now + ACCEPT_BACKOFF);
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
        let (prefix, limits) = (AddressPrefix::of(from.ip()), &self.shared.limits);
        let same_prefix = self.pending.iter().filter(|connection| connection.prefix() == prefix).count();
        let evicted = match () {
            () if same_prefix >= limits.pending_per_prefix_max => {
                self.eviction_candidate(|connection| connection.prefix() == prefix)
            }
            () if self.pending.len() >= limits.pending_max.max(1) => self.eviction_candidate(|_| true),
            () => None,
        };
        if let Some(evicted) = evicted {
            self.pending.remove(evicted);
        }
        let mut connection = PendingConnection::new(stream, from, now + limits.handshake);
        // Most peers have sent their ticket already.
        if self.drive_connection(&mut connection, true, now).is_pending() {
            self.pending.push(connection);
        }
    }

    /// The oldest unauthenticated connection, or the oldest if all are authenticated.
    fn eviction_candidate(&self, is_eligible: impl Fn(&PendingConnection) -> bool) -> Option<usize> {
        let unauthenticated =
            |connection: &PendingConnection| is_eligible(connection) && connection.is_unauthenticated();
        self.pending.iter().position(unauthenticated).or_else(|| self.pending.iter().position(&is_eligible))
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "flood_tests.rs"]
mod flood_tests;
