//! The real `server` on a free port and any number of real `client`s in a temporary folder, all on loopback, all killed when
//! the test ends.
//!
//! Nothing sleeps for a fixed time: each wait is for a line, a log entry or an exit, and fails with the output so far after
//! [`TIMEOUT`], which is generous because many tests share a slow machine.

pub mod client;
pub mod fake;
pub mod misbehaving_peer;
pub mod process;
pub mod pty;
pub mod raw_client;
pub mod relay;

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

pub use client::Client;
pub use process::{Finished, Running};

/// How long a test waits for an expected event.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Sample credentials.
pub const CREDENTIALS: &str = "hans falcon*solo\nyoda wise@!man\nvader sithlord**\n";

/// The second line that `auth` prints.
pub const COMMANDS: &str = "Available commands are: get, lap, lpf, pub, sch, unp, xit";

/// The password of a sample user.
pub fn password(user: &str) -> &'static str {
    match user {
        "hans" => "falcon*solo",
        "yoda" => "wise@!man",
        "vader" => "sithlord**",
        _ => panic!("{user} is not a sample user"),
    }
}

/// The line that logs a sample user in.
pub fn auth(user: &str) -> String {
    format!("auth {user} {}", password(user))
}

/// One server and the folders of its clients.
pub struct TestEnv {
    server: Option<Running>,
    port: u16,
    args: Vec<OsString>,
    ephemeral: bool,
    data: PathBuf,
    dir: TempDir,
}

impl TestEnv {
    /// A server with the sample credentials that keeps its publications in a data file.
    pub fn new() -> Self {
        Self::with(CREDENTIALS, &[])
    }

    /// A server with these credentials and additional arguments.
    pub fn with(credentials: &str, args: &[&str]) -> Self {
        let mut env = Self::stopped(credentials);
        env.args = args.iter().map(OsString::from).collect();
        env.ephemeral = args.contains(&"--ephemeral");
        env.start();
        env
    }

    /// Folders and credentials without a running server.
    pub fn stopped(credentials: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("fileshare-test-").tempdir().expect("a temporary folder");
        let data = dir.path().join("fileshare.db");
        let env = Self { server: None, port: free_port(), args: Vec::new(), ephemeral: false, data, dir };
        env.write_credentials(credentials);
        env
    }

    /// The temporary folder of this environment.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The credentials file, mode 0600.
    pub fn credentials(&self) -> PathBuf {
        self.path().join("credentials.txt")
    }

    /// The server's data file.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Uses another path for the data file.
    #[allow(dead_code, reason = "used by the durability tests only")]
    pub fn with_data(mut self, data: &Path) -> Self {
        self.data = data.into();
        self
    }

    /// Uses this port at the next start.
    #[allow(dead_code, reason = "used by the durability tests only")]
    pub fn use_port(&mut self, port: u16) {
        self.port = port;
    }

    /// Replaces the credentials file; the server reads it at start and on SIGHUP.
    pub fn write_credentials(&self, text: &str) {
        fs::write(self.credentials(), text).expect("a writable credentials file");
        set_mode(&self.credentials(), 0o600);
    }

    /// The server's UDP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A server command with this environment's files, without a port.
    pub fn server_command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        isolate(&mut command, self.path());
        command.current_dir(self.path()).arg("--credentials").arg(self.credentials());
        if !self.ephemeral {
            command.arg("--data").arg(self.data());
        }
        command
    }

    /// Starts the server, on its previous port if it ran before, and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "the server is already running");
        let mut command = self.server_command();
        command.args(&self.args).arg(self.port.to_string());
        let mut server = Running::start("server", command);
        let ready = server.next_line();
        let address = ready.strip_prefix("listening on ").unwrap_or_else(|| panic!("not a ready line: {ready:?}"));
        let address: SocketAddr = address.parse().expect("an address in the ready line");
        assert!(address.port() != 0, "the ready line names the real port");
        self.port = address.port();
        self.server = Some(server);
    }

    /// The running server.
    pub fn server(&self) -> &Running {
        self.server.as_ref().expect("a running server")
    }

    /// Sends the server a signal.
    pub fn signal_server(&self, signal: Signal) {
        self.server().signal(signal);
    }

    /// Kills the server with SIGKILL, like a crash.
    pub fn kill_server(&mut self) -> Finished {
        self.stop_server(Signal::KILL)
    }

    /// Sends a signal that ends the server, and waits for the exit.
    pub fn stop_server(&mut self, signal: Signal) -> Finished {
        let server = self.server.take().expect("a running server");
        server.signal(signal);
        server.finish()
    }

    /// Waits until the log contains this text.
    pub fn wait_log(&self, needle: &str) {
        self.wait_log_times(needle, 1);
    }

    /// Waits until the log contains this text at least `times` times.
    pub fn wait_log_times(&self, needle: &str, times: usize) {
        self.server().err.wait(&format!("{times} times {needle:?} in the log"), |log| {
            (log.matches(needle).count() >= times).then_some(())
        });
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.server().err.text()
    }

    /// Waits for the log line that ends the only login, and returns the log. The list of publications that follows is not logged.
    pub fn log_after_login(&self, user: &str) -> String {
        self.wait_log(&format!("Sent OK to {user}"));
        self.log()
    }

    /// A client with its own folder; `name` is the name of the folder and of the user that `user` logs in.
    pub fn client(&self, name: &str) -> Client {
        Client::new(self.path(), name, "127.0.0.1", self.port)
    }
}

/// Puts a program's configuration, history and caches into the test's folder, and removes passwords from its environment.
pub fn isolate(command: &mut Command, home: &Path) {
    command.env("HOME", home).env_remove("FILESHARE_USER").env_remove("FILESHARE_PASSWORD");
    for (variable, folder) in [
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_DATA_HOME", "share"),
        ("XDG_RUNTIME_DIR", "runtime"),
    ] {
        command.env(variable, home.join(".xdg").join(folder));
    }
}

/// Sets a file's permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions can be set");
}

/// A file's permission bits.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

/// A port that is free at the loopback address, for TCP and UDP, and stays so: the system gives ports below 32,768 to nobody who
/// asks for any, and other processes of tests, whose ids are near, begin elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(5_003)) % 12_000;
        let address = (Ipv4Addr::LOCALHOST, 20_000 + at as u16);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address.1;
        }
    }
}

/// Waits until a condition holds that no program reports.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "{what}");
        std::thread::yield_now();
    }
}

/// Pseudo-random bytes, the same for the same seed.
pub fn seeded_bytes(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// All entries of a folder and the folders in it, as sorted relative paths.
pub fn entries(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            out.push(path.strip_prefix(root).expect("beneath the root").to_string_lossy().into_owned());
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(dir, dir, &mut out);
    out.sort();
    out
}

/// The bytes of every file beneath a folder, one after the other.
pub fn all_bytes(dir: &Path) -> Vec<u8> {
    let files = entries(dir).into_iter().map(|name| dir.join(name)).filter(|path| path.is_file());
    files.flat_map(|path| fs::read(path).expect("a readable file")).collect()
}

/// Whether `needle` occurs in `haystack`.
pub fn contains_bytes(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
