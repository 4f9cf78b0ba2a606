//! The `server` program. See `fileshare::server`.

use std::io::{self, Write};
use std::process::{ExitCode, exit};

use fileshare::server::{Action, ServerError, finish_log, forget, getting_started, print_check, print_record, serve};

fn main() -> ExitCode {
    if std::env::args_os().len() <= 1 {
        // A failure of stderr cannot be reported anywhere.
        let _ = io::stderr().write_all(getting_started().as_bytes());
        return ExitCode::from(2);
    }
    let action = Action::parse(std::env::args_os()).unwrap_or_else(|text| print_and_exit(&text));
    let format = action.log_format();
    let result = run(action);
    finish_log(result.as_ref().err().map(|error| format.error_line(error)));
    result.unwrap_or(ExitCode::FAILURE)
}

fn run(action: Action) -> Result<ExitCode, ServerError> {
    let done = |()| ExitCode::SUCCESS;
    match action {
        Action::Serve(options) => serve(options).map(done),
        Action::Check(options) => {
            print_check(&options).map(|is_ok| if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Enrol { user, data } => print_record(&user, data.as_deref()).map(done),
        Action::Forget { user, credentials, data } => forget(&user, &credentials, &data).map(done),
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
