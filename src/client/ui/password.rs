//! Reads passwords from a file, the environment, or a hidden prompt; never from a command-line argument.
//!
//! Must not print, log or store a password: buffers are zeroed when dropped.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::client::ui::output::Output;
use crate::client::ui::terminal::PromptTerminal;
use crate::common::escape::{BYTE_ORDER_MARK, display_path, strip_line_ending};
use crate::common::limits::PASSWORD_MAX_BYTES;
use crate::common::types::{Password, UserName};

/// The environment variable that may hold a password.
pub const PASSWORD_VARIABLE: &str = "FILESHARE_PASSWORD";
/// More than the longest password and its line ending: the rest of a longer line is not kept.
const LINE_MAX_BYTES: usize = PASSWORD_MAX_BYTES + 3;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("no password: give --password-file, set {PASSWORD_VARIABLE}, or run on a terminal")]
    NoSource,
    #[error("--password-file {0}: {1}")]
    File(String, io::Error),
    #[error("a password has 1 to {PASSWORD_MAX_BYTES} bytes")]
    Length,
    /// SIGINT at the prompt.
    #[error("interrupted")]
    Interrupted,
    /// The prompt ended with an end of input, an empty line, or an error.
    #[error("no password was typed")]
    NotEntered,
    /// The terminal does not type UTF-8.
    #[error("the password as typed is not valid UTF-8; --password-file takes any bytes")]
    NotUtf8,
}

/// Supplies passwords. Tests replace it. Warnings go to `output`.
pub trait PasswordSource: Send + Sync {
    /// For `-u`: the file, or else the environment, or else the hidden prompt.
    fn for_startup(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError>;
    /// For `auth NAME`: the hidden prompt, or else the file, or else the environment.
    fn for_command(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError>;
    /// Commands are about to be read from standard input: a password in front of them is read now.
    fn read_before_commands(&self, _: &Output) {}
}

/// The file, the environment, and the terminal.
pub struct DefaultPasswordSource {
    /// `--password-file`; `-` is standard input.
    pub file: Option<PathBuf>,
    /// Whether the user can be prompted.
    pub prompt: bool,
    /// Where the prompt is.
    pub terminal: Arc<PromptTerminal>,
    /// The first line of standard input, once it has been read.
    pub stdin_line: OnceLock<Password>,
}

impl PasswordSource for DefaultPasswordSource {
    fn for_startup(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError> {
        let stored = self.read_file_or_env(output)?;
        validate(match stored {
            Some(password) => password,
            None if self.prompt => self.prompt_for(user)?,
            None => return Err(PasswordError::NoSource),
        })
    }

    fn for_command(&self, user: &UserName, output: &Output) -> Result<Password, PasswordError> {
        let password = if self.prompt { Some(self.prompt_for(user)?) } else { self.read_file_or_env(output)? };
        validate(password.ok_or(PasswordError::NoSource)?)
    }

    fn read_before_commands(&self, output: &Output) {
        if self.file.as_deref().is_some_and(is_stdin) {
            // An error comes again when the password is needed.
            let _ = self.stdin_line(output);
        }
    }
}

impl DefaultPasswordSource {
    fn read_file_or_env(&self, output: &Output) -> Result<Option<Password>, PasswordError> {
        match &self.file {
            // A line typed there would be visible.
            Some(file) if is_stdin(file) && io::stdin().is_terminal() => Ok(None),
            Some(file) if is_stdin(file) => self.stdin_line(output).map(Some),
            Some(file) => self.first_line_of(file, output).map(Some),
            None => Ok(from_environment()),
        }
    }

    fn stdin_line(&self, output: &Output) -> Result<Password, PasswordError> {
        let name = "standard input";
        if let Some(line) = self.stdin_line.get() {
            return Ok(line.clone());
        }
        // Commands may follow: they are read through the same buffer.
        let line = first_line(&mut io::stdin().lock()).map_err(|error| PasswordError::File(name.into(), error))?;
        warn_about_byte_order_mark(name, &line, output);
        Ok(self.stdin_line.get_or_init(|| line).clone())
    }

    fn first_line_of(&self, path: &Path, output: &Output) -> Result<Password, PasswordError> {
        let name = display_path(path);
        let unreadable = |error| PasswordError::File(display_path(path), error);
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.is_file() && metadata.permissions().mode() & 0o044 != 0 {
            output.info(format_args!("other users of this machine can read {name}: chmod 600 {name}"));
        }
        // No buffer of a reader keeps a copy of the password.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES));
        file.take(LINE_MAX_BYTES as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        let line = first_line(&mut bytes.as_slice()).map_err(unreadable)?;
        warn_about_byte_order_mark(&name, &line, output);
        Ok(line)
    }

    fn prompt_for(&self, user: &UserName) -> Result<Password, PasswordError> {
        let prompt = || rpassword::prompt_password(format!("Password for {user}: "));
        let typed = self.terminal.at_prompt(prompt).ok_or(PasswordError::Interrupted)?;
        let typed = typed.map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => PasswordError::Interrupted,
            _ => PasswordError::NotEntered,
        })?;
        let typed = Zeroizing::new(typed.into_bytes());
        // The prompt replaces what is not UTF-8.
        let is_replaced = memchr::memmem::find(&typed, "\u{fffd}".as_bytes()).is_some();
        match typed.len() {
            0 => Err(PasswordError::NotEntered),
            _ if is_replaced => Err(PasswordError::NotUtf8),
            _ => Ok(typed),
        }
    }
}

/// It is not removed: a password is any bytes.
fn warn_about_byte_order_mark(name: &str, line: &[u8], output: &Output) {
    if line.starts_with(BYTE_ORDER_MARK) {
        output.info(format_args!("{name} starts with a byte order mark, which counts as a part of the password"));
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Checks the length of a password.
pub fn validate(password: Password) -> Result<Password, PasswordError> {
    if (1..=PASSWORD_MAX_BYTES).contains(&password.len()) { Ok(password) } else { Err(PasswordError::Length) }
}

/// Takes the first line, without its ending; of an overlong one more than a password can have.
fn first_line(reader: &mut dyn BufRead) -> io::Result<Password> {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_MAX_BYTES));
    reader.take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
    if line.len() == LINE_MAX_BYTES && !line.ends_with(b"\n") {
        reader.skip_until(b'\n')?;
    }
    let password_bytes = strip_line_ending(&line).len();
    line.truncate(password_bytes);
    Ok(line)
}

fn from_environment() -> Option<Password> {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(PASSWORD_VARIABLE).map(OsStringExt::into_vec)?;
    Some(Zeroizing::new(value)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::client::ui::console::test_support::Sink;
    use crate::client::ui::console::{Console, OutputOptions};

    fn from_path(path: &Path) -> (Result<Password, PasswordError>, String) {
        let err = Sink::default();
        let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), Box::new(err.clone()));
        let source = DefaultPasswordSource {
            file: Some(path.into()),
            prompt: false,
            terminal: Arc::default(),
            stdin_line: OnceLock::new(),
        };
        let output = Output::new(Arc::new(console));
        (source.for_startup(&UserName::parse("hans").unwrap(), &output), err.take())
    }

    fn from_file(content: &[u8]) -> Result<Password, PasswordError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        from_path(file.path()).0
    }

