//! The results of `follow` and `unfollow`.

use serde::{Deserialize, Serialize};

use super::common::{ItemFailure, True};
use crate::client::exit_code::ExitCode;
use crate::client::follow::Followed;

/// `follow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum FollowResult {
    /// These are followed from now on.
    Started { ok: True, started: Vec<Followed> },
    /// All that are followed, sorted by pattern.
    Listed { ok: True, follows: Vec<Followed> },
}

/// `unfollow`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnfollowResult {
    /// Whether nothing failed.
    pub ok: bool,
    pub unfollowed: Vec<String>,
    pub failed: Vec<ItemFailure>,
    /// Of the first failure.
    pub code: ExitCode,
}
