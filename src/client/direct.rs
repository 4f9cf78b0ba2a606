//! The direct path between two clients of one user on one host: the uploader passes open files over a Unix socket, and the
//! downloader copies from them. Ticket, handshake and requests stay on TCP.
//!
//! The downloader asks for it under seal and gets the path of the uploader's control socket, with a token. It connects,
//! presents the token, and from then on finds the files of each [`PeerResponse::GroupsPassed`] at that connection. Both
//! ends may close it at any time: then all comes over TCP.
//!
//! Defended: another user of the host, or a peer on another one, gets and passes no open file. The socket is in a folder
//! that only its user may enter, both ends check each other's user id, and the token is for one TCP connection. A downloader
//! connects to nothing else than a socket with the name of a control socket, at which the user greets it from whom it
//! downloads: another one cannot relay the token of a third. Not defended: processes of the same user, who may open the files
//! themselves.
//!
//! [`PeerResponse::GroupsPassed`]: crate::common::peer_message::PeerResponse::GroupsPassed

use std::fs::File;
use std::io::{self, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;

use crate::client::control_folder::{ANSWER_TIMEOUT, ControlFolder, is_socket_name};
use crate::common::peer_message::{DESCRIPTORS_MAX, DirectSocket};
use crate::common::types::UserName;

/// A process with fewer descriptors passes no files, and takes none: it needs them for everything else.
const DESCRIPTORS_MIN: u64 = 1_024;
/// ext4, XFS, Btrfs, tmpfs, F2FS, ZFS, bcachefs and overlayfs, as statfs(2) numbers them.
const LOCAL_FILE_SYSTEMS: [u32; 8] =
    [0x0000_ef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e, 0x794c_7630];
/// What the uploader says on a control socket before anything else, bytes.
const GREETING_MAX_BYTES: u64 = 64 << 10;

/// Whether the two ends of a connection may be on one host, and this process has descriptors for the files.
pub fn is_possible(stream: &TcpStream) -> bool {
    let has_descriptors = getrlimit(Resource::Nofile).current.is_none_or(|descriptors| descriptors >= DESCRIPTORS_MIN);
    let ends = stream.peer_addr().ok().zip(stream.local_addr().ok());
    let ends = ends.map(|(peer, own)| (peer.ip().to_canonical(), own.ip().to_canonical()));
    has_descriptors && ends.is_some_and(|(peer, own)| peer == own || peer.is_loopback() && own.is_loopback())
}

/// The line by which a downloader presents its token, and the answer when that is valid.
pub fn token_line(token: &[u8; 16]) -> String {
    format!("{{\"direct\":\"{}\"}}\n", hex::encode(token))
}

/// Passes open files, at most [`DESCRIPTORS_MAX`]. Never waits for the other end.
pub fn pass_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A byte for each call, so that what comes with it is received by one call too.
    sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// What a downloader reads of the greeting of a control socket.
#[derive(Deserialize)]
struct ClientUser {
    user: String,
}

/// Whether a file may be passed: its file system is a local one, on which reading does not wait for another host or program.
/// A downloader could not give up such a file.
pub fn is_passable(file: &File) -> bool {
    rustix::fs::fstatfs(file).is_ok_and(|system| LOCAL_FILE_SYSTEMS.contains(&(system.f_type as u32)))
}

/// The downloader's end.
pub struct PassedFiles {
    stream: UnixStream,
}

impl PassedFiles {
    /// Connects to the control socket of the uploader's client, which this user of the host runs, and presents the token.
    pub fn connect(socket: &DirectSocket, uploader: &UserName) -> io::Result<Self> {
        let folder = Path::new(std::ffi::OsStr::from_bytes(&socket.folder));
        if !folder.is_absolute() || !is_socket_name(&socket.name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a control socket"));
        }
        let stream = ControlFolder::open(folder)?.connect(&socket.name)?.ok_or(io::ErrorKind::NotConnected)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut reader = BufReader::new(io::Read::take(&stream, GREETING_MAX_BYTES));
        let mut line = String::new();
        io::BufRead::read_line(&mut reader, &mut line)?;
        if serde_json::from_str::<ClientUser>(&line)?.user != uploader.as_str() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the client there is that of another user"));
        }
        let line_of_token = token_line(&socket.token);
        (&stream).write_all(line_of_token.as_bytes())?;
        line.clear();
        io::BufRead::read_line(&mut reader, &mut line)?;
        if line != line_of_token {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the token is not valid there"));
        }
        Ok(Self::new(stream))
    }

    /// Over a connection that files will come from.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// The files that were passed together next. They must have been passed already; fewer than were passed if this process
    /// has no descriptors for them.
    pub fn receive(&self) -> io::Result<Vec<File>> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut [0])], &mut control, flags)?;
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.map(File::from)),
            _ => None,
        });
        Ok(rights.flatten().collect())
    }

    /// From now on the uploader can pass nothing: all comes over TCP.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_that_are_passed_together_arrive_together() {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let receiver = PassedFiles::new(receiver);
        assert_eq!(receiver.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let files: Vec<File> = (0..DESCRIPTORS_MAX as u8)
            .map(|number| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&[number]).unwrap();
                file.rewind().unwrap();
                file
            })
            .collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        pass_files(&sender, &borrowed).unwrap();
        pass_files(&sender, &borrowed[..1]).unwrap();
        let received = receiver.receive().unwrap();
        assert_eq!(received.len(), DESCRIPTORS_MAX);
        for (number, mut file) in received.into_iter().enumerate() {
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            assert_eq!(content, [number as u8]);
        }
        assert_eq!(receiver.receive().unwrap().len(), 1);
        receiver.close();
        assert_eq!(pass_files(&sender, &borrowed[..1]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(receiver.receive().is_err());
    }

    #[test]
    fn a_slow_receiver_does_not_hold_up_the_sender() {
        let (sender, _receiver) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let error = loop {
            if let Err(error) = pass_files(&sender, &[file.as_fd()]) {
                break error;
            }
        };
        // The queue of the socket is full, or this user has no further descriptor in flight.
        let in_flight = rustix::io::Errno::TOOMANYREFS.raw_os_error();
        assert!(error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(in_flight), "{error:?}");
    }

    #[test]
    fn nothing_but_a_control_socket_of_this_user_is_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        drop(ControlFolder::create(&folder).unwrap());
        let _other = std::os::unix::net::UnixListener::bind(folder.join("agent.sock")).unwrap();
        let connect = |folder: &Path, name: &str| {
            let folder = folder.as_os_str().as_bytes().to_vec();
            let socket = DirectSocket { folder, name: name.into(), token: [1; 16] };
            PassedFiles::connect(&socket, &UserName::parse("hans").unwrap()).err().unwrap().kind()
        };
        assert_eq!(connect(&folder, "agent.sock"), io::ErrorKind::InvalidInput);
        assert_eq!(connect(Path::new("run"), &format!("{}.sock", "a".repeat(32))), io::ErrorKind::InvalidInput);
        assert_eq!(connect(&folder, &format!("{}.sock", "a".repeat(32))), io::ErrorKind::NotConnected);
        assert_eq!(connect(&folder, &format!("../{}.sock", "a".repeat(29))), io::ErrorKind::InvalidInput);
    }
}
