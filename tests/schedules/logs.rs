//! The queue of the log.

use std::io::{self, Write};
use std::sync::Arc;

use log::{Level, Log, Metadata, Record};
use shuttle::thread;

use super::log_queue::{LineQueue, QueuedLogger};
use super::sync::{Mutex, lock};

/// Formats lines as themselves.
struct Plain(Mutex<LineQueue>);

impl Log for Plain {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        writeln!(lock(&self.0), "{}", record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// A slow stderr.
#[derive(Clone, Default)]
struct Stderr(Arc<Mutex<Vec<u8>>>);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::yield_now();
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was logged before the program flushes its log, by any thread, is written when that returns, each line whole.
fn no_line_is_lost_at_the_end() {
    let stderr = Stderr::default();
    let logger = QueuedLogger::start(stderr.clone(), |lines| Box::new(Plain(Mutex::new(lines)))).unwrap();
    let logger = Arc::new(logger);
    let log = |logger: &QueuedLogger, text: &str| {
        logger.log(&Record::builder().level(Level::Info).args(format_args!("{text}")).build());
    };
    let threads = ["one", "two"].map(|text| {
        let logger = Arc::clone(&logger);
        thread::spawn(move || log(&logger, text))
    });
    log(&logger, "three");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    logger.flush();
    let written = String::from_utf8(lock(&stderr.0).clone()).unwrap();
    let mut lines: Vec<_> = written.split_inclusive('\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one\n", "three\n", "two\n"]);
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![("logs::no_line_is_lost_at_the_end", no_line_is_lost_at_the_end)]
}
