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
    id: SessionId,
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
    /// The last datagram of the session at each address, unless another session may have begun there since.
    heard: HashMap<SocketAddr, Heard>,
    /// Sessions after which another one may have begun, also of earlier runs of the server.
    replaced: HashSet<SessionId>,
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
        match Packet::parse(datagram) {
            Some(Packet::Session { id }) if !self.replaced.contains(&id) => {
                let continues = |was: &Heard| was.id == id && was.is_alive && now < was.at + LIVENESS_DEFAULT;
                let is_alive = self.heard.get(&from).is_some_and(continues);
                self.heard.insert(from, Heard { id, at: now, is_alive });
            }
            Some(Packet::Login3 { .. } | Packet::Resume { .. }) => {
                self.replaced.extend(self.heard.remove(&from).map(|heard| heard.id));
            }
            _ => {}
        }
    }

    /// The server has begun anew: it knows none of the sessions, of which datagrams may still come.
    pub fn on_restart(&mut self) {
        let ended = self.heard.drain().map(|(_, heard)| heard.id).chain(self.replaced.drain()).collect();
        *self = Self { replaced: ended, ..Self::default() };
    }

    /// The server goes on after it has stood still.
    pub fn on_continued(&mut self, now: Instant) {
        self.continued = Some(now);
    }

    /// Panics unless the sessions are those that must be alive. To be called while the server runs.
    pub fn check(&mut self, now: Instant, server: &Server) {
        let online = server.online_users(usize::MAX);
        let is_in_grace = self.continued.is_some_and(|at| now < at + GRACE);
        let is_gone = |was: &&OnlineUser| online.iter().all(|is| is.user != was.user);
        for OnlineUser { user, address } in self.online.iter().filter(is_gone) {
            let is_heard =
                self.heard.get(address).is_some_and(|heard| heard.is_alive && now < heard.at + LIVENESS_DEFAULT);
            assert!(!is_heard, "the session of {user} has ended although the server hears the client");
            assert!(!is_in_grace, "the session of {user} has ended before the client could be heard");
        }
        let is_over = self.continued.is_none_or(|at| now > at + GRACE);
        for OnlineUser { user, address } in online.iter().filter(|_| is_over) {
            let is_silent = self.last.get(address).is_some_and(|&at| now > at + LIVENESS_DEFAULT);
            assert!(!is_silent, "the session of {user} is alive although the client is silent");
        }
        for user in &online {
            self.heard.entry(user.address).and_modify(|heard| heard.is_alive = true);
        }
        self.online = online;
    }
}
