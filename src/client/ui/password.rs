//! Reads passwords from a file, the environment, or a hidden prompt; never from a command-line argument.
//!
//! Must not print, log or store a password: buffers are zeroed when dropped.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::common::escape::{display_path, strip_line_ending};
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::types::{Password, UserName};

/// The environment variable that may hold a password.
pub const PASSWORD_VARIABLE: &str = "FILESHARE_PASSWORD";

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("no password: give --password-file, set {PASSWORD_VARIABLE}, or run on a terminal")]
    NoSource,
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes")]
    Length,
    /// SIGINT at the prompt.
    #[error("interrupted")]
    Interrupted,
    /// The prompt ended with an end of input, an empty line, or an error.
    #[error("no password was typed")]
    NotEntered,
}

/// Supplies passwords. Tests replace it.
pub trait PasswordSource: Send + Sync {
    /// For `-u`: the file, or else the environment, or else the hidden prompt.
    fn for_startup(&self, user: &UserName) -> Result<Password, PasswordError>;
    /// For `auth NAME`: the hidden prompt, or else the file, or else the environment.
    fn for_command(&self, user: &UserName) -> Result<Password, PasswordError>;
}

/// The file, the environment, and the terminal.
#[derive(Debug, Clone)]
pub struct DefaultPasswordSource {
    /// `--password-file`.
    pub file: Option<PathBuf>,
    /// Whether the user can be prompted.
    pub prompt: bool,
}

impl PasswordSource for DefaultPasswordSource {
    fn for_startup(&self, user: &UserName) -> Result<Password, PasswordError> {
        let stored = self.read_file_or_env()?;
        validate(match stored {
            Some(password) => password,
            None if self.prompt => prompt(user)?,
            None => return Err(PasswordError::NoSource),
        })
    }

    fn for_command(&self, user: &UserName) -> Result<Password, PasswordError> {
        validate(if self.prompt { prompt(user)? } else { self.read_file_or_env()?.ok_or(PasswordError::NoSource)? })
    }
}

impl DefaultPasswordSource {
    fn read_file_or_env(&self) -> Result<Option<Password>, PasswordError> {
        match &self.file {
            Some(file) => first_line(file).map(Some),
            None => Ok(from_environment()),
        }
    }
}

/// Checks the length of a password.
pub fn validate(password: Password) -> Result<Password, PasswordError> {
    if (1..=PASSWORD_MAX_BYTES).contains(&password.len()) { Ok(password) } else { Err(PasswordError::Length) }
}

fn first_line(path: &Path) -> Result<Password, PasswordError> {
    let unreadable = |error| PasswordError::File(display_path(path), error);
    // More than the longest password and its line ending: the rest of a larger file is not read.
    let limit = PASSWORD_MAX_BYTES as u64 + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize));
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unreadable)?;
    let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
    Ok(Zeroizing::new(strip_line_ending(&bytes[..end]).to_vec()))
}

fn from_environment() -> Option<Password> {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(PASSWORD_VARIABLE).map(OsStringExt::into_vec)?;
    Some(Zeroizing::new(value)).filter(|value| !value.is_empty())
}

fn prompt(user: &UserName) -> Result<Password, PasswordError> {
    let typed = rpassword::prompt_password(format!("Password for {user}: ")).map_err(|error| match error.kind() {
        io::ErrorKind::Interrupted => PasswordError::Interrupted,
        _ => PasswordError::NotEntered,
    })?;
    if typed.is_empty() { Err(PasswordError::NotEntered) } else { Ok(Zeroizing::new(typed.into_bytes())) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn from_file(content: &[u8]) -> Result<Password, PasswordError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let source = DefaultPasswordSource { file: Some(file.path().into()), prompt: false };
        source.for_startup(&UserName::parse("hans").unwrap())
    }

    #[test]
    fn the_first_line_of_the_file_is_the_password_as_it_is() {
        assert_eq!(*from_file(b"falcon*solo\n").unwrap(), b"falcon*solo");
        assert_eq!(*from_file(b" a b \t\r\nsecond\n").unwrap(), b" a b \t");
        assert_eq!(*from_file(b"no end").unwrap(), b"no end");
        assert_eq!(*from_file(b"\xff\xfe\n").unwrap(), b"\xff\xfe");
        assert_eq!(from_file(&[b'x'; 256]).unwrap().len(), 256);
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused() {
        assert!(matches!(from_file(b"\n"), Err(PasswordError::Length)));
        assert!(matches!(from_file(&[b'x'; 257]), Err(PasswordError::Length)));
        assert!(matches!(from_file(&[b'x'; 5_000]), Err(PasswordError::Length)));
    }

    #[test]
    fn a_missing_file_is_named() {
        let source = DefaultPasswordSource { file: Some("/nonexistent/pw".into()), prompt: false };
        let error = source.for_command(&UserName::parse("hans").unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/pw: "), "{error}");
    }
}
