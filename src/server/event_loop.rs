//! The loop: one thread, one socket, one poll. Moves bytes between the socket, the journal, the enrolment thread and the
//! core, and sleeps exactly until the core's next deadline. Decides nothing.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use log::{error, info, trace, warn};
use mio::{Events, Interest, Poll, Token};

use super::auth::credentials::VersionedCredentials;
use super::auth::credentials_reload::{CredentialsReloader, ReloadError};
use super::auth::enrolment::Enrolment;
use super::core::{Effects, Server};
use super::io::{ServerSocket, Signals};
use super::journal::{Journal, JournalError, JournalSeq};
use crate::common::limits::DATAGRAM_MAX_BYTES;
use crate::common::opaque::KeyStretching;

const SOCKET: Token = Token(0);
const SIGNALS: Token = Token(1);
/// Another thread has news.
pub(super) const NEWS: Token = Token(2);

/// Datagrams taken in one turn; then everything else has its turn.
const DATAGRAMS_PER_TURN: usize = 256;
/// Waking up later than this after a deadline means that the process was stopped, not that its clients are dead.
const STALL: Duration = Duration::from_millis(250);

/// Wakes the loop from another thread.
pub(super) type Wake = Box<dyn Fn() + Send>;

/// All that the loop moves bytes between.
pub struct EventLoop {
    /// Where `NEWS` is registered.
    pub(super) poll: Poll,
    pub(super) wake: Box<dyn Fn() -> Wake>,
    pub(super) socket: ServerSocket,
    pub(super) signals: Signals,
    pub(super) server: Server,
    pub(super) journal: Journal,
    pub(super) rereading: CredentialsReloader,
    pub(super) warns_of_samples: bool,
    pub(super) enrolment: Option<Enrolment>,
    pub(super) out: Effects,
    /// The last mutation that was handed to the journal.
    pub(super) pushed: JournalSeq,
}

impl EventLoop {
    /// Serves until a signal says stop; then everything queued is stored and acknowledged.
    pub fn run(mut self) -> Result<(), JournalError> {
        let (mut events, mut drained, mut turn) = (Events::with_capacity(8), false, now());
        while !self.signals.stop() {
            let due = self.server.poll_timeout();
            let wait = if drained { due.map(|due| due.saturating_duration_since(now())) } else { Some(Duration::ZERO) };
            self.wait(&mut events, wait);
            let late = due.map_or(Duration::ZERO, |due| now().saturating_duration_since(due.max(turn)));
            turn = now();
            self.server.set_clock(turn, wall_ms());
            if late > STALL {
                self.server.handle_stall(turn);
            }
            drained = self.receive(turn, drained && !events.iter().any(|event| event.token() == SOCKET));
            self.take_news(turn)?;
            if let Some(read) = self.rereading.poll() {
                self.reload(read);
            }
            if self.signals.take_reload() | self.rereading.take_again() {
                self.reread();
            }
            if drained {
                self.server.handle_timeout(turn, &mut self.out);
            } else {
                self.server.run_deferred_work(turn, false, &mut self.out);
            }
            self.carry_out();
        }
        self.finish()
    }

    /// Lets the poll wait for the socket and for signals.
    pub(super) fn register(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        registry.register(&mut self.socket.udp, SOCKET, Interest::READABLE)?;
        registry.register(&mut self.signals.wakeups, SIGNALS, Interest::READABLE)
    }

    fn wait(&mut self, events: &mut Events, wait: Option<Duration>) {
        if let Err(error) = self.poll.poll(events, wait)
            && error.kind() != io::ErrorKind::Interrupted
        {
            error!("waiting failed: {error}");
        }
        if events.iter().any(|event| event.token() == SIGNALS) {
            self.signals.clear();
        }
    }

    /// Takes what has arrived, up to a bound; whether that was all. `nothing_new`: the poll said so.
    fn receive(&mut self, turn: Instant, nothing_new: bool) -> bool {
        if nothing_new {
            return true;
        }
        let mut datagram = [0; DATAGRAM_MAX_BYTES + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.socket.udp.recv_from(&mut datagram) {
                Ok((bytes, from)) => {
                    self.server.handle_datagram(turn, from, &mut datagram[..bytes], &mut self.out);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => trace!("not received: {error}"),
            }
        }
        false
    }

    /// What other threads have done meanwhile.
    fn take_news(&mut self, turn: Instant) -> Result<(), JournalError> {
        if let Some(line) = self.journal.failed() {
            return Err(JournalError::Failed { line });
        }
        self.server.handle_durable(turn, self.journal.durable(), &mut self.out);
        self.take_records();
        Ok(())
    }

    fn take_records(&mut self) {
        if let Some(enrolment) = &self.enrolment {
            let all_done = enrolment.all_done();
            enrolment.poll().into_iter().for_each(|enrolled| self.server.handle_enrolled(enrolled));
            if all_done {
                self.server.handle_enrolment_done();
                self.enrolment = None;
            }
        }
    }

    /// SIGHUP.
    fn reread(&mut self) {
        if let Err(error) = self.rereading.start((self.wake)()) {
            error!("{error}; the credentials in force stay as they are");
        }
    }

    /// A bad file is refused and the old credentials stay in force.
    fn reload(&mut self, read: Result<VersionedCredentials, ReloadError>) {
        match read {
            Ok(credentials) => {
                info!("the credentials were read again: {} users", credentials.users.len());
                self.put_in_force(credentials);
            }
            Err(error) => error!("{error}; the credentials in force stay as they are"),
        }
    }

    /// Hands credentials to the core and starts making the records it lacks; those that were made are not made again.
    pub(super) fn put_in_force(&mut self, credentials: VersionedCredentials) {
        credentials.warnings.iter().for_each(|warning| warn!("{warning}"));
        if self.warns_of_samples && credentials.has_samples {
            warn!("the sample passwords, known to everyone, are in force on an address that other hosts reach");
        }
        self.take_records();
        let plaintexts = self.server.set_credentials(credentials, &mut self.out);
        self.enrolment = match Enrolment::start(plaintexts, KeyStretching::Argon2id, (self.wake)()) {
            Ok(enrolment) => Some(enrolment),
            Err(error) => {
                error!("passwords in clear cannot be used: {error}");
                self.server.handle_enrolment_done();
                None
            }
        };
    }

    fn carry_out(&mut self) {
        while let Some(mutation) = self.out.mutations.front() {
            // Full, which the core's own bound prevents, or failed, which the next turn finds out.
            let Ok(seq) = self.journal.push(mutation.clone()) else { break };
            self.out.mutations.pop_front();
            self.pushed = seq;
        }
        for (from, user) in self.out.awaited_records.drain(..) {
            // Who does not fit is asked for again by the client's next try.
            self.enrolment.iter().for_each(|enrolment| enrolment.prioritize(from, user.clone()));
        }
        let socket = &self.socket;
        self.out.flush(|to, bytes| socket.send(to, bytes));
    }

    /// Everything that was queued becomes durable and is acknowledged.
    fn finish(mut self) -> Result<(), JournalError> {
        info!("stopping");
        self.journal.close()?;
        let (turn, socket) = (now(), self.socket);
        self.server.handle_durable(turn, self.pushed, &mut self.out);
        while self.server.has_unacknowledged() {
            self.server.run_deferred_work(turn, false, &mut self.out);
        }
        self.out.flush(|to, bytes| socket.send(to, bytes));
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the core's time comes from")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the driver is where the core's time comes from")]
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
