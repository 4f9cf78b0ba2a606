//! `auth`, and the login of `-u`.

use std::sync::Arc;
use std::time::Duration;

use super::{CommandContext, LoginInfo};
use crate::client::control::{LoginError, Password};
use crate::client::exit_code::ExitCode;
use crate::client::publications::LoadingGuard;
use crate::client::ui::password::{PasswordError, validate};
use crate::client::ui::report::{ItemFailure, Report};
use crate::common::types::{UserName, UserNameError};

/// `-u` tries again for the server's liveness time and this margin while the user is active: the session of a crashed
/// client has ended by then.
const ACTIVE_MARGIN: Duration = Duration::from_secs(1);

/// A typed `auth`: one attempt.
pub fn auth_command(context: &CommandContext, user: &str, password: Option<Password>) -> ExitCode {
    if let Some(user) = context.session.user() {
        return report_refused(context, user.as_str(), format!("already logged in as {user}"));
    }
    let supply = |user: &UserName| match password {
        Some(password) => validate(password),
        None => {
            let _input = context.state.begin_input();
            context.passwords.for_command(user)
        }
    };
    let (user, password) = match credentials(user, supply) {
        Ok(credentials) => credentials,
        Err(missing) => return missing.report(context, user),
    };
    let loading = LoadingGuard::begin(&context.uploads);
    let login = context.session.login(user.clone(), password);
    finish_login(context, &user, login, loading)
}

/// `-u`: tries again while the user is active.
pub fn login_at_startup(context: &CommandContext, user: &str) -> ExitCode {
    let supply = |user: &UserName| {
        let _input = context.state.begin_input();
        context.passwords.for_startup(user)
    };
    let (user, password) = match credentials(user, supply) {
        Ok(credentials) => credentials,
        Err(missing) => return missing.report(context, user),
    };
    let loading = LoadingGuard::begin(&context.uploads);
    let mut login = context.session.login(user.clone(), password.clone());
    let mut waited = Duration::ZERO;
    let mut wait_max = Duration::ZERO;
    loop {
        match login {
            Err(LoginError::AlreadyActive { liveness }) => wait_max = liveness.saturating_add(ACTIVE_MARGIN),
            // The password has been proven before: being throttled says nothing about it.
            Err(LoginError::Throttled(_)) => {}
            _ => break,
        }
        if waited >= wait_max || context.state.is_cancelled() {
            break;
        }
        context.state.sleep_unless_cancelled(context.login_retry);
        waited += context.login_retry.max(Duration::from_millis(1));
        login = context.session.login(user.clone(), password.clone());
    }
    finish_login(context, &user, login, loading)
}

/// Why no login is attempted.
enum MissingCredentials {
    User(UserNameError),
    Password(PasswordError),
}

impl MissingCredentials {
    fn report(self, context: &CommandContext, user: &str) -> ExitCode {
        match self {
            Self::User(error) => report_refused(context, user, error.to_string()),
            Self::Password(PasswordError::Interrupted) => ExitCode::Interrupted,
            // Not a refusal: the problem is the local file.
            Self::Password(error @ PasswordError::File(..)) => context.report_error("auth", ExitCode::LocalFile, error),
            Self::Password(error) => report_refused(context, user, error.to_string()),
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

fn finish_login(
    context: &CommandContext,
    user: &UserName,
    login: Result<LoginInfo, LoginError>,
    loading: LoadingGuard,
) -> ExitCode {
    match login {
        Ok(info) => {
            welcome(context, user, info, loading);
            ExitCode::Success
        }
        Err(error @ (LoginError::Unreachable | LoginError::Version { .. })) => {
            context.report_error("auth", (&error).into(), error)
        }
        Err(error) => report_refused(context, user.as_str(), error.to_string()),
    }
}

/// Serves the user's publications again before it prints the greeting: a script that waits for the greeting can rely on
/// them.
fn welcome(context: &CommandContext, user: &UserName, info: LoginInfo, loading: LoadingGuard) {
    let console = Arc::clone(&context.console);
    context.own.load(&context.server, &context.uploads, loading, move |error| {
        console.info_async(format!("earlier publications are not served: {error}"));
    });
    context.console.report(&Report::Welcome(user));
    if info.local_only {
        let warning = "other hosts cannot fetch from this client: it reached the server by a loopback address";
        context.console.info(warning);
    }
}

fn report_refused(context: &CommandContext, user: &str, why: String) -> ExitCode {
    let failure = ItemFailure { name: user.into(), why, code: ExitCode::NotAuthenticated };
    context.console.report(&Report::AuthFailed(&failure));
    context.console.error(&failure.why);
    failure.code
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
