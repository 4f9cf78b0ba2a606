//! The lines that the log has for requests and replies; their text is fixed.

use log::{Level, log};

use super::sessions::Session;
use crate::common::escape::escape_controls;
use crate::common::message::{Request, ResolvePurpose, Response};
use crate::common::types::RequestId;

/// A request as the reply and the log refer to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestInfo {
    pub(super) id: RequestId,
    level: Level,
    verb: &'static str,
    /// It is a RESOLVE for `get`, which fails if nothing is found.
    is_download: bool,
}

impl RequestInfo {
    /// Logs that a request was received. Requests that were logged before are logged for debugging only.
    pub(super) fn log_received(id: RequestId, request: &Request, session: &mut Session) -> Self {
        let level = if id > session.highest_logged { level(request) } else { Level::Debug };
        session.highest_logged = session.highest_logged.max(id);
        let verb = verb(request);
        log_received(level, session, verb);
        let is_download = matches!(request, Request::Resolve { purpose: ResolvePurpose::Download, .. });
        Self { id, level, verb, is_download }
    }

    /// Logs that a response was sent. The client repeats a request after BUSY; its outcome is logged then.
    pub(super) fn log_sent(self, response: &Response, session: &Session) {
        let level = if matches!(response, Response::Busy { .. }) { Level::Debug } else { self.level };
        log_sent(level, session, self.verb, reply_status(response, self.is_download));
    }
}

/// The result of a request in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyStatus {
    Ok,
    Err,
}

/// The name of a request in the log.
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
        Request::Subscribe { .. } => "SUBSCRIBE",
        Request::Unsubscribe { .. } => "UNSUBSCRIBE",
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
        Response::Busy { .. }
        | Response::UnknownAudience
        | Response::NotPublished
        | Response::StaleCursor
        | Response::OverQuota { .. }
        | Response::Rejected => false,
        _ => true,
    };
    if is_success { ReplyStatus::Ok } else { ReplyStatus::Err }
}

pub(super) fn log_received(level: Level, session: &Session, verb: &str) {
    let (address, user) = (session.address, session.user.as_str());
    log!(level, event = "received", address:% = address, user = user, verb = verb; "{address}: Received {verb} from {}", escape_controls(user));
}

pub(super) fn log_sent(level: Level, session: &Session, verb: &str, status: ReplyStatus) {
    let result = match status {
        ReplyStatus::Ok => "OK",
        ReplyStatus::Err => "ERR",
    };
    let (address, user) = (session.address, session.user.as_str());
    log!(level, event = "sent", address:% = address, user = user, verb = verb, result = result; "{address}: Sent {result} to {}", escape_controls(user));
}
