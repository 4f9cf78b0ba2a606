//! The `server` program. See `fileshare::server`.

use std::io::Write;
use std::process::ExitCode;

use fileshare::server::{Action, ServerError, print_record, serve};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr is not a fault of the program.
            let _ = writeln!(std::io::stderr(), "server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), ServerError> {
    match Action::parse(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Action::Serve(options) => serve(options),
        Action::Enrol { user, data } => print_record(&user, data.as_deref()),
    }
}
