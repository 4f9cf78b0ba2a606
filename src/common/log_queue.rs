//! The log of either program, on its way to stderr: a bounded queue and a thread that writes it.
//!
//! Owns that no thread that logs waits for the reader of the log: a pager, a stopped terminal or a full pipe would
//! otherwise stop the server's event loop, or the client's heartbeats. When the queue is full, lines are left out, and one
//! line says how many. Must not know the format of a line: the logger that a program passes makes it.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use log::kv::Value;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::sync::atomic::{AtomicU64, Ordering};
use super::sync::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use super::threads;

/// Lines that wait to be written. A server writes two for a command.
const QUEUE_MAX_LINES: usize = 4_096;
/// How long a program that ends waits for the reader of stderr.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Sets the program's logger: `format` makes one that writes each line, with its end, to the queue. An error says that there is
/// no thread for it; without one, or with a logger that is set already, nothing changes.
pub fn init(
    level: LevelFilter,
    to: impl Write + Send + 'static,
    format: impl FnOnce(LineQueue) -> Box<dyn Log>,
) -> io::Result<()> {
    let logger = QueuedLogger::start(to, format)?;
    let _ = log::set_boxed_logger(Box::new(logger)).map(|()| log::set_max_level(level));
    Ok(())
}

/// Before the program ends: writes what was logged to the end, and then the error that ends it. Waits for a reader that does
/// not read for half a second each.
pub fn finish(error: Option<String>) {
    log::logger().flush();
    let Some(error) = error else { return };
    let (done, written) = bounded(1);
    threads::spawn_or_run("error", move || {
        // A closed stderr is not a fault of the program.
        let _ = writeln!(io::stderr(), "{error}");
        let _ = done.send(());
    });
    let _ = written.recv_timeout(FLUSH_TIMEOUT);
}

enum LogEntry {
    Line(Vec<u8>),
    /// Dropped when everything before it is written.
    Flush {
        _written: Sender<()>,
    },
}

pub(super) struct QueuedLogger {
    format: Box<dyn Log>,
    queue: Sender<LogEntry>,
    /// Lines left out since the last line that says so.
    left_out: Arc<AtomicU64>,
}

impl QueuedLogger {
    pub(super) fn start(
        to: impl Write + Send + 'static,
        format: impl FnOnce(LineQueue) -> Box<dyn Log>,
    ) -> io::Result<Self> {
        let (queue, messages) = bounded(QUEUE_MAX_LINES);
        threads::spawn("log", move || write_lines(&messages, to))?;
        let left_out = Arc::new(AtomicU64::new(0));
        let lines = LineQueue { line: Vec::new(), queue: queue.clone(), left_out: Arc::clone(&left_out) };
        Ok(Self { format: format(lines), queue, left_out })
    }

    /// Whether everything queued was written in time.
    fn wait_until_written(&self) -> bool {
        let (_written, written) = bounded(0);
        self.queue.send_timeout(LogEntry::Flush { _written }, FLUSH_TIMEOUT).is_ok()
            && written.recv_timeout(FLUSH_TIMEOUT) == Err(RecvTimeoutError::Disconnected)
    }

    /// Logs how many lines were left out, when half of the queue is free again: so there is room for that line.
    fn report_left_out(&self) {
        if self.left_out.load(Ordering::Relaxed) == 0 || self.queue.len() > QUEUE_MAX_LINES / 2 {
            return;
        }
        let count = self.left_out.swap(0, Ordering::Relaxed);
        if count > 0 {
            let text = format_args!("{count} lines of the log were left out here, because nobody read it");
            let fields = [("event", Value::from("lines_left_out")), ("count", Value::from(count))];
            let mut record = Record::builder();
            // An error, so that it is written at every level.
            record.level(Level::Error).target(module_path!()).args(text).key_values(&fields);
            self.format.log(&record.build());
        }
    }
}

impl Log for QueuedLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.format.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.report_left_out();
        // Until the gap is reported, so that it is one gap and the report is in its place.
        if self.left_out.load(Ordering::Relaxed) > 0 {
            self.left_out.fetch_add(u64::from(self.enabled(record.metadata())), Ordering::Relaxed);
            return;
        }
        self.format.log(record);
    }

    fn flush(&self) {
        self.report_left_out();
        // A reader that came late has made room for the report.
        if self.wait_until_written() && self.left_out.load(Ordering::Relaxed) > 0 {
            self.report_left_out();
            self.wait_until_written();
        }
    }
}

