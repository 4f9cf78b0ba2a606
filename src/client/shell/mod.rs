//! The four ways in: where lines come from, and what a failure among them means.

pub mod command;
mod completion;
mod interactive;
pub mod interrupt;
pub mod path_arg;
mod script;
pub mod tokenizer;

use crate::client::commands::CommandContext;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::Command;

pub use interactive::run as run_interactive;
pub use script::{Script, run as run_script};

/// How the commands ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellExit {
    /// The login of `-u` failed: there is nothing to say goodbye to.
    Refused(ExitCode),
    /// The client leaves, with this status.
    Leave(ExitCode),
    /// All is done, and the client stays online.
    Stay,
}

/// What one line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineOutcome {
    Done(ExitCode),
    Exit,
}

/// Runs one line.
fn execute(context: &CommandContext, line: &[u8]) -> LineOutcome {
    let _busy = context.life.begin_command();
    match command::parse(line) {
        Ok(None) => LineOutcome::Done(ExitCode::Success),
        Ok(Some(Command::Exit)) => LineOutcome::Exit,
        Ok(Some(command)) => LineOutcome::Done(context.run(command)),
        Err(error) => LineOutcome::Done(context.report_error(&first_word(line), ExitCode::Usage, error)),
    }
}

fn first_word(line: &[u8]) -> String {
    let words = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    String::from_utf8_lossy(words.unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
