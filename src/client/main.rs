//! The `client` program. See `fileshare::client`.

use fileshare::client::{ExitCode, Options, StartupError, finish_log, run_client};

fn main() -> std::process::ExitCode {
    let result = run();
    finish_log(result.as_ref().err().map(|error| format!("client: {error}")));
    result.unwrap_or_else(|error| (&error).into()).into()
}

fn run() -> Result<ExitCode, StartupError> {
    match Options::from_command_line() {
        Ok(options) => run_client(options),
        Err(code) => Ok(code),
    }
}
