//! Signals, as something the loop can wait for: a flag each, and a byte in a pipe that wakes it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// The signals that mean something to the server.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    /// To be registered with the poll.
    pub wakeups: UnixStream,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (stop, reload) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, flag) in [(SIGINT, &stop), (SIGTERM, &stop), (SIGHUP, &reload)] {
            // In this order: who is woken finds the flag set.
            flag::register(signal, Arc::clone(flag))?;
            pipe::register(signal, theirs.try_clone()?)?;
        }
        Ok(Self { stop, reload, wakeups: UnixStream::from_std(ours) })
    }

    /// Empties the pipe, so that the next signal wakes the loop again.
    pub fn clear(&mut self) {
        while self.wakeups.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }

    /// Whether the server is to stop.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the credentials are to be read again; asked once for each signal.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
