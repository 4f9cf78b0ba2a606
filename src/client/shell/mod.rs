//! The shell: where command lines come from (a terminal, a pipe, `-b`, `-c`), what they mean, and what a failure among
//! them means.

pub mod command;
mod completion;
mod interactive;
pub mod interrupt;
pub mod path_arg;
mod script;
pub mod tokenizer;

use crate::client::commands::{CommandContext, Verb, auth, get, help_text, lists, publish, search, wait};
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::Command;
use crate::client::ui::report::Report;

pub use interactive::run as run_interactive;
pub use script::{Script, run as run_script};

/// How the shell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShellExit {
    /// The login of `-u` failed: the client exits without `Goodbye!`.
    Refused(ExitCode),
    /// The client exits with this status.
    Leave(ExitCode),
    /// All commands have run, and the client stays online.
    Stay,
}

/// How one line came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineOutcome {
    Done(ExitCode),
    Exit,
}

/// Parses and runs one line.
fn execute(context: &CommandContext, line: &[u8]) -> LineOutcome {
    let _running = context.state.begin_command();
    match command::parse(line) {
        Ok(None) => LineOutcome::Done(ExitCode::Success),
        Ok(Some(Command::Xit)) => LineOutcome::Exit,
        Ok(Some(command)) => LineOutcome::Done(run_command(context, command)),
        Err(error) => LineOutcome::Done(context.report_error(&first_word(line), ExitCode::Usage, error)),
    }
}

/// Runs one command to its end. `xit` has nothing to run here.
pub fn run_command(context: &CommandContext, command: Command) -> ExitCode {
    let verb = command.verb();
    if !matches!(verb, Verb::Auth | Verb::Help | Verb::Xit) && context.session.user().is_none() {
        return context.not_authenticated(verb);
    }
    match command {
        Command::Auth { user, password } => auth::auth_command(context, &user, password),
        Command::Get { files, share, wait } => {
            if let Some(timeout) = wait {
                wait::for_files(context, &files, timeout);
            }
            get::run(context, &files, share)
        }
        Command::Help { verb } => {
            context.console.report(&Report::Help(&help_text(verb)));
            ExitCode::Success
        }
        Command::Lap => lists::active_peers(context),
        Command::Lpf => lists::published_files(context),
        Command::Pub { to, files } => publish::publish(context, to, &files),
        Command::Sch { substring, ignore_case, long } => search::run(context, substring, ignore_case, long),
        Command::Unp { files } => publish::unpublish(context, &files),
        Command::Wait { target } => {
            let (condition, timeout) = target.into_parts();
            wait::run(context, condition, timeout)
        }
        Command::Xit => ExitCode::Success,
    }
}

fn first_word(line: &[u8]) -> String {
    let words = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    String::from_utf8_lossy(words.unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
