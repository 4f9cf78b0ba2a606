//! The lines that the log has for requests and replies; SPEC.md fixes their text.

use log::{Level, log};

use super::sessions::Session;
use crate::common::escape::escape_controls;
use crate::common::message::{Request, ResolvePurpose, Response};

/// The name of a request in the log.
pub(super) fn verb(request: &Request) -> &'static str {
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

/// At which level a request is logged: a user's command once, the requests that continue it for debugging only.
pub(super) fn verb_level(request: &Request) -> Level {
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

/// Whether the log calls a response OK. `is_fetch`: the request was a RESOLVE for `get`, which fails if nothing is found.
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

pub(super) fn log_received(level: Level, session: &Session, verb: &str) {
    log!(level, "{}: Received {verb} from {}", session.address, escape_controls(session.user.as_str()));
}

pub(super) fn log_sent(level: Level, session: &Session, success: bool) {
    let result = if success { "OK" } else { "ERR" };
    log!(level, "{}: Sent {result} to {}", session.address, escape_controls(session.user.as_str()));
}
