//! What each command does, over the seams of [`services`](crate::client::services): every file here is one or two
//! commands. They print their results and say how they came out; what that means for the shell is not their business.

mod auth;
mod get;
mod get_select;
mod lists;
mod publish;
mod reshare;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::client::control::RequestError;
use crate::client::download::DownloadOptions;
use crate::client::exit_code::ExitCode;
use crate::client::publications::OwnPublications;
use crate::client::services::Services;
use crate::client::shell::command::{Command, Verb};
use crate::client::shell::interrupt::InterruptState;
use crate::client::ui::console::Console;
use crate::client::ui::password::PasswordSource;
use crate::client::ui::report::{ItemFailure, Report};

/// Everything a command works with.
pub struct CommandContext {
    /// The rest of the client.
    pub services: Services,
    /// The user's own publications.
    pub own: Arc<OwnPublications>,
    /// The two streams.
    pub console: Arc<Console>,
    /// Whether to stop.
    pub life: Arc<InterruptState>,
    /// Where passwords come from.
    pub passwords: Box<dyn PasswordSource>,
    /// How downloads behave.
    pub downloads: DownloadOptions,
    /// Between two tries of `-u` while the user is still active.
    pub login_retry: Duration,
}

impl CommandContext {
    /// Logs in as `-u` asks: password from its usual places, trying again while a crashed client is still active.
    pub fn login_at_startup(&self, user: &str) -> ExitCode {
        auth::login_at_startup(self, user)
    }

    /// Runs one command to its end. [`Command::Exit`] has nothing to run here.
    pub fn run(&self, command: Command) -> ExitCode {
        let verb = command.verb();
        if !matches!(verb, Verb::Auth | Verb::Help | Verb::Xit) && self.services.account.user().is_none() {
            return self.not_authenticated(verb);
        }
        match command {
            Command::Auth { user, password } => auth::auth_command(self, &user, password),
            Command::Get { files, share } => get::run(self, &files, share),
            Command::Help(verb) => {
                self.console.report(&Report::Help(verb));
                ExitCode::Success
            }
            Command::ListPeers => lists::peers(self),
            Command::ListPublished => lists::published(self),
            Command::Publish { to, files } => publish::publish(self, to, &files),
            Command::Search { needle, ignore_case, long } => lists::search(self, needle, ignore_case, long),
            Command::Unpublish { files } => publish::unpublish(self, &files),
            Command::Exit => ExitCode::Success,
        }
    }

    /// A line that is no command, or anything else that has no line of its own on stdout.
    pub fn report_error(&self, command: &str, code: ExitCode, why: impl Display) -> ExitCode {
        let failure = ItemFailure { name: String::new(), why: why.to_string(), code };
        self.console.error(&failure.why);
        self.console.report(&Report::CommandFailed(command, &failure));
        code
    }

    fn not_authenticated(&self, verb: Verb) -> ExitCode {
        // A client that ends has left its session under the command's feet: that is no news.
        if !self.life.is_shutting_down() {
            self.console.report(&Report::NotAuthenticated(verb));
        }
        ExitCode::NotAuthenticated
    }

    /// A list that never came.
    fn request_failed(&self, verb: Verb, error: RequestError) -> ExitCode {
        match error {
            RequestError::NotAuthenticated => self.not_authenticated(verb),
            error => self.report_error(verb.name(), (&error).into(), error),
        }
    }
}

/// Tells each failure on stderr; the first one's exit status.
fn report_failures(context: &CommandContext, failures: &[ItemFailure]) -> ExitCode {
    for failure in failures {
        context.console.error(&failure.why);
    }
    failures.first().map_or(ExitCode::Success, |first| first.code)
}

#[cfg(test)]
pub(crate) mod test_support;
