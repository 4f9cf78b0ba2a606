//! The `server` program. See `fileshare::server`.

use std::io::{self, Write};
use std::process::{ExitCode, exit};

use fileshare::server::{Action, ServerError, finish_log, forget, print_record, serve};

fn main() -> ExitCode {
    let result = run();
    finish_log(result.as_ref().err().map(|error| format!("server: {error}")));
    result.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn run() -> Result<(), ServerError> {
    match Action::parse(std::env::args_os()).unwrap_or_else(|text| print_and_exit(&text)) {
        Action::Serve(options) => serve(options),
        Action::Enrol { user, data } => print_record(&user, data.as_deref()),
        Action::Forget { user, credentials, data } => forget(&user, &credentials, &data),
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
