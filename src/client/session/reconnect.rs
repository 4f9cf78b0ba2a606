//! Coming back after a break: resumption by the last session's ticket, else a login with the password kept in memory.
//!
//! Owns what each verdict means for a user who does not know that anything happened: a refused ticket leads to a login,
//! a refused password to being logged out (unless somebody is seen to meddle), "already active" (most likely our own last session, not yet given up by the
//! server) to trying for the liveness time and a second. Everything else is tried for ever, until the user leaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handshake::{Handshake, Proof, Verdict};
use super::{ClientMessage, Event, LEAVE_RETRY, Session, State};
use crate::common::handshake_keys::SessionParams;
use crate::common::packet::Packet;

/// How long "already active" is taken for our own last session, beyond the liveness time.
const ACTIVE_ELSEWHERE_MARGIN: Duration = Duration::from_secs(1);
/// Wait between two logins while the user is still active.
const ACTIVE_RETRY: Duration = Duration::from_millis(500);
/// Anyone who sees our login can say that we are throttled, so it is believed for this long at most; a true server lets
/// a client wait for some seconds.
const THROTTLED_MAX: Duration = Duration::from_secs(30);
/// First wait before trying again after an exchange that somebody meddled with; doubles up to [`MEDDLED_MAX`].
const MEDDLED_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait: whoever answers in the server's place has a few guesses at the password each time.
const MEDDLED_MAX: Duration = Duration::from_secs(30);
/// Wait before trying again at a server of another version: it may be in the middle of an upgrade.
const VERSION_RETRY: Duration = Duration::from_secs(2);

/// A session that broke off and is being brought back.
pub(super) struct Reconnect {
    phase: Phase,
    /// The user is told when it takes as long as this; `None` once told.
    lost_at: Option<Instant>,
    /// Until when "already active" is tried again; set by the first one.
    active_until: Option<Instant>,
    /// How long to wait when somebody meddles.
    meddled: Duration,
    /// The user leaves: come back to say so, but only until then.
    leave_by: Option<Instant>,
}

enum Phase {
    Waiting { until: Instant, by_password: bool },
    Trying(Box<Handshake>),
}

impl Reconnect {
    pub fn timeout(&self) -> Instant {
        let due = match &self.phase {
            Phase::Waiting { until, .. } => *until,
            Phase::Trying(handshake) => handshake.timeout(),
        };
        [self.lost_at, self.leave_by].into_iter().flatten().fold(due, Instant::min)
    }

    pub fn handshake_mut(&mut self) -> Option<&mut Handshake> {
        match &mut self.phase {
            Phase::Trying(handshake) => Some(handshake),
            Phase::Waiting { .. } => None,
        }
    }

    /// The user leaves: no more waiting, and no more telling.
    pub fn leave_by(&mut self, now: Instant, by: Instant) {
        self.leave_by = Some(by);
        self.lost_at = None;
        if let Phase::Waiting { until, .. } = &mut self.phase {
            *until = now;
        }
    }

    fn wait(&mut self, until: Instant) {
        self.phase = Phase::Waiting { until, by_password: true };
    }
}

impl Session {
    /// The standing session broke off: comes back after `delay`. Unless `was_told` already, the user hears
    /// of it only if it lasts.
    pub(super) fn reconnect(&mut self, now: Instant, delay: Duration, was_told: bool) {
        let liveness = self.liveness();
        self.state = State::Reconnecting(Reconnect {
            phase: Phase::Waiting { until: now + delay, by_password: false },
            lost_at: (!was_told).then(|| now + delay + liveness),
            active_until: None,
            meddled: MEDDLED_FIRST,
            leave_by: None,
        });
        self.reconnect_timeout(now);
    }

    pub(super) fn reconnect_timeout(&mut self, now: Instant) {
        let State::Reconnecting(reconnect) = &mut self.state else { return };
        if reconnect.leave_by.is_some_and(|by| now >= by) {
            return self.end(Event::LoggedOutByUser);
        }
        self.beat(now);
        let State::Reconnecting(reconnect) = &mut self.state else { return };
        if reconnect.lost_at.take_if(|at| now >= *at).is_some() {
            self.events.push_back(Event::ConnectionLost);
        }
        match &mut reconnect.phase {
            Phase::Trying(handshake) => handshake.handle_timeout(now, &mut self.rng, &mut self.out),
            Phase::Waiting { until, by_password } if now >= *until => {
                let by_password = *by_password;
                self.try_again(now, by_password);
            }
            Phase::Waiting { .. } => {}
        }
    }

