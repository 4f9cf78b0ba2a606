//! The `client` program. See `fileshare::client`.

use fileshare::client::{ExitCode, Options, StartupError, run_client};

fn main() -> std::process::ExitCode {
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("client: {error}");
            (&error).into()
        }
    };
    code.into()
}

fn run() -> Result<ExitCode, StartupError> {
    match Options::from_command_line() {
        Ok(options) => run_client(options),
        Err(code) => Ok(code),
    }
}
