//! Lines above the prompt at which the user types. The line editor takes them only while it reads a line: a thread waits for
//! it, and nothing else of the client does.

use std::convert::Infallible;
use std::time::Duration;

use crate::common::sync::channel::{Receiver, Sender, bounded};
use crate::common::sync::{Mutex, lock};
use crate::common::threads;

/// Lines that wait to be printed. Beyond it a job waits.
const QUEUE_MAX: usize = 64;
/// How long the lines that wait may take once there is no prompt any more.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Prints lines above the prompt. It may wait for the next prompt.
pub type PromptPrinter = Box<dyn FnMut(String) + Send>;

/// The prompt at which the user types, if there is one.
#[derive(Default)]
pub(super) struct Prompt(Mutex<Option<PromptQueue>>);

impl Prompt {
    /// From now on lines are printed by `printer`. What was handed to the last one is printed before: until then, who prints
    /// waits.
    pub fn set_printer(&self, printer: Option<PromptPrinter>) {
        let queue = printer.and_then(PromptQueue::start);
        *lock(&self.0) = queue;
    }

    /// Prints above the prompt; without one, as `write` does.
    pub fn print(&self, line: String, write: impl FnOnce(String)) {
        let lines = lock(&self.0).as_ref().and_then(|queue| queue.lines.clone());
        match lines {
            // The thread that takes them ends with their last sender.
            Some(lines) => drop(lines.send(line)),
            None => write(line),
        }
    }
}

/// See the [module](self). Dropping it waits until its lines are printed.
struct PromptQueue {
    lines: Option<Sender<String>>,
    /// Disconnects when the thread has ended.
    printed: Receiver<Infallible>,
}

impl PromptQueue {
    /// `None` if there is no thread for it.
    fn start(mut print: PromptPrinter) -> Option<Self> {
        let (lines, queued) = bounded(QUEUE_MAX);
        let (printing, printed) = bounded(0);
        let print_all = move || {
            let _printing = printing;
            queued.iter().for_each(&mut print);
        };
        threads::spawn("prompt", print_all).ok()?;
        Some(Self { lines: Some(lines), printed })
    }
}

impl Drop for PromptQueue {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.printed.recv_timeout(DRAIN_TIMEOUT);
    }
}
