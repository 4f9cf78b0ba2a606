//! The control thread and its handle. The thread moves bytes between the server and the [`Session`], and decides
//! nothing.
//!
//! * `command_queue`: commands on their way to it.
//! * `driver`: the thread, its clock and its randomness.
//! * `sockets`: the UDP sockets.
//! * `server_api`: requests to the server as plain calls.
//! * `resolve`: the server's addresses, and the local ones that reach it.

mod command_queue;
mod driver;
mod resolve;
pub mod server_api;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::select;
use mio::{Poll, Waker};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use self::command_queue::CommandQueue;
use self::driver::SessionDriver;
pub use self::resolve::{local_ips_for, resolve};
pub use self::server_api::{PartialFailure, PublishAudience, RequestTransport, ServerApi};
use self::sockets::Sockets;
use crate::client::cancel::Cancelled;
use crate::client::session::Session;
pub use crate::client::session::{
    LoginError, RequestError, SessionConfig, WaitCondition, WaitId, WaitOutcome, WatchedList,
};
use crate::common::crypto::Secret;
use crate::common::handshake_keys::SessionParams;
use crate::common::message::{Request, Response};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::{Password, UserName};

/// Receives what happens to the session. Called on the control thread; must not block.
pub trait Observer: Send + Sync {
    /// A session is established, after a login or (`resumed`) after a reconnect. `ticket_key` opens the transfer tickets
    /// that the server seals for this client from now on; earlier keys stay valid for `TICKET_KEY_GRACE`.
    fn session_started(&self, user: &UserName, params: &SessionParams, ticket_key: &Secret, resumed: bool);
    /// The server has been silent for the liveness time; the client reconnects.
    fn connection_lost(&self);
    /// The server has logged the user out (credentials have changed), or the user could not be logged in again.
    fn logged_out(&self);
    /// The server had lost `files` acknowledged publications; after a reconnect they were published again.
    fn resynced(&self, files: usize);
    /// The number of uploads that could start now; heartbeats carry it.
    fn free_slots(&self) -> u8;
}

/// Login, logout and waits. Tests replace it, as they replace the [transport](RequestTransport).
pub trait SessionControl: Send + Sync {
    /// Logs in; blocks until the server has answered or [`LOGIN_TIMEOUT`](crate::common::limits::LOGIN_TIMEOUT) is over.
    fn login(&self, user: UserName, password: Password) -> Result<LoginInfo, LoginError>;
    /// The user who is logged in.
    fn user(&self) -> Option<UserName>;
    /// Blocks until the condition is met, for at most `timeout` (zero: asks once), or until `cancelled`.
    fn wait(
        &self,
        condition: WaitCondition,
        timeout: Duration,
        cancelled: &Cancelled,
    ) -> Result<WaitOutcome, RequestError>;
    /// Watches a list over sessions and logins, until [`unwatch`](Self::unwatch): `on_change` is called on the control
    /// thread when it is to be asked for, first at the start of each session; it must not block. The error: there are too
    /// many waits and lists.
    fn watch(&self, list: WatchedList, on_change: ListCallback) -> Result<WaitId, RequestError>;
    fn unwatch(&self, watch: WaitId);
    /// How many sessions have begun.
    fn sessions(&self) -> u64;
    /// Logs out; blocks for at most [`LOGOUT_TIMEOUT`](crate::common::limits::LOGOUT_TIMEOUT). Does nothing without a
    /// session. A later [`login`](Self::login) is possible.
    fn logout(&self);
}

/// Called when a watched list is to be asked for.
pub type ListCallback = Box<dyn Fn(ListSignal) + Send>;

/// A watched list is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListSignal {
    /// What the list lacks has gone, if the list comes from this session.
    pub is_complete: bool,
    /// The number of sessions that have begun.
    pub session: u64,
    /// The number of logins; resumptions do not count.
    pub login: u64,
}

/// What the user should know about a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginInfo {
    /// Peers on other hosts cannot download from this client.
    pub local_only: bool,
}

/// A handle on the control thread; cheap to clone, usable from any thread. The thread ends with the last handle, without
/// a message to the server: see [`logout`](SessionControl::logout).
#[derive(Clone)]
pub struct ControlHandle {
    shared: Arc<ControlShared>,
    /// Ends the thread when the last handle is dropped.
    _stop: Arc<StopOnDrop>,
}

/// What the handles share with the thread.
struct ControlShared {
    commands: CommandQueue<ControlCommand>,
    waker: Waker,
    user: Mutex<Option<UserName>>,
    /// Of the wait or watched list started last.
    last_wait: AtomicU64,
    /// How many sessions have begun.
    sessions: AtomicU64,
}

struct StopOnDrop(Arc<ControlShared>);

/// Takes the result of a request, on the control thread.
type RequestReply = Box<dyn FnOnce(Result<Response, RequestError>) + Send>;

/// How a wait has ended.
type WaitReply = Result<WaitOutcome, RequestError>;

