//! What each command does, over the seams of [`services`](crate::client::services): every file here is one or two
//! commands. They print their results and say how they came out; what that means for the shell is not their business.

mod auth;
mod get;
mod get_plan;
mod get_share;
mod lists;
mod publish;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::client::command::{Command, Verb};
use crate::client::console::Console;
use crate::client::control::AskError;
use crate::client::download::DownloadOptions;
use crate::client::exit_code::ExitCode;
use crate::client::life::Life;
use crate::client::output::{Failure, Report};
use crate::client::own::Own;
use crate::client::password::PasswordSource;
use crate::client::services::Services;

/// Everything a command works with.
pub struct Context {
    /// The rest of the client.
    pub services: Services,
    /// The user's own publications.
    pub own: Arc<Own>,
    /// The two streams.
    pub console: Arc<Console>,
    /// Whether to stop.
    pub life: Arc<Life>,
    /// Where passwords come from.
    pub passwords: Box<dyn PasswordSource>,
    /// How downloads behave.
    pub downloads: DownloadOptions,
    /// Between two tries of `-u` while the user is still active.
    pub login_retry: Duration,
}

impl Context {
    /// Logs in as `-u` asks: password from its usual places, trying again while a crashed client is still active.
    pub fn login_at_start(&self, user: &str) -> ExitCode {
        auth::at_start(self, user)
    }

    /// Runs one command to its end. [`Command::Exit`] has nothing to run here.
    pub fn run(&self, command: Command) -> ExitCode {
        let verb = command.verb();
        if !matches!(verb, Verb::Auth | Verb::Help | Verb::Xit) && self.services.account.user().is_none() {
            return self.authenticate_first(verb);
        }
        match command {
            Command::Auth { user, password } => auth::typed(self, &user, password),
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
    pub fn trouble(&self, command: &str, code: ExitCode, why: impl Display) -> ExitCode {
        let failure = Failure { name: String::new(), why: why.to_string(), code };
        self.console.reason(&failure.why);
        self.console.report(&Report::Trouble(command, &failure));
        code
    }

    fn authenticate_first(&self, verb: Verb) -> ExitCode {
        // A client that ends has left its session under the command's feet: that is no news.
        if !self.life.ending() {
            self.console.report(&Report::AuthenticateFirst(verb));
        }
        ExitCode::NotAuthenticated
    }

    /// A list that never came.
    fn no_answer(&self, verb: Verb, error: AskError) -> ExitCode {
        match error {
            AskError::NotAuthenticated => self.authenticate_first(verb),
            error => self.trouble(verb.name(), (&error).into(), error),
        }
    }
}

/// Tells each failure on stderr; the first one's exit status.
fn tell(context: &Context, failures: &[Failure]) -> ExitCode {
    for failure in failures {
        context.console.reason(&failure.why);
    }
    failures.first().map_or(ExitCode::Success, |first| first.code)
}

#[cfg(test)]
pub(crate) mod fakes;
