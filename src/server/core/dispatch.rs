//! Datagrams of a session: decryption, heartbeats, logout, and dispatch of requests.
//!
//! Defended: a datagram counts only if it comes from the session's own address and opens under the session's keys. The
//! user is that of the session; nothing in a message can claim another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::{Level, debug, info, trace};

use super::Server;
use super::pending_logins::LoginId;
use super::queries::QueuedQuery;
use super::query_budget::{DATAGRAM_STEPS, DEBT_MAX, SESSION_RATE};
use super::request_log::{RequestInfo, log_received, log_sent};
use super::sessions::{HandshakeReply, Session, SessionKey, StagedAudience};
use super::stats::{Refusal, ReplyStatus, RequestKind, SessionEnd};
use crate::common::escape::escape_controls;
use crate::common::limits::AUDIENCE_MAX_USERS;
use crate::common::message::{ClientMessage, Heartbeat, Request, Response, ServerMessage};
use crate::common::types::{RequestId, SessionId, UserName};
use crate::server::auth::accounts::ConfirmedGeneration;
use crate::server::core::Effects;

impl Server {
    pub(super) fn on_session_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        id: SessionId,
        datagram: &mut [u8],
        out: &mut Effects,
    ) {
        let Some(key) = self.sessions.find(&id) else {
            return self.send_reset(now, from, id, out);
        };
        let session = self.sessions.get_mut(key);
        if session.address != from {
            self.counters.refused.add(Refusal::OtherAddress);
            let user = escape_controls(session.user.as_str());
            return trace!("{from}: a datagram in the session of {user} at {}", session.address);
        }
        let message = match session.cipher.open(datagram) {
            Ok(plaintext) => ClientMessage::decode(plaintext),
            Err(error) => {
                self.counters.refused.add(Refusal::Seal);
                return trace!("{from}: {error}");
            }
        };
        session.deadline = now + self.config.liveness;
        if session.unconfirmed.is_some() {
            self.confirm_session(key);
        }
        match message {
            Ok(ClientMessage::Heartbeat(heartbeat)) => self.on_heartbeat(key, heartbeat, out),
            // Charged after it was opened: a forged datagram uses up nobody's share.
            Ok(ClientMessage::Request { .. }) if self.charge_session(now, key, DATAGRAM_STEPS) > DEBT_MAX => {
                self.counters.refused.add(Refusal::SessionShare);
                trace!("{from}: a request too many");
            }
            Ok(ClientMessage::Request { id, lowest_pending, pages, request }) => {
                self.on_request(now, key, (id, pages), lowest_pending, request, out)
            }
            Ok(ClientMessage::Logout) => self.on_logout(key, out),
            Err(error) => {
                self.counters.refused.add(Refusal::Message);
                debug!("{from}: {error}");
            }
        }
    }

    /// Charges a session for work. Returns its debt: how long until it may have more.
    pub(super) fn charge_session(&mut self, now: Instant, key: SessionKey, steps: u64) -> Duration {
        self.sessions.get_mut(key).share.take_in_advance(now, SESSION_RATE, steps)
    }

    /// The client has shown that it knows the session: the last packet of the handshake need not be repeated any more.
    fn confirm_session(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        let Some(reply) = session.unconfirmed.take() else { return };
        self.subscriptions.on_confirmed(session.owner);
        if let HandshakeReply::Login { nonce } = *reply {
            self.pending_logins.confirm(&LoginId { address: session.address, nonce });
        }
        if let Some(account) = self.accounts.get_mut(&session.user) {
            let (instance, generation) = (session.instance, session.generation);
            account.confirmed = Some(ConfirmedGeneration { instance, generation });
        }
    }

    fn on_heartbeat(&mut self, key: SessionKey, heartbeat: Heartbeat, out: &mut Effects) {
        let has_subscriptions = self.sessions.get(key).subscriptions.is_some();
        let subscriptions = has_subscriptions.then(|| self.subscription_state(key));
        let session = self.sessions.get_mut(key);
        log_received(Level::Debug, session, RequestKind::Heartbeat);
        session.free_slots = heartbeat.free_slots;
        let ack = ServerMessage::HeartbeatAck { number: heartbeat.number, subscriptions };
        out.send_sealed(session.address, &mut session.cipher, &ack);
        log_sent(&mut self.counters, Level::Debug, session, RequestKind::Heartbeat, ReplyStatus::Ok);
    }

    fn on_logout(&mut self, key: SessionKey, out: &mut Effects) {
        let mut session = self.end_session(key, SessionEnd::Logout);
        log_received(Level::Info, &session, RequestKind::Logout);
        if let Some(account) = self.accounts.get_mut(&session.user) {
            account.logged_out_instance = account.logged_out_instance.max(Some(session.instance));
        }
        out.send_sealed(session.address, &mut session.cipher, &ServerMessage::LogoutAck);
        log_sent(&mut self.counters, Level::Info, &session, RequestKind::Logout, ReplyStatus::Ok);
    }

    fn on_request(
        &mut self,
        now: Instant,
        key: SessionKey,
        (id, pages): (RequestId, u8),
        lowest_pending: RequestId,
        request: Request,
        out: &mut Effects,
    ) {
        let session = self.sessions.get_mut(key);
        session.lowest_pending = session.lowest_pending.max(lowest_pending);
        let info = RequestInfo::log_received(id, &request, session);
        let reply = match request {
            _ if id < session.lowest_pending => Some(Response::Rejected),
            Request::Publish { .. } | Request::Unpublish { .. } => self.on_mutation(now, key, id, request, out),
            Request::StageAudience { key: staging_key, part, users } => {
                stage_audience_part(session, id, staging_key, part, users).into()
            }
            query => self.on_query(now, key, QueuedQuery::new(info, pages, query)),
        };
        if let Some(response) = reply {
            info.log_sent(&mut self.counters, &response, self.sessions.get(key));
            self.send_reply(key, id, 0, response, out);
        }
    }

    pub(super) fn send_reply(
        &mut self,
        key: SessionKey,
        id: RequestId,
        page: u8,
        response: Response,
        out: &mut Effects,
    ) {
        let session = self.sessions.get_mut(key);
        out.send_sealed(session.address, &mut session.cipher, &ServerMessage::Reply { id, page, response });
    }

    /// Ends a session because the user's credential was changed or removed, and informs the client, once.
    pub(super) fn terminate_session(&mut self, key: SessionKey, out: &mut Effects) {
        let mut session = self.end_session(key, SessionEnd::CredentialsChanged);
        let (address, user) = (session.address, session.user.as_str());
        info!(event = "logged_out", address:% = address, user = user; "{address}: {} is logged out: the credentials have changed", escape_controls(user));
        out.send_sealed(session.address, &mut session.cipher, &ServerMessage::SessionRevoked);
    }
}

/// Stores one part of an audience. Part 0 replaces what is staged, also under the same key. A repetition of a request
/// changes nothing: a late copy of part 0 must not shorten the audience.
fn stage_audience_part(
    session: &mut Session,
    id: RequestId,
    staging_key: u32,
    part: u16,
    users: Vec<UserName>,
) -> Response {
    match &mut session.staged {
        Some(staged) if id <= staged.last_request => match staged.key == staging_key && part < staged.parts {
            true => Response::AudienceStaged,
            false => Response::UnknownAudience,
        },
        _ if part == 0 => {
            let staged = StagedAudience { key: staging_key, last_request: id, parts: 1, users, audience: None };
            session.staged = Some(Box::new(staged));
            Response::AudienceStaged
        }
        Some(staged) if staged.key == staging_key && part == staged.parts => {
            if staged.users.len() + users.len() > AUDIENCE_MAX_USERS {
                return Response::Rejected;
            }
            staged.users.extend(users);
            staged.parts += 1;
            (staged.last_request, staged.audience) = (id, None);
            Response::AudienceStaged
        }
        _ => Response::UnknownAudience,
    }
}
