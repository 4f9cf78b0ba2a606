//! Skeleton of the control thread: owns the UDP socket, feeds the `Session`.

use std::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::common::login::{Stretching, Welcome};
use crate::common::message::{Request, Response};
use crate::common::seal::Secret;
use crate::common::types::UserName;

pub use crate::client::session::{AskError, LoginError, Password};

/// Where the server may be and what to tell it.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// Every address of the server, in the order to be tried.
    pub servers: Vec<SocketAddr>,
    /// The port of this client's TCP listener.
    pub tcp_port: u16,
    /// How hard passwords are stretched.
    pub stretching: Stretching,
}

/// Who wants to know what becomes of the session; called on the control thread, must not block.
pub trait Observer: Send + Sync {
    /// A session stands (after a login, or after a resumption: `resumed`). `ticket_key` opens the transfer tickets that
    /// the server seals for this client from now on; keys before it stay valid for `TICKET_KEY_GRACE`.
    fn session_started(&self, user: &UserName, welcome: &Welcome, ticket_key: &Secret, resumed: bool);
    /// The server has not answered for the liveness time; the client tries to reconnect.
    fn connection_lost(&self);
    /// The user was logged out by the server (credentials changed) or could not be logged in again.
    fn logged_out(&self);
    /// After a reconnect, publications acknowledged in this run were missing at the server and were published again.
    fn repaired(&self, files: usize);
    /// Uploads that could start now; goes into heartbeats.
    fn free_slots(&self) -> u8;
}

/// A handle on the control thread; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Control {}

impl Control {
    /// Binds the UDP socket and starts the thread. Nothing is sent before [`login`](Self::login).
    pub fn start(_options: ControlOptions, _observer: Arc<dyn Observer>) -> std::io::Result<Self> {
        unimplemented!()
    }

    /// Logs in; blocks until the server has answered or [`LOGIN_PATIENCE`](crate::common::limits::LOGIN_PATIENCE) is
    /// over.
    pub fn login(&self, _user: UserName, _password: Password) -> Result<Welcome, LoginError> {
        unimplemented!()
    }

    /// Who is logged in.
    pub fn user(&self) -> Option<UserName> {
        unimplemented!()
    }

    /// Asks and waits for the answer: retransmits, waits out a reconnect and BUSY for up to
    /// [`COMMAND_PATIENCE`](crate::common::limits::COMMAND_PATIENCE). Many threads may ask at once.
    pub fn ask(&self, _request: Request) -> Result<Response, AskError> {
        unimplemented!()
    }

    /// Asks many queries (no mutations) with a window of them under way; answers in the order of the requests.
    pub fn ask_many(&self, _requests: Vec<Request>) -> Result<Vec<Response>, AskError> {
        unimplemented!()
    }

    /// The server's clock now, milliseconds since 1970, by the last welcome.
    pub fn server_now_ms(&self) -> u64 {
        unimplemented!()
    }

    /// Tells the server that the user goes; waits at most
    /// [`LEAVE_PATIENCE`](crate::common::limits::LEAVE_PATIENCE). Without a session it does nothing. A later
    /// [`login`](Self::login) is possible.
    pub fn leave(&self) {
        unimplemented!()
    }
}
