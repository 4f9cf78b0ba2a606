//! Life while a session stands: sealed datagrams in, heartbeats and requests out.
//!
//! Must not know how a session comes about or what becomes of it after a break.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handshake::{Resumption, prefer};
use super::heartbeat::{Heartbeats, Pulse};
use super::requests::{Ended, Owner};
use super::{Event, RequestError, Session, State};
use crate::common::crypto::{Secret, context, derive};
use crate::common::handshake_keys::{ResumptionKey, SessionParams};
use crate::common::message::{ClientMessage, Heartbeat, Response, ServerMessage};
use crate::common::session_cipher::{SessionCipher, Side};
use crate::common::types::RequestId;

/// A session that stands, or the last one that did.
pub(super) struct Link {
    pub server: SocketAddr,
    pub channel: SessionCipher,
    pub welcome: SessionParams,
    pub resumption: Arc<Resumption>,
    pub heartbeats: Heartbeats,
}

impl Session {
    pub(super) fn handle_sealed(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        let Some(link) = self.link.as_mut().filter(|link| link.server == from) else { return };
        let message = match link.channel.open(datagram) {
            Ok(text) => ServerMessage::decode(text),
            Err(error) => return log::trace!("{from}: {error}"),
        };
        link.heartbeats.heard(now);
        match message {
            Ok(ServerMessage::HeartbeatAck { number }) => link.heartbeats.acknowledged(number),
            Ok(ServerMessage::Reply { id, response }) => self.handle_reply(now, id, response),
            Ok(ServerMessage::LogoutAck) if matches!(self.state, State::Leaving { .. }) => {
                self.end(Event::LoggedOutByUser)
            }
            Ok(ServerMessage::SessionRevoked) if matches!(self.state, State::Standing) => {
                self.reconnect(now, Duration::ZERO, false);
            }
            Ok(ServerMessage::LogoutAck | ServerMessage::SessionRevoked) => {}
            Err(error) => log::debug!("{from}: the server sent what we do not understand: {error}"),
        }
    }

    fn handle_reply(&mut self, now: Instant, id: RequestId, response: Response) {
        let Some(Ended { owner, request, response: Some(response), .. }) = self.requests.answer(now, id, response)
        else {
            return;
        };
        self.ledger.answered(&request, &response);
        match owner {
            Owner::Caller(handle) => {
                let result = if response == Response::Rejected { Err(RequestError::Refused) } else { Ok(response) };
                self.events.push_back(Event::RequestFinished { request: handle, result });
            }
            Owner::Repair => {
                if let Some(files) = self.repair.answered(&request, &response, self.ledger.entries())
                    && files > 0
                {
                    self.events.push_back(Event::Resynced(files));
                }
            }
        }
    }

    /// The server does not know the session (any more).
    pub(super) fn handle_reset(&mut self, now: Instant, delay: Duration) {
        match self.state {
            State::Standing => self.reconnect(now, delay, false),
            State::Leaving { .. } => self.end(Event::LoggedOutByUser),
            _ => {}
        }
    }

    pub(super) fn establish(
        &mut self,
        now: Instant,
        server: SocketAddr,
        welcome: SessionParams,
        secret: &Secret,
        resumed: bool,
    ) {
        let Some(identity) = &self.identity else { return };
        prefer(&mut self.config.servers, server);
        let interval = Duration::from_millis(welcome.heartbeat_ms.into());
        let liveness = Duration::from_millis(welcome.liveness_ms.into());
        let resumption = Resumption {
            key: ResumptionKey::new(ResumptionKey::secret_for_ticket(secret)),
            ticket: welcome.ticket.clone(),
        };
        self.link = Some(Link {
            server,
            channel: SessionCipher::new(Side::Client, welcome.session, secret),
            welcome: welcome.clone(),
            resumption: Arc::new(resumption),
            heartbeats: Heartbeats::new(now, interval, liveness),
        });
        self.state = State::Standing;
        let ticket_key = derive(context::TRANSFER_TICKETS, secret.as_slice());
        self.events.push_back(Event::Started { user: identity.user.clone(), welcome, ticket_key, resumed });
        self.beat(now);
    }

    /// Heartbeats of the standing session, or of one that was lost and is being brought back.
    pub(super) fn beat(&mut self, now: Instant) {
        let is_standing = matches!(self.state, State::Standing);
        let speaks = |link: &&mut Link| is_standing || link.heartbeats.fading_timeout().is_some();
        let Some(link) = self.link.as_mut().filter(speaks) else { return };
        match link.heartbeats.pulse(now) {
            Pulse::Rest => {}
            Pulse::Send(number) => {
                let heartbeat = Heartbeat { number, free_slots: self.free_slots };
                self.send(&ClientMessage::Heartbeat(heartbeat));
            }
            Pulse::Lost => {
                self.events.push_back(Event::ConnectionLost);
                self.reconnect(now, Duration::ZERO, true);
            }
        }
    }

    /// Sends what the standing session can send now.
    pub(super) fn pump(&mut self, now: Instant) {
        let (State::Standing, Some(link)) = (&self.state, &mut self.link) else { return };
        if self.repair.is_under_way() && !self.requests.own_is_under_way() {
            let request = match self.repair.is_due() && self.requests.mutation_is_unresolved() {
                true => None,
                false => self.repair.next_request(self.ledger.entries()),
            };
            if let Some(request) = request {
                self.requests.ask_own(now, request);
            }
        }
        self.requests.is_repairing = self.repair.is_under_way();
        if let Some(mutation) = self.requests.start(now) {
            self.ledger.mutation_started(mutation);
        }
        let out = &mut self.out;
        self.requests.send_due(now, |message| out.push_back((link.server, seal(&mut link.channel, message))));
    }

    pub(super) fn send(&mut self, message: &ClientMessage) {
        if let Some(link) = &mut self.link {
            self.out.push_back((link.server, seal(&mut link.channel, message)));
        }
    }
}

fn seal(channel: &mut SessionCipher, message: &ClientMessage) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(128);
    channel.seal_into(&mut datagram, |out| message.encode(out));
    datagram
}
