//! The event loop: one thread, one socket, one poll. Moves bytes between the socket, the journal, the enrolment thread and
//! the core, and sleeps until the core's next deadline. Leaves the decisions of the protocol to the core.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use log::{Level, error, info, log, trace, warn};
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

use super::auth::credentials::{SAMPLE_USERS_WARNING, VersionedCredentials};
use super::auth::credentials_reload::{CredentialsReloader, ReloadError, ReloadStep};
use super::auth::enrolment::Enrolment;
use super::core::{Effects, ReceiveBuffer, Server};
use super::journal::{Journal, JournalError, JournalSeq};
use super::signals::Signals;
use super::socket::{BATCH_MAX, ReceiveBatch, ServerSocket};
use super::status::{Figures, Monitor, Resource, respond};
use crate::common::opaque::KeyStretching;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
/// Another thread has a result.
pub(super) const WAKE: Token = Token(2);
/// The first one of the status page.
pub(super) const STATUS: Token = Token(3);

/// A wake-up this long after the deadline means that the process was suspended, not that its clients are gone.
const SUSPENDED_MIN: Duration = Duration::from_millis(250);

/// On the status page. Looking up a session that is not in a cache takes some microseconds.
const USERS_SHOWN_MAX: usize = 250;

/// Wakes the event loop from another thread.
pub(super) type Wake = Box<dyn Fn() + Send>;

pub struct EventLoop {
    /// With [`WAKE`] registered.
    pub(super) poll: Poll,
    pub(super) new_wake: Box<dyn Fn() -> Wake>,
    pub(super) socket: ServerSocket,
    pub(super) signals: Signals,
    pub(super) server: Server,
    pub(super) journal: Journal,
    pub(super) reloader: CredentialsReloader,
    /// Of the records made from plaintext passwords.
    pub(super) stretching: KeyStretching,
    pub(super) warn_on_sample_users: bool,
    /// While records are being made.
    pub(super) enrolment: Option<Enrolment>,
    pub(super) effects: Effects,
    /// The last mutation that was queued in the journal.
    pub(super) last_queued: JournalSeq,
    pub(super) monitor: Monitor,
}

impl EventLoop {
    /// Serves until SIGINT or SIGTERM; then everything queued is stored and acknowledged.
    pub fn run(mut self) -> Result<(), JournalError> {
        let mut events = Events::with_capacity(32);
        let (mut batch, mut buffer, mut iteration) = (ReceiveBatch::default(), ReceiveBuffer::MayHoldMore, now());
        while !self.signals.should_stop() {
            let deadline = self.server.poll_timeout();
            let wake_at = [deadline, self.monitor.next_deadline(iteration)].into_iter().flatten().min();
            let timeout = match buffer {
                ReceiveBuffer::Empty => wake_at.map(|deadline| deadline.saturating_duration_since(now())),
                ReceiveBuffer::MayHoldMore => Some(Duration::ZERO),
            };
            self.wait(&mut events, timeout);
            // A deadline in the past means that work was left: the time that the process was suspended is then measured
            // from the previous iteration.
            let due = deadline.map(|deadline| deadline.max(iteration));
            iteration = now();
            let cpu_time_before = cpu_time();
            self.server.set_wall_clock(iteration, wall_ms());
            if due.is_some_and(|due| iteration.saturating_duration_since(due) > SUSPENDED_MIN) {
                self.server.handle_suspension(iteration);
            }
            if buffer == ReceiveBuffer::MayHoldMore || events.iter().any(|event| event.token() == SOCKET) {
                buffer = self.receive(iteration, &mut batch);
            }
            self.poll_workers()?;
            // Before the deferred work: what can be answered at once must not wait for the requests of others.
            self.apply_effects();
            match buffer {
                ReceiveBuffer::Empty => self.server.handle_timeout(iteration, &mut self.effects),
                ReceiveBuffer::MayHoldMore => self.server.run_deferred_work(iteration, buffer, &mut self.effects),
            }
            self.apply_effects();
            self.report(iteration, &events);
            self.monitor.loop_turns.record(now().saturating_duration_since(iteration));
            self.monitor.loop_turns_cpu.record(cpu_time().saturating_sub(cpu_time_before));
        }
        self.finish()
    }

