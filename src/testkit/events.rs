//! What happens to a test client and to what it may see.

use std::marker::PhantomData;
use std::time::Duration;

use crossbeam_channel::{Receiver, after};

use super::{CommandError, TestClient};
use crate::client::ExitCode;
use crate::client::engine::ClientEngine;
use crate::client::events::{EventKind, EventStream, Streamed};
use crate::client::files::Pattern;
use crate::client::ui::message::TIMED_OUT;

/// The events of a client, in order. See [`TestClient::events`].
pub struct TestEvents<'a> {
    stream: EventStream,
    /// A client that is killed has no events.
    client: PhantomData<&'a TestClient>,
}

impl TestEvents<'_> {
    pub(super) fn of(engine: &ClientEngine, patterns: &[&str]) -> Result<Self, CommandError> {
        let parse = |text: &&str| {
            let pattern = Pattern::parse(text).ok().filter(Pattern::is_within_limits);
            pattern.ok_or_else(|| {
                failure(format!("{text}: no name, or a pattern with too many wildcards"), ExitCode::Usage)
            })
        };
        let patterns = patterns.iter().map(parse).collect::<Result<_, _>>()?;
        let stream = EventStream::new(engine.uploads.events(), &engine.lists, patterns);
        let stream = stream.map_err(|error| failure(error.to_string(), (&error).into()))?;
        Ok(Self { stream, client: PhantomData })
    }

    /// The next event. Without one within this time, the error has [`ExitCode::TimedOut`]. If more than 4,096 were not
    /// fetched in time, the error says how many are lost.
    pub fn next(&mut self, timeout: Duration) -> Result<EventKind, CommandError> {
        self.next_until(&after(timeout))
    }

    /// Takes events up to one that is wanted, within this time in all. Returns it.
    pub fn wait_for(
        &mut self,
        timeout: Duration,
        mut is_wanted: impl FnMut(&EventKind) -> bool,
    ) -> Result<EventKind, CommandError> {
        let until = after(timeout);
        loop {
            let event = self.next_until(&until)?;
            if is_wanted(&event) {
                return Ok(event);
            }
        }
    }

    fn next_until<T>(&mut self, until: &Receiver<T>) -> Result<EventKind, CommandError> {
        match self.stream.next(until) {
            Some(Streamed::Event(event)) => Ok(event.kind),
            Some(Streamed::Dropped(count)) => Err(failure(format!("{count} events were dropped"), ExitCode::Internal)),
            None => Err(failure(TIMED_OUT.into(), ExitCode::TimedOut)),
        }
    }
}

fn failure(reason: String, code: ExitCode) -> CommandError {
    CommandError { command: "events".into(), reason, code }
}
