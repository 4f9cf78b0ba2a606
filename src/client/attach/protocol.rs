//! The lines over a control socket. The running client begins with a [`Greeting`], the attached side answers with its
//! [`SideOptions`]; then come the input lines of `--json` with ids, and [`CancelLine`]s, one way, and the lines of `--json`
//! the other way.

use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::download::OnExists;
use crate::client::ui::message::CommandId;

/// Longest line, bytes: more than a line of 1 MiB takes as JSON, unless it is made of control characters.
pub const LINE_MAX_BYTES: usize = 4 << 20;

/// Who answers: the first line over a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    pub user: String,
    /// Host name or IP address of the server, as given to the client.
    pub server: String,
    pub port: u16,
    /// The server's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The shared folder.
    pub dir: PathBuf,
}

/// What is an attached side's own: its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideOptions {
    pub on_exists: OnExists,
    /// How long `get` waits for a source, milliseconds.
    pub retry_for_ms: u64,
    /// Whether messages about progress are of use to it.
    pub wants_progress: bool,
    /// Whether it shows messages as they are, so that a note may say how many were dropped.
    pub json: bool,
}

/// Cancels the command of this id, if it still runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelLine {
    pub cancel: CommandId,
}

/// An input line of `--json`, as an attached side writes it.
#[derive(Serialize)]
pub struct CommandLine<'a> {
    pub id: &'a CommandId,
    pub command: &'a str,
}

/// The next line without its end; `None` at the end of the stream. An error if it is longer than [`LINE_MAX_BYTES`] or
/// incomplete.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.by_ref().take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if read < LINE_MAX_BYTES => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long")),
    }
}

/// Reads a line that has to be there.
pub fn read_value<T: DeserializeOwned>(reader: &mut impl BufRead) -> io::Result<T> {
    let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    serde_json::from_slice(&line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not the expected line"))
}

/// One line.
pub fn to_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("it has no maps with other keys than strings") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_and_are_bounded() {
        let mut reader = &b"one\n\ntwo"[..];
        assert_eq!(read_line(&mut reader).unwrap().unwrap(), b"one");
        assert_eq!(read_line(&mut reader).unwrap().unwrap(), b"");
        assert_eq!(read_line(&mut reader).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_line(&mut reader).unwrap(), None);
        let long = vec![b'x'; LINE_MAX_BYTES + 1];
        assert_eq!(read_line(&mut long.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn junk_is_no_greeting() {
        for junk in [&b"\xff\x00\n"[..], b"{}\n", b"\n", b"[1]\n", b"null\n"] {
            let error = read_value::<Greeting>(&mut &*junk).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{junk:?}");
        }
        assert!(read_value::<SideOptions>(&mut &b""[..]).is_err());
    }
}
