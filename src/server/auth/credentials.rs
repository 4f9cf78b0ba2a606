//! The credentials file: which users may log in.
//!
//! One line per user, `<username> <password>`, split at the first space; the rest of the line is the password,
//! unchanged. Blank lines and lines that start with `#` are skipped, and so is a byte order mark in front of the text.
//! A password that starts with `$fileshare$` is a record that reveals no password: `$fileshare$1$` and the 640 hex
//! digits of [`PasswordRecord::to_bytes`].
//!
//! No error, warning or debug text holds a password.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rand::{CryptoRng, RngCore};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::keys::CredentialVersion;
use crate::common::escape::{display_path, strip_byte_order_mark};
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::opaque::{KeyStretching, PasswordRecord};
use crate::common::program_names::with_program_names;
use crate::common::threads;
use crate::common::types::{UserName, UserNameError};

/// Prefix of every record, of any version. No plaintext password starts with it.
pub const RECORD_PREFIX: &str = "$fileshare$";
/// Prefix of the records that this program writes and reads.
const RECORD_PREFIX_V1: &str = "$fileshare$1$";
/// Largest credentials file, bytes: enough for hundreds of thousands of records. Unit tests write a file of this size.
const FILE_MAX_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 256 << 20 };
/// Lines parsed by one task of the thread pool; a shorter file is parsed without a pool.
const LINES_PER_TASK: usize = 256;
/// The published passwords of the sample file.
const SAMPLE_USERS: [(&str, &[u8]); 3] = [("hans", b"falcon*solo"), ("vader", b"sithlord**"), ("yoda", b"wise@!man")];

/// For a server with sample users that other hosts reach.
pub const SAMPLE_USERS_WARNING: &str =
    "the sample passwords, known to everyone, are in force on an address that other hosts reach";

/// What a line of the file holds.
#[derive(Clone)]
pub enum Credential {
    /// A plaintext password, from which [`enrolment`](super::enrolment) makes a record in memory.
    Plaintext(Zeroizing<Vec<u8>>),
    /// A record that reveals no password (`$fileshare$...`).
    Record(Box<PasswordRecord>),
}

#[derive(Debug)]
pub struct Credentials {
    pub users: BTreeMap<UserName, Credential>,
    /// One log line each.
    pub warnings: Vec<String>,
}

/// The parsed file with everything computed that is expensive, so that applying it takes little time.
pub struct VersionedCredentials {
    /// By name, in order.
    pub users: Vec<VersionedCredential>,
    /// One log line each.
    pub warnings: Vec<String>,
    /// Whether a line is one of the sample file's, whose passwords are public.
    pub has_sample_users: bool,
}

pub struct VersionedCredential {
    pub user: UserName,
    pub credential: Credential,
    pub version: CredentialVersion,
}

/// Why the file cannot be used. Each names the file, and the line where there is one, counted from 1.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the credentials in {}: {source}{}", display_path(.path), next_step(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the credentials in {} are larger than {} MiB", display_path(.path), FILE_MAX_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("{}, line {line}: {problem}", display_path(.path))]
    Line { path: PathBuf, line: usize, problem: LineProblem },
    #[error("{}, lines {first} and {second}: duplicate user {user}", display_path(.path))]
    Duplicate { path: PathBuf, user: UserName, first: usize, second: usize },
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => {
            "; write a line 'USERNAME PASSWORD' for each user into it, or name another by --credentials"
        }
        _ => "",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// The text before the first space is not a user name.
    #[error("{0}")]
    UserName(#[from] UserNameError),
    #[error("the file is UTF-16 text; save it as UTF-8")]
    Utf16,
    #[error("a user name, one space and a password are needed; the password is missing")]
    NoPassword,
    #[error("a password has at most {PASSWORD_MAX_BYTES} bytes")]
    PasswordTooLong,
    #[error(
        "{}",
        with_program_names("the record is damaged or of an unknown kind; make a new one with `{server} --enrol`")
    )]
    BadRecord,
}

