//! What is told of jobs.

use serde::{Deserialize, Serialize};

use super::common::True;

/// A command with `&` has begun as a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobStarted {
    pub ok: True,
    /// Counted from 1, in this client.
    pub number: u64,
    /// Its command line, without the `&`.
    pub line: String,
}
