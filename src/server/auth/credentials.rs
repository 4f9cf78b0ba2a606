//! Who may join: the credentials file.
//!
//! One line a user, `<username> <password>`, split at the first space; the rest of the line is the password as it is.
//! Blank lines and lines that start with `#` are skipped. A password that starts with `$fileshare$` is a record that
//! reveals no password: `$fileshare$1$` and the 640 hex digits of [`PasswordRecord::to_bytes`].
//!
//! No error, warning or debug text ever holds a password.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use rand::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::common::escape::display_path;
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::opaque::{KeyStretching, PasswordRecord};
use crate::common::types::{UserName, UserNameError};
use crate::server::auth::keys::CredentialVersion;

/// What every record line's password starts with.
const RECORD_MARK: &[u8] = b"$fileshare$";
/// What the records that this program writes and reads start with.
const RECORD_MARK_1: &[u8] = b"$fileshare$1$";
/// Largest credentials file, bytes: room for hundreds of thousands of records.
const FILE_MAX_BYTES: u64 = 256 << 20;
/// Fewer lines are not worth a thread.
const LINES_PER_THREAD: usize = 256;
/// The lines of the sample file that comes with the program, known to everyone.
const SAMPLES: [(&str, &[u8]); 3] = [("hans", b"falcon*solo"), ("vader", b"sithlord**"), ("yoda", b"wise@!man")];

/// What a line of the file holds.
#[derive(Clone)]
pub enum Credential {
    /// A password in clear; becomes a record in memory (see [`enrolment`](super::enrolment)).
    Plaintext(Zeroizing<Vec<u8>>),
    /// A record that reveals no password (`$fileshare$...`).
    Record(Box<PasswordRecord>),
}

/// The parsed file.
#[derive(Debug)]
pub struct Credentials {
    /// By name.
    pub users: BTreeMap<UserName, Credential>,
    /// Things to warn about whatever the server is bound to; each a line.
    pub warnings: Vec<String>,
}

/// Credentials with all that is to be computed of them, ready to be put in force in little time.
pub struct VersionedCredentials {
    /// By name, in order.
    pub users: Vec<(UserName, Credential, CredentialVersion)>,
    /// Things to warn about whatever the server is bound to; each a line.
    pub warnings: Vec<String>,
    /// See [`Credentials::has_samples`].
    pub has_samples: bool,
}

/// What a new file changes for those who may be logged in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the old file and not in the new one.
    pub removed: Vec<UserName>,
    /// In both, with different secrets.
    pub changed: Vec<UserName>,
    /// In the new file alone.
    pub added: Vec<UserName>,
}

/// Why the file cannot be used; each names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Missing, or the system does not let us.
    #[error("cannot read the credentials in {}: {source}", display_path(.path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Beyond any use.
    #[error("the credentials in {} are larger than {} MiB", display_path(.path), FILE_MAX_BYTES >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line does not follow the rules.
    #[error("{}, line {line}: {problem}", display_path(.path))]
    Line {
        /// The file.
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// Which rule.
        problem: LineProblem,
    },
    /// Two lines for one user.
    #[error("{}, lines {first} and {second}: {user} is there twice", display_path(.path))]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// Whose lines.
        user: UserName,
        /// Counts from 1.
        first: usize,
        /// Counts from 1.
        second: usize,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// Before the first space stands no user name.
    #[error("{0}")]
    UserName(#[from] UserNameError),
    /// No space, or nothing after it.
    #[error("a user name, one space and a password are needed; the password is missing")]
    NoPassword,
    /// More than [`PASSWORD_MAX_BYTES`].
    #[error("a password has at most {PASSWORD_MAX_BYTES} bytes")]
    PasswordTooLong,
    /// Starts as a record and is none.
    #[error("the record is damaged or of an unknown kind; make a new one with `server --enrol`")]
    BadRecord,
}

