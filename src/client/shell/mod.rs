//! The four ways in: where lines come from, and what a failure among them means.

mod complete;
mod script;
mod terminal;

use crate::client::command::{self, Command};
use crate::client::commands::Context;
use crate::client::exit_code::ExitCode;

pub use script::{Script, run as run_script};
pub use terminal::run as run_terminal;

/// How the commands ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The login of `-u` failed: there is nothing to say goodbye to.
    Refused(ExitCode),
    /// The client leaves, with this status.
    Leave(ExitCode),
    /// All is done, and the client stays online.
    Stay,
}

/// What one line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done(ExitCode),
    Exit,
}

/// Runs one line.
fn execute(context: &Context, line: &[u8]) -> Step {
    let _busy = context.life.command();
    match command::parse(line) {
        Ok(None) => Step::Done(ExitCode::Success),
        Ok(Some(Command::Exit)) => Step::Exit,
        Ok(Some(command)) => Step::Done(context.run(command)),
        Err(error) => Step::Done(context.trouble(&first_word(line), ExitCode::Usage, error)),
    }
}

fn first_word(line: &[u8]) -> String {
    let words = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    String::from_utf8_lossy(words.unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
