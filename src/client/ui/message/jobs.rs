//! What is told of jobs, watches and follows, and of uploads.

use serde::{Deserialize, Serialize};

use super::common::True;
use crate::client::jobs::{Job, JobKind};
use crate::client::upload::UploadProgress;

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

/// `cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobCancelled {
    pub ok: True,
    pub number: u64,
}

/// `jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobList {
    pub ok: True,
    /// What goes on in the background, by number.
    pub jobs: Vec<ListedJob>,
    /// What others download from this client, by user and name.
    pub uploads: Vec<ListedUpload>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedJob {
    pub number: u64,
    pub kind: JobKind,
    /// Its command line, without the `&`.
    pub line: String,
    /// Bytes of all its files. Absent if it has none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedUpload {
    /// Who downloads.
    pub user: String,
    pub name: String,
    /// Bytes that the user has got of the file from this client.
    pub done: u64,
    /// Size of the file.
    pub total: u64,
}

impl From<&Job> for ListedJob {
    fn from(job: &Job) -> Self {
        let (progress, line) = (job.progress(), job.line.clone());
        let (done, total) = (progress.map(|progress| progress.done), progress.map(|progress| progress.total));
        Self { number: job.number, kind: job.kind, line, done, total }
    }
}

impl From<UploadProgress> for ListedUpload {
    fn from(upload: UploadProgress) -> Self {
        let (user, name) = (upload.user.to_string(), upload.content.name.to_string());
        Self { user, name, done: upload.sent_bytes, total: upload.content.size }
    }
}
