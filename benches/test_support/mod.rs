//! Shared by the benches over the network: a server process in a temporary directory, users with cheap key stretching, and
//! many client sessions on one thread.

#![allow(dead_code, reason = "each bench uses some of it")]

mod core_bench;
mod filled_data;
mod load_clients;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent, UserName};
use fileshare::internals::server::auth::credentials::record_line;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[allow(unused_imports, reason = "each bench uses some of it")]
pub use self::core_bench::{Bench, SessionEnds, sealed};
#[allow(unused_imports, reason = "each bench uses some of it")]
pub use self::filled_data::fill;
#[allow(unused_imports, reason = "each bench uses some of it")]
pub use self::load_clients::LoadClients;

/// A number from the environment variable `name`, or the default.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Appends a row to FIGURE.csv in the folder `FILESHARE_BENCH_CSV`, if that is set, for `scripts/plot.py`.
pub fn record(figure: &str, variant: &str, x: usize, value: f64) {
    let Some(folder) = std::env::var_os("FILESHARE_BENCH_CSV") else { return };
    let path = Path::new(&folder).join(format!("{figure}.csv"));
    let head = if path.exists() { "" } else { "variant,x,value\n" };
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a folder for figures");
    writeln!(file, "{head}\"{variant}\",{x},{value}").expect("space for figures");
}

/// User `number`, whose password is the user name.
pub fn user(number: usize) -> UserName {
    UserName::parse(&format!("user{number:05}")).expect("a plain name")
}

/// File `number` of a user, with a realistic name: a directory, a word, a number, an extension.
pub fn file(owner: usize, number: usize) -> NamedContent {
    const WORDS: [&str; 8] = ["holiday", "Invoice", "report", "IMG", "notes", "thesis", "scan", "movie"];
    const EXTENSIONS: [&str; 4] = ["pdf", "jpg", "mp4", "txt"];
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1);
    let (word, extension) = (WORDS[(mixed >> 29) as usize], EXTENSIONS[(mixed >> 26) as usize % 4]);
    let name = format!("{word}s {owner:05}/{word}-{number:07}.{extension}");
    let hash = *blake3::hash(&[owner.to_le_bytes(), number.to_le_bytes()].concat()).as_bytes();
    let content = Content { hash: ContentHash(hash), size: 1_000_000 + number as u64, mtime_ms: 1_700_000_000_000 };
    NamedContent { name: FileName::parse(&name).expect("a plain name"), content }
}

/// A server process and its directory, with credentials.
pub struct ServerProcess {
    directory: TempDir,
    process: Option<Child>,
    address: SocketAddr,
    /// Further arguments of the server.
    pub arguments: Vec<String>,
}

impl ServerProcess {
    /// Creates the directory, in `FILESHARE_BENCH_DIR` if that is set, with credentials of `users` users. Starts no server yet.
    pub fn new(users: usize) -> Self {
        let directory = match std::env::var_os("FILESHARE_BENCH_DIR") {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let directory = directory.expect("a temporary directory");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let line = |number| {
            let user = user(number);
            record_line(&user, user.as_str().as_bytes(), &mut rng, KeyStretching::Insecure) + "\n"
        };
        let lines: String = (0..users).map(line).collect();
        let credentials = directory.path().join("credentials.txt");
        fs::write(&credentials, lines).expect("a file can be written");
        fs::set_permissions(credentials, Permissions::from_mode(0o600)).expect("our own file");
        Self { directory, process: None, address: ([127, 0, 0, 1], 0).into(), arguments: Vec::new() }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("fileshare.db")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the server, on its previous port if it had one. Returns the time until it was ready.
    pub fn start(&mut self) -> Duration {
        self.start_under(&[] as &[&str])
    }

    /// Like [`start`](Self::start), with the server as a child of `wrapper`, a program and its arguments.
    pub fn start_under(&mut self, wrapper: &[impl AsRef<OsStr>]) -> Duration {
        let server = std::env::var("FILESHARE_BENCH_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_server").into());
        let mut command = match wrapper.split_first() {
            None => Command::new(&server),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&server);
                command
            }
        };
        command.arg(self.address.port().to_string()).args(["--log-level", "warn"]).args(&self.arguments);
        command.current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a piped stdout")).read_line(&mut line).expect("a line");
        let took = start.elapsed();
        let address = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}"));
        self.address = address.parse().expect("an address");
        self.process = Some(child);
        took
    }

    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            kill_process(Pid::from_child(&process), signal).expect("our own child");
            process.wait().expect("our own child");
        }
    }

    /// The server's CPU time so far, seconds.
    pub fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("a running server");
        let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("user") + fields[12].parse::<u64>().expect("system");
        // The kernel reports in hundredths of a second.
        ticks as f64 / 100.0
    }

    /// The CPU time of the event loop so far, seconds, to the nanosecond.
    pub fn event_loop_cpu_s(&self) -> f64 {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.id())).expect("a running server");
        schedstat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok()).expect("a number") as f64 / 1e9
    }

    /// Stops the process until [`resume`](Self::resume).
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("our own child");
    }

    /// The server's resident memory, bytes.
    pub fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a running server");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1_024
    }

    /// The server's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("a running server"))
    }

    fn id(&self) -> u32 {
        self.process.as_ref().expect("a running server").id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}

/// The smallest value that at least `per_mille` / 1,000 of the values do not exceed.
pub fn percentile<T: PartialOrd + Copy>(values: &mut [T], per_mille: usize) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[((values.len() - 1) * per_mille).div_ceil(1_000)]
}
