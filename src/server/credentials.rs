//! Skeleton of the credentials: who may join.

use std::collections::BTreeMap;
use std::path::Path;

use zeroize::Zeroizing;

use crate::common::login::Record;
use crate::common::types::UserName;

/// What a line of the file holds.
pub enum Credential {
    /// A password in clear; becomes a record in memory (see `enrolment`).
    Plaintext(Zeroizing<Vec<u8>>),
    /// A record that reveals no password (`$fileshare$...`).
    Record(Box<Record>),
}

/// The parsed file. `version` of a user changes when its line's secret changes (a keyed hash, never written anywhere).
pub struct Credentials {
    /// By name.
    pub users: BTreeMap<UserName, Credential>,
    /// Things to warn about: world-readable, sample passwords.
    pub warnings: Vec<String>,
}

/// Why the file cannot be used; each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// To be refined by the owner of this file.
    #[error("{0}")]
    Other(String),
}

impl Credentials {
    /// Reads and checks the whole file.
    pub fn read(_path: &Path) -> Result<Self, CredentialsError> {
        unimplemented!()
    }
    /// Parses the text of the file (sans-IO); `path` only names it in errors.
    pub fn parse(_text: &[u8], _path: &Path) -> Result<Self, CredentialsError> {
        unimplemented!()
    }
}
