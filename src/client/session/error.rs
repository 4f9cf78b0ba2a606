//! Errors of logins and requests, as sentences for a user.

use std::time::Duration;

use super::list_limits::EndlessList;
use crate::client::exit_code::ExitCode;
use crate::common::limits::SUBSCRIPTIONS_MAX;
use crate::common::message::Quota;

/// Why a login has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("the user name or the password is wrong")]
    Refused,
    #[error("this user is already active")]
    AlreadyActive {
        /// Silence after which the server expires that client's session.
        liveness: Duration,
    },
    #[error("too many attempts; try again in {0} s")]
    Throttled(u16),
    /// No server answered for [`LOGIN_TIMEOUT`](crate::common::limits::LOGIN_TIMEOUT).
    #[error("the server does not answer")]
    Unreachable,
    #[error("the server speaks protocol version {server}, this client {client}: update the older one")]
    Version { server: u16, client: u16 },
    #[error("already logged in")]
    LoggedIn,
}

impl From<&LoginError> for ExitCode {
    fn from(error: &LoginError) -> Self {
        match error {
            LoginError::Unreachable | LoginError::Version { .. } => Self::Unreachable,
            LoginError::Refused
            | LoginError::AlreadyActive { .. }
            | LoginError::Throttled(_)
            | LoginError::LoggedIn => Self::NotAuthenticated,
        }
    }
}

/// Why a request has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("not logged in")]
    NotAuthenticated,
    /// The server has not replied within [`COMMAND_TIMEOUT`](crate::common::limits::COMMAND_TIMEOUT).
    #[error("the server does not answer")]
    Unreachable,
    /// The server has asked to wait, for longer than that.
    #[error("the server is busy; try again later")]
    Busy,
    /// The server refused the request as malformed: a bug.
    #[error("the server refused the request: please report this")]
    Refused,
    /// The server's list exceeds what an honest server sends.
    #[error("the server sends a list without an end")]
    EndlessList,
    /// The publication that a file was to inherit its audience from is not visible any more.
    #[error("it is not published any more")]
    NotPublished,
    /// The user whose files were asked for.
    #[error("no active peer has this name")]
    NotActive,
    /// The server allows each user at most `max`.
    #[error("over the quota at the server: at most {max} {} a user", quota_unit(*quota))]
    OverQuota { quota: Quota, max: u64 },
    /// More different waits and lists at once than a session has subscriptions.
    #[error("too many different waits and lists at once; at most {SUBSCRIPTIONS_MAX}")]
    TooManyWaits,
}

impl From<EndlessList> for RequestError {
    fn from(_: EndlessList) -> Self {
        Self::EndlessList
    }
}

fn quota_unit(quota: Quota) -> &'static str {
    match quota {
        Quota::Files => "publications",
        Quota::NameBytes => "bytes of published names",
        Quota::AudienceMembers => "members of audiences",
    }
}

impl From<&RequestError> for ExitCode {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::NotAuthenticated => Self::NotAuthenticated,
            RequestError::Unreachable | RequestError::Busy => Self::Unreachable,
            RequestError::NotPublished | RequestError::NotActive => Self::NotFound,
            RequestError::OverQuota { .. } => Self::DiskFull,
            RequestError::Refused | RequestError::EndlessList => Self::Internal,
            RequestError::TooManyWaits => Self::Usage,
        }
    }
}
