//! The server of a test.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use log::LevelFilter;
use tempfile::TempDir;

use super::{STRETCHING, TestClient, TestkitError};
use crate::common::threads;
use crate::server::ServerError;
use crate::server::cli::{LogFormat, ServeOptions};
use crate::server::core::Quotas;
use crate::server::journal::Journal;
use crate::server::run::prepare;
use crate::server::signals::{Signals, Stopper};

/// Shorter than those of the program, so that a test of a silent client does not take seconds.
const HEARTBEAT: Duration = Duration::from_millis(200);
const LIVENESS: Duration = Duration::from_millis(1_000);

/// A server on a free port of 127.0.0.1, with its credentials and its data file in a temporary folder.
///
/// Clients report every 200 ms, and count as gone after a second of silence.
pub struct TestServer {
    dir: TempDir,
    users: Vec<(String, String)>,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stopper: Stopper,
    thread: JoinHandle<Result<(), ServerError>>,
}

impl TestServer {
    /// Starts a server for these users with their passwords. Returns when clients can log in.
    pub fn start(users: &[(&str, &str)]) -> Result<Self, TestkitError> {
        let dir = TempDir::new()?;
        let lines: String = users.iter().map(|(user, password)| format!("{user} {password}\n")).collect();
        fs::write(dir.path().join("credentials.txt"), lines)?;
        let users = users.iter().map(|&(user, password)| (user.to_owned(), password.to_owned())).collect();
        let (running, address) = run(dir.path(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { dir, users, address, running: Some(running) })
    }

    /// Where it receives datagrams.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of this user with an empty folder, logged in.
    pub fn client(&self, user: &str) -> Result<TestClient, TestkitError> {
        let password = self.users.iter().find(|(name, _)| name == user).map_or("", |(_, password)| password);
        let mut client = TestClient::start(self.address)?;
        client.login(user, password)?;
        Ok(client)
    }

    /// Ends the server: clients get no further answer until [`restart`](Self::restart). Nothing that was acknowledged is
    /// lost.
    pub fn kill(&mut self) -> Result<(), TestkitError> {
        let Some(Running { stopper, thread }) = self.running.take() else { return Ok(()) };
        stopper.stop();
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    }

    /// Starts the server again at the same address, with the same data file; ends it before, if it runs. Clients resume
    /// their sessions by themselves.
    pub fn restart(&mut self) -> Result<(), TestkitError> {
        self.kill()?;
        self.running = Some(run(self.dir.path(), self.address)?.0);
        Ok(())
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(Running { stopper, thread }) = self.running.take() {
            stopper.stop();
            // A panic of the server is reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn run(dir: &Path, listen: SocketAddr) -> Result<(Running, SocketAddr), TestkitError> {
    let signals = Signals::unhandled()?;
    let stopper = signals.stopper()?;
    let options = ServeOptions {
        listen,
        credentials: dir.join("credentials.txt"),
        data: Some(dir.join("fileshare.db")),
        heartbeat: HEARTBEAT,
        liveness: LIVENESS,
        log_level: LevelFilter::Off,
        log_format: LogFormat::Text,
        port_file: None,
        status: None,
        quotas: Quotas::default(),
    };
    let (sender, ready) = channel();
    let serve = move || match prepare(options, signals, STRETCHING, |_| Ok(()), Journal::open) {
        Ok((event_loop, address)) => {
            let _ = sender.send(address);
            Ok(event_loop.run()?)
        }
        Err(error) => Err(error),
    };
    let thread = threads::spawn("server", serve)?;
    match ready.recv() {
        Ok(address) => Ok((Running { stopper, thread }, address)),
        // It has ended without an address.
        Err(_) => match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Err(error) => Err(error.into()),
            Ok(()) => unreachable!("a server that ends in good order has sent its address"),
        },
    }
}