impl Credentials {
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let unreadable = |source| CredentialsError::Unreadable { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // The full capacity at once: a buffer that grows would leave copies of passwords in freed memory.
        let capacity = metadata.len().min(FILE_MAX_BYTES) as usize + 1;
        let mut text = Zeroizing::new(Vec::with_capacity(capacity));
        file.take(FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(CredentialsError::TooLarge { path: path.into() });
        }
        let mut credentials = Self::parse(&text, path)?;
        if credentials.users.is_empty() {
            let path = display_path(path);
            credentials
                .warnings
                .push(format!("{path} has no users: write a line 'USERNAME PASSWORD' for each into it"));
        }
        if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            let path = display_path(path);
            credentials.warnings.push(format!("every user of this machine can read {path}: chmod 600 {path}"));
        }
        Ok(credentials)
    }

    /// Parses the text of the file (sans-IO); `path` appears in errors only.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, CredentialsError> {
        if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
            return Err(CredentialsError::Line { path: path.into(), line: 1, problem: LineProblem::Utf16 });
        }
        let text = strip_byte_order_mark(text);
        let mut users = BTreeMap::new();
        let mut lines: BTreeMap<UserName, usize> = BTreeMap::new();
        let is_blank = |text: &[u8]| text.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        let text = text.split(|&byte| byte == b'\n').map(|text| text.strip_suffix(b"\r").unwrap_or(text));
        let text = (1..).zip(text).filter(|(_, text)| !text.starts_with(b"#") && !is_blank(text)).collect();
        for ParsedLine { line, content } in parse_lines(text) {
            let (user, credential) =
                content.map_err(|problem| CredentialsError::Line { path: path.into(), line, problem })?;
            if let Some(first) = lines.insert(user.clone(), line) {
                return Err(CredentialsError::Duplicate { path: path.into(), user, first, second: line });
            }
            users.insert(user, credential);
        }
        Ok(Self { users, warnings: Vec::new() })
    }

    /// Whether a line is one of the sample file's, whose passwords are public.
    pub fn has_sample_users(&self) -> bool {
        SAMPLE_USERS.iter().any(|&(user, password)| {
            matches!(self.users.get(user), Some(Credential::Plaintext(line)) if line.as_slice() == password)
        })
    }

    /// Adds the version of each credential, keyed by `key`. Takes about 10 µs per record.
    pub fn versioned(self, key: &[u8; 32]) -> VersionedCredentials {
        let has_sample_users = self.has_sample_users();
        let users = self.users.into_iter().map(|(user, credential)| {
            let version = credential.version(&user, key);
            VersionedCredential { user, credential, version }
        });
        VersionedCredentials { users: users.collect(), warnings: self.warnings, has_sample_users }
    }
}

impl Credential {
    /// A hash of the user and the secret, which changes exactly when one of them does. `key` should be derived from the
    /// server's root secret (context [`CREDENTIAL_VERSIONS`](crate::common::crypto::context::CREDENTIAL_VERSIONS)): without
    /// it, an attacker cannot use the version to check guesses of the password. Versions are neither stored nor logged.
    fn version(&self, user: &UserName, key: &[u8; 32]) -> CredentialVersion {
        let mut hasher = blake3::Hasher::new_keyed(key);
        // A user name holds no space, so the boundary between name and secret is unambiguous.
        hasher.update(user.as_str().as_bytes());
        match self {
            Self::Plaintext(password) => hasher.update(b" password ").update(password),
            Self::Record(record) => hasher.update(b" record ").update(&record.to_bytes()),
        };
        let mut version = [0; 16];
        hasher.finalize_xof().fill(&mut version);
        version
    }
}

/// [`line_of_record`] of a new record. Runs the key stretching (41 ms at the standard cost).
pub fn record_line(
    user: &UserName,
    password: &[u8],
    rng: &mut (impl RngCore + CryptoRng),
    stretching: KeyStretching,
) -> String {
    line_of_record(user, &PasswordRecord::register(rng, user, password, stretching))
}

/// The line, without its ending, with which `user` can log in by the password of the record. It reveals no password and is
/// valid under this name only.
pub fn line_of_record(user: &UserName, record: &PasswordRecord) -> String {
    format!("{user} {RECORD_PREFIX_V1}{}", hex::encode(&*record.to_bytes()))
}

/// `line` counts from 1.
struct ParsedLine {
    line: usize,
    content: Result<(UserName, Credential), LineProblem>,
}

/// Parses the numbered lines in order. A record takes about 50 µs, so a long file is parsed by a pool of threads. The pool
/// exists for this call only: its threads inherit the nice value of the calling thread.
fn parse_lines(lines: Vec<(usize, &[u8])>) -> Vec<ParsedLine> {
    let parse = |&(line, text): &(usize, &[u8])| ParsedLine { line, content: parse_line(text) };
    if lines.len() >= LINES_PER_TASK
        && let Some(pool) = threads::pool("credentials", 0)
    {
        return pool.install(|| lines.par_iter().with_min_len(LINES_PER_TASK).map(parse).collect());
    }
    lines.iter().map(parse).collect()
}

fn parse_line(line: &[u8]) -> Result<(UserName, Credential), LineProblem> {
    let (name, password) = match line.iter().position(|&byte| byte == b' ') {
        Some(space) => (&line[..space], &line[space + 1..]),
        None => (line, &[][..]),
    };
    let name = std::str::from_utf8(name).map_err(|_| UserNameError::BadCharacter)?;
    let user = UserName::parse(name)?;
    if password.is_empty() {
        return Err(LineProblem::NoPassword);
    }
    if password.starts_with(RECORD_PREFIX.as_bytes()) {
        let record = parse_record(password).ok_or(LineProblem::BadRecord)?;
        return Ok((user, Credential::Record(Box::new(record))));
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(LineProblem::PasswordTooLong);
    }
    Ok((user, Credential::Plaintext(Zeroizing::new(password.to_vec()))))
}

fn parse_record(text: &[u8]) -> Option<PasswordRecord> {
    let digits = text.strip_prefix(RECORD_PREFIX_V1.as_bytes())?;
    let bytes = Zeroizing::new(hex::decode(digits).ok()?);
    PasswordRecord::from_bytes(&bytes)
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext(_) => "Plaintext(..)",
            Self::Record(_) => "Record(..)",
        })
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
