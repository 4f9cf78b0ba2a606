//! `events` and `--events`: what happens to this client and to what it may see, until the command is cancelled.

use std::io;

use super::selector::Selector;
use super::{CommandContext, Verb};
use crate::client::cancel::Cancelled;
use crate::client::control::RequestError;
use crate::client::events::{EventStream, Streamed};
use crate::client::exit_code::ExitCode;
use crate::client::files::{PathArg, Pattern};
use crate::client::ui::output::Output;
use crate::common::threads;

/// Reports events until the command is cancelled or nobody reads them: those of the client, of all peers, and of the files
/// that the arguments select.
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
        Ok(stream) => report(stream, &context.output, &context.state.cancelled()),
        Err(RequestError::NotAuthenticated) => context.not_authenticated(Verb::Events),
        Err(error) => context.report_error(Verb::Events.name(), (&error).into(), error),
    }
}

/// Reports events without names of files beside the commands of a context, from now on until `ended` disconnects.
pub fn start(context: &CommandContext, ended: Cancelled) -> io::Result<()> {
    let output = context.output.of_none();
    let stream = EventStream::new(context.uploads.events(), &context.lists, Vec::new());
    let stream = stream.map_err(|error| io::Error::other(error.to_string()))?;
    threads::spawn("events", move || report(stream, &output, &ended)).map(drop)
}

fn report(mut stream: EventStream, output: &Output, cancelled: &Cancelled) -> ExitCode {
    while let Some(streamed) = stream.next(cancelled) {
        match streamed {
            Streamed::Event(event) => output.event(event.time, event.kind),
            Streamed::Dropped(count) => output.info(format!("{count} events were dropped: their reader is too slow")),
        }
        if output.has_ended() {
            return ExitCode::Success;
        }
    }
    ExitCode::Interrupted
}

fn to_pattern(argument: &PathArg) -> Option<Pattern> {
    match Selector::of(argument).ok()? {
        Selector::Pattern(pattern, _) => Some(pattern),
        Selector::Name { name, .. } => name.map(|name| Pattern::name(&name)),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::commands::test_support::TestClient;
    use crate::client::exit_code::ExitCode;

    #[test]
    fn events_need_a_login_and_patterns_within_bounds() {
        let (code, out, _) = TestClient::new().run("events");
        assert_eq!((code, &*out), (ExitCode::NotAuthenticated, "Please authenticate first\n"));
        let client = TestClient::logged_in();
        assert_eq!(client.run(&format!("events {}", "?".repeat(65))).0, ExitCode::Usage);
        assert_eq!(client.run(&format!("events {}", "x".repeat(600))).0, ExitCode::Usage);
    }
}
