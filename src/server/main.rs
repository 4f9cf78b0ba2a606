//! The `server` program. See `fileshare::server`.

use std::process::ExitCode;

use fileshare::server::{Action, ServerError, print_record, serve};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), ServerError> {
    match Action::parse(std::env::args_os()).unwrap_or_else(|error| error.exit()) {
        Action::Serve(options) => serve(options),
        Action::Enrol(user) => print_record(&user),
    }
}
