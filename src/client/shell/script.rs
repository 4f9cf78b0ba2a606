//! Commands from a pipe, a file or the command line: no prompt, no escape codes.

use std::io::{self, BufRead, Read};

use zeroize::Zeroizing;

use super::{LineOutcome, ShellExit, execute};
use crate::client::commands::CommandContext;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::strip_ignore_prefix;
use crate::common::escape::strip_byte_order_mark;

/// Longest line, bytes: more than any command needs. Bounds the memory that a broken script can take.
const LINE_MAX_BYTES: usize = 1 << 20;

/// Lines without a terminal, and what a failure among them means.
pub struct Script {
    /// One command a line.
    pub lines: Box<dyn BufRead + Send>,
    /// `-b` and `-c`: the first failure ends it, and a leading `-` ignores one.
    pub stop_at_failure: bool,
    /// `--stay`: the end of input does not end the client, unless a command has failed.
    pub stay: bool,
}

/// Runs all lines; with `stop_at_failure` those up to the first failure that is not ignored.
pub fn run(context: &CommandContext, mut script: Script) -> ShellExit {
    let (mut status, mut is_first) = (ExitCode::Success, true);
    while !context.state.is_closed() && !context.console.has_ended() {
        let outcome = match next_line(&mut script.lines) {
            Ok(Line::End) if script.stay && status.is_success() => return ShellExit::Stay,
            Ok(Line::End) => break,
            Ok(Line::TooLong) => LineOutcome::Done(context.report_error("", ExitCode::Usage, "the line is too long")),
            Ok(Line::Command(line)) => {
                let line = if is_first { strip_byte_order_mark(&line) } else { &line };
                is_first = false;
                match strip_ignore_prefix(line).filter(|_| script.stop_at_failure) {
                    Some(line) => ignoring_failure(execute(context, line)),
                    None => execute(context, line),
                }
            }
            Err(error) => {
                let code = context.report_error("", ExitCode::LocalFile, format!("cannot read the commands: {error}"));
                return ShellExit::Leave(status.first_failure(code));
            }
        };
        let LineOutcome::Done(code) = outcome else { break };
        status = status.first_failure(code);
        if !code.is_success() && script.stop_at_failure {
            break;
        }
    }
    ShellExit::Leave(status)
}

fn ignoring_failure(outcome: LineOutcome) -> LineOutcome {
    match outcome {
        LineOutcome::Done(_) => LineOutcome::Done(ExitCode::Success),
        LineOutcome::Exit => LineOutcome::Exit,
    }
}

enum Line {
    /// Zeroed when dropped: it may contain a password.
    Command(Zeroizing<Vec<u8>>),
    TooLong,
    End,
}

fn next_line(lines: &mut Box<dyn BufRead + Send>) -> io::Result<Line> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let read = lines.by_ref().take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
    match read {
        0 => Ok(Line::End),
        LINE_MAX_BYTES if !line.ends_with(b"\n") => {
            lines.skip_until(b'\n')?;
            Ok(Line::TooLong)
        }
        _ => Ok(Line::Command(line)),
    }
}
