//! `events` and `--events`: what happens to this client and to what it may see, until the command is cancelled.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::selector::Selector;
use super::{CommandContext, Verb};
use crate::client::cancel::Cancelled;
use crate::client::control::RequestError;
use crate::client::events::{EventStream, Streamed};
use crate::client::exit_code::ExitCode;
use crate::client::files::{PathArg, Pattern};
use crate::client::ui::output::Output;
use crate::common::threads;

/// How long the reader of events may take to get each of the last ones.
const REST_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports events until the command is cancelled or nobody reads them: those of the client, of all peers, and of the files
/// that the arguments select, or that are followed or waited for.
pub fn run(context: &CommandContext, arguments: &[PathArg]) -> ExitCode {
    let mut patterns = Vec::new();
    for argument in arguments {
        match to_pattern(argument).filter(Pattern::is_within_limits) {
            Some(pattern) => patterns.push(pattern),
            None => {
                let why = format!("{}: no name, or a pattern with too many wildcards", argument.text);
                return context.report_error(Verb::Events.name(), ExitCode::Usage, why);
            }
        }
    }
    match EventStream::new(context.uploads.events(), &context.lists, patterns) {
        Ok(mut stream) => report(&mut stream, &context.output, &context.state.cancelled()),
        Err(RequestError::NotAuthenticated) => context.not_authenticated(Verb::Events),
        Err(error) => context.report_error(Verb::Events.name(), (&error).into(), error),
    }
}

/// Reports events beside the commands of a context until it is dropped, which waits until those that have happened are
/// written, while their reader takes one in [`REST_TIMEOUT`] at least.
pub struct EventReporter {
    alive: Option<Sender<Infallible>>,
    /// Receives when the last events are written, and disconnects after them.
    written: Receiver<()>,
}

impl EventReporter {
    /// The same, however long the reader takes.
    pub fn finish(mut self) {
        self.alive = None;
        self.written.iter().for_each(drop);
    }
}

impl Drop for EventReporter {
    fn drop(&mut self) {
        self.alive = None;
        while self.written.recv_timeout(REST_TIMEOUT).is_ok() {}
    }
}

/// Reports events beside the commands of a context, from now on: of files only those that are followed or waited for.
pub fn start(context: &CommandContext) -> io::Result<EventReporter> {
    let output = context.output.of_none();
    let stream = EventStream::new(context.uploads.events(), &context.lists, Vec::new());
    let mut stream = stream.map_err(|error| io::Error::other(error.to_string()))?;
    let (alive, cancelled) = bounded(0);
    let (writing, written) = bounded(1);
    threads::spawn("events", move || {
        report(&mut stream, &output, &cancelled);
        for streamed in stream.take_rest() {
            tell(&output, streamed);
            let _ = writing.try_send(());
        }
    })?;
    Ok(EventReporter { alive: Some(alive), written })
}

fn report(stream: &mut EventStream, output: &Output, cancelled: &Cancelled) -> ExitCode {
    while let Some(streamed) = stream.next(cancelled) {
        tell(output, streamed);
        if output.has_ended() {
            return ExitCode::Success;
        }
    }
    ExitCode::Interrupted
}

fn tell(output: &Output, streamed: Streamed) {
    match streamed {
        Streamed::Event(event) => output.event(event.time, event.kind),
        // An error, so that `-q` does not leave it out.
        Streamed::Dropped(count) => output.error(format!("{count} events were dropped: their reader is too slow")),
    }
}

pub(super) fn to_pattern(argument: &PathArg) -> Option<Pattern> {
    match Selector::of(argument).ok()? {
        Selector::Pattern(pattern, _) => Some(pattern),
        Selector::Name { name, .. } => name.map(|name| Pattern::name(&name)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::commands::test_support::TestClient;
    use crate::client::events::EventKind;
    use crate::client::ui::message::{Message, MessageBody};
    use crate::client::ui::output::MessageSink;

    /// Blocks until the reader takes the message.
    struct SlowReader(Sender<Message>);

    impl MessageSink for SlowReader {
        fn receive(&self, message: Message) {
            let _ = self.0.send(message);
        }
    }

    #[test]
    fn the_last_events_wait_for_a_slow_reader() {
        let mut client = TestClient::logged_in();
        let (sink, reader) = bounded(0);
        client.context.output = Output::new(Arc::new(SlowReader(sink)));
        let reporter = start(&client.context).unwrap();
        for files in 0..5_000 {
            client.context.uploads.events().publish(EventKind::Resynced { files });
        }
        let finished = threads::spawn("finish", move || reporter.finish()).unwrap();
        drop(client);
        let (mut seqs, mut notes) = (Vec::new(), Vec::new());
        for message in reader {
            match message.body {
                MessageBody::Event(event) => seqs.push(event.seq),
                MessageBody::Note(note) => notes.push(note.text),
                other => panic!("{other:?}"),
            }
        }
        finished.join().unwrap();
        let dropped = 5_000 - seqs.len();
        assert!(seqs.into_iter().eq(1..=5_000 - dropped as u64), "without gaps");
        assert_eq!(notes, [format!("{dropped} events were dropped: their reader is too slow")]);
    }

    #[test]
    fn events_need_a_login_and_patterns_within_bounds() {
        let (code, out, _) = TestClient::new().run("events");
        assert_eq!((code, &*out), (ExitCode::NotAuthenticated, "Please authenticate first\n"));
        let client = TestClient::logged_in();
        assert_eq!(client.run(&format!("events {}", "?".repeat(65))).0, ExitCode::Usage);
        assert_eq!(client.run(&format!("events {}", "x".repeat(600))).0, ExitCode::Usage);
    }
}
