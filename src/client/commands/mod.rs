//! What each command does, over the seams of [`services`](crate::client::services): every file here is one or two
//! commands. They print their results and say how they came out; what that means for the shell is not their business.

pub mod auth;
pub mod get;
mod get_select;
pub mod lists;
pub mod publish;
mod reshare;
pub mod search;
mod state;
mod verb;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use crate::client::control::RequestError;
use crate::client::download::DownloadOptions;
use crate::client::exit_code::ExitCode;
use crate::client::publications::OwnPublications;
use crate::client::services::Services;
use crate::client::ui::console::Console;
use crate::client::ui::password::PasswordSource;
use crate::client::ui::report::{ItemFailure, Report};

pub use self::state::CommandState;
pub use self::verb::{Verb, help_text};

/// Everything a command works with.
pub struct CommandContext {
    /// The rest of the client.
    pub services: Services,
    /// The user's own publications.
    pub own: Arc<OwnPublications>,
    /// The two streams.
    pub console: Arc<Console>,
    /// Whether a command runs and whether it is cancelled.
    pub state: Arc<CommandState>,
    /// Where passwords come from.
    pub passwords: Box<dyn PasswordSource>,
    /// How downloads behave.
    pub downloads: DownloadOptions,
    /// Between two tries of `-u` while the user is still active.
    pub login_retry: Duration,
}

impl CommandContext {
    /// A line that is no command, or anything else that has no line of its own on stdout.
    pub fn report_error(&self, command: &str, code: ExitCode, why: impl Display) -> ExitCode {
        let failure = ItemFailure { name: String::new(), why: why.to_string(), code };
        self.console.error(&failure.why);
        self.console.report(&Report::CommandFailed(command, &failure));
        code
    }

    /// A command that needs a login before it.
    pub fn not_authenticated(&self, verb: Verb) -> ExitCode {
        // A client that ends has left its session under the command's feet: that is no news.
        if !self.state.is_closed() {
            self.console.report(&Report::NotAuthenticated(verb.name()));
        }
        ExitCode::NotAuthenticated
    }

    /// Prints a list from the server, or why there is none.
    fn report_list<T>(
        &self,
        verb: Verb,
        list: Result<Vec<T>, RequestError>,
        report: impl FnOnce(&[T]) -> Report<'_>,
    ) -> ExitCode {
        match list {
            Ok(list) => {
                self.console.report(&report(&list));
                ExitCode::Success
            }
            Err(RequestError::NotAuthenticated) => self.not_authenticated(verb),
            Err(error) => self.report_error(verb.name(), (&error).into(), error),
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
