//! What an operator sees of a running server: its figures, over HTTP and in the log.

mod connection;
mod figures;
mod http;
mod kernel_drops;
mod listener;
mod page;
mod supervisor;

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub use figures::Figures;
pub use http::Resource;
use kernel_drops::KernelDrops;
pub use listener::StatusListener;
pub use supervisor::Supervisor;

use super::histogram::Histogram;

/// The journal is expected to store something within this time.
const JOURNAL_STALLED: Duration = Duration::from_secs(10);

/// What the event loop observes of itself, of the journal and of the system.
pub struct Monitor {
    /// Wall time, without waits: also what other threads and programs took of the CPU.
    pub loop_turns: Histogram,
    /// CPU time.
    pub loop_turns_cpu: Histogram,
    pub journal: JournalWatch,
    pub kernel_drops: KernelDrops,
    pub supervisor: Supervisor,
    pub listener: Option<StatusListener>,
    /// Whether the status page shows users and their addresses.
    pub shows_users: bool,
    /// The figures are to be logged when the kernel's drops have been read more often than this.
    log_after: Option<u64>,
}

impl Monitor {
    /// `socket` is that of the datagrams. `wake` wakes the event loop from another thread.
    pub fn start(socket: impl AsFd, wake: impl Fn() + Send + 'static) -> io::Result<Self> {
        Ok(Self {
            loop_turns: Histogram::default(),
            loop_turns_cpu: Histogram::default(),
            journal: JournalWatch::default(),
            kernel_drops: KernelDrops::start(socket, wake)?,
            supervisor: Supervisor::default(),
            listener: None,
            shows_users: false,
            log_after: None,
        })
    }

    /// The figures are to be logged as soon as they are complete: the kernel's drops are read first.
    pub fn request_log(&mut self) {
        self.log_after.get_or_insert(self.kernel_drops.readings());
        self.kernel_drops.latest();
    }

    /// Whether the figures are to be logged now; once.
    pub fn take_log(&mut self) -> bool {
        self.log_after.take_if(|before| *before != self.kernel_drops.readings()).is_some()
    }

    /// When the event loop is to wake for them. `now` may be somewhat earlier than the time.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let page = self.listener.as_ref().and_then(|listener| listener.next_deadline(now));
        [page, self.supervisor.next_report()].into_iter().flatten().min()
    }
}

/// Whether the server does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Ok,
    /// Changes wait, and none has been stored for this time.
    JournalStalled(Duration),
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => write!(f, "ok"),
            Self::JournalStalled(time) => write!(f, "nothing was stored for {} seconds", time.as_secs()),
        }
    }
}

/// The response to a request.
pub fn respond(resource: Resource, figures: &Figures) -> Vec<u8> {
    match resource {
        Resource::Page => http::page_response(page::HTML, &page::content_security_policy()),
        Resource::Metrics => http::metrics_response(&figures.to_metrics()),
        Resource::Stats => http::json_response(&figures.to_json()),
        Resource::Health => {
            let problem = (figures.health != Health::Ok).then(|| figures.health.to_string());
            http::health_response(problem.as_deref())
        }
    }
}

/// Watches whether the journal makes progress.
#[derive(Debug, Default)]
pub struct JournalWatch {
    /// What was stored when it was looked at, and since when.
    waiting: Option<(u64, Instant)>,
}

impl JournalWatch {
    /// `durable`: how many mutations are stored; `queued`: how many have been queued.
    pub fn update(&mut self, now: Instant, durable: u64, queued: u64) {
        self.waiting = match self.waiting {
            _ if durable >= queued => None,
            Some((before, since)) if before == durable => Some((before, since)),
            _ => Some((durable, now)),
        };
    }

    pub fn health(&self, now: Instant) -> Health {
        match self.waiting {
            Some((_, since)) if now.saturating_duration_since(since) >= JOURNAL_STALLED => {
                Health::JournalStalled(now.saturating_duration_since(since))
            }
            _ => Health::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::test_support::origin;

    #[test]
    fn a_journal_that_stores_nothing_is_unhealthy() {
        let (mut watch, start) = (JournalWatch::default(), origin());
        let at = |s| start + Duration::from_secs(s);
        watch.update(at(0), 5, 5);
        assert_eq!(watch.health(at(100)), Health::Ok, "nothing waits");
        watch.update(at(100), 5, 7);
        watch.update(at(109), 5, 8);
        assert_eq!(watch.health(at(109)), Health::Ok);
        assert_eq!(watch.health(at(110)), Health::JournalStalled(Duration::from_secs(10)));
        watch.update(at(111), 6, 8);
        assert_eq!(watch.health(at(120)), Health::Ok, "progress");
        watch.update(at(130), 8, 8);
        assert_eq!(watch.health(at(200)), Health::Ok);
    }
}