    pub(super) fn reconnect_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        let State::Reconnecting(Reconnect { phase: Phase::Trying(handshake), .. }) = &mut self.state else { return };
        let Some(verdict) = handshake.handle(now, from, packet, &mut self.rng, &mut self.out) else { return };
        let (by_password, is_contradicted) = (handshake.is_by_password(), handshake.is_contradicted());
        let State::Reconnecting(reconnect) = &mut self.state else { return };
        match verdict {
            Verdict::Established { server, welcome, secret } => {
                let leave_by = reconnect.leave_by;
                self.compare(&welcome);
                self.requests.resend_all(now);
                self.establish(now, server, welcome, &secret, true);
                if let Some(until) = leave_by {
                    self.send(&ClientMessage::Logout);
                    self.state = State::Leaving { until, retry_at: now + LEAVE_RETRY };
                }
            }
            Verdict::Refused if !by_password => self.try_again(now, true),
            Verdict::Refused if is_contradicted => {
                log::debug!("{from}: somebody answers in the server's place");
                // By the ticket again, which leaves nobody anything to guess.
                reconnect.phase = Phase::Waiting { until: now + reconnect.meddled, by_password: false };
                reconnect.meddled = (reconnect.meddled * 2).min(MEDDLED_MAX);
            }
            Verdict::Refused => self.log_out(),
            Verdict::AlreadyActive(liveness) => {
                let until = *reconnect.active_until.get_or_insert(now + liveness + ACTIVE_ELSEWHERE_MARGIN);
                if now >= until {
                    return self.log_out();
                }
                reconnect.wait(now + ACTIVE_RETRY);
            }
            Verdict::Throttled(seconds) => {
                let wait = Duration::from_secs(u64::from(seconds).max(1));
                reconnect.wait(now + wait.min(THROTTLED_MAX));
            }
            Verdict::Version(version) => {
                log::debug!("{from}: the server now speaks protocol version {version}");
                reconnect.wait(now + VERSION_RETRY);
            }
        }
    }

    /// Whether anything acknowledged is missing: by the digests, then (see [`repair`](super::resync)) in detail.
    fn compare(&mut self, welcome: &SessionParams) {
        let Some(link) = &self.link else { return };
        let run = link.welcome.instance;
        if welcome.last_writer > run {
            // The user published or withdrew elsewhere meanwhile: what stands there is what is wanted.
            self.repair.abandon();
            self.requests.drop_own();
            self.ledger.begin(welcome);
            return;
        }
        if self.repair.is_under_way() || self.ledger.may_have_lost(welcome) {
            self.repair.begin();
            self.requests.drop_own_queries();
        }
        self.ledger.accept(welcome.digest);
    }

    fn try_again(&mut self, now: Instant, by_password: bool) {
        let (Some(link), Some(identity)) = (&self.link, &self.identity) else { return };
        let proof = match by_password {
            true => Proof::Password(Arc::clone(identity), self.config.stretching),
            false => Proof::Ticket(Arc::clone(&link.resumption)),
        };
        let handshake = self.handshake(now, proof);
        if let State::Reconnecting(reconnect) = &mut self.state {
            reconnect.phase = Phase::Trying(handshake);
        }
    }

    /// The user cannot be logged in again, or is leaving anyway.
    fn log_out(&mut self) {
        let is_leaving = matches!(&self.state, State::Reconnecting(reconnect) if reconnect.leave_by.is_some());
        self.end(if is_leaving { Event::LoggedOutByUser } else { Event::LoggedOut });
    }

    fn liveness(&self) -> Duration {
        self.link.as_ref().map_or(Duration::ZERO, |link| Duration::from_millis(link.welcome.liveness_ms.into()))
    }
}
