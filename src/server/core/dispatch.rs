//! What is said in a session: opening it, heartbeats, leaving, and the way to whatever answers a request.
//!
//! Defended: a datagram counts only if it comes from the session's own address and opens under the session's keys; who
//! says it follows from that, never from what it says.

use std::net::SocketAddr;
use std::time::Instant;

use log::{Level, debug, info, log, trace};

use super::Server;
use super::walks::Asked;
use crate::common::escape::escape_controls;
use crate::common::limits::AUDIENCE_MAX_USERS;
use crate::common::message::{ClientMessage, Heartbeat, Request, ResolvePurpose, Response, ServerMessage};
use crate::common::types::{RequestId, SessionId, UserName};
use crate::server::core::Effects;
use crate::server::core::sessions::{Session, Slot, Staged};

impl Server {
    pub(super) fn on_session(
        &mut self,
        now: Instant,
        from: SocketAddr,
        id: SessionId,
        datagram: &mut [u8],
        out: &mut Effects,
    ) {
        let Some(slot) = self.sessions.find(&id) else {
            return self.reset(now, from, id, out);
        };
        let session = self.sessions.at_mut(slot);
        if session.address != from {
            return trace!(
                "{from}: a datagram of {}'s session at {}",
                escape_controls(session.user.as_str()),
                session.address
            );
        }
        let message = match session.channel.open(datagram) {
            Ok(text) => ClientMessage::decode(text),
            Err(error) => return trace!("{from}: {error}"),
        };
        session.deadline = now + self.config.liveness;
        if session.beginning.is_some() {
            self.confirm(slot);
        }
        match message {
            Ok(ClientMessage::Heartbeat(heartbeat)) => self.on_heartbeat(slot, heartbeat, out),
            Ok(ClientMessage::Request { id, lowest_pending: floor, request }) => {
                self.on_request(now, slot, id, floor, request, out)
            }
            Ok(ClientMessage::Logout) => self.on_leave(slot, out),
            Err(error) => debug!("{from}: {error}"),
        }
    }

    /// The client has shown that it knows its session: what it began with need not be repeated any more.
    fn confirm(&mut self, slot: Slot) {
        let session = self.sessions.at_mut(slot);
        let Some(beginning) = session.beginning.take() else { return };
        if beginning.resumed.is_empty() {
            self.handshakes.finish(&(session.address, beginning.nonce));
        }
        if let Some(account) = self.accounts.find_mut(&session.user) {
            account.confirmed = Some((session.run, session.generation));
        }
    }

    fn on_heartbeat(&mut self, slot: Slot, heartbeat: Heartbeat, out: &mut Effects) {
        let session = self.sessions.at_mut(slot);
        log_received(Level::Debug, session, "HBT");
        session.free_slots = heartbeat.free_slots;
        let ack = ServerMessage::HeartbeatAck { number: heartbeat.number };
        out.seal(session.address, &mut session.channel, &ack);
        log_sent(Level::Debug, session, true);
    }

    fn on_leave(&mut self, slot: Slot, out: &mut Effects) {
        let mut session = self.end_session(slot);
        log_received(Level::Info, &session, "XIT");
        if let Some(account) = self.accounts.find_mut(&session.user) {
            account.logged_out_instance = account.logged_out_instance.max(Some(session.run));
        }
        out.seal(session.address, &mut session.channel, &ServerMessage::LogoutAck);
        log_sent(Level::Info, &session, true);
    }

    fn on_request(
        &mut self,
        now: Instant,
        slot: Slot,
        id: RequestId,
        floor: RequestId,
        request: Request,
        out: &mut Effects,
    ) {
        let session = self.sessions.at_mut(slot);
        session.floor = session.floor.max(floor);
        if id < session.floor {
            return self.reply(slot, id, Response::Rejected, out);
        }
        let level = if id > session.logged { verb_level(&request) } else { Level::Debug };
        session.logged = session.logged.max(id);
        log_received(level, session, verb(&request));
        let is_fetch = matches!(request, Request::Resolve { purpose: ResolvePurpose::Download, .. });
        let response = match request {
            Request::Publish { .. } | Request::Unpublish { .. } => self.mutate(now, slot, id, request, out),
            Request::StageAudience { key, part, users } => Some(stage(session, key, part, users)),
            query => self.list(now, slot, Asked { id, level }, query),
        };
        if let Some(response) = response {
            // BUSY is no verdict: the same request comes again.
            let level = if matches!(response, Response::Busy { .. }) { Level::Debug } else { level };
            log_sent(level, self.sessions.at(slot), is_success(&response, is_fetch));
            self.reply(slot, id, response, out);
        }
    }

