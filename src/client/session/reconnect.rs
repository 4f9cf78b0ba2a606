//! Reconnecting after an established session has ended: resumption with the last session's ticket, else a login with
//! the password kept in memory.
//!
//! Owns what each outcome means for a user who is not watching. A refused ticket leads to a login. A refused password
//! logs the user out, unless an attacker was seen to tamper. "Already active" is most likely the client's own last
//! session, which the server has not expired yet: it is retried for the liveness time and a second. Everything else is
//! retried until the user logs out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handshake::{AuthKind, AuthMethod, Handshake};
use super::timers::Timer;
use super::{Event, LoginError, Session, State};
use crate::client::backoff::Backoff;
use crate::common::handshake_keys::SessionParams;
use crate::common::limits::THROTTLED_RETRY_MAX;
use crate::common::packet::Packet;

/// How long, beyond the liveness time, "already active" is taken for the client's own last session.
const ACTIVE_ELSEWHERE_MARGIN: Duration = Duration::from_secs(1);
/// Wait between two logins while the user is still active.
const ACTIVE_RETRY: Duration = Duration::from_millis(500);
/// First wait after an exchange that an attacker tampered with.
const TAMPER_BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait. An attacker who answers in the server's place gets a few guesses at the password each time.
const TAMPER_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Wait before the next attempt at a server of another version: it may be in the middle of an upgrade.
const VERSION_RETRY: Duration = Duration::from_secs(2);

/// A session that the server ends before it is this old is a short one. After [`SHORT_SESSIONS_MAX`] of them in a row,
/// the client waits for this time before each reconnect: a server that resumes and resets sessions must not make it
/// spin.
const SHORT_SESSION: Duration = Duration::from_secs(1);
const SHORT_SESSIONS_MAX: u32 = 3;

/// Why an established session has ended.
pub(super) enum Disconnect {
    /// The server has ended or forgotten it. The client waits for `delay` before it reconnects.
    ByServer { delay: Duration },
    /// The server was silent for the liveness time. The user knows.
    Silence,
}

/// The state of reconnecting. [`Timer::LogoutDeadline`] is set if the user is logging out: the client then reconnects
/// only to send LOGOUT.
pub(super) struct Reconnect {
    attempt: Attempt,
    /// Until when "already active" is retried; set by the first such outcome.
    active_until: Option<Instant>,
    tamper_backoff: Backoff,
}

enum Attempt {
    /// Starts when [`Timer::ReconnectAttempt`] expires.
    Scheduled(AuthKind),
    Running(Box<Handshake>),
}

impl Reconnect {
    pub fn handshake_mut(&mut self) -> Option<&mut Handshake> {
        match &mut self.attempt {
            Attempt::Running(handshake) => Some(handshake),
            Attempt::Scheduled(_) => None,
        }
    }
}

impl Session {
    /// Starts to reconnect. Unless the user knows already, the loss is reported only if it lasts.
    pub(super) fn reconnect(&mut self, now: Instant, why: &Disconnect) {
        self.state = State::Reconnecting(Reconnect {
            attempt: Attempt::Scheduled(AuthKind::Ticket),
            active_until: None,
            tamper_backoff: Backoff::new(TAMPER_BACKOFF_FIRST, TAMPER_BACKOFF_MAX),
        });
        let (Some(connection), timers) = (&mut self.connection, &mut self.io.timers) else { return };
        match *why {
            Disconnect::ByServer { delay } => {
                let is_short = now.saturating_duration_since(connection.established) < SHORT_SESSION;
                self.short_sessions = if is_short { self.short_sessions + 1 } else { 0 };
                let delay = if self.short_sessions > SHORT_SESSIONS_MAX { delay.max(SHORT_SESSION) } else { delay };
                connection.heartbeats.stop(timers);
                let liveness = Duration::from_millis(connection.params.liveness_ms.into());
                timers.set(Timer::ReportLost, now + delay + liveness);
                timers.set(Timer::ReconnectAttempt, now + delay);
            }
            Disconnect::Silence => timers.set(Timer::ReconnectAttempt, now),
        }
        self.handle_expired_timers(now);
    }

    /// [`Timer::ReconnectAttempt`] has expired.
    pub(super) fn on_reconnect_timer(&mut self, now: Instant) {
        if let State::Reconnecting(Reconnect { attempt: Attempt::Scheduled(by), .. }) = self.state {
            self.start_attempt(now, by);
        }
    }

