//! Reports what happens to the session to the user, on stderr.
//!
//! The control thread must not wait for a reader of stderr: a pager, a stopped terminal or a full pipe would end the
//! session. So it puts its lines into a bounded queue, and a thread prints them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::client::engine::SessionEvent;
use crate::client::ui::output::Output;
use crate::common::threads;

/// Lines that wait to be printed; further ones are dropped.
const QUEUE_MAX: usize = 64;

/// Called when the user has been logged out.
type LogoutCallback = Arc<dyn Fn() + Send + Sync>;

/// Prints what happens to the session.
pub struct SessionObserver {
    on_logout: LogoutCallback,
    queue: SyncSender<QueuedMessage>,
}

enum QueuedMessage {
    Line(String),
    LoggedOut,
}

impl SessionObserver {
    /// Starts the printing thread, which ends with the observer. `on_logout` is called after the line that reports the
    /// logout, so that its consequences are printed later.
    pub fn start(output: Output, on_logout: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let (queue, messages) = sync_channel(QUEUE_MAX);
        let on_logout: LogoutCallback = Arc::new(on_logout);
        let callback = Arc::clone(&on_logout);
        threads::spawn("observer", move || print(&messages, &output.of_none(), &*callback))?;
        Ok(Self { on_logout, queue })
    }

    /// Does not block.
    pub fn on_event(&self, event: SessionEvent) {
        match event {
            SessionEvent::ConnectionLost => log::info!("the server does not answer: reconnecting"),
            SessionEvent::Reconnected => self.print_async("reconnected".into()),
            SessionEvent::LoggedOut => {
                if self.queue.try_send(QueuedMessage::LoggedOut).is_err() {
                    (self.on_logout)();
                }
            }
            SessionEvent::FileChanged(name) => self.print_async(format!(
                "{name}: is not what was published any more and cannot be fetched: publish it again, or unpublish it"
            )),
            SessionEvent::Resynced { files } => {
                self.print_async(format!("publications lost by the server and published again: {files}"));
            }
        }
    }

    fn print_async(&self, line: String) {
        // A full queue has no reader.
        let _ = self.queue.try_send(QueuedMessage::Line(line));
    }
}

fn print(messages: &Receiver<QueuedMessage>, output: &Output, on_logout: &dyn Fn()) {
    for message in messages {
        match message {
            QueuedMessage::Line(line) => output.info(line),
            QueuedMessage::LoggedOut => {
                output.info("logged out by the server");
                on_logout();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::client::ui::console::{Console, OutputOptions};
    use crate::client::ui::message::CommandResult;

    /// Far longer than anything here takes.
    const TIMEOUT: Duration = Duration::from_secs(60);

    /// A stream that blocks until `resume` is sent.
    struct BlockedStream {
        entered: Sender<()>,
        resume: Receiver<()>,
    }

    impl Write for BlockedStream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.resume.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Lines(Sender<String>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_control_thread_does_not_wait_for_a_reader() {
        let ((entered, has_entered), (resume_sender, resume), (err, lines)) = (channel(), channel(), channel());
        let stdout = Box::new(BlockedStream { entered, resume });
        let console = Console::with_writers(OutputOptions::default(), stdout, Box::new(Lines(err.clone())));
        let output = Output::new(Arc::new(console));
        let printing = output.clone();
        let command = std::thread::spawn(move || printing.result(CommandResult::goodbye()));
        has_entered.recv_timeout(TIMEOUT).expect("the command thread holds the streams");

        let observer = SessionObserver::start(output, move || _ = err.send("the event".into())).unwrap();
        let (done, is_done) = channel();
        let control = std::thread::spawn(move || {
            observer.on_event(SessionEvent::LoggedOut);
            (0..10 * QUEUE_MAX).for_each(|files| observer.on_event(SessionEvent::Resynced { files }));
            done.send(()).unwrap();
            observer
        });
        is_done.recv_timeout(TIMEOUT).expect("nothing blocks, and lines beyond the queue are dropped");
        assert!(lines.try_recv().is_err(), "nothing is printed while the streams are held");

        drop(resume_sender);
        let next = || lines.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(next(), "client: logged out by the server\n");
        assert_eq!(next(), "the event", "after its line");
        assert_eq!(next(), "client: publications lost by the server and published again: 0\n");
        drop(control.join().unwrap());
        command.join().unwrap();
    }
}
