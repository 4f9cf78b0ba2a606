//! What a supervisor is told over the socket in `NOTIFY_SOCKET`: systemd's protocol (sd_notify(3)), one datagram each.
//!
//! The watchdog is fed by the event loop itself, so a loop that is stuck is noticed. Nothing waits for the supervisor.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::{debug, warn};
use rustix::time::{ClockId, clock_gettime};

/// Between two reports of the status, unless the watchdog needs more.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A supervisor, if there is one.
#[derive(Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watches: bool,
    report_interval: Duration,
    next_report: Option<Instant>,
}

impl Supervisor {
    /// From the values of `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A supervisor that cannot be reached is logged.
    pub fn from_values(socket: Option<&OsStr>, watchdog_us: Option<&str>, watchdog_pid: Option<&str>) -> Self {
        let Some(address) = socket.filter(|address| !address.is_empty()) else { return Self::default() };
        let socket = match connect(address) {
            Ok(socket) => socket,
            Err(error) => {
                warn!("the supervisor at {} cannot be reached: {error}", address.display());
                return Self::default();
            }
        };
        let is_ours = watchdog_pid.is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = watchdog_us.filter(|_| is_ours).and_then(|us| us.parse().ok()).filter(|&us| us > 0);
        let report_interval = match watchdog.map(Duration::from_micros) {
            Some(watchdog) => (watchdog / 2).min(REPORT_INTERVAL),
            None => REPORT_INTERVAL,
        };
        Self { socket: Some(socket), watches: watchdog.is_some(), report_interval, next_report: None }
    }

    pub fn from_environment() -> Self {
        let text = |name| std::env::var(name).ok();
        let (watchdog_us, watchdog_pid) = (text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        Self::from_values(std::env::var_os("NOTIFY_SOCKET").as_deref(), watchdog_us.as_deref(), watchdog_pid.as_deref())
    }

    /// Clients can log in: at the start, and after [`reloading`](Self::reloading).
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload begins.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// When [`report`](Self::report) is due.
    pub fn next_report(&self) -> Option<Instant> {
        self.next_report
    }

    /// Reports that the loop turns, and the status, if it is time. To be called in every turn.
    pub fn report(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if self.socket.is_none() || self.next_report.is_some_and(|at| now < at) {
            return;
        }
        self.next_report = Some(now + self.report_interval);
        let watchdog = if self.watches { "WATCHDOG=1\n" } else { "" };
        self.send(&format!("{watchdog}STATUS={}", status()));
    }

    fn send(&self, message: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(message.as_bytes())) {
            debug!("the supervisor was not told {message}: {error}");
        }
    }
}

/// A path, or a name in the abstract namespace after an `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::test_support::origin;

    /// A supervisor's socket in a temporary folder.
    struct FakeSupervisor {
        folder: tempfile::TempDir,
        socket: UnixDatagram,
    }

    impl FakeSupervisor {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self { folder, socket }
        }

        fn supervise(&self, watchdog_us: Option<&str>, pid: Option<&str>) -> Supervisor {
            Supervisor::from_values(Some(self.folder.path().join("notify").as_os_str()), watchdog_us, pid)
        }

        fn received(&self) -> Option<String> {
            let mut bytes = [0; 1_000];
            let count = self.socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time() {
        let fake = FakeSupervisor::new();
        let mut supervisor = fake.supervise(Some("3000000"), Some(&std::process::id().to_string()));
        let start = origin();
        supervisor.report(start, || "2 peers".into());
        assert_eq!(fake.received().unwrap(), "WATCHDOG=1\nSTATUS=2 peers");
        let due = start + Duration::from_millis(1_500);
        assert_eq!(supervisor.next_report(), Some(due));
        supervisor.report(due - Duration::from_nanos(1), || panic!("too early"));
        supervisor.report(due, || "3 peers".into());
        assert_eq!(fake.received().unwrap(), "WATCHDOG=1\nSTATUS=3 peers");
        assert_eq!(fake.received(), None);
    }

    #[test]
    fn without_a_watchdog_of_this_process_only_the_status_is_told() {
        let fake = FakeSupervisor::new();
        for (watchdog_us, pid) in [(None, None), (Some("1000000"), Some("1")), (Some("0"), None), (Some("x"), None)] {
            let mut supervisor = fake.supervise(watchdog_us, pid);
            supervisor.report(origin(), || "ok".into());
            assert_eq!(fake.received().unwrap(), "STATUS=ok");
            assert_eq!(supervisor.next_report(), Some(origin() + REPORT_INTERVAL));
        }
    }

    #[test]
    fn each_state_is_told() {
        let fake = FakeSupervisor::new();
        let supervisor = fake.supervise(None, None);
        let now_us = || {
            let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
            u64::try_from(now.as_micros()).unwrap()
        };
        supervisor.ready();
        let before_us = now_us();
        supervisor.reloading();
        let after_us = now_us();
        supervisor.stopping();
        assert_eq!(fake.received().unwrap(), "READY=1");
        let reloading = fake.received().unwrap();
        let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!((before_us..=after_us).contains(&us.parse().unwrap()), "{before_us} {us} {after_us}");
        assert_eq!(fake.received().unwrap(), "STOPPING=1");
    }

    #[test]
    fn nothing_is_sent_without_a_supervisor() {
        for address in [None, Some(OsStr::new("")), Some(OsStr::new("/nowhere/notify"))] {
            let mut supervisor = Supervisor::from_values(address, Some("1000000"), None);
            supervisor.ready();
            supervisor.report(origin(), || panic!("nobody reads it"));
            assert_eq!(supervisor.next_report(), None);
        }
        let name = format!("fileshare-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Supervisor::from_values(Some(OsStr::new(&format!("@{name}"))), None, None).ready();
        let mut bytes = [0; 10];
        assert_eq!(socket.recv(&mut bytes).unwrap(), 7, "an abstract name works");
    }

    #[test]
    fn a_full_socket_stops_nothing() {
        let fake = FakeSupervisor::new();
        let supervisor = fake.supervise(None, None);
        (0..10_000).for_each(|_| supervisor.ready());
        assert_eq!(fake.received().unwrap(), "READY=1");
    }
}
