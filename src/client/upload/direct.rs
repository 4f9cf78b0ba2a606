//! The uploader's end of the [direct path](crate::client::direct): offers, and the connections that take them up.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::UploadService;
use crate::client::direct;
use crate::common::peer_message::DirectSocket;
use crate::common::sync::lock;

/// What this client offers of the direct path.
#[derive(Default)]
pub(super) struct DirectOffers {
    /// The folder and the name of the control socket, while there is one.
    socket: Mutex<Option<(PathBuf, String)>>,
    /// By token.
    offered: Mutex<HashMap<[u8; 16], Weak<DirectPath>>>,
}

/// What one upload was offered: a connection to pass files over, once the downloader has made it.
#[derive(Default)]
pub(super) struct DirectPath {
    stream: OnceLock<UnixStream>,
}

impl UploadService {
    /// Where downloaders of this user on this host connect to get open files; `None`: nowhere.
    pub fn set_direct_socket(&self, place: Option<(PathBuf, String)>) {
        *lock(&self.direct.socket) = place.filter(|(folder, _)| folder.is_absolute());
    }

    /// A process of this user has presented the token at the control socket. Whether it was offered to a connection that
    /// still runs.
    pub fn accept_direct(&self, token: &[u8; 16], stream: UnixStream) -> bool {
        let path = lock(&self.direct.offered).remove(token).and_then(|path| path.upgrade());
        path.is_some_and(|path| path.stream.set(stream).is_ok())
    }

    /// A new offer, unless this client has no control socket.
    #[expect(clippy::disallowed_methods, reason = "the token is a secret")]
    pub(super) fn offer_direct(&self) -> Option<(DirectSocket, Arc<DirectPath>)> {
        let (folder, name) = lock(&self.direct.socket).clone()?;
        let (token, path) = (rand::random(), Arc::<DirectPath>::default());
        let mut offered = lock(&self.direct.offered);
        offered.retain(|_, path| path.strong_count() > 0);
        offered.insert(token, Arc::downgrade(&path));
        Some((DirectSocket { folder: folder.as_os_str().as_bytes().to_vec(), name, token }, path))
    }
}

impl DirectPath {
    pub(super) fn is_open(&self) -> bool {
        self.stream.get().is_some()
    }

    /// Passes open files. The error: nothing more is to be passed, since the connection has ended, the downloader takes
    /// nothing, or this user has too many descriptors in flight.
    pub(super) fn pass(&self, files: &[Arc<File>]) -> io::Result<()> {
        let stream = self.stream.get().ok_or(io::ErrorKind::NotConnected)?;
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        direct::pass_files(stream, &descriptors)
    }
}
