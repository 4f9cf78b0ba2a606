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
#[cfg(test)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::UploadService;
use super::connection::{self, AcceptedUpload, UploadContext};
use super::limits::{RateLimiter, UploadLimits};
use super::pending::{BUSY, PendingConnection, Progress};
use super::slots::Turn;
use crate::client::transport::Waker;
use crate::common::net::AddressPrefix;
use crate::common::peer_crypto::{NOISE_BYTES, message_record_bytes};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::UserName;

/// Connections accepted before the pending ones are driven again.
const ACCEPT_BATCH: usize = 32;
/// Pause of accepting when the system has no file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// A rejected peer reads the rejection within this time.
const BUSY_LINGER: Duration = Duration::from_secs(1);

/// The listener thread and its uploads. Dropping it ends them.
pub struct Listener {
    service: Arc<UploadService>,
    address: SocketAddr,
    /// Dropped to shut down.
    shutdown: Option<Sender<Infallible>>,
    waker: Arc<Waker>,
    accept_loop: Option<JoinHandle<()>>,
    /// Of the accept loop.
    #[cfg(test)]
    iterations: Arc<AtomicU64>,
}

impl Listener {
    /// Binds and starts the thread. `limit_rate`: bytes a second of all uploads together, also of those of other listeners of
    /// the service.
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
        let address = listener.local_addr()?;
        let waker = Arc::new(Waker::new()?);
        let (sender, shutdown) = bounded(0);
        let new_limiter = |rate| Arc::new(RateLimiter::new(rate, service.slots.total()));
        let rate_limiter = limit_rate.map(|rate| service.rate_limiter.get_or_init(|| new_limiter(rate)).clone());
        #[cfg(test)]
        let iterations = Arc::<AtomicU64>::default();
        let accept_loop = AcceptLoop {
            context: Arc::new(UploadContext { service: service.clone(), limits, rate_limiter, shutdown }),
            address,
            #[cfg(test)]
            iterations: iterations.clone(),
            listener,
            waker: waker.clone(),
            pending: Vec::new(),
            accept_again_at: None,
        };
        let accept_loop = threads::spawn("listener", move || accept_loop.run())?;
        Ok(Self {
            service,
            address,
            shutdown: Some(sender),
            waker,
            accept_loop: Some(accept_loop),
            #[cfg(test)]
            iterations,
        })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Number of iterations of the accept loop so far.
    #[cfg(test)]
    pub(super) fn iterations(&self) -> u64 {
        self.iterations.load(Ordering::Relaxed)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.shutdown.take());
        self.waker.wake();
        if let Some(accept_loop) = self.accept_loop.take() {
            let _ = accept_loop.join();
        }
        let is_own = |upload: &mut RunningUpload| upload.listener == self.address;
        let uploads: Vec<RunningUpload> = lock(&self.service.running).extract_if(.., is_own).collect();
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

/// An upload with its slot.
pub(super) struct RunningUpload {
    thread: JoinHandle<()>,
    /// Where it was accepted.
    listener: SocketAddr,
    stream: Weak<TcpStream>,
    waker: Arc<Waker>,
    downloader: UserName,
    turn: Arc<Turn>,
}

impl RunningUpload {
    /// The user was refused a slot: an idle upload yields its own, and to another user who may have it (`is_eligible`) so
    /// does one whose downloader receives too slowly.
    fn on_refused(&self, user: &UserName, is_eligible: bool, now: Instant, limits: &UploadLimits) {
        self.waker.wake();
        if is_eligible
            && self.downloader != *user
            && self.turn.is_overdue(now, limits)
            && let Some(stream) = self.stream.upgrade()
        {
            log::debug!("an upload to {} is ended: it receives too slowly, and others wait", self.downloader);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

struct AcceptLoop {
    context: Arc<UploadContext>,
    address: SocketAddr,
    #[cfg(test)]
    iterations: Arc<AtomicU64>,
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
        while !self.context.is_shutting_down() {
            #[cfg(test)]
            self.iterations.fetch_add(1, Ordering::Relaxed);
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
        let service = &self.context.service;
        let mut progress = if has_input { connection.read() } else { Progress::Pending };
        if matches!(progress, Progress::PreambleComplete) {
            progress = connection.respond(|ticket| service.open_ticket(ticket, now), now + self.context.limits.idle);
            if !connection.is_unauthenticated() {
                self.context.charge(NOISE_BYTES, now);
            }
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
                    let (user, limits) = (&peer.ticket.downloader, &self.context.limits);
                    let is_eligible = service.slots.is_eligible(user);
                    // Those of other listeners too: they share the slots.
                    let running = lock(&service.running);
                    running.iter().for_each(|upload| upload.on_refused(user, is_eligible, now, limits));
                    drop(running);
                    self.context.charge(message_record_bytes(&BUSY), now);
                    connection.reject_busy(*peer, now + BUSY_LINGER)
                }
            };
        }
        if now < connection.deadline { progress } else { Progress::Closed }
    }

    fn start_upload(&self, stream: Arc<TcpStream>, accepted: impl FnOnce(Arc<Waker>) -> AcceptedUpload) {
        let started = stream.set_nonblocking(false).and_then(|()| {
            let waker = Arc::new(Waker::new()?);
            let (context, accepted) = (self.context.clone(), accepted(waker.clone()));
            let (downloader, turn) = (accepted.peer.ticket.downloader.clone(), accepted.slot.turn().clone());
            let thread = threads::spawn("upload", move || connection::run(&context, accepted))?;
            let stream = Arc::downgrade(&stream);
            Ok(RunningUpload { thread, listener: self.address, stream, waker, downloader, turn })
        });
        let mut uploads = lock(&self.context.service.running);
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
        let (prefix, limits) = (AddressPrefix::of(from.ip()), &self.context.limits);
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
