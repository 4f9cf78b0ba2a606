//! The lines over a control socket. The running client begins with a [`Greeting`], the attached side answers with its
//! [`SideOptions`] (or asks once for the completion of a line); then come the input lines of `--json` with ids, and
//! [`CancelLine`]s, one way, and the lines of `--json` the other way.

use std::io::{self, BufRead, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::download::OnExists;
use crate::client::ui::message::CommandId;
use crate::common::sync::lock;

/// Longest line, bytes: what a line of 1 MiB takes as JSON, where a control character takes six bytes, with its id.
pub const LINE_MAX_BYTES: usize = (6 << 20) + (64 << 10);

/// Who answers: the first line over a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    pub user: String,
    /// Host name or IP address of the server, as given to the client.
    pub server: String,
    pub port: u16,
    /// The server's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The shared folder, for people: a path need not be UTF-8.
    pub dir: String,
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
    /// Whether events are reported beside its commands.
    pub events: bool,
}

/// In place of the options: asks for [`CompletedWords`], with which the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// The line up to the cursor.
    pub complete: String,
}

/// Replacements of the last word of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedWords {
    /// Where the word starts, bytes.
    pub start: usize,
    /// Quoted.
    pub words: Vec<String>,
}

/// In place of the options: a downloader of this user presents the token that its source has given to it. The answer is
/// the same line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectLine {
    /// In hexadecimal digits.
    pub direct: String,
}

/// The first line of an attached side.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum FirstLine {
    Options(SideOptions),
    Completion(CompletionRequest),
    Direct(DirectLine),
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

/// Writes a line, and passes a descriptor with its first byte.
pub fn write_with_descriptor(mut stream: &UnixStream, line: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(stream, &[IoSlice::new(line.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&line.as_bytes()[sent..])
}

/// Reads from a stream, and takes the descriptors that come with its bytes.
pub struct DescriptorReader {
    pub stream: UnixStream,
    /// The one that came last.
    pub descriptor: Arc<Mutex<Option<OwnedFd>>>,
}

impl Read for DescriptorReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // A read ends with the line that a descriptor came with, and may begin before it: with the cancellation of the
        // command before, since an attached side sends no further command before one has ended.
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                *lock(&self.descriptor) = descriptors.last();
            }
        }
        Ok(received.bytes)
    }
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
    fn a_descriptor_is_there_when_its_line_is() {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let descriptor = Arc::<Mutex<Option<OwnedFd>>>::default();
        let reader = DescriptorReader { stream: receiver, descriptor: Arc::clone(&descriptor) };
        let mut reader = io::BufReader::new(reader);
        let (mut passed_reader, passed) = io::pipe().unwrap();
        (&sender).write_all(b"first\n").unwrap();
        write_with_descriptor(&sender, "second\n", std::os::fd::AsFd::as_fd(&passed)).unwrap();
        drop((sender, passed));
        assert_eq!(read_line(&mut reader).unwrap().unwrap(), b"first");
        assert_eq!(read_line(&mut reader).unwrap().unwrap(), b"second");
        let passed = descriptor.lock().unwrap().take().unwrap();
        std::fs::File::from(passed).write_all(b"content").unwrap();
        let mut content = String::new();
        passed_reader.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
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
