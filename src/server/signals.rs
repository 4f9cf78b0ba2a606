//! The signals that the server handles.

#[cfg(feature = "testkit")]
use std::io::Write;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level::pipe};

/// Flags set by the signal handlers, and a socket pair that wakes the event loop.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
    /// Readable after a signal.
    pub wakeups: UnixStream,
    wake: std::os::unix::net::UnixStream,
}

/// See [`Signals::stopper`].
#[cfg(feature = "testkit")]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    wake: std::os::unix::net::UnixStream,
}

#[cfg(feature = "testkit")]
impl Stopper {
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // A full socket pair wakes the event loop too.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Signals {
    /// Without handlers: only the test kit stops such a server.
    pub fn unhandled() -> io::Result<Self> {
        let (ours, wake) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload, report) = Default::default();
        Ok(Self { stop, reload, report, wakeups: UnixStream::from_std(ours), wake })
    }

    /// Installs the handlers for SIGHUP (reload) and SIGUSR1 (log the figures). SIGINT and SIGTERM still end the program
    /// at once.
    pub fn handle_reload() -> io::Result<Self> {
        let signals = Self::unhandled()?;
        signals.handle(SIGHUP, &signals.reload)?;
        signals.handle(SIGUSR1, &signals.report)?;
        Ok(signals)
    }

    /// Stops the server from another thread, as SIGTERM does.
    #[cfg(feature = "testkit")]
    pub fn stopper(&self) -> io::Result<Stopper> {
        Ok(Stopper { stop: Arc::clone(&self.stop), wake: self.wake.try_clone()? })
    }

    /// Installs the handlers for SIGINT and SIGTERM (stop).
    pub fn handle_stop(&self) -> io::Result<()> {
        self.handle(SIGINT, &self.stop)?;
        self.handle(SIGTERM, &self.stop)
    }

    fn handle(&self, signal: i32, flag: &Arc<AtomicBool>) -> io::Result<()> {
        // Handlers run in the order of registration: the flag is set before the event loop wakes.
        flag::register(signal, Arc::clone(flag))?;
        pipe::register(signal, self.wake.try_clone()?)?;
        Ok(())
    }

    /// Empties the socket pair, so that the next signal wakes the event loop again.
    pub fn drain(&mut self) {
        while self.wakeups.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }

    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether SIGUSR1 has arrived since the last call.
    pub fn take_report(&self) -> bool {
        self.report.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGHUP has arrived since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