    #[test]
    fn a_readable_file_and_a_byte_order_mark_draw_a_warning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "pw\n").unwrap();
        for (mode, warns) in [(0o600, false), (0o640, true), (0o604, true), (0o711, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let (password, err) = from_path(file.path());
            assert_eq!(*password.unwrap(), b"pw");
            assert_eq!(err.contains("can read"), warns, "{mode:o}: {err}");
        }
        std::fs::write(&file, b"\xef\xbb\xbfpw\r\n").unwrap();
        let (password, err) = from_path(file.path());
        assert_eq!(*password.unwrap(), b"\xef\xbb\xbfpw", "a password is any bytes");
        assert!(err.contains("byte order mark"), "{err}");
    }

    #[test]
    fn what_follows_the_first_line_stays_for_the_commands() {
        for (input, password, rest) in [
            ("pw\r\nlap\n".to_owned(), "pw".to_owned(), "lap\n"),
            (format!("{}\nlap\n", "x".repeat(256)), "x".repeat(256), "lap\n"),
            (format!("{}\nlap\n", "x".repeat(5_000)), "x".repeat(LINE_MAX_BYTES), "lap\n"),
            (String::new(), String::new(), ""),
        ] {
            let mut reader = input.as_bytes();
            assert_eq!(*first_line(&mut reader).unwrap(), password.as_bytes());
            assert_eq!(reader, rest.as_bytes());
        }
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
        let error = from_path("/nonexistent/pw".as_ref()).0.unwrap_err();
        assert!(error.to_string().starts_with("--password-file /nonexistent/pw: "), "{error}");
    }
}
