//! What a command has said, and whether it has failed.

use std::sync::Mutex;

use super::CommandError;
use crate::client::ExitCode;
use crate::client::ui::message::{CommandResult, Message, MessageBody, NoteLevel};
use crate::client::ui::output::MessageSink;
use crate::common::sync::lock;

/// The results of a command, if it has the exit status 0.
pub(super) fn results_of(command: &str, messages: Vec<Message>) -> Result<Vec<CommandResult>, CommandError> {
    let (mut results, mut reason, mut code) = (Vec::new(), None, ExitCode::Success);
    for message in messages {
        match message.body {
            MessageBody::Result(result) => results.push(result),
            MessageBody::Note(note) if note.level == NoteLevel::Error => drop(reason.get_or_insert(note.text)),
            MessageBody::End(end) => code = end.code,
            MessageBody::Note(_) | MessageBody::Progress(_) | MessageBody::Event(_) => {}
        }
    }
    if code.is_success() {
        return Ok(results);
    }
    Err(CommandError { command: command.into(), reason: reason.unwrap_or_else(|| failure_text(&results)), code })
}

/// The text of a failure that has no note.
fn failure_text(results: &[CommandResult]) -> String {
    results.iter().map(CommandResult::to_text).collect::<String>().trim_end().to_owned()
}

/// Keeps the messages of a command.
#[derive(Default)]
pub(super) struct Collector(pub(super) Mutex<Vec<Message>>);

impl MessageSink for Collector {
    fn receive(&self, message: Message) {
        lock(&self.0).push(message);
    }
}