impl Credentials {
    /// Reads and checks the whole file.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let unreadable = |source| CredentialsError::Unreadable { path: path.into(), source };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // Room for all of it at once, so that no outgrown buffer leaves passwords behind in memory.
        let room = metadata.len().min(FILE_MAX_BYTES) as usize + 1;
        let mut text = Zeroizing::new(Vec::with_capacity(room));
        file.take(FILE_MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(CredentialsError::TooLarge { path: path.into() });
        }
        let mut credentials = Self::parse(&text, path)?;
        if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
            let path = display_path(path);
            credentials.warnings.push(format!("every user of this machine can read {path}: chmod 600 {path}"));
        }
        Ok(credentials)
    }

    /// Parses the text of the file (sans-IO); `path` only names it in errors.
    pub fn parse(text: &[u8], path: &Path) -> Result<Self, CredentialsError> {
        let mut users = BTreeMap::new();
        let mut lines: BTreeMap<UserName, usize> = BTreeMap::new();
        let text = text.split(|&byte| byte == b'\n').map(|text| text.strip_suffix(b"\r").unwrap_or(text));
        let is_empty = |text: &[u8]| text.starts_with(b"#") || text.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        let text: Vec<(usize, &[u8])> = (1..).zip(text).filter(|(_, text)| !is_empty(text)).collect();
        for (line, parsed) in parse_lines(&text) {
            let (user, credential) =
                parsed.map_err(|problem| CredentialsError::Line { path: path.into(), line, problem })?;
            if let Some(first) = lines.insert(user.clone(), line) {
                return Err(CredentialsError::Duplicate { path: path.into(), user, first, second: line });
            }
            users.insert(user, credential);
        }
        Ok(Self { users, warnings: Vec::new() })
    }

    /// Changes exactly when the user's line changes its secret. A hash keyed by `key`, which should be derived from the
    /// server's root secret (context [`CREDENTIAL_VERSIONS`](crate::common::crypto::context::CREDENTIAL_VERSIONS)):
    /// without it, the version gives nothing to guess a password with. It still belongs in no file and no log.
    pub fn version(&self, user: &UserName, key: &[u8; 32]) -> Option<CredentialVersion> {
        let mut hasher = blake3::Hasher::new_keyed(key);
        // A name holds no space, so name and secret cannot run into each other.
        hasher.update(user.as_str().as_bytes());
        match self.users.get(user)? {
            Credential::Plaintext(password) => hasher.update(b" password ").update(password),
            Credential::Record(record) => hasher.update(b" record ").update(&record.to_bytes()),
        };
        let mut version = [0; 16];
        hasher.finalize_xof().fill(&mut version);
        Some(version)
    }

    /// With the version of each, under the same `key` as in [`version`](Self::version). Takes some 10 µs a record line.
    pub fn versioned(self, key: &[u8; 32]) -> VersionedCredentials {
        let versions: Vec<_> = self.users.keys().filter_map(|user| self.version(user, key)).collect();
        let has_samples = self.has_samples();
        let users = self.users.into_iter().zip(versions);
        let users = users.map(|((user, credential), version)| (user, credential, version)).collect();
        VersionedCredentials { users, warnings: self.warnings, has_samples }
    }

    /// What is different in `new`.
    pub fn changes_to(&self, new: &Self) -> Changes {
        let mut changes = Changes::default();
        for (user, credential) in &self.users {
            match new.users.get(user) {
                None => changes.removed.push(user.clone()),
                Some(other) if !credential.is_same(other) => changes.changed.push(user.clone()),
                Some(_) => {}
            }
        }
        changes.added.extend(new.users.keys().filter(|user| !self.users.contains_key(*user)).cloned());
        changes
    }

    /// Whether any line is one of the sample file's, which the whole world knows: worth a warning when the server
    /// listens beyond loopback.
    pub fn has_samples(&self) -> bool {
        SAMPLES.iter().any(|&(user, password)| {
            matches!(self.users.get(user), Some(Credential::Plaintext(line)) if line.as_slice() == password)
        })
    }

    /// The users whose lines hold a password in clear, for [`Enrolment`](super::enrolment::Enrolment).
    pub fn plaintext(&self) -> impl Iterator<Item = (&UserName, &Zeroizing<Vec<u8>>)> {
        self.users.iter().filter_map(|(user, credential)| match credential {
            Credential::Plaintext(password) => Some((user, password)),
            Credential::Record(_) => None,
        })
    }
}

/// The line, without its end, that lets `user` log in with `password` and reveals no password. It is good under this
/// name alone. Runs the stretching (41 ms at the standard cost).
pub fn record_line(
    user: &UserName,
    password: &[u8],
    rng: &mut (impl RngCore + CryptoRng),
    stretching: KeyStretching,
) -> String {
    let record = PasswordRecord::register(rng, user, password, stretching).to_bytes();
    let mark = std::str::from_utf8(RECORD_MARK_1).expect("the mark is ASCII");
    format!("{user} {mark}{}", hex::encode(&*record))
}

/// A line's number and what it says.
type Parsed = (usize, Result<(UserName, Credential), LineProblem>);

/// Reading a record takes some 50 µs: long files are shared out among the processors.
fn parse_lines(lines: &[(usize, &[u8])]) -> Vec<Parsed> {
    let parse = |lines: &[(usize, &[u8])]| lines.iter().map(|&(line, text)| (line, parse_line(text))).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if lines.len() < LINES_PER_THREAD || processors == 1 {
        return parse(lines);
    }
    std::thread::scope(|scope| {
        let chunks = lines.chunks(lines.len().div_ceil(processors).max(LINES_PER_THREAD));
        let threads: Vec<_> = chunks.map(|chunk| scope.spawn(move || parse(chunk))).collect();
        let parsed = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        parsed.collect::<Vec<Vec<_>>>().into_iter().flatten().collect()
    })
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
    if password.starts_with(RECORD_MARK) {
        let record = parse_record(password).ok_or(LineProblem::BadRecord)?;
        return Ok((user, Credential::Record(Box::new(record))));
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(LineProblem::PasswordTooLong);
    }
    Ok((user, Credential::Plaintext(Zeroizing::new(password.to_vec()))))
}

fn parse_record(text: &[u8]) -> Option<PasswordRecord> {
    let digits = text.strip_prefix(RECORD_MARK_1)?;
    let bytes = Zeroizing::new(hex::decode(digits).ok()?);
    PasswordRecord::from_bytes(&bytes)
}

impl Credential {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plaintext(one), Self::Plaintext(two)) => one == two,
            (Self::Record(one), Self::Record(two)) => one.to_bytes() == two.to_bytes(),
            _ => false,
        }
    }
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