    pub(super) fn reply(&mut self, slot: Slot, id: RequestId, response: Response, out: &mut Effects) {
        let session = self.sessions.at_mut(slot);
        out.seal(session.address, &mut session.channel, &ServerMessage::Reply { id, response });
    }
}

/// Takes one part of an audience. A part that is there already is acknowledged again.
fn stage(session: &mut Session, key: u32, part: u16, users: Vec<UserName>) -> Response {
    let repeated = session.staged.as_ref().is_some_and(|staged| staged.key == key && staged.users.starts_with(&users));
    if part == 0 && !repeated {
        session.staged = Some(Box::new(Staged { key, parts: 1, users, audience: None }));
        return Response::AudienceStaged;
    }
    let Some(staged) = session.staged.as_mut().filter(|staged| staged.key == key && part <= staged.parts) else {
        return Response::UnknownAudience;
    };
    if part == staged.parts {
        if staged.users.len() + users.len() > AUDIENCE_MAX_USERS {
            return Response::Rejected;
        }
        staged.users.extend(users);
        staged.parts += 1;
        staged.audience = None;
    }
    Response::AudienceStaged
}

/// What the log calls a request.
fn verb(request: &Request) -> &'static str {
    match request {
        Request::Publish { .. } => "PUB",
        Request::Unpublish { .. } => "UNP",
        Request::StageAudience { .. } => "PUB audience",
        Request::OwnPublications { .. } => "LPF",
        Request::AudienceOf { .. } => "LPF audience",
        Request::Peers { .. } => "LAP",
        Request::Search { .. } | Request::Resolve { purpose: ResolvePurpose::List, .. } => "SCH",
        Request::Resolve { purpose: ResolvePurpose::Download, .. } => "GET",
        Request::Sources { .. } => "GET sources",
    }
}

/// One line pair a command: what is only a part of one is for debugging.
fn verb_level(request: &Request) -> Level {
    match request {
        Request::Publish { .. }
        | Request::Unpublish { .. }
        | Request::OwnPublications { user_initiated: true, cursor: None }
        | Request::Peers { cursor: None }
        | Request::Search { cursor: None, .. }
        | Request::Resolve { cursor: None, .. } => Level::Info,
        _ => Level::Debug,
    }
}

pub(super) fn is_success(response: &Response, is_fetch: bool) -> bool {
    match response {
        Response::Contents { entries, next } => !is_fetch || !entries.is_empty() || next.is_some(),
        Response::Unpublished { published_mask: found, .. } => *found != 0,
        Response::Busy { .. }
        | Response::UnknownAudience
        | Response::NotPublished
        | Response::StaleCursor
        | Response::Rejected => false,
        _ => true,
    }
}

fn log_received(level: Level, session: &Session, verb: &str) {
    log!(level, "{}: Received {verb} from {}", session.address, escape_controls(session.user.as_str()));
}

pub(super) fn log_sent(level: Level, session: &Session, success: bool) {
    let verdict = if success { "OK" } else { "ERR" };
    log!(level, "{}: Sent {verdict} to {}", session.address, escape_controls(session.user.as_str()));
}

/// The session ends because the credentials say so; told once, best effort.
pub(super) fn log_out(server: &mut Server, slot: Slot, out: &mut Effects) {
    let mut session = server.end_session(slot);
    info!(
        "{}: {} is logged out: the credentials have changed",
        session.address,
        escape_controls(session.user.as_str())
    );
    out.seal(session.address, &mut session.channel, &ServerMessage::SessionRevoked);
}
