//! `auth`, and the login of `-u`.

use std::sync::Arc;
use std::time::Duration;

use super::CommandContext;
use crate::client::control::{LoginError, LoginInfo};
use crate::client::exit_code::ExitCode;
use crate::client::publications::LoadingGuard;
use crate::client::ui::message::{AuthResult, CommandResult, ItemFailure};
use crate::client::ui::password::{PasswordError, validate};
use crate::common::limits::THROTTLED_RETRY_MAX;
use crate::common::program_names::with_program_names;
use crate::common::types::{Password, UserName};

/// `-u` tries again for the server's liveness time and this margin while the user is active: the session of a crashed
/// client has ended by then.
const ACTIVE_MARGIN: Duration = Duration::from_secs(1);
/// The wait between two attempts for `-u` while the user is active.
const ACTIVE_RETRY: Duration = Duration::from_millis(500);
/// How long `-u` waits in all while the server refuses attempts for their number.
const THROTTLED_WAIT_MAX: Duration = Duration::from_secs(30);

/// A typed `auth`: one attempt.
pub fn auth_command(context: &CommandContext, user: &str, password: Option<Password>) -> ExitCode {
    if let Some(user) = context.session.user() {
        return report_refused(context, user.as_str(), format!("already logged in as {user}"));
    }
    let password = |user: &UserName| match password {
        Some(password) => validate(password),
        None => {
            let _input = context.state.begin_input();
            context.passwords.for_command(user, &context.output)
        }
    };
    log_in(context, user, password, |user, password| context.session.login(user.clone(), password))
}

/// `-u`: tries again while the user is active, and while there were too many attempts.
pub fn login_at_startup(context: &CommandContext, user: &str) -> ExitCode {
    let password = |user: &UserName| {
        let _input = context.state.begin_input();
        context.passwords.for_startup(user, &context.output)
    };
    log_in(context, user, password, |user, password| login_with_retries(context, user, &password))
}

fn login_with_retries(context: &CommandContext, user: &UserName, password: &Password) -> Result<LoginInfo, LoginError> {
    let (mut waited_active, mut waited_throttled) = (Duration::ZERO, Duration::ZERO);
    loop {
        let login = context.session.login(user.clone(), password.clone());
        let (waited, wait, wait_max) = match login {
            Err(LoginError::AlreadyActive { liveness }) => {
                (&mut waited_active, ACTIVE_RETRY, liveness.saturating_add(ACTIVE_MARGIN))
            }
            Err(LoginError::Throttled(seconds)) => {
                let wait = Duration::from_secs(seconds.max(1).into());
                (&mut waited_throttled, wait.min(THROTTLED_RETRY_MAX), THROTTLED_WAIT_MAX)
            }
            _ => return login,
        };
        let left = wait_max.saturating_sub(*waited);
        if left.is_zero() || context.state.is_cancelled() {
            return login;
        }
        let wait = wait.min(left);
        (context.login_sleep)(&context.state, wait);
        *waited += wait;
    }
}

/// Validates the user name, obtains the password, logs in, and reports the result.
fn log_in(
    context: &CommandContext,
    user: &str,
    password: impl FnOnce(&UserName) -> Result<Password, PasswordError>,
    login: impl FnOnce(&UserName, Password) -> Result<LoginInfo, LoginError>,
) -> ExitCode {
    let user = match UserName::parse(user) {
        Ok(user) => user,
        Err(error) => return report_refused(context, user, error.to_string()),
    };
    let password = match password(&user) {
        Ok(password) => password,
        Err(PasswordError::Interrupted) => return ExitCode::Interrupted,
        // Not a refusal: the problem is the local file.
        Err(error @ PasswordError::File(..)) => return context.report_error("auth", ExitCode::LocalFile, error),
        Err(error) => return report_refused(context, user.as_str(), error.to_string()),
    };
    let loading = LoadingGuard::begin(&context.publications);
    match login(&user, password) {
        Ok(info) => {
            welcome(context, &user, info, loading);
            ExitCode::Success
        }
        Err(error @ LoginError::Unreachable) => {
            let addresses: Vec<String> = context.servers.iter().map(ToString::to_string).collect();
            let why = format!("{error} at {}: does it run there, on this port?", addresses.join(", "));
            context.report_error("auth", (&error).into(), why)
        }
        Err(error @ LoginError::Version { .. }) => context.report_error("auth", (&error).into(), error),
        Err(error) => {
            let code = report_refused(context, user.as_str(), error.to_string());
            if matches!(error, LoginError::AlreadyActive { .. }) && context.local.runs_here(&user) {
                let way = "a client of this user runs here; '{client} --attach' runs commands in it";
                context.output.info(with_program_names(way));
            }
            code
        }
    }
}

/// Serves the user's publications again before it prints the greeting: a script that waits for the greeting can rely on
/// them.
fn welcome(context: &CommandContext, user: &UserName, info: LoginInfo, loading: LoadingGuard) {
    // A thread that may outlive the command writes it.
    let output = context.output.of_none();
    context.publications.load(&context.server, loading, move |error| {
        output.info(format!("earlier publications are not served: {error}"));
    });
    Arc::clone(&context.local).logged_in(user, &context.output);
    context.output.result(CommandResult::welcome(user.as_str()));
    if info.local_only {
        let warning = "other hosts cannot fetch from this client: it reached the server by a loopback address";
        context.output.info(warning);
    }
}

fn report_refused(context: &CommandContext, user: &str, why: String) -> ExitCode {
    let failure = ItemFailure { name: user.into(), error: why.clone(), code: ExitCode::NotAuthenticated };
    context.output.result(CommandResult::Auth(AuthResult::Refused(failure.into())));
    context.output.error(why);
    ExitCode::NotAuthenticated
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
