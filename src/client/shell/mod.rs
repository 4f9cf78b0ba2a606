//! The shell: where command lines come from (a terminal, a pipe, `-b`, `-c`), what they mean, and what a failure among
//! them means.

pub mod command;
mod completion;
pub mod input;
mod interactive;
pub mod interrupt;
pub mod path_arg;
mod script;
mod suggestion;
pub mod tokenizer;
mod usage_error;

use std::fmt::Display;
use std::slice;
use std::sync::Arc;

use crate::client::commands::follow::FollowOptions;
use crate::client::commands::get::{self, GetOptions};
use crate::client::commands::{
    CommandContext, CommandState, Verb, auth, cat, events, follow, help_page, help_text, jobs, lists, publish, search,
    wait, watch,
};
use crate::client::control::WaitCondition;
use crate::client::download::SaveAs;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::{Command, GetOutput, WaitTarget, job_text, strip_ignore_prefix};
use crate::client::shell::input::Input;
use crate::client::ui::message::{CommandId, CommandResult, HelpResult, True};
use crate::client::ui::output::{CommandRun, Output};
use crate::common::types::UserName;

pub use completion::{Completion, EngineCompleter, LineCompleter};
pub use interactive::run as run_interactive;
pub use script::{Script, run as run_script};

/// How the shell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellExit {
    /// The login of `-u` failed: the client exits without `Goodbye!`.
    Refused(ExitCode),
    /// The client exits with this status.
    Leave(ExitCode),
    /// The same because of this `xit`, which ends when the client has logged out.
    Xit(ExitCode, CommandRun),
    /// All commands have run, and the client stays online.
    Stay,
}

/// Runs the commands of a shell: this client, or the one that it is attached to.
pub trait CommandRunner {
    /// Runs one command, of which `line` is the text. Its messages go to the output of the shell, but for its end. `None`: it
    /// goes on as a job, and sends its end itself.
    fn run(&self, run: &CommandRun, command: Command, line: &[u8]) -> Option<ExitCode>;

    /// `stop`, after which the shell ends.
    fn stop(&self, _: &CommandRun) {}

    /// Who is logged in, for a prompt.
    fn user(&self) -> Option<UserName> {
        None
    }
}

impl CommandRunner for CommandContext {
    fn run(&self, run: &CommandRun, command: Command, line: &[u8]) -> Option<ExitCode> {
        run_or_start(self, run, command, line)
    }

    fn user(&self) -> Option<UserName> {
        self.session.user()
    }
}

/// Lines, and what runs them.
pub struct Shell<'a> {
    pub output: Output,
    pub state: Arc<CommandState>,
    /// Whether its input lines may be JSON objects.
    pub reads_json: bool,
    pub runner: &'a dyn CommandRunner,
}

impl<'a> Shell<'a> {
    /// Commands run in this process.
    pub fn over(context: &'a CommandContext, reads_json: bool) -> Self {
        Self { output: context.output.clone(), state: Arc::clone(&context.state), reads_json, runner: context }
    }
}

/// How one line came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineOutcome {
    Done(ExitCode),
    Exit(CommandRun),
}

/// Runs one line that is no part of a script.
#[cfg(feature = "testkit")]
pub fn run_line(context: &CommandContext, line: &[u8]) {
    execute(&Shell::over(context, false), line, false);
}

/// Runs one command that no line says, from its id to its end.
#[cfg(feature = "testkit")]
pub fn execute_command(context: &CommandContext, command: Command) {
    let _running = context.state.begin_command();
    let (run, name) = (context.output.begin(None), command.verb().name());
    let code = run_command(&context.of_command(&run), command);
    context.output.end(run, name, code);
}

/// Runs the command of one line, from its id to its end. `is_batch`: a leading `-` ignores a failure.
pub fn execute(shell: &Shell<'_>, line: &[u8], is_batch: bool) -> LineOutcome {
    let _running = shell.state.begin_command();
    let input = match Input::parse(line, shell.reads_json) {
        Ok(input) => input,
        Err(error) => return LineOutcome::Done(skip_line(&shell.output, error.id, ExitCode::Usage, error.why)),
    };
    if let Some(id) = input.id.as_ref().filter(|id| shell.output.is_running(id)) {
        let why = format!("the id {id} is in use by a command that has not ended");
        return LineOutcome::Done(skip_line(&shell.output, None, ExitCode::Usage, why));
    }
    let ignored = strip_ignore_prefix(&input.line).filter(|_| is_batch);
    let line = ignored.unwrap_or(&input.line);
    let command = command::parse(line);
    if command == Ok(None) && !input.is_json {
        return LineOutcome::Done(ExitCode::Success);
    }
    let run = shell.output.begin(input.id);
    let (name, code) = match command {
        Ok(Some(Command::Xit)) => return LineOutcome::Exit(run),
        Ok(Some(Command::Stop)) => {
            shell.runner.stop(&run);
            return LineOutcome::Exit(run);
        }
        // Without the runner, which may be a client that does not see this terminal.
        Ok(Some(Command::Help { verb })) => (Verb::Help.name().to_owned(), help(&shell.output.of(&run), verb)),
        Ok(Some(mut command)) => {
            if let Command::Job { ignores_failure, .. } = &mut command {
                *ignores_failure = ignored.is_some();
            }
            let name = command.verb().name().to_owned();
            match shell.runner.run(&run, command, line) {
                Some(code) => (name, code),
                None => return LineOutcome::Done(ExitCode::Success),
            }
        }
        Ok(None) => (String::new(), ExitCode::Success),
        Err(error) => {
            let (name, output) = (command_name(line), shell.output.of(&run));
            match output.columns() {
                Some(_) => output.error(error.to_text_for_person()),
                None => output.error(&error),
            }
            output.result(CommandResult::failed(&name, error.to_string(), ExitCode::Usage));
            (name, ExitCode::Usage)
        }
    };
    shell.output.end(run, &name, code);
    LineOutcome::Done(if ignored.is_some() { ExitCode::Success } else { code })
}

