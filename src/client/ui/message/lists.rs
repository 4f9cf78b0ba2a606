//! The results of the commands that list.

use serde::{Deserialize, Serialize};

use super::common::{NameFailure, True};
use crate::common::message::{AvailableContent, OwnPublication};

/// `lap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerList {
    pub ok: True,
    /// The other active users, sorted.
    pub peers: Vec<String>,
    /// With `-l`: the same users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Vec<PeerDetails>>,
}

/// An active user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerDetails {
    pub user: String,
    /// Seconds since the user became active.
    pub active_s: u64,
}

/// `lpf`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PublishedList {
    pub ok: True,
    pub files: Vec<OwnFile>,
}

/// A file that this user publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OwnFile {
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub hash: String,
    /// Whether only some users may see it.
    pub restricted: bool,
    /// With `-l`: seconds since it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// With `-l`: whether peers can fetch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<OwnFileState>,
}

/// What became of a published file in the shared folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OwnFileState {
    /// It has the content that was published.
    Ok,
    /// It has another content.
    Changed,
    /// There is none, or it cannot be read.
    Missing,
}

/// `ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PeerFiles {
    Listed {
        ok: True,
        /// Who shares the files.
        user: String,
        /// Sorted by name.
        files: Vec<SharedFile>,
    },
    /// The user is not active.
    Failed(NameFailure),
}

/// A file that a peer shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SharedFile {
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub hash: String,
    /// With `-l`: seconds since it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
}

/// `sch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum FoundFiles {
    Names {
        ok: True,
        /// Sorted.
        files: Vec<String>,
    },
    /// With `-l`.
    Contents { ok: True, files: Vec<AvailableFile> },
}

/// A content that is published under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AvailableFile {
    pub name: String,
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub hash: String,
    /// Number of active users who serve it.
    pub sources: u32,
    /// Seconds since it was published.
    pub age_s: u64,
}

impl From<&AvailableContent> for AvailableFile {
    fn from(entry: &AvailableContent) -> Self {
        Self {
            name: entry.name.to_string(),
            bytes: entry.content.size,
            hash: entry.content.hash.to_hex(),
            sources: entry.sources,
            age_s: entry.age_s,
        }
    }
}

impl From<&OwnPublication> for OwnFile {
    fn from(file: &OwnPublication) -> Self {
        Self {
            name: file.name.to_string(),
            bytes: file.content.size,
            hash: file.content.hash.to_hex(),
            restricted: file.restricted,
            age_s: None,
            state: None,
        }
    }
}

impl From<&AvailableContent> for SharedFile {
    fn from(entry: &AvailableContent) -> Self {
        let AvailableContent { name, content, .. } = entry;
        Self { name: name.to_string(), bytes: content.size, hash: content.hash.to_hex(), age_s: None }
    }
}
