//! One client without input and output: the session with the server, the shared folder, uploads and downloads. Any number
//! of command contexts work over it at once.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::client::control::{
    ControlHandle, Observer, ServerApi, SessionConfig, SessionControl, local_ips_for, resolve,
};
use crate::client::download::{Download, Downloader};
use crate::client::events::{EventKind, ListWatcher};
use crate::client::exit_code::ExitCode;
use crate::client::files::SharedFiles;
use crate::client::follow::Followed;
use crate::client::jobs::Jobs;
use crate::client::jobs_by_key::JobsByKey;
use crate::client::publications::OwnPublications;
use crate::client::upload::{Listener, UploadService, slots_within};
use crate::common::crypto::Secret;
use crate::common::escape::{display_path, escape_controls};
use crate::common::handshake_keys::SessionParams;
use crate::common::opaque::KeyStretching;
use crate::common::types::{FileName, UserName};

/// How many times the client tries to find a port that is free on every address that faces the server.
const PORT_TRIES: usize = 16;

/// Why the client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The server's name cannot be resolved, or there is no route to it.
    #[error("{}: {error}", escape_controls(server))]
    Server {
        server: String,
        /// The error of the resolver or of the route.
        error: io::Error,
    },
    #[error("{option} {}: {error}", display_path(path))]
    Path {
        /// `--dir` or `--batch`.
        option: &'static str,
        /// Its argument.
        path: PathBuf,
        error: io::Error,
    },
    #[error("cannot listen for peers on {address}: {error}")]
    Listen {
        /// The first of the addresses that were tried.
        address: SocketAddr,
        /// Whether `--listen` names the address.
        is_given: bool,
        error: io::Error,
    },
    /// There is no running client to attach to, or more than one.
    #[error("{why}")]
    Attach { why: String, code: ExitCode },
    /// A thread or a signal handler cannot be created.
    #[error("{0}")]
    System(io::Error),
}

impl From<&StartupError> for ExitCode {
    fn from(error: &StartupError) -> Self {
        match error {
            StartupError::Server { .. } => Self::Unreachable,
            StartupError::Path { .. } => Self::LocalFile,
            StartupError::Attach { code, .. } => *code,
            StartupError::Listen { is_given: true, .. } => Self::Usage,
            StartupError::Listen { .. } | StartupError::System(_) => Self::Internal,
        }
    }
}

/// What an engine is started with.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig<'a> {
    /// Host name or IP address of the server.
    pub server: &'a str,
    /// UDP port of the server.
    pub port: u16,
    /// The shared folder.
    pub dir: &'a Path,
    /// Where the cache of hashes and the list of published hidden files are; `None`: in the user's XDG folders.
    pub state_dir: Option<&'a Path>,
    /// Where to listen for peers; `None`: each local address that faces the server, one free port.
    pub listen: Option<SocketAddr>,
    /// Bytes a second of all uploads together.
    pub limit_rate: Option<u64>,
    /// Most uploads that run at once.
    pub upload_slots: u8,
    /// Whether open files may be passed between this client and others of this user on this host. Without a limited rate
    /// only.
    pub direct_path: bool,
    /// The cost of stretching a password.
    pub stretching: KeyStretching,
}

/// What happens to the session and the publications, as far as a user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// The server has been silent for the liveness time; the client reconnects.
    ConnectionLost,
    Reconnected,
    /// The server has logged the user out, or the user could not be logged in again.
    LoggedOut,
    /// The server had lost acknowledged publications; after a reconnect they were published again.
    Resynced {
        files: usize,
    },
    /// A peer has asked for a file that is not what was published any more. Once for each publication.
    FileChanged(FileName),
}

/// See the [module](self). Dropping it ends uploads and session without a message to the server: see
/// [`logout`](SessionControl::logout).
pub struct ClientEngine {
    /// The server's addresses; at least one.
    pub servers: Vec<SocketAddr>,
    pub session: Arc<dyn SessionControl>,
    pub server: ServerApi,
    pub files: Arc<SharedFiles>,
    pub uploads: Arc<UploadService>,
    /// The lists that events are about.
    pub lists: Arc<ListWatcher>,
    pub downloader: Arc<dyn Download>,
    /// Whether open files may be passed to other clients of this user on this host.
    pub direct_path: bool,
    /// What goes on in the background, of all contexts.
    pub jobs: Arc<Jobs>,
    /// The user's own publications.
    pub publications: Arc<OwnPublications>,
    /// What is followed.
    pub follows: JobsByKey<Followed>,
    /// The folders that are watched, relative to the shared folder, which is the empty path.
    pub watches: JobsByKey<String>,
    /// They serve peers until they are dropped.
    pub _listeners: Vec<Listener>,
}

