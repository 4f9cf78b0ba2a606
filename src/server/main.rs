//! The `server` program. See `fileshare::server`.

use std::io::{self, Write};
use std::process::{ExitCode, exit};

use fileshare::server::{Action, ServerError, print_record, serve};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr is not a fault of the program.
            let _ = writeln!(io::stderr(), "server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), ServerError> {
    match Action::parse(std::env::args_os()).unwrap_or_else(|text| print_and_exit(&text)) {
        Action::Serve(options) => serve(options),
        Action::Enrol { user, data } => print_record(&user, data.as_deref()),
    }
}

/// For help, the version, and usage errors.
fn print_and_exit(text: &clap::Error) -> ! {
    match text.print() {
        Err(error) if !text.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "server: {}", ServerError::Output(error));
            exit(1)
        }
        _ => exit(text.exit_code()),
    }
}