/// Collects the pieces of a line and queues it.
pub struct LineQueue {
    line: Vec<u8>,
    queue: Sender<LogEntry>,
    left_out: Arc<AtomicU64>,
}

impl Write for LineQueue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") && self.queue.try_send(LogEntry::Line(std::mem::take(&mut self.line))).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(messages: &Receiver<LogEntry>, mut to: impl Write) {
    for message in messages {
        if let LogEntry::Line(line) = message {
            // A failure cannot be reported anywhere.
            let _ = to.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use simplelog::{Config, WriteLogger};

    use super::*;

    /// A stream of which every write waits until the test receives it.
    struct SlowReader(mpsc::SyncSender<String>);

    impl Write for SlowReader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let line = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.send(line).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(to: SlowReader) -> QueuedLogger {
        QueuedLogger::start(to, |lines| WriteLogger::new(LevelFilter::Info, Config::default(), lines)).unwrap()
    }

    fn log(logger: &QueuedLogger, text: &str) {
        logger.log(&Record::builder().level(Level::Info).args(format_args!("{text}")).build());
    }

    #[test]
    fn nobody_waits_for_a_reader_and_a_line_says_how_many_were_left_out() {
        let (to, reader) = mpsc::sync_channel(0);
        let logger = start(SlowReader(to));
        let lines = 3 * QUEUE_MAX_LINES;
        (0..lines).for_each(|at| log(&logger, &format!("line {at}")));
        // Nobody reads: this ends all the same.
        logger.flush();
        let mut written: Vec<String> = (0..QUEUE_MAX_LINES).map(|_| reader.recv().unwrap()).collect();
        log(&logger, "the last");
        drop(logger);
        written.extend(reader);
        assert!(written.iter().all(|line| line.ends_with('\n') && line.matches('\n').count() == 1));
        let said = written.iter().position(|line| line.contains("were left out here")).expect("a line says so");
        let left_out = format!(" {} lines of the log", lines - said);
        assert!(written[said].contains(&left_out), "{}", written[said]);
        assert!(written[said - 1].ends_with(&format!("line {}\n", said - 1)), "in its place");
        assert_eq!(written.len(), said + 2);
        assert!(written[said + 1].ends_with("the last\n"));
    }

    #[test]
    fn a_reader_that_comes_at_the_end_is_told_of_the_gap_too() {
        let (to, reader) = mpsc::sync_channel(0);
        let logger = start(SlowReader(to));
        (0..3 * QUEUE_MAX_LINES).for_each(|at| log(&logger, &format!("line {at}")));
        let written = std::thread::spawn(move || reader.iter().collect::<Vec<String>>());
        logger.flush();
        drop(logger);
        let written = written.join().unwrap();
        assert!(written.last().unwrap().contains("were left out here"), "{:?}", written.last());
    }

    #[test]
    fn a_reader_slower_than_the_log_is_told_of_one_gap_rather_than_many() {
        let (to, reader) = mpsc::sync_channel(0);
        let logger = start(SlowReader(to));
        (0..2 * QUEUE_MAX_LINES).for_each(|_| log(&logger, "a line"));
        let mut written: Vec<String> = Vec::new();
        for _ in 0..QUEUE_MAX_LINES / 4 {
            written.push(reader.recv().unwrap());
            log(&logger, "one of two");
            log(&logger, "two of two");
        }
        written.extend((written.len()..QUEUE_MAX_LINES).map(|_| reader.recv().unwrap()));
        log(&logger, "the last");
        drop(logger);
        written.extend(reader);
        let gaps: Vec<&String> = written.iter().filter(|line| line.contains("were left out here")).collect();
        assert_eq!(gaps.len(), 1, "{gaps:?}");
        let left_out = 5 * QUEUE_MAX_LINES / 2 - (written.len() - 2);
        assert!(gaps[0].contains(&format!(" {left_out} lines of the log")), "{left_out}: {gaps:?}");
    }

    #[test]
    fn a_flush_waits_for_what_was_logged() {
        let (to, reader) = mpsc::sync_channel(QUEUE_MAX_LINES);
        let logger = start(SlowReader(to));
        (0..100).for_each(|_| log(&logger, "a line"));
        logger.flush();
        assert_eq!(reader.try_iter().count(), 100);
    }
}
