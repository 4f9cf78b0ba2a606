//! What commands write to an attached side. Results and notes wait for its reader; progress and events never do.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::protocol::SideOptions;
use crate::client::ui::message::{Message, MessageBody, Note, NoteLevel};
use crate::client::ui::output::MessageSink;
use crate::common::sync::lock;

/// Writes messages to an attached side.
pub struct SocketSink {
    stream: Mutex<SinkStream>,
    wants_progress: bool,
    /// Whether a note says what was dropped.
    counts_dropped: bool,
    has_ended: AtomicBool,
}

struct SinkStream {
    stream: UnixStream,
    /// Messages since the last note about them.
    dropped: u64,
}

impl SocketSink {
    pub fn new(stream: UnixStream, options: &SideOptions) -> Self {
        Self {
            stream: Mutex::new(SinkStream { stream, dropped: 0 }),
            wants_progress: options.wants_progress,
            counts_dropped: options.json,
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
        let mut sink = lock(&self.stream);
        let may_be_dropped = matches!(message.body, MessageBody::Progress(_) | MessageBody::Event(_));
        if may_be_dropped && !is_writable(&sink.stream) {
            sink.dropped += 1;
            return None;
        }
        let mut lines = String::new();
        if sink.dropped > 0 && self.counts_dropped {
            let text = format!("messages dropped, because their reader was slow: {}", sink.dropped);
            let note = MessageBody::Note(Note { text, level: NoteLevel::Info });
            lines = Message::new(message.id.clone(), note).to_json() + "\n";
        }
        sink.dropped = 0;
        lines += &(message.to_json() + "\n");
        if sink.stream.write_all(lines.as_bytes()).is_err() {
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
    use std::io::Read;

    use super::*;
    use crate::client::download::OnExists;
    use crate::client::ui::message::FileProgress;

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
    fn a_reader_that_has_gone_ends_the_output() {
        let (sink, reader) = sink(true);
        drop(reader);
        sink.receive(error());
        assert!(sink.has_ended());
    }
}