    pub(super) fn on_reconnect_packet(&mut self, now: Instant, from: SocketAddr, packet: &Packet<'_>) {
        let State::Reconnecting(reconnect) = &mut self.state else { return };
        let Some(handshake) = reconnect.handshake_mut() else { return };
        let Some(outcome) = handshake.on_packet(now, from, packet, &mut self.io) else { return };
        let (by, is_tampered) = (handshake.auth_kind(), handshake.saw_conflicting_login2());
        match outcome {
            Ok(established) => {
                let logout_deadline = self.io.timers.get(Timer::LogoutDeadline);
                self.check_digest(&established.params);
                self.requests.resend_all(now);
                self.establish(now, established);
                if let Some(deadline) = logout_deadline {
                    self.begin_logout(now, deadline);
                }
            }
            Err(LoginError::Refused) => match by {
                AuthKind::Ticket => self.start_attempt(now, AuthKind::Password),
                AuthKind::Password if is_tampered => {
                    log::debug!("{from}: an attacker answers in the server's place");
                    let wait = reconnect.tamper_backoff.next_wait();
                    // With the ticket, which gives the attacker nothing to guess.
                    self.schedule_attempt(now + wait, AuthKind::Ticket);
                }
                AuthKind::Password => self.end_unauthenticated(),
            },
            Err(LoginError::AlreadyActive { liveness }) => {
                let until = *reconnect.active_until.get_or_insert(now + liveness + ACTIVE_ELSEWHERE_MARGIN);
                if now >= until {
                    return self.end_unauthenticated();
                }
                self.schedule_attempt(now + ACTIVE_RETRY, AuthKind::Password);
            }
            Err(LoginError::Throttled(seconds)) => {
                let wait = Duration::from_secs(seconds.max(1).into());
                self.schedule_attempt(now + wait.min(THROTTLED_RETRY_MAX), AuthKind::Password);
            }
            Err(error @ (LoginError::Version { .. } | LoginError::Unreachable | LoginError::LoggedIn)) => {
                log::debug!("{from}: {error}");
                self.schedule_attempt(now + VERSION_RETRY, AuthKind::Password);
            }
        }
    }

    /// The user logs out while the client reconnects: the next attempt starts at once, to send LOGOUT.
    pub(super) fn hurry_reconnect(&mut self, now: Instant) {
        if let State::Reconnecting(Reconnect { attempt: Attempt::Scheduled(_), .. }) = self.state {
            self.io.timers.set(Timer::ReconnectAttempt, now);
        }
        self.io.timers.clear(Timer::ReportLost);
    }

    /// Compares the digests: whether an acknowledged change may be missing (see [`resync`](super::resync)).
    fn check_digest(&mut self, params: &SessionParams) {
        let Some(connection) = &self.connection else { return };
        if params.last_writer > connection.params.instance {
            // The user has published or unpublished with another instance of the client meanwhile: that is what counts.
            self.resync.abandon();
            self.requests.drop_resync();
            self.acked.reset(params);
            return;
        }
        if self.resync.is_active() || self.acked.may_be_lost(params) {
            self.resync.begin();
            self.requests.drop_resync_queries();
        }
        self.acked.set_digest(params.digest);
    }

    fn schedule_attempt(&mut self, at: Instant, by: AuthKind) {
        let State::Reconnecting(reconnect) = &mut self.state else { return };
        reconnect.attempt = Attempt::Scheduled(by);
        self.io.timers.clear_handshake();
        self.io.timers.set(Timer::ReconnectAttempt, at);
    }

    fn start_attempt(&mut self, now: Instant, by: AuthKind) {
        let (Some(connection), Some(credentials)) = (&self.connection, &self.credentials) else { return };
        let auth = match by {
            AuthKind::Password => AuthMethod::Password(Arc::clone(credentials), self.config.stretching),
            AuthKind::Ticket => AuthMethod::Ticket(Arc::clone(&connection.resumption)),
        };
        let handshake = self.start_handshake(now, auth);
        if let State::Reconnecting(reconnect) = &mut self.state {
            reconnect.attempt = Attempt::Running(handshake);
        }
    }

    /// The user cannot be logged in again.
    fn end_unauthenticated(&mut self) {
        let is_logging_out = self.io.timers.get(Timer::LogoutDeadline).is_some();
        self.end(if is_logging_out { Event::LoggedOutByUser } else { Event::LoggedOut });
    }
}
