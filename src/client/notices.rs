//! Tells what becomes of the session, to the share and to whoever reads stderr.
//!
//! The control thread must not wait for a reader: a pager, a stopped terminal or a full pipe would end the session. So it
//! leaves its lines in a bounded queue, and a thread of this room's own prints them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::client::control::Observer;
use crate::client::ui::console::Console;
use crate::client::upload::UploadService;
use crate::common::crypto::Secret;
use crate::common::handshake_keys::SessionParams;
use crate::common::types::UserName;

/// Lines that wait to be printed; while nobody reads, further ones are left out.
const WAITING_MAX: usize = 64;

/// Called when the user is not logged in any more.
type LoggedOut = Arc<dyn Fn() + Send + Sync>;

/// The client's observer of its session.
pub struct Notices {
    share: Arc<UploadService>,
    logged_out: LoggedOut,
    lines: SyncSender<Line>,
}

enum Line {
    Notice(String),
    LoggedOut,
}

impl Notices {
    /// Starts the thread, which ends with the observer. `logged_out` is called after the line that tells of it, so that
    /// what follows from it comes later.
    pub fn start(
        share: Arc<UploadService>,
        console: Arc<Console>,
        logged_out: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let logged_out: LoggedOut = Arc::new(logged_out);
        let told = Arc::clone(&logged_out);
        std::thread::Builder::new().name("notices".into()).spawn(move || print(&waiting, &console, &*told))?;
        Ok(Self { share, logged_out, lines })
    }

    /// What does not fit is left out: nobody reads it.
    fn notice(&self, text: String) {
        let _ = self.lines.try_send(Line::Notice(text));
    }
}

fn print(waiting: &Receiver<Line>, console: &Console, logged_out: &dyn Fn()) {
    for line in waiting {
        match line {
            Line::Notice(text) => console.info_async(text),
            Line::LoggedOut => {
                console.info_async("logged out by the server");
                logged_out();
            }
        }
    }
}

impl Observer for Notices {
    fn session_started(&self, _: &UserName, welcome: &SessionParams, ticket_key: &Secret, resumed: bool) {
        self.share.ticket_key(ticket_key, welcome.server_time_ms);
        if resumed {
            self.notice("reconnected".into());
        }
    }

    fn connection_lost(&self) {
        log::info!("the server does not answer: reconnecting");
    }

    fn logged_out(&self) {
        if self.lines.try_send(Line::LoggedOut).is_err() {
            (self.logged_out)();
        }
    }

    fn resynced(&self, files: usize) {
        self.notice(format!("publications lost by the server and published again: {files}"));
    }

    fn free_slots(&self) -> u8 {
        self.share.free_slots()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::client::ui::console::OutputOptions;
    use crate::client::ui::report::Report;

    /// Long enough that only what waits for ever takes it.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A stream whose reader does not read until it is told to.
    struct Stuck {
        entered: Sender<()>,
        go_on: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.go_on.recv();
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
    fn the_control_thread_waits_for_no_reader() {
        let folder = tempfile::tempdir().unwrap();
        let ((entered, has_entered), (let_go, go_on), (err, lines)) = (channel(), channel(), channel());
        let stdout = Box::new(Stuck { entered, go_on });
        let console = Arc::new(Console::with_writers(OutputOptions::default(), stdout, Box::new(Lines(err.clone()))));
        let printing = Arc::clone(&console);
        let command = std::thread::spawn(move || printing.report(&Report::Goodbye));
        has_entered.recv_timeout(PATIENCE).expect("the command's thread holds the streams");

        let share = UploadService::open(folder.path(), 1).unwrap();
        let notices = Notices::start(share, Arc::clone(&console), move || _ = err.send("the event".into())).unwrap();
        let (done, is_done) = channel();
        let control = std::thread::spawn(move || {
            notices.logged_out();
            (0..10 * WAITING_MAX).for_each(|files| notices.resynced(files));
            done.send(()).unwrap();
            notices
        });
        is_done.recv_timeout(PATIENCE).expect("nothing blocks, and what is too much is left out");
        assert!(lines.try_recv().is_err(), "nothing is printed while the streams are held");

        drop(let_go);
        let next = || lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(next(), "client: logged out by the server\n");
        assert_eq!(next(), "the event", "after its line");
        assert_eq!(next(), "client: publications lost by the server and published again: 0\n");
        drop(control.join().unwrap());
        command.join().unwrap();
    }
}