/// Reports that a line could not be read as a command.
fn skip_line(output: &Output, id: Option<CommandId>, code: ExitCode, why: impl Display) -> ExitCode {
    let run = output.begin(id);
    output.of(&run).error(why);
    output.end(run, "", code);
    code
}

/// Logs in for `-u`, as a command of its own.
pub fn log_in_at_startup(context: &CommandContext, user: &str) -> ExitCode {
    let _running = context.state.begin_command();
    let run = context.output.begin(None);
    let code = auth::login_at_startup(&context.of_command(&run), user);
    context.output.end(run, Verb::Auth.name(), code);
    code
}

/// Runs one command to its end, or starts it as a job: then there is no status yet.
pub fn run_or_start(context: &CommandContext, run: &CommandRun, command: Command, line: &[u8]) -> Option<ExitCode> {
    match command {
        Command::Job { command, ignores_failure } if context.session.user().is_some() => {
            let job = (command.verb(), job_text(line));
            jobs::start(context, run, job, ignores_failure, |context| run_command(context, *command))
        }
        command => Some(run_command(&context.of_command(run), command)),
    }
}

/// Runs one command to its end. `xit` and `stop` have nothing to run here.
pub fn run_command(context: &CommandContext, command: Command) -> ExitCode {
    let verb = command.verb();
    if !matches!(verb, Verb::Auth | Verb::Help | Verb::Stop | Verb::Xit) && context.session.user().is_none() {
        return context.not_authenticated(verb);
    }
    match command {
        Command::Auth { user, password } => auth::auth_command(context, &user, password),
        Command::Cancel { number } => jobs::cancel(context, number),
        Command::Cat { file, wait } => {
            if let Some(timeout) = wait
                && let Err(code) = wait::for_files(context, verb, slice::from_ref(&file), timeout)
            {
                return code;
            }
            cat::run(context, &file)
        }
        Command::Events { files } => events::run(context, &files),
        Command::Follow { mirror, from, files } => follow::start(context, &files, &FollowOptions { mirror, from }),
        Command::Get { files, share, dry_run, output, wait } => {
            if let Some(timeout) = wait
                && let Err(code) = wait::for_files(context, verb, &files, timeout)
            {
                return code;
            }
            let save_as = match output {
                Some(GetOutput::File(name)) => SaveAs::Name(name),
                // Standard output is [`Command::Cat`]'s, except in a dry run.
                Some(GetOutput::Stdout) => SaveAs::Unnamed,
                None => SaveAs::OwnName,
            };
            get::run(context, &files, GetOptions { share, dry_run, save_as })
        }
        Command::Help { verb } => help(&context.output, verb),
        Command::Jobs => jobs::list(context),
        Command::Job { command, .. } => run_command(context, *command),
        Command::Lap { long } => lists::active_peers(context, long),
        Command::Lpf { long } => lists::published_files(context, long),
        Command::Ls { user, long } => lists::shared_files(context, &user, long),
        Command::Pub { to, files, stdin: true, .. } => publish::publish_input(context, to, &files[0]),
        Command::Pub { to, files, watch: true, .. } => watch::start(context, to, &files[0]),
        Command::Pub { to, files, .. } => publish::publish(context, to, &files),
        Command::Sch { substring, ignore_case, long } => search::run(context, substring, ignore_case, long),
        Command::Unfollow { files } => follow::stop(context, &files),
        Command::Unp { files, watch: true } => watch::stop(context, &files[0]),
        Command::Unp { files, watch: false } => publish::unpublish(context, &files),
        Command::Wait { target } => match target {
            WaitTarget::Peer { user, timeout } => wait::run(context, WaitCondition::PeerActive(user), timeout),
            WaitTarget::Gone { user, timeout } => wait::run(context, WaitCondition::PeerGone(user), timeout),
            WaitTarget::File { name, timeout } => wait::run(context, WaitCondition::FileAvailable(name), timeout),
            WaitTarget::Job { number, timeout } => jobs::wait(context, Some(number), timeout),
            WaitTarget::All { timeout } => jobs::wait(context, None, timeout),
        },
        Command::Stop | Command::Xit => ExitCode::Success,
    }
}

fn help(output: &Output, verb: Option<Verb>) -> ExitCode {
    let text = output.columns().map_or_else(|| help_text(verb), |columns| help_page(verb, columns));
    output.result(CommandResult::Help(HelpResult { ok: True, text }));
    ExitCode::Success
}

/// The name of the command that a line begins with, or else its first word.
fn command_name(line: &[u8]) -> String {
    let word = line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
    let word = String::from_utf8_lossy(word.unwrap_or_default());
    Verb::parse(&word).map_or_else(|| word.to_string(), |verb| verb.name().to_owned())
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
