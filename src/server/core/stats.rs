//! What the core counts, for the status page: plain numbers, which the driver formats.
//!
//! Every counter starts at 0 with the server and only rises. Names of files, users and addresses are in none of them.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use super::Server;
use super::sessions::Session;
use crate::common::types::{SessionId, UserName};

/// The values of a label.
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];
    /// As the metrics have it.
    fn text(self) -> &'static str;
    /// The place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)*];

            fn text(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        const _: () = assert!($name::ALL.len() <= LABEL_VALUES_MAX);
    };
}

const LABEL_VALUES_MAX: usize = 16;

label! {
    /// How a login or a resumption ended.
    LoginStatus {
        Accepted = "accepted",
        /// No such user, a wrong password, or a credential that has just changed.
        Refused = "refused",
        /// The password was right, but the user has a session.
        AlreadyActive = "already_active",
        /// Too many guesses.
        Throttled = "throttled",
        /// No LOGIN3 came.
        Unfinished = "unfinished",
        Resumed = "resumed",
        /// The ticket is not valid any more.
        ResumeRefused = "resume_refused",
    }
}

label! {
    RequestKind {
        Heartbeat = "heartbeat",
        Logout = "logout",
        Publish = "publish",
        Unpublish = "unpublish",
        StageAudience = "stage_audience",
        OwnPublications = "own_publications",
        AudienceOf = "audience_of",
        Peers = "peers",
        Search = "search",
        Download = "download",
        Sources = "sources",
        Subscribe = "subscribe",
        Unsubscribe = "unsubscribe",
        Shared = "shared",
    }
}

label! {
    /// What a request was answered with.
    ReplyStatus {
        Ok = "ok",
        Err = "error",
        /// The client repeats it later.
        Busy = "busy",
        OverQuota = "over_quota",
    }
}

label! {
    /// Why a session ended.
    SessionEnd {
        Logout = "logout",
        TimedOut = "timed_out",
        /// The user was removed or has a new password.
        CredentialsChanged = "credentials_changed",
        /// By a later session of the same client.
        Replaced = "replaced",
    }
}

label! {
    /// Why a datagram was not accepted.
    Refusal {
        /// Not a packet that clients send.
        Malformed = "malformed",
        /// A hello of another protocol version.
        Version = "version",
        /// The cookie is not valid (any more); the client gets a new one.
        Cookie = "cookie",
        /// LOGIN3 of a login that is not in progress.
        UnknownLogin = "unknown_login",
        /// A login gave way to a newer one, as the table of logins is full.
        DisplacedLogin = "displaced_login",
        /// Of a session that has ended; the client is told so.
        EndedSession = "ended_session",
        /// The same, but the client is not told: too many were.
        ResetLimit = "reset_limit",
        /// Of a session that this server never had.
        UnknownSession = "unknown_session",
        /// Of a session, from an address that is not the client's.
        OtherAddress = "other_address",
        /// Forged, damaged or replayed.
        Seal = "seal",
        /// The session has sent too many.
        SessionShare = "session_share",
        /// Sealed, but not a message of the protocol.
        Message = "message",
    }
}

/// One counter for each value of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts<L> {
    counts: [u64; LABEL_VALUES_MAX],
    label: PhantomData<L>,
}

impl<L> Default for Counts<L> {
    fn default() -> Self {
        Self { counts: [0; LABEL_VALUES_MAX], label: PhantomData }
    }
}

impl<L: Label> Counts<L> {
    pub fn add(&mut self, value: L) {
        self.counts[value.index()] += 1;
    }

    pub fn of(&self, value: L) -> u64 {
        self.counts[value.index()]
    }
}

/// Datagrams in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    pub datagrams: u64,
    /// UDP payloads.
    pub bytes: u64,
}

impl Traffic {
    pub fn add(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub logins: Counts<LoginStatus>,
    pub sessions_ended: Counts<SessionEnd>,
    pub refused: Counts<Refusal>,
    pub received: Traffic,
    requests: [Counts<ReplyStatus>; RequestKind::ALL.len()],
}

impl Counters {
    /// A request was answered; a repeated one counts each time.
    pub fn add_request(&mut self, kind: RequestKind, status: ReplyStatus) {
        self.requests[kind.index()].add(status);
    }

    pub fn requests(&self, kind: RequestKind) -> &Counts<ReplyStatus> {
        &self.requests[kind.index()]
    }
}

/// Counters and gauges of the core at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerStats {
    pub counters: Counters,
    /// Clients that are logged in.
    pub sessions: usize,
    /// Of all users in the credentials, online or not.
    pub publications: u64,
    /// Mutations that wait for the journal or for the index.
    pub journal_queue: usize,
    /// Queries that wait for their turn.
    pub queued_queries: usize,
    /// When the server started, milliseconds since 1970.
    pub started_ms: u64,
}

impl fmt::Display for ServerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} peers online, {} publications", self.sessions, self.publications)
    }
}

/// Who is logged in, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OnlineUser {
    pub user: UserName,
    pub address: std::net::SocketAddr,
    /// Not shown: it says nothing to an operator.
    #[serde(skip)]
    pub session: SessionId,
}

impl Server {
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            counters: self.counters,
            sessions: self.sessions.len(),
            publications: self.index.publication_count(),
            journal_queue: self.mutations.len(),
            queued_queries: self.queued_queries.len(),
            started_ms: self.ticket_clock_ms_at_start,
        }
    }

    /// The first `limit` users who are logged in, in the order of the index.
    pub fn online_users(&self, limit: usize) -> Vec<OnlineUser> {
        let online = |session: &Session| OnlineUser {
            user: session.user.clone(),
            address: session.address,
            session: session.cipher.id(),
        };
        self.sessions.iter().take(limit).map(online).collect()
    }
}
