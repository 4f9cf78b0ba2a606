//! What commands write to an attached side. All but progress waits for its reader: events are counted where they are
//! queued, and lists of peers and files lose nothing.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::SideOptions;
use crate::client::ui::message::{Message, MessageBody, Note, NoteLevel};
use crate::client::ui::output::MessageSink;
use crate::common::sync::lock;

/// Writes messages to an attached side.
pub struct SocketSink {
    /// Locked while a message is written.
    stream: Mutex<()>,
    socket: UnixStream,
    wants_progress: bool,
    /// Whether a note says how much progress was dropped.
    counts_dropped: bool,
    /// Since the last note about it.
    dropped: AtomicU64,
    has_ended: AtomicBool,
}

impl SocketSink {
    pub fn new(socket: UnixStream, options: &SideOptions) -> Self {
        Self {
            stream: Mutex::new(()),
            socket,
            wants_progress: options.wants_progress,
            counts_dropped: options.json,
            dropped: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        }
    }
}

impl MessageSink for SocketSink {
    fn receive(&self, message: Message) {
        // Nobody is there to be told that it is lost.
        let _ = self.offer(message);
    }

    fn offer(&self, message: Message) -> Option<Message> {
        // Before the lock, which another message may hold while it waits for the reader.
        if matches!(message.body, MessageBody::Progress(_)) && !is_writable(&self.socket) {
            self.dropped.fetch_add(1, SeqCst);
            return None;
        }
        let _writing = lock(&self.stream);
        let dropped = self.dropped.swap(0, SeqCst);
        let mut lines = String::new();
        if dropped > 0 && self.counts_dropped {
            let text = format!("messages dropped, because their reader was slow: {dropped}");
            let note = MessageBody::Note(Note { text, level: NoteLevel::Info });
            lines = Message::new(message.id.clone(), note).to_json() + "\n";
        }
        lines += &(message.to_json() + "\n");
        if (&self.socket).write_all(lines.as_bytes()).is_err() {
            self.has_ended.store(true, SeqCst);
            return Some(message);
        }
        None
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(SeqCst)
    }

    fn wants_progress(&self) -> bool {
        self.wants_progress
    }
}

/// Whether a line can be written without waiting: Linux calls a stream socket writable while a quarter of its buffer is in
/// use at most.
fn is_writable(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::client::download::OnExists;
    use crate::client::ui::message::{EventKind, FileProgress};
    use crate::client::ui::output::Output;
    use crate::common::threads;

    fn sink(json: bool) -> (SocketSink, UnixStream) {
        let (stream, reader) = UnixStream::pair().unwrap();
        let options =
            SideOptions { on_exists: OnExists::Error, retry_for_ms: 0, wants_progress: true, json, events: false };
        (SocketSink::new(stream, &options), reader)
    }

    fn progress(done: u64) -> Message {
        let name = "x".repeat(500);
        let progress = FileProgress { name, done, total: 1 << 20, rate: 0, command_done: done, command_total: 1 << 20 };
        Message::new(Some(1.into()), MessageBody::Progress(progress))
    }

    fn error() -> Message {
        Message::new(Some(1.into()), MessageBody::Note(Note { text: "why".into(), level: NoteLevel::Error }))
    }

    /// Sends far more progress than the socket holds, then a note; returns all lines.
    fn lines_after_flood(json: bool) -> Vec<String> {
        let (sink, mut reader) = sink(json);
        (0..5_000).for_each(|done| sink.receive(progress(done)));
        sink.receive(error());
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn progress_that_does_not_fit_is_dropped_and_counted() {
        let lines = lines_after_flood(true);
        let [sent @ .., count, last] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!(*last, error().to_json());
        assert!(count.contains(&format!("reader was slow: {}", 5_000 - sent.len())), "{count}");
        let lines = lines_after_flood(false);
        assert_eq!(lines.last(), Some(&error().to_json()));
        assert!(
            lines.len() < 5_000 && !lines.iter().any(|line| line.contains("slow")),
            "as text no progress is missed"
        );
    }

    #[test]
    fn events_wait_for_their_reader_and_none_is_dropped() {
        let (sink, reader) = sink(true);
        let output = Output::new(Arc::new(sink));
        let writer = output.clone();
        let told = threads::spawn("events", move || {
            for files in 0..5_000 {
                writer.event(SystemTime::UNIX_EPOCH, EventKind::Resynced { files });
            }
        });
        // Far more than the socket holds; nobody has read any of them.
        let lines = BufReader::new(reader).lines().take(5_000).map(Result::unwrap);
        for (line, seq) in lines.zip(1_u64..) {
            assert!(line.contains(&format!(r#""seq":{seq},"#)), "{seq}: {line}");
        }
        told.unwrap().join().unwrap();
    }

    #[test]
    fn a_reader_that_has_gone_ends_the_output() {
        let (sink, reader) = sink(true);
        drop(reader);
        sink.receive(error());
        assert!(sink.has_ended());
    }
}
