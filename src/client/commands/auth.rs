//! `auth`, and the login of `-u`.

use std::time::Duration;

use super::CommandContext;
use crate::client::control::{LoginError, Password};
use crate::client::exit_code::ExitCode;
use crate::client::publications::LoadingGuard;
use crate::client::services::Arrival;
use crate::client::ui::password::{PasswordError, validate};
use crate::client::ui::report::{ItemFailure, Report};
use crate::common::types::{UserName, UserNameError};

/// `-u` tries again for this long beyond the server's liveness time while the user is active: by then a crashed client's
/// session has surely ended.
const ACTIVE_MARGIN: Duration = Duration::from_secs(1);

/// A auth_command `auth`: one try.
pub fn auth_command(context: &CommandContext, user: &str, password: Option<Password>) -> ExitCode {
    if let Some(user) = context.services.account.user() {
        return refused(context, user.as_str(), format!("already logged in as {user}"));
    }
    let supply = |user: &UserName| match password {
        Some(password) => validate(password),
        None => {
            let _waiting = context.state.begin_input();
            context.passwords.for_command(user)
        }
    };
    let (user, password) = match credentials(user, supply) {
        Ok(both) => both,
        Err(missing) => return missing.report(context, user),
    };
    let listing = LoadingGuard::begin(&context.services.folder);
    let login = context.services.account.login(user.clone(), password);
    finish(context, &user, login, listing)
}

/// `-u`: tries again while the user is active.
pub fn login_at_startup(context: &CommandContext, user: &str) -> ExitCode {
    let supply = |user: &UserName| {
        let _waiting = context.state.begin_input();
        context.passwords.for_startup(user)
    };
    let (user, password) = match credentials(user, supply) {
        Ok(both) => both,
        Err(missing) => return missing.report(context, user),
    };
    let listing = LoadingGuard::begin(&context.services.folder);
    let mut login = context.services.account.login(user.clone(), password.clone());
    let mut waited = Duration::ZERO;
    let mut patience = Duration::ZERO;
    loop {
        match login {
            Err(LoginError::AlreadyActive { liveness }) => patience = liveness.saturating_add(ACTIVE_MARGIN),
            // After the password was proven this is no verdict on the password.
            Err(LoginError::Throttled(_)) => {}
            _ => break,
        }
        if waited >= patience || context.state.is_cancelled() {
            break;
        }
        context.state.sleep_unless_cancelled(context.login_retry);
        waited += context.login_retry.max(Duration::from_millis(1));
        login = context.services.account.login(user.clone(), password.clone());
    }
    finish(context, &user, login, listing)
}

/// Why there is nothing to log in with.
enum MissingCredentials {
    User(UserNameError),
    Password(PasswordError),
}

impl MissingCredentials {
    fn report(self, context: &CommandContext, user: &str) -> ExitCode {
        match self {
            Self::User(error) => refused(context, user, error.to_string()),
            Self::Password(PasswordError::Interrupted) => ExitCode::Interrupted,
            // The server has refused nobody: the file is the trouble.
            Self::Password(error @ PasswordError::File(..)) => context.report_error("auth", ExitCode::LocalFile, error),
            Self::Password(error) => refused(context, user, error.to_string()),
        }
    }
}

fn credentials(
    user: &str,
    password: impl FnOnce(&UserName) -> Result<Password, PasswordError>,
) -> Result<(UserName, Password), MissingCredentials> {
    let user = UserName::parse(user).map_err(MissingCredentials::User)?;
    let password = password(&user).map_err(MissingCredentials::Password)?;
    Ok((user, password))
}

fn finish(
    context: &CommandContext,
    user: &UserName,
    login: Result<Arrival, LoginError>,
    listing: LoadingGuard,
) -> ExitCode {
    match login {
        Ok(arrival) => welcome(context, user, arrival, listing),
        Err(error @ (LoginError::Unreachable | LoginError::Version { .. })) => {
            context.report_error("auth", (&error).into(), error)
        }
        Err(error) => refused(context, user.as_str(), error.to_string()),
    }
}

/// Everything is served again before the greeting, so that whoever waits for it can rely on it.
fn welcome(context: &CommandContext, user: &UserName, arrival: Arrival, listing: LoadingGuard) -> ExitCode {
    let console = std::sync::Arc::clone(&context.console);
    context.own.load(&context.services, listing, move |error| {
        console.info_async(format!("what was published before is not served: {error}"));
    });
    context.console.report(&Report::Welcome(user));
    if arrival.local_only {
        let warning = "other hosts cannot fetch from this client: it reached the server by a loopback address";
        context.console.info(warning);
    }
    ExitCode::Success
}

fn refused(context: &CommandContext, user: &str, why: String) -> ExitCode {
    let failure = ItemFailure { name: user.into(), why, code: ExitCode::NotAuthenticated };
    context.console.report(&Report::AuthFailed(&failure));
    context.console.error(&failure.why);
    failure.code
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
