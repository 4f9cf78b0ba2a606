//! Carries events to any number of readers. Publishing never waits: a reader whose queue is full misses the event, and
//! learns how many it has missed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::common::sync::lock;

/// Events that wait for one reader.
const QUEUE_MAX: usize = 4_096;

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// Another user is active.
    PeerJoined {
        user: String,
    },
    PeerLeft {
        user: String,
    },
    /// A content is available under a name.
    FileAvailable {
        name: String,
        /// Size and hash of the content; `None`: it was only waited for.
        content: Option<(u64, String)>,
    },
    /// Nothing is available under the name any more.
    FileGone {
        name: String,
    },
    /// A user has begun to download a file from this client.
    UploadStarted {
        user: String,
        name: String,
        bytes: u64,
    },
    /// The user has got what it asked for, or (not `ok`) the connection has ended before that. `bytes`: what it got of the
    /// file from here.
    UploadFinished {
        user: String,
        name: String,
        bytes: u64,
        ok: bool,
    },
    /// `code`: the exit status of the failure, or 0. `saved`: the name in the folder.
    DownloadFinished {
        name: String,
        saved: Option<String>,
        bytes: u64,
        code: u8,
    },
    /// The server has been silent for the liveness time.
    ConnectionLost,
    Reconnected,
    /// The server had lost publications, and has got them again.
    Resynced {
        files: usize,
    },
    LoggedOut,
}

/// An event and when it has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedEvent {
    pub time: SystemTime,
    pub event: BusEvent,
}

impl TimedEvent {
    #[expect(clippy::disallowed_methods, reason = "readers are told when something has happened")]
    pub fn now(event: BusEvent) -> Self {
        Self { time: SystemTime::now(), event }
    }
}

/// See the [module](self).
#[derive(Default)]
pub struct EventBus {
    queues: Mutex<Vec<Arc<ReaderQueue>>>,
    /// Whether there are readers.
    is_read: AtomicBool,
}

pub(super) struct ReaderQueue {
    sender: Sender<TimedEvent>,
    dropped: AtomicU64,
}

/// The events since it was made.
pub(crate) struct BusReader {
    pub(crate) events: Receiver<TimedEvent>,
    queue: Arc<ReaderQueue>,
    bus: Arc<EventBus>,
}

impl EventBus {
    /// Whether an event would have a reader: making one may cost more than publishing it.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    pub fn publish(&self, event: BusEvent) {
        if !self.is_read() {
            return;
        }
        let event = TimedEvent::now(event);
        for queue in lock(&self.queues).iter() {
            if queue.sender.try_send(event.clone()).is_err() {
                queue.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn reader(self: &Arc<Self>) -> BusReader {
        let (sender, events) = bounded(QUEUE_MAX);
        let queue = Arc::new(ReaderQueue { sender, dropped: AtomicU64::new(0) });
        lock(&self.queues).push(Arc::clone(&queue));
        self.is_read.store(true, Ordering::Relaxed);
        BusReader { events, queue, bus: Arc::clone(self) }
    }
}

impl BusReader {
    /// How many events were dropped since the last time.
    pub(super) fn take_dropped(&self) -> u64 {
        self.queue.dropped.swap(0, Ordering::Relaxed)
    }
}

impl Drop for BusReader {
    fn drop(&mut self) {
        let mut queues = lock(&self.bus.queues);
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.bus.is_read.store(!queues.is_empty(), Ordering::Relaxed);
    }
}
