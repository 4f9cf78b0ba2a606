//! Where passwords come from: a file, the environment, or a hidden prompt; never an option's argument.
//!
//! Must not print, log or keep one: what passes through here is wiped when dropped.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::client::control::Password;
use crate::common::escape::strip_line_ending;
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::types::UserName;

/// The variable a password may stand in.
pub const PASSWORD_VARIABLE: &str = "FILESHARE_PASSWORD";

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// No file, no variable, no terminal.
    #[error("no password: give --password-file, set {PASSWORD_VARIABLE}, or run on a terminal")]
    NoSource,
    /// The file cannot be read.
    #[error("{0}: {1}")]
    File(String, io::Error),
    /// Longer than any password, or nothing at all.
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes")]
    Length,
    /// Ctrl-C at the prompt.
    #[error("interrupted")]
    Interrupted,
    /// The prompt was left by an end of input, or broke.
    #[error("no password was typed")]
    NotEntered,
}

/// Who can supply a password.
pub trait PasswordSource: Send + Sync {
    /// For `-u`: file, else environment, else the hidden prompt.
    fn for_startup(&self, user: &UserName) -> Result<Password, PasswordError>;
    /// For a typed `auth NAME`: the hidden prompt, else file, else environment.
    fn for_command(&self, user: &UserName) -> Result<Password, PasswordError>;
}

/// The usual places.
#[derive(Debug, Clone)]
pub struct DefaultPasswordSource {
    /// `--password-file`.
    pub file: Option<PathBuf>,
    /// Whether someone is there to be asked: stdin is a terminal.
    pub prompt: bool,
}

impl PasswordSource for DefaultPasswordSource {
    fn for_startup(&self, user: &UserName) -> Result<Password, PasswordError> {
        let stored = self.from_file_or_env()?;
        validate(match stored {
            Some(password) => password,
            None if self.prompt => prompt(user)?,
            None => return Err(PasswordError::NoSource),
        })
    }

    fn for_command(&self, user: &UserName) -> Result<Password, PasswordError> {
        validate(if self.prompt { prompt(user)? } else { self.from_file_or_env()?.ok_or(PasswordError::NoSource)? })
    }
}

impl DefaultPasswordSource {
    fn from_file_or_env(&self) -> Result<Option<Password>, PasswordError> {
        match &self.file {
            Some(file) => first_line(file).map(Some),
            None => Ok(from_environment()),
        }
    }
}

/// A password within the contract's limits.
pub fn validate(password: Password) -> Result<Password, PasswordError> {
    if (1..=PASSWORD_MAX_BYTES).contains(&password.len()) { Ok(password) } else { Err(PasswordError::Length) }
}

fn first_line(path: &Path) -> Result<Password, PasswordError> {
    let broken = |error| PasswordError::File(path.display().to_string(), error);
    // More than any password and its line end; a larger file is not read on.
    let bound = PASSWORD_MAX_BYTES as u64 + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(bound as usize));
    std::fs::File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes)).map_err(broken)?;
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
