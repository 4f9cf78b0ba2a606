//! The folder of control sockets, and the lock that says whose socket is live.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::getuid;

use crate::common::escape::display_path;
use crate::common::types::UserName;

/// How long a running client may take to accept a connection and to name itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A folder of control sockets that is ours.
pub struct ControlFolder {
    path: PathBuf,
    dir: OwnedFd,
}

/// A socket that listens, with the lock that makes it the live one. Both names vanish when it is dropped.
pub struct LockedSocket {
    pub listener: UnixListener,
    folder: ControlFolder,
    name: String,
    _lock: OwnedFd,
}

/// Where a client listens: `$XDG_RUNTIME_DIR/fileshare`, or `/tmp/fileshare-<uid>` if that variable is unset.
pub fn own_place() -> PathBuf {
    places(std::env::var_os("XDG_RUNTIME_DIR"), getuid().as_raw()).swap_remove(0)
}

/// Where clients of this user of the host may listen.
pub fn all_places() -> Vec<PathBuf> {
    places(std::env::var_os("XDG_RUNTIME_DIR"), getuid().as_raw())
}

/// The first is where a client listens. The last, without the variable, is where it is in a login session: under cron or
/// sudo that is not set. Only root creates folders in `/run/user`.
fn places(runtime_dir: Option<OsString>, uid: u32) -> Vec<PathBuf> {
    let in_tmp = PathBuf::from(format!("/tmp/fileshare-{uid}"));
    match runtime_dir.filter(|dir| !dir.is_empty()) {
        Some(dir) => vec![Path::new(&dir).join("fileshare"), in_tmp],
        None => vec![in_tmp, format!("/run/user/{uid}/fileshare").into()],
    }
}

/// The name, without a suffix, of the socket of this user's client of this server.
pub fn socket_name(server: SocketAddr, user: &UserName) -> String {
    let identity = format!("{}\0{}\0{user}", server.ip(), server.port());
    blake3::hash(identity.as_bytes()).to_hex()[..32].to_owned()
}

/// Whether this may be the name of a control socket.
pub fn is_socket_name(name: &str) -> bool {
    let identity = name.strip_suffix(".sock");
    identity.is_some_and(|identity| identity.len() == 32 && identity.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl ControlFolder {
    /// Creates the folder unless it is there.
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Self::open(path),
        }
    }

    /// Opens the folder unless it belongs to another user, is open to others, or is a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = fstat(&dir)?;
        if stat.st_uid != getuid().as_raw() || stat.st_mode & 0o7777 != 0o700 {
            return Err(io::Error::other("not a folder of this user alone, with mode 0700"));
        }
        Ok(Self { path: path.into(), dir })
    }

    /// Listens at a socket of this name, unless another client does. A socket left by one that was killed is replaced.
    pub fn listen(self, name: &str) -> io::Result<LockedSocket> {
        let lock = self.lock(&format!("{name}.lock"))?;
        match unlinkat(&self.dir, format!("{name}.sock"), AtFlags::empty()) {
            Err(error) if error != Errno::NOENT => return Err(error.into()),
            _ => {}
        }
        let listener = UnixListener::bind(self.reached(&format!("{name}.sock")))?;
        Ok(LockedSocket { listener, folder: self, name: name.into(), _lock: lock })
    }

    fn lock(&self, name: &str) -> io::Result<OwnedFd> {
        loop {
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let lock = openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another client of this user holds its lock")),
                result => result?,
            }
            // Its holder may have removed it before this lock was taken.
            let inode = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
            if statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).map(inode) == fstat(&lock).map(inode) {
                return Ok(lock);
            }
        }
    }

    /// The path of an entry by the open folder: short enough for a socket address, and beneath no link.
    fn reached(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()).into()
    }

    /// The names of all sockets in the folder, sorted.
    pub fn sockets(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.reached(""))?;
        let names = entries.filter_map(|entry| String::from_utf8(OsString::into_vec(entry.ok()?.file_name())).ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".sock")).collect();
        names.sort();
        Ok(names)
    }

    /// Connects to a socket of [`sockets`](Self::sockets). `None`: nobody listens there any more.
    pub fn connect(&self, name: &str) -> io::Result<Option<UnixStream>> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Bounds the wait for a place in the queue of a client that is stopped.
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
        match connect(&socket, &SocketAddrUnix::new(self.reached(name))?) {
            Ok(()) => {}
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(None),
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
        set_socket_timeout(&socket, Timeout::Send, None)?;
        let stream = UnixStream::from(socket);
        check_peer(&stream, getuid().as_raw())?;
        Ok(Some(stream))
    }

    /// Where an entry is, for people.
    pub fn display(&self, name: &str) -> String {
        display_path(&self.path.join(name))
    }
}