impl ClientEngine {
    /// Constructs the components and connects them. Nothing is sent to the server yet. `on_event` is called on the control
    /// thread and on those of uploads; it must not block.
    pub fn start(
        config: &EngineConfig<'_>,
        on_event: impl Fn(SessionEvent) + Send + Sync + 'static,
    ) -> Result<Self, StartupError> {
        let in_dir = |error| StartupError::Path { option: "--dir", path: config.dir.into(), error };
        let unreachable = |error| StartupError::Server { server: config.server.into(), error };
        let servers = resolve(config.server, config.port).map_err(unreachable)?;
        let files = match config.state_dir {
            Some(state) => SharedFiles::open_with_state(config.dir, state),
            None => SharedFiles::open(config.dir),
        };
        let files = files.map_err(in_dir)?;
        let uploads = UploadService::new(Arc::clone(&files), slots_within(config.upload_slots, config.limit_rate));
        let listeners = listen(config, &servers, &uploads)?;
        let on_event = Arc::new(on_event);
        let on_changed = Arc::clone(&on_event);
        uploads.set_on_changed(move |name| on_changed(SessionEvent::FileChanged(name.clone())));
        let observer = EngineObserver { uploads: Arc::clone(&uploads), on_event };
        let session =
            SessionConfig { servers: servers.clone(), tcp_port: listeners[0].port(), stretching: config.stretching };
        let control = ControlHandle::start(session, Arc::new(observer)).map_err(StartupError::System)?;
        let server = ServerApi::new(control.clone());
        let downloader = Downloader::open(config.dir, server.clone(), Arc::clone(files.fetched())).map_err(in_dir)?;
        let direct_path = config.direct_path && config.limit_rate.is_none();
        let session: Arc<dyn SessionControl> = Arc::new(control);
        Ok(Self {
            servers,
            lists: ListWatcher::new(Arc::clone(&session), server.clone()),
            session,
            server,
            files,
            publications: Arc::clone(uploads.publications()),
            uploads,
            follows: JobsByKey::default(),
            watches: JobsByKey::default(),
            downloader: Arc::new(downloader.with_direct_path(direct_path)),
            direct_path,
            jobs: Arc::default(),
            _listeners: listeners,
        })
    }
}

/// Listens for peers at the given address, or else on every address that faces the server, all on one port: only the login
/// finds out at which of its addresses the server is. At least one listener.
fn listen(
    config: &EngineConfig<'_>,
    servers: &[SocketAddr],
    uploads: &Arc<UploadService>,
) -> Result<Vec<Listener>, StartupError> {
    let addresses = match config.listen {
        Some(address) => vec![address],
        None => {
            let ips = local_ips_for(servers);
            let ips = ips.map_err(|error| StartupError::Server { server: config.server.into(), error })?;
            ips.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect()
        }
    };
    let start = |address| Listener::start(Arc::clone(uploads), address, config.limit_rate);
    let mut result = listen_on_all(&addresses, start);
    // With one address a failure is final; with several, the port that one has taken may be in use on the next.
    for _ in 1..PORT_TRIES {
        if result.is_err() && addresses.len() > 1 {
            result = listen_on_all(&addresses, start);
        }
    }
    let is_given = config.listen.is_some();
    result.map_err(|error| StartupError::Listen { address: addresses[0], is_given, error })
}

fn listen_on_all<L>(addresses: &[SocketAddr], start: L) -> io::Result<Vec<Listener>>
where
    L: Fn(SocketAddr) -> io::Result<Listener>,
{
    let mut listeners: Vec<Listener> = Vec::new();
    for &address in addresses {
        let port = listeners.first().map_or(address.port(), Listener::port);
        listeners.push(start(SocketAddr::new(address.ip(), port))?);
    }
    Ok(listeners)
}

/// Gives the keys of tickets to the upload service, and passes on what concerns the user.
struct EngineObserver {
    uploads: Arc<UploadService>,
    on_event: Arc<dyn Fn(SessionEvent) + Send + Sync>,
}

impl EngineObserver {
    fn report(&self, event: SessionEvent) {
        let kind = match event {
            SessionEvent::ConnectionLost => Some(EventKind::ConnectionLost),
            SessionEvent::Reconnected => Some(EventKind::Reconnected),
            SessionEvent::LoggedOut => Some(EventKind::LoggedOut),
            SessionEvent::Resynced { files } => Some(EventKind::Resynced { files: files as u64 }),
            SessionEvent::FileChanged(_) => None,
        };
        kind.into_iter().for_each(|kind| self.uploads.events().publish(kind));
        (self.on_event)(event);
    }
}

impl Observer for EngineObserver {
    fn session_started(&self, _: &UserName, params: &SessionParams, ticket_key: &Secret, resumed: bool) {
        self.uploads.set_ticket_key(ticket_key, params.server_time_ms);
        if resumed {
            self.report(SessionEvent::Reconnected);
        }
    }

    fn connection_lost(&self) {
        self.report(SessionEvent::ConnectionLost);
    }

    fn logged_out(&self) {
        self.report(SessionEvent::LoggedOut);
    }

    fn resynced(&self, files: usize) {
        self.report(SessionEvent::Resynced { files });
    }

    fn free_slots(&self) -> u8 {
        self.uploads.free_slots()
    }
}
