//! An established session: sealed datagrams, heartbeats and requests.
//!
//! Must not know how a session is established or what follows its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handshake::{Established, ResumptionState, move_to_front};
use super::heartbeat::Heartbeats;
use super::reconnect::Disconnect;
use super::requests::{Completed, RequestOrigin};
use super::timers::{Timer, TimerTable};
use super::{Event, RequestError, Session, State};
use crate::common::crypto::{context, derive};
use crate::common::handshake_keys::{ResumptionKey, SessionParams};
use crate::common::message::{ClientMessage, Heartbeat, Response, ServerMessage};
use crate::common::session_cipher::{SessionCipher, Side};

/// The established session, or the last one.
pub(super) struct ServerConnection {
    pub server: SocketAddr,
    pub cipher: SessionCipher,
    pub params: SessionParams,
    pub resumption: Arc<ResumptionState>,
    pub heartbeats: Heartbeats,
    pub established: Instant,
}

impl Session {
    pub(super) fn on_sealed(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.server == from) else { return };
        let message = match connection.cipher.open(datagram) {
            Ok(text) => ServerMessage::decode(text),
            Err(error) => return log::trace!("{from}: {error}"),
        };
        let timers = &mut self.io.timers;
        connection.heartbeats.on_datagram(now, timers);
        match message {
            Ok(ServerMessage::HeartbeatAck { number, subscriptions }) => {
                connection.heartbeats.on_ack(number, timers);
                subscriptions.into_iter().for_each(|state| self.waits.on_state(state));
            }
            Ok(ServerMessage::Changed(state)) => self.waits.on_state(state),
            Ok(ServerMessage::Reply { id, page, response }) => {
                if let Some(completed) = self.requests.complete(now, id, page, response) {
                    self.on_completed(completed);
                }
            }
            Ok(ServerMessage::LogoutAck) if matches!(self.state, State::LoggingOut) => self.end(Event::LoggedOutByUser),
            Ok(ServerMessage::SessionRevoked) if matches!(self.state, State::Established) => {
                self.reconnect(now, &Disconnect::ByServer { delay: Duration::ZERO });
            }
            Ok(ServerMessage::LogoutAck | ServerMessage::SessionRevoked) => {}
            Err(error) => log::debug!("{from}: unknown message from the server: {error}"),
        }
    }

    fn on_completed(&mut self, completed: Completed) {
        let Completed { origin, request, response } = completed;
        self.acked.on_response(&request, &response);
        match origin {
            RequestOrigin::Caller(handle) => {
                let result = if response == Response::Rejected { Err(RequestError::Refused) } else { Ok(response) };
                self.events.push_back(Event::RequestFinished { request: handle, result });
            }
            RequestOrigin::Resync => {
                let republished = self.resync.on_response(&request, &response, &self.acked);
                self.events.extend(republished.filter(|&files| files > 0).map(Event::Resynced));
            }
            RequestOrigin::Subscribe(wait) => {
                if let Response::Subscribed(state) = response {
                    self.waits.on_subscribed(wait, state);
                }
            }
            RequestOrigin::Unsubscribe => {}
        }
    }

    /// The server does not know the session.
    pub(super) fn on_reset(&mut self, now: Instant, delay: Duration) {
        match self.state {
            State::Established => self.reconnect(now, &Disconnect::ByServer { delay }),
            State::LoggingOut => self.end(Event::LoggedOutByUser),
            _ => {}
        }
    }

    /// A login or a reconnect has succeeded.
    pub(super) fn establish(&mut self, now: Instant, established: Established) {
        let Established { server, params, secret } = established;
        let resumed = matches!(self.state, State::Reconnecting(_));
        let Some(credentials) = &self.credentials else { return };
        let user = credentials.user.clone();
        move_to_front(&mut self.config.servers, server);
        self.io.timers = TimerTable::default();
        let interval = Duration::from_millis(params.heartbeat_ms.into());
        let liveness = Duration::from_millis(params.liveness_ms.into());
        let resumption = ResumptionState {
            key: ResumptionKey::new(ResumptionKey::secret_for_ticket(&secret)),
            ticket: params.ticket.clone(),
        };
        self.connection = Some(ServerConnection {
            server,
            cipher: SessionCipher::new(Side::Client, params.session, &secret),
            params: params.clone(),
            resumption: Arc::new(resumption),
            heartbeats: Heartbeats::new(now, interval, liveness, &mut self.io.timers),
            established: now,
        });
        self.state = State::Established;
        self.waits.on_established();
        self.requests.drop_subscription_requests();
        let ticket_key = derive(context::TRANSFER_TICKETS, secret.as_slice());
        self.events.push_back(Event::Started { user, params, ticket_key, resumed });
        self.handle_expired_timers(now);
    }

    pub(super) fn on_heartbeat_timer(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(number) = connection.heartbeats.on_heartbeat_timer(now, &mut self.io.timers) {
            self.send(&ClientMessage::Heartbeat(Heartbeat { number, free_slots: self.free_slots }));
        }
    }

    pub(super) fn on_liveness_timer(&mut self, now: Instant) {
        let Some(connection) = &mut self.connection else { return };
        connection.heartbeats.on_liveness_timer(now, &mut self.io.timers);
        self.events.push_back(Event::ConnectionLost);
        self.reconnect(now, &Disconnect::Silence);
    }

    /// Ends the waits that have ended, sends the requests that can be sent now, and sets the timers of both.
    pub(super) fn flush_requests(&mut self, now: Instant) {
        let is_established = matches!(self.state, State::Established);
        while let Some(finished) = self.waits.pop_finished(now, is_established) {
            self.events.push_back(Event::WaitFinished(finished));
        }
        while is_established && let Some(completed) = self.requests.pop_incomplete(now) {
            self.on_completed(completed);
        }
        if let (true, Some(connection)) = (is_established, &mut self.connection) {
            if self.resync.is_active() && !self.requests.has_resync_request() {
                let must_wait = self.resync.is_due() && self.requests.has_pending_mutation();
                let request = if must_wait { None } else { self.resync.next_request(&self.acked) };
                request.into_iter().for_each(|request| self.requests.enqueue_resync(request));
            }
            while let Some(change) = self.waits.pop_list_change() {
                self.events.push_back(Event::ListChanged(change));
            }
            while let Some(request) = self.waits.next_request(now) {
                self.requests.start_subscription_request(now, request);
            }
            self.requests.is_resyncing = self.resync.is_active();
            if let Some(mutation) = self.requests.start_queued(now) {
                self.acked.on_mutation_started(mutation);
            }
            let out = &mut self.io.out;
            let mut send = |message: &_| out.push_back((connection.server, seal(&mut connection.cipher, message)));
            self.requests.send_due(now, &mut send);
        }
        self.io.timers.update(Timer::WaitDeadline, self.waits.next_deadline(now));
        self.requests.update_timers(is_established, &mut self.io.timers);
    }

    pub(super) fn send(&mut self, message: &ClientMessage) {
        if let Some(connection) = &mut self.connection {
            self.io.out.push_back((connection.server, seal(&mut connection.cipher, message)));
        }
    }
}

fn seal(cipher: &mut SessionCipher, message: &ClientMessage) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(128);
    cipher.seal_into(&mut datagram, |out| message.encode(out));
    datagram
}