enum ControlCommand {
    Login { user: UserName, password: Password, reply: Sender<Result<SessionParams, LoginError>> },
    Request { request: Request, reply: RequestReply },
    Wait { wait: WaitId, condition: WaitCondition, timeout: Duration, reply: crossbeam_channel::Sender<WaitReply> },
    Watch { id: WaitId, list: WatchedList, on_change: ListCallback, reply: Sender<Result<(), RequestError>> },
    CancelWait(WaitId),
    Logout { reply: Sender<()> },
    Stop,
}

impl ControlHandle {
    /// Starts the thread. Nothing is sent before [`login`](SessionControl::login).
    pub fn start(config: SessionConfig, observer: Arc<dyn Observer>) -> io::Result<Self> {
        if config.servers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the server has no address"));
        }
        let poll = Poll::new()?;
        let (queue, commands) = CommandQueue::new();
        let shared = Arc::new(ControlShared {
            commands: queue,
            waker: Waker::new(poll.registry(), driver::WAKE)?,
            user: Mutex::new(None),
            last_wait: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
        });
        let driver = SessionDriver {
            sockets: Sockets::new(config.servers.clone()),
            session: Session::new(config, ChaCha20Rng::from_entropy()),
            poll,
            commands,
            observer,
            shared: Arc::clone(&shared),
            login: None,
            requests: HashMap::new(),
            waits: HashMap::new(),
            lists: HashMap::new(),
            logins: 0,
            logouts: Vec::new(),
            reopen_at: None,
        };
        threads::spawn("control", move || driver.run())?;
        Ok(Self { _stop: Arc::new(StopOnDrop(Arc::clone(&shared))), shared })
    }
}

impl SessionControl for ControlHandle {
    fn login(&self, user: UserName, password: Password) -> Result<LoginInfo, LoginError> {
        let (reply, result) = mpsc::channel();
        self.shared.send(ControlCommand::Login { user, password, reply });
        let params = result.recv().unwrap_or(Err(LoginError::Unreachable))?;
        Ok(LoginInfo { local_only: params.local_only })
    }

    fn user(&self) -> Option<UserName> {
        lock(&self.shared.user).clone()
    }

    fn wait(
        &self,
        condition: WaitCondition,
        timeout: Duration,
        cancelled: &Cancelled,
    ) -> Result<WaitOutcome, RequestError> {
        let wait = self.shared.new_wait();
        let (reply, result) = crossbeam_channel::bounded(1);
        self.shared.send(ControlCommand::Wait { wait, condition, timeout, reply });
        let result = select! {
            recv(result) -> result => result,
            recv(cancelled) -> _ => {
                self.shared.send(ControlCommand::CancelWait(wait));
                result.recv()
            }
        };
        result.unwrap_or(Err(RequestError::NotAuthenticated))
    }

    fn watch(&self, list: WatchedList, on_change: ListCallback) -> Result<WaitId, RequestError> {
        let id = self.shared.new_wait();
        let (reply, result) = mpsc::channel();
        self.shared.send(ControlCommand::Watch { id, list, on_change, reply });
        result.recv().unwrap_or(Err(RequestError::NotAuthenticated))?;
        Ok(id)
    }

    fn unwatch(&self, watch: WaitId) {
        self.shared.send(ControlCommand::CancelWait(watch));
    }

    fn sessions(&self) -> u64 {
        self.shared.sessions.load(Ordering::Acquire)
    }

    fn logout(&self) {
        let (reply, ended) = mpsc::channel();
        self.shared.send(ControlCommand::Logout { reply });
        // An error means that the thread has ended, and the session with it.
        let _ = ended.recv();
    }
}

/// Retransmits, and waits for a reconnect or a busy server for up to
/// [`COMMAND_TIMEOUT`](crate::common::limits::COMMAND_TIMEOUT). Usable from many threads at once.
impl RequestTransport for ControlHandle {
    fn request(&self, request: Request) -> Result<Response, RequestError> {
        let (reply, result) = mpsc::channel();
        let reply = Box::new(move |result| drop(reply.send(result)));
        self.shared.send(ControlCommand::Request { request, reply });
        result.recv().unwrap_or(Err(RequestError::NotAuthenticated))
    }

    fn request_many(&self, requests: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        let (reply, results) = mpsc::channel();
        let mut responses: Vec<Option<Response>> = vec![None; requests.len()];
        for (index, request) in requests.into_iter().enumerate() {
            let reply = reply.clone();
            let reply = Box::new(move |result| drop(reply.send((index, result))));
            self.shared.send(ControlCommand::Request { request, reply });
        }
        drop(reply);
        for (index, result) in results {
            responses[index] = Some(result?);
        }
        responses.into_iter().map(|response| response.ok_or(RequestError::NotAuthenticated)).collect()
    }
}

impl ControlShared {
    fn new_wait(&self) -> WaitId {
        WaitId(self.last_wait.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn send(&self, command: ControlCommand) {
        self.commands.send(command, || {
            if let Err(error) = self.waker.wake() {
                log::error!("cannot wake the control thread: {error}");
            }
        });
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.send(ControlCommand::Stop);
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
