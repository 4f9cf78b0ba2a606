//! Lines above the prompt at which the user types. The line editor takes them only while it reads a line: a thread waits for
//! it, and nothing else of the client does.

use std::convert::Infallible;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::common::threads;

/// Lines that wait to be printed. Beyond it a job waits.
const QUEUE_MAX: usize = 64;
/// How long the lines that wait may take once there is no prompt any more.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Prints lines above the prompt. It may wait for the next prompt.
pub type PromptPrinter = Box<dyn FnMut(String) + Send>;

/// See the [module](self). Dropping it waits until its lines are printed.
pub(super) struct PromptQueue {
    lines: Option<Sender<String>>,
    /// Disconnects when the thread has ended.
    printed: Receiver<Infallible>,
}

impl PromptQueue {
    /// `None` if there is no thread for it.
    pub fn start(mut print: PromptPrinter) -> Option<Self> {
        let (lines, queued) = bounded(QUEUE_MAX);
        let (printing, printed) = bounded(0);
        let print_all = move || {
            let _printing = printing;
            queued.iter().for_each(&mut print);
        };
        threads::spawn("prompt", print_all).ok()?;
        Some(Self { lines: Some(lines), printed })
    }

    /// Where to send lines.
    pub fn lines(&self) -> Option<Sender<String>> {
        self.lines.clone()
    }
}

impl Drop for PromptQueue {
    fn drop(&mut self) {
        self.lines = None;
        let _ = self.printed.recv_timeout(DRAIN_TIMEOUT);
    }
}