impl LockedSocket {
    /// The folder that the socket is in, and its name there.
    pub fn place(&self) -> (PathBuf, String) {
        (self.folder.path.clone(), format!("{}.sock", self.name))
    }
}

impl Drop for LockedSocket {
    fn drop(&mut self) {
        // The lock is still held. An error means that the folder is gone, and the names with it.
        for suffix in ["sock", "lock"] {
            let _ = unlinkat(&self.folder.dir, format!("{}.{suffix}", self.name), AtFlags::empty());
        }
    }
}

/// Refuses a process of another user at the other end.
pub fn check_peer(stream: &UnixStream, uid: u32) -> io::Result<()> {
    let peer = socket_peercred(stream)?.uid.as_raw();
    if peer == uid {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the other end belongs to the user with id {peer}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/fileshare");
        (dir, path)
    }

    #[test]
    fn a_folder_that_is_open_to_others_or_a_link_is_refused() {
        let (dir, path) = folder();
        drop(ControlFolder::create(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        for mode in [0o701, 0o770, 0o1700, 0o500] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(ControlFolder::create(&path).is_err(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(ControlFolder::create(&link).is_err());
        assert!(ControlFolder::create(&path).is_ok());
    }

    #[test]
    fn a_client_without_the_variable_finds_those_of_a_login_session() {
        let of = |dir: Option<&str>| places(dir.map(OsString::from), 1000);
        let (in_tmp, in_session) = (PathBuf::from("/tmp/fileshare-1000"), PathBuf::from("/run/user/1000/fileshare"));
        assert_eq!(of(Some("/run/user/1000")), [in_session.clone(), in_tmp.clone()]);
        assert_eq!(of(Some("/elsewhere")), [PathBuf::from("/elsewhere/fileshare"), in_tmp.clone()]);
        for unset in [None, Some("")] {
            assert_eq!(of(unset), [in_tmp.clone(), in_session.clone()], "and listens in /tmp");
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let (_dir, path) = folder();
        drop(ControlFolder::create(&path).unwrap());
        // Only root can give a folder away.
        if std::os::unix::fs::chown(&path, Some(65_534), None).is_ok() {
            assert!(ControlFolder::open(&path).is_err());
        }
    }

    #[test]
    fn one_client_listens_and_a_stale_socket_is_replaced() {
        let (_dir, path) = folder();
        let open = || ControlFolder::create(&path).unwrap();
        let first = open().listen("a").unwrap();
        assert!(open().listen("a").is_err(), "it is locked");
        assert!(open().connect("a.sock").unwrap().is_some());
        drop(first);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing stays");
        assert!(open().connect("a.sock").unwrap().is_none());

        drop(UnixListener::bind(path.join("a.sock")).unwrap());
        assert_eq!(open().sockets().unwrap(), ["a.sock"]);
        assert!(open().connect("a.sock").unwrap().is_none(), "a killed client has left it");
        let _second = open().listen("a").unwrap();
        assert!(open().connect("a.sock").unwrap().is_some());
    }

    #[test]
    fn a_folder_that_vanishes_does_no_harm() {
        let (_dir, path) = folder();
        let socket = ControlFolder::create(&path).unwrap().listen("a").unwrap();
        fs::remove_dir_all(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_full_backlog_is_an_error_in_time() {
        let (_dir, path) = folder();
        let folder = ControlFolder::create(&path).unwrap();
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path.join("full.sock")).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match folder.connect("full.sock") {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_other_end_belongs_to_this_user() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let uid = getuid().as_raw();
        assert!(check_peer(&stream, uid).is_ok());
        assert_eq!(check_peer(&stream, uid + 1).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn names_differ_by_server_port_and_user() {
        let name = |server: &str, user| socket_name(server.parse().unwrap(), &UserName::parse(user).unwrap());
        let first = name("127.0.0.1:12000", "hans");
        assert!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(first, name("127.0.0.1:12000", "hans"));
        assert!(is_socket_name(&format!("{first}.sock")));
        for other in [name("[::1]:12000", "hans"), name("127.0.0.1:12001", "hans"), name("127.0.0.1:12000", "yoda")] {
            assert_ne!(first, other);
        }
    }
}
