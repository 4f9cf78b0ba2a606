//! What each command does: one or two commands a file. A command prints its results and returns an exit code.
//!
//! Must not know where command lines come from.

pub mod auth;
mod background;
mod cancellation;
pub mod cat;
mod content_pipes;
pub mod events;
pub mod follow;
mod follow_fetches;
pub mod get;
mod get_select;
pub mod jobs;
pub mod lists;
pub mod publish;
mod reshare;
pub mod search;
mod selector;
mod verb;
pub mod wait;
pub mod watch;

use std::fmt::Display;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::control::RequestError;
use crate::client::download::DownloadOptions;
use crate::client::engine::ClientEngine;
use crate::client::exit_code::ExitCode;
use crate::client::jobs::RunningJob;
use crate::client::ui::message::{CommandResult, ItemFailure, NOT_AUTHENTICATED};
use crate::client::ui::output::{CommandRun, Output};
use crate::client::ui::password::PasswordSource;
use crate::common::types::UserName;

pub use self::cancellation::CommandState;
pub use self::content_pipes::{ContentInput, ContentPipes};
pub use self::verb::{Verb, help_page, help_text};

/// Waits, unless the command is cancelled meanwhile.
pub type LoginSleep = Arc<dyn Fn(&CommandState, Duration) + Send + Sync>;

/// Whether and how other processes of this user reach this client. Tests replace it.
pub trait LocalControl: Send + Sync {
    /// The user has logged in: from now on they do.
    fn logged_in(self: Arc<Self>, user: &UserName, output: &Output);
    /// Whether this user's processes can reach a client that runs on this host.
    fn runs_here(&self, user: &UserName) -> bool;
}

/// There is no other way in.
#[cfg(any(test, feature = "testkit"))]
pub struct NoLocalControl;

#[cfg(any(test, feature = "testkit"))]
impl LocalControl for NoLocalControl {
    fn logged_in(self: Arc<Self>, _: &UserName, _: &Output) {}

    fn runs_here(&self, _: &UserName) -> bool {
        false
    }
}

/// Everything a command works with. Several contexts may use one engine at once: output, cancellation and policy are each
/// context's own.
#[derive(Clone)]
pub struct CommandContext {
    pub engine: Arc<ClientEngine>,
    pub output: Output,
    /// Where jobs write when the attached side has gone whose output the above is; `None`: it is the client's own.
    pub client_output: Option<Output>,
    /// For the content of files.
    pub pipes: ContentPipes,
    /// How other processes of this user reach this client.
    pub local: Arc<dyn LocalControl>,
    /// Whether a command runs and whether it is cancelled.
    pub state: Arc<CommandState>,
    pub passwords: Arc<dyn PasswordSource>,
    pub download_options: DownloadOptions,
    /// Waits between two attempts to log in for `-u`; [`CommandState::sleep_unless_cancelled`] except in tests.
    pub login_sleep: LoginSleep,
}

/// A command uses the session, the folder and so on as its own.
impl Deref for CommandContext {
    type Target = ClientEngine;

    fn deref(&self) -> &ClientEngine {
        &self.engine
    }
}

impl CommandContext {
    /// The same for this command: what it writes has its id.
    pub fn of_command(&self, run: &CommandRun) -> Self {
        Self { output: self.output.of(run), ..self.clone() }
    }

    /// The same for what goes on in the background: its number cancels it, and it outlives an attached side.
    pub fn in_background(&self, job: &RunningJob) -> Self {
        let output = self.output.of_job(job.job(), self.client_output.as_ref());
        Self { output, state: Arc::new(CommandState::of_job(job.cancelled())), ..self.clone() }
    }

    /// Reports an error of the command as a whole, which has no line of its own on stdout.
    pub fn report_error(&self, command: &str, code: ExitCode, why: impl Display) -> ExitCode {
        let why = why.to_string();
        self.output.error(&why);
        self.output.result(CommandResult::failed(command, why, code));
        code
    }

    /// The command needs a login before it.
    pub fn not_authenticated(&self, verb: Verb) -> ExitCode {
        // Not if the client is ending: it has logged out itself while the command was running.
        if !self.state.is_closed() {
            match verb {
                // Its output is the file alone.
                Verb::Cat => drop(self.report_error(verb.name(), ExitCode::NotAuthenticated, NOT_AUTHENTICATED)),
                _ => self.output.result(CommandResult::not_authenticated(verb.name())),
            }
        }
        ExitCode::NotAuthenticated
    }

    /// Prints a list from the server, or why there is none.
    fn report_list<T>(
        &self,
        verb: Verb,
        list: Result<Vec<T>, RequestError>,
        result: impl FnOnce(Vec<T>) -> CommandResult,
    ) -> ExitCode {
        match list {
            Ok(list) => {
                self.output.result(result(list));
                ExitCode::Success
            }
            Err(RequestError::NotAuthenticated) => self.not_authenticated(verb),
            Err(error) => self.report_error(verb.name(), (&error).into(), error),
        }
    }

    /// Prints the reason of each failure. Returns the first one's exit code.
    fn report_failures(&self, failures: &[ItemFailure]) -> ExitCode {
        for failure in failures {
            self.output.error(&failure.error);
        }
        failures.first().map_or(ExitCode::Success, |first| first.code)
    }
}

/// Commands are drivers of cores, and tell users how long something took.
#[expect(clippy::disallowed_methods, reason = "only a driver reads a clock")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
pub(crate) mod test_support;
