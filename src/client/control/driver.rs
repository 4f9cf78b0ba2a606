//! The control thread: feeds the session with datagrams, commands, time and randomness, and carries out what it returns.
//!
//! One connected socket for each address of the server, so that the system delivers only datagrams from there and reports
//! when no server listens. While the connection is lost the sockets are reopened from time to time, since this host's own
//! address may have changed.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::sockets::{Received, SendOutcome, Sockets};
use super::{ControlCommand, ControlShared, ListCallback, ListSignal, Observer, RequestReply, WaitReply};
use crate::client::session::{ChangedList, Event, FinishedWait, LoginError, RequestHandle, Session, WaitId};
use crate::common::handshake_keys::SessionParams;
use crate::common::sync::lock;

/// The waker's token; the token of a socket is the index of its address.
pub(super) const WAKE: Token = Token(usize::MAX);
/// While the connection is lost, the sockets are reopened after this time: this host may have another address.
const REOPEN_INTERVAL: Duration = Duration::from_secs(3);
/// Most datagrams taken from a socket before commands and timers have their turn.
const DATAGRAMS_PER_ITERATION: usize = 256;
/// Readiness events taken at once.
const EVENTS_MAX: usize = 16;

/// The state of the control thread.
pub(super) struct SessionDriver {
    pub(super) session: Session,
    pub(super) sockets: Sockets,
    pub(super) poll: Poll,
    pub(super) commands: Receiver<ControlCommand>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) shared: Arc<ControlShared>,
    /// The caller of the login under way.
    pub(super) login: Option<Sender<Result<SessionParams, LoginError>>>,
    pub(super) requests: HashMap<RequestHandle, RequestReply>,
    pub(super) waits: HashMap<WaitId, crossbeam_channel::Sender<WaitReply>>,
    pub(super) lists: HashMap<WaitId, ListCallback>,
    /// How many logins have succeeded.
    pub(super) logins: u64,
    pub(super) logouts: Vec<Sender<()>>,
    /// When the sockets are reopened; set while the connection is lost.
    pub(super) reopen_at: Option<Instant>,
}

impl SessionDriver {
    /// Runs until the last handle is dropped.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        // Sockets that may hold more datagrams.
        let mut readable = BTreeSet::new();
        while self.drain_commands().is_continue() {
            let now = clock();
            if self.session.poll_timeout().is_some_and(|due| due <= now) {
                self.session.set_free_slots(self.observer.free_slots());
                self.session.handle_timeout(now);
            }
            self.flush();
            let wait = match readable.is_empty() {
                true => self.session.poll_timeout().map(|due| due.saturating_duration_since(clock())),
                false => Some(Duration::ZERO),
            };
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return log::error!("the control thread cannot wait for datagrams: {error}"),
            }
            for event in &events {
                match event.token() {
                    WAKE => self.shared.commands.set_awake(),
                    Token(socket) => drop(readable.insert(socket)),
                }
            }
            readable.retain(|&socket| self.receive(socket));
        }
    }

    /// Executes the callers' commands; breaks after the last.
    fn drain_commands(&mut self) -> ControlFlow<()> {
        while let Ok(command) = self.commands.try_recv() {
            let now = clock();
            match command {
                ControlCommand::Login { user, password, reply } => {
                    if self.login.is_some() {
                        let _ = reply.send(Err(LoginError::LoggedIn));
                        continue;
                    }
                    self.login = Some(reply);
                    self.session.set_free_slots(self.observer.free_slots());
                    self.session.login(now, user, password);
                }
                ControlCommand::Request { request, reply } => {
                    self.requests.insert(self.session.request(now, request), reply);
                }
                ControlCommand::Wait { wait, condition, timeout, reply } => {
                    self.waits.insert(wait, reply);
                    self.session.wait(now, wait, condition, timeout);
                }
                ControlCommand::Watch { id, list, on_change, reply } => {
                    let watched = self.session.watch(now, id, list);
                    if watched.is_ok() {
                        self.lists.insert(id, on_change);
                    }
                    let _ = reply.send(watched);
                }
                ControlCommand::CancelWait(wait) => {
                    self.lists.remove(&wait);
                    self.session.cancel_wait(now, wait);
                }
                ControlCommand::Logout { reply } => {
                    self.logouts.push(reply);
                    self.session.logout(now);
                }
                ControlCommand::Stop => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes datagrams from a socket, not so many that commands or heartbeats would wait. Returns whether there may be more.
    fn receive(&mut self, socket: usize) -> bool {
        for _ in 0..DATAGRAMS_PER_ITERATION {
            let Some(received) = self.sockets.receive(socket) else { return false };
            let now = clock();
            match received {
                Received::Datagram(from, datagram) => self.session.handle_datagram(now, from, datagram),
                Received::Unreachable(address) => self.session.unreachable(now, address),
            }
        }
        true
    }

    /// Dispatches the session's events and sends its datagrams.
    fn flush(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.dispatch_event(event);
        }
        if let Some(at) = self.reopen_at
            && at <= clock()
        {
            self.reopen_at = Some(clock() + REOPEN_INTERVAL);
            self.sockets.reopen();
        }
        while let Some((to, datagram)) = self.session.poll_transmit() {
            if self.sockets.send(self.poll.registry(), to, &datagram) == SendOutcome::Unreachable {
                self.session.unreachable(clock(), to);
            }
        }
    }

    /// A reply to a caller that no longer waits is dropped.
    fn dispatch_event(&mut self, event: Event) {
        match event {
            Event::Started { user, params, ticket_key, resumed } => {
                self.reopen_at = None;
                // Before any reply in the session.
                self.shared.sessions.fetch_add(1, Ordering::Release);
                self.logins += u64::from(!resumed);
                *lock(&self.shared.user) = Some(user.clone());
                self.observer.session_started(&user, &params, &ticket_key, resumed);
            }
            Event::LoginFinished(result) => {
                if let Some(reply) = self.login.take() {
                    let _ = reply.send(result);
                }
            }
            Event::ConnectionLost => {
                self.reopen_at = Some(clock() + REOPEN_INTERVAL);
                self.observer.connection_lost();
            }
            Event::LoggedOut => {
                *lock(&self.shared.user) = None;
                self.observer.logged_out();
            }
            Event::Resynced(files) => self.observer.resynced(files),
            Event::RequestFinished { request, result } => {
                if let Some(reply) = self.requests.remove(&request) {
                    reply(result);
                }
            }
            Event::WaitFinished(FinishedWait { wait, result }) => {
                if let Some(reply) = self.waits.remove(&wait) {
                    let _ = reply.send(result);
                }
            }
            Event::ListChanged(ChangedList { list, is_complete }) => {
                let session = self.shared.sessions.load(Ordering::Relaxed);
                if let Some(on_change) = self.lists.get(&list) {
                    on_change(ListSignal { is_complete, session, login: self.logins });
                }
            }
            Event::LoggedOutByUser => {
                *lock(&self.shared.user) = None;
                for reply in self.logouts.drain(..) {
                    let _ = reply.send(());
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where the clock is read")]
fn clock() -> Instant {
    Instant::now()
}