    /// Registers the socket and the signals with the poll.
    pub(super) fn register(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut self.socket.udp, SOCKET, Interest::READABLE)?;
        registry.register(&mut self.signals.wakeups, SIGNALS, Interest::READABLE)
    }

    fn wait(&mut self, events: &mut Events, timeout: Option<Duration>) {
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            error!("waiting failed: {error}");
        }
        if events.iter().any(|event| event.token() == SIGNALS) {
            self.signals.drain();
        }
    }

    /// Hands datagrams to the core, at most [`BATCH_MAX`]: about 0.1 ms, as the other parts of an iteration (see
    /// [`Server::run_deferred_work`]).
    fn receive(&mut self, now: Instant, batch: &mut ReceiveBatch) -> ReceiveBuffer {
        let Self { socket, server, effects, .. } = self;
        let mut received = 0;
        while received < BATCH_MAX {
            let handle = |from, bytes: &mut [u8]| server.handle_datagram(now, from, bytes, effects);
            match socket.receive(batch, BATCH_MAX - received, handle) {
                Ok(datagrams) => received += datagrams,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ReceiveBuffer::Empty,
                Err(error) => {
                    received += 1;
                    trace!("receiving failed: {error}");
                }
            }
        }
        ReceiveBuffer::MayHoldMore
    }

    /// Collects the results of the other threads, and starts a reload that was requested.
    fn poll_workers(&mut self) -> Result<(), JournalError> {
        if let Some(line) = self.journal.failed() {
            return Err(JournalError::Failed { line });
        }
        self.server.handle_durable(self.journal.durable());
        self.poll_enrolment();
        if let Some(step) = self.reloader.poll() {
            self.handle_reload(step);
        }
        if self.signals.take_reload() | self.reloader.take_pending() {
            self.start_reload();
        }
        Ok(())
    }

    fn poll_enrolment(&mut self) {
        let Some(enrolment) = &self.enrolment else { return };
        let progress = enrolment.poll();
        progress.results.into_iter().for_each(|result| self.server.handle_enrolled(result));
        if progress.is_done {
            self.server.handle_enrolment_done();
            self.enrolment = None;
        }
    }

    fn start_reload(&mut self) {
        self.monitor.supervisor.reloading();
        if let Err(error) = self.reloader.start(self.server.loaded_users(), (self.new_wake)()) {
            report_refused_reload(&error);
            self.monitor.supervisor.ready();
        }
    }

    /// One step in each iteration.
    fn handle_reload(&mut self, step: Result<ReloadStep, ReloadError>) {
        match step {
            Ok(ReloadStep::Rows(rows)) => return self.server.load(rows),
            Ok(ReloadStep::Credentials(credentials)) => {
                let users = credentials.users.len();
                info!(event = "credentials_reloaded", count = users; "the credentials were read again: {users} users");
                self.apply_credentials(credentials);
            }
            Err(error) => report_refused_reload(&error),
        }
        self.monitor.supervisor.ready();
    }

    /// Puts credentials in force and starts to make the records that the core lacks. Records that exist are not made again.
    pub(super) fn apply_credentials(&mut self, credentials: VersionedCredentials) {
        credentials.warnings.iter().for_each(|warning| warn!("{warning}"));
        if self.warn_on_sample_users && credentials.has_sample_users {
            warn!("{SAMPLE_USERS_WARNING}");
        }
        self.poll_enrolment();
        let plaintexts = self.server.set_credentials(credentials, &mut self.effects);
        let root_secret = self.journal.root_secret().into();
        self.enrolment = match Enrolment::start(plaintexts, root_secret, self.stretching, (self.new_wake)()) {
            Ok(enrolment) => Some(enrolment),
            Err(error) => {
                error!("plaintext passwords cannot be used: {error}");
                self.server.handle_enrolment_done();
                None
            }
        };
    }

    fn apply_effects(&mut self) {
        // What stays waits for the next iteration, which also detects that the journal has failed.
        if let Some(seq) = self.journal.push_all(&mut self.effects.mutations) {
            self.last_queued = seq;
        }
        for (from, user) in self.effects.awaited_records.drain(..) {
            self.enrolment.iter().for_each(|enrolment| enrolment.prioritize(from, user.clone()));
        }
        self.effects.flush(|datagrams| self.socket.send(datagrams));
    }

    /// Tells the supervisor, the log and the clients of the status page how the server does.
    fn report(&mut self, now: Instant, events: &Events) {
        self.monitor.journal.update(now, self.journal.durable().0, self.last_queued.0);
        let server = &self.server;
        self.monitor.supervisor.report(now, || server.stats().to_string());
        if self.signals.take_report() {
            self.monitor.request_log();
        }
        if self.monitor.take_log() {
            self.log_figures(now);
        }
        if let Some(mut listener) = self.monitor.listener.take() {
            let response = |resource| {
                let shows_users = resource == Resource::Stats && self.monitor.shows_users;
                let users = shows_users.then(|| self.server.online_users(USERS_SHOWN_MAX));
                respond(resource, &Figures { users, ..self.figures(now) })
            };
            listener.run(now, self.poll.registry(), events, response);
            self.monitor.listener = Some(listener);
        }
    }

    /// At a level that the log has, whatever it leaves out: the administrator has asked for them.
    fn log_figures(&self, now: Instant) {
        let level = log::max_level().to_level().map_or(Level::Error, |level| level.min(Level::Info));
        self.figures(now).to_log_lines().iter().for_each(|line| log!(level, event = "figures"; "{line}"));
    }

    fn figures(&self, now: Instant) -> Figures {
        Figures {
            stats: self.server.stats(),
            sent: self.socket.sent,
            send_failures: self.socket.send_failures,
            kernel_drops: self.monitor.kernel_drops.latest(),
            loop_turns: self.monitor.loop_turns,
            loop_turns_cpu: self.monitor.loop_turns_cpu,
            journal_commits: self.journal.commit_times(),
            health: self.monitor.journal.health(now),
            uptime: self.server.uptime(now),
            users: None,
        }
    }

    /// Waits until everything queued is durable, and acknowledges it.
    fn finish(mut self) -> Result<(), JournalError> {
        info!(event = "stopping"; "stopping");
        self.monitor.supervisor.stopping();
        self.journal.close()?;
        let now = now();
        self.server.handle_durable(self.last_queued);
        while self.server.has_unacknowledged() {
            self.server.run_deferred_work(now, ReceiveBuffer::MayHoldMore, &mut self.effects);
        }
        self.effects.flush(|datagrams| self.socket.send(datagrams));
        Ok(())
    }
}

fn report_refused_reload(error: &ReloadError) {
    error!(event = "reload_refused"; "{error}; the credentials in force stay as they are");
}

#[expect(clippy::disallowed_methods, reason = "the event loop gives the core its time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// What this thread has taken of a CPU so far.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the event loop gives the core its time")]
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
