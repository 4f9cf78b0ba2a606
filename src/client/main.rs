//! The `client` program. See `fileshare::client`.

use std::io::Write;

use fileshare::client::{ExitCode, Options, StartupError, run_client};

fn main() -> std::process::ExitCode {
    let code = match run() {
        Ok(code) => code,
        Err(error) => {
            // A closed stderr is not a fault of the program.
            let _ = writeln!(std::io::stderr(), "client: {error}");
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
