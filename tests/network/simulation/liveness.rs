//! Whether the server's sessions are alive and end as they must, by what it has heard: none is alive after the liveness
//! time of silence, and none ends while its client is heard, nor as soon as a server that stood still goes on.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::common::limits::{HEARTBEAT_DEFAULT, LIVENESS_DEFAULT};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::types::SessionId;
use fileshare::internals::server::core::{OnlineUser, Server};

/// A server that stood still waits so long for its clients.
const GRACE: Duration = LIVENESS_DEFAULT.saturating_sub(HEARTBEAT_DEFAULT);

/// What was heard of a session.
struct Heard {
    at: Instant,
    /// It was alive after an earlier datagram, and has not been silent for the liveness time since. What comes first, or late,
    /// may be of a session that has ended.
    is_alive: bool,
}

/// For tests in which nobody logs out.
#[derive(Default)]
pub struct LivenessOracle {
    /// The last datagram from each address, of whatever kind.
    last: HashMap<SocketAddr, Instant>,
    /// The last datagram of each session from each address.
    heard: HashMap<(SessionId, SocketAddr), Heard>,
    /// Datagrams that a repeat does not count for.
    known: HashSet<Vec<u8>>,
    continued: Option<Instant>,
    online: Vec<OnlineUser>,
}

impl LivenessOracle {
    /// The server is about to process this.
    pub fn on_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        self.last.insert(from, now);
        if !self.known.insert(datagram.to_vec()) {
            return;
        }
        if let Some(Packet::Session { id }) = Packet::parse(datagram) {
            let continues = |was: &Heard| was.is_alive && now < was.at + LIVENESS_DEFAULT;
            let is_alive = self.heard.get(&(id, from)).is_some_and(continues);
            self.heard.insert((id, from), Heard { at: now, is_alive });
        }
    }

    /// The server has begun anew: it knows none of the sessions.
    pub fn on_restart(&mut self) {
        *self = Self::default();
    }

    /// The server goes on after it has stood still.
    pub fn on_continued(&mut self, now: Instant) {
        self.continued = Some(now);
    }

    /// Panics unless the sessions are those that must be alive. To be called while the server runs.
    pub fn check(&mut self, now: Instant, server: &Server) {
        let online = server.online_users(usize::MAX);
        let is_in_grace = self.continued.is_some_and(|at| now < at + GRACE);
        // Of a session that another one took the place of, nothing is expected.
        let is_gone = |was: &&OnlineUser| online.iter().all(|is| is.user != was.user && is.address != was.address);
        for OnlineUser { user, address, session } in self.online.iter().filter(is_gone) {
            let is_heard = |heard: &Heard| heard.is_alive && now < heard.at + LIVENESS_DEFAULT;
            let is_heard = self.heard.get(&(*session, *address)).is_some_and(is_heard);
            assert!(!is_heard, "the session of {user} has ended although the server hears the client");
            assert!(!is_in_grace, "the session of {user} has ended before the client could be heard");
        }
        let is_over = self.continued.is_none_or(|at| now > at + GRACE);
        for OnlineUser { user, address, .. } in online.iter().filter(|_| is_over) {
            let is_silent = self.last.get(address).is_some_and(|&at| now > at + LIVENESS_DEFAULT);
            assert!(!is_silent, "the session of {user} is alive although the client is silent");
        }
        for user in &online {
            self.heard.entry((user.session, user.address)).and_modify(|heard| heard.is_alive = true);
        }
        self.online = online;
    }
}
