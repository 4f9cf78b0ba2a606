//! Carries events to any number of readers. Publishing never waits: a reader whose queue is full misses the event, and
//! learns how many it has missed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::kind::EventKind;
use crate::common::sync::lock;

/// Events that wait for one reader.
const QUEUE_MAX: usize = 4_096;

/// An event and when it has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedEvent {
    pub time: SystemTime,
    pub kind: EventKind,
}

impl TimedEvent {
    #[expect(clippy::disallowed_methods, reason = "readers are told when something has happened")]
    pub fn now(kind: EventKind) -> Self {
        Self { time: SystemTime::now(), kind }
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

    pub fn publish(&self, event: EventKind) {
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
