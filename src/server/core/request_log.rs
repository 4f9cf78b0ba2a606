//! The lines that the log has for requests and replies; their text is fixed.

use log::{Level, log};

use super::sessions::Session;
use super::stats::{Counters, ReplyStatus, RequestKind};
use crate::common::escape::escape_controls;
use crate::common::message::{Request, ResolvePurpose, Response};
use crate::common::types::RequestId;

/// A request as the reply and the log refer to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestInfo {
    pub(super) id: RequestId,
    level: Level,
    kind: RequestKind,
    /// It is a RESOLVE for `get`, which fails if nothing is found.
    is_download: bool,
}

impl RequestInfo {
    /// Logs that a request was received. Requests that were logged before are logged for debugging only.
    pub(super) fn log_received(id: RequestId, request: &Request, session: &mut Session) -> Self {
        let level = if id > session.highest_logged { level(request) } else { Level::Debug };
        session.highest_logged = session.highest_logged.max(id);
        let kind = kind(request);
        log_received(level, session, kind);
        let is_download = matches!(request, Request::Resolve { purpose: ResolvePurpose::Download, .. });
        Self { id, level, kind, is_download }
    }

    /// The same for the next page, which is logged for debugging only.
    pub(super) fn for_next_page(self) -> Self {
        Self { level: Level::Debug, ..self }
    }

    /// Logs and counts that a response was sent. The client repeats a request after BUSY; its outcome is logged then.
    pub(super) fn log_sent(self, counters: &mut Counters, response: &Response, session: &Session) {
        let level = if matches!(response, Response::Busy { .. }) { Level::Debug } else { self.level };
        log_sent(counters, level, session, self.kind, reply_status(response, self.is_download));
    }
}

fn kind(request: &Request) -> RequestKind {
    match request {
        Request::Publish { .. } => RequestKind::Publish,
        Request::Unpublish { .. } => RequestKind::Unpublish,
        Request::StageAudience { .. } => RequestKind::StageAudience,
        Request::OwnPublications { .. } => RequestKind::OwnPublications,
        Request::AudienceOf { .. } => RequestKind::AudienceOf,
        Request::Peers { .. } => RequestKind::Peers,
        Request::Search { .. } | Request::Resolve { purpose: ResolvePurpose::List, .. } => RequestKind::Search,
        Request::Resolve { purpose: ResolvePurpose::Download, .. } => RequestKind::Download,
        Request::Sources { .. } => RequestKind::Sources,
        Request::Subscribe { .. } => RequestKind::Subscribe,
        Request::Unsubscribe { .. } => RequestKind::Unsubscribe,
        Request::Shared { .. } => RequestKind::Shared,
    }
}

/// The name of a request in the log.
fn verb(kind: RequestKind) -> &'static str {
    match kind {
        RequestKind::Heartbeat => "HBT",
        RequestKind::Logout => "XIT",
        RequestKind::Publish => "PUB",
        RequestKind::Unpublish => "UNP",
        RequestKind::StageAudience => "PUB audience",
        RequestKind::OwnPublications => "LPF",
        RequestKind::AudienceOf => "LPF audience",
        RequestKind::Peers => "LAP",
        RequestKind::Search => "SCH",
        RequestKind::Download => "GET",
        RequestKind::Sources => "GET sources",
        RequestKind::Subscribe => "SUBSCRIBE",
        RequestKind::Unsubscribe => "UNSUBSCRIBE",
        RequestKind::Shared => "LS",
    }
}

/// At which level a request is logged: a user's command once, the requests that continue it for debugging only.
fn level(request: &Request) -> Level {
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

/// What the log says about a response.
fn reply_status(response: &Response, is_download: bool) -> ReplyStatus {
    let is_success = match response {
        Response::Contents { entries, next } => !is_download || !entries.is_empty() || next.is_some(),
        Response::Unpublished { published_mask: found, .. } => *found != 0,
        Response::Busy { .. } => return ReplyStatus::Busy,
        Response::OverQuota { .. } => return ReplyStatus::OverQuota,
        Response::NotActive
        | Response::UnknownAudience
        | Response::NotPublished
        | Response::StaleCursor
        | Response::Rejected => false,
        _ => true,
    };
    if is_success { ReplyStatus::Ok } else { ReplyStatus::Err }
}

pub(super) fn log_received(level: Level, session: &Session, kind: RequestKind) {
    let (address, user, verb) = (session.address, session.user.as_str(), verb(kind));
    log!(level, event = "received", address:% = address, user = user, verb = verb; "{address}: Received {verb} from {}", escape_controls(user));
}

pub(super) fn log_sent(
    counters: &mut Counters,
    level: Level,
    session: &Session,
    kind: RequestKind,
    status: ReplyStatus,
) {
    counters.add_request(kind, status);
    let result = if status == ReplyStatus::Ok { "OK" } else { "ERR" };
    let (address, user, verb) = (session.address, session.user.as_str(), verb(kind));
    log!(level, event = "sent", address:% = address, user = user, verb = verb, result = result; "{address}: Sent {result} to {}", escape_controls(user));
}
