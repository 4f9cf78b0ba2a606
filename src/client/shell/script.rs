//! Commands from a pipe, a file or the command line: no prompt, no escape codes.

use std::io::{self, BufRead, Read};

use zeroize::Zeroizing;

use super::{LineOutcome, Shell, ShellExit, execute, skip_line};
use crate::client::exit_code::ExitCode;
use crate::common::escape::strip_byte_order_mark;

/// Longest line without its line break, bytes: more than any command needs. Bounds the memory that a broken script can take.
const LINE_MAX_BYTES: usize = 1 << 20;
/// The same with `--json`.
const JSON_LINE_MAX_BYTES: usize = 64 << 10;

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
pub fn run(shell: &Shell<'_>, mut script: Script) -> ShellExit {
    let line_max_bytes = if shell.reads_json { JSON_LINE_MAX_BYTES } else { LINE_MAX_BYTES };
    let (mut status, mut is_first) = (ExitCode::Success, true);
    while !shell.state.is_closed() && !shell.output.has_ended() {
        let outcome = match next_line(&mut script.lines, line_max_bytes) {
            Ok(Line::End) if script.stay && status.is_success() => return ShellExit::Stay,
            Ok(Line::End) => break,
            Ok(Line::TooLong) => {
                LineOutcome::Done(skip_line(&shell.output, None, ExitCode::Usage, "the line is too long"))
            }
            Ok(Line::Command(line)) => {
                let line = if is_first { strip_byte_order_mark(&line) } else { &line };
                is_first = false;
                execute(shell, line, script.stop_at_failure)
            }
            Err(error) => {
                let why = format!("cannot read the commands: {error}");
                let code = skip_line(&shell.output, None, ExitCode::LocalFile, why);
                return ShellExit::Leave(status.first_failure(code));
            }
        };
        let code = match outcome {
            LineOutcome::Done(code) => code,
            LineOutcome::Exit(run) => return ShellExit::Xit(status, run),
        };
        status = status.first_failure(code);
        if !code.is_success() && script.stop_at_failure {
            break;
        }
    }
    ShellExit::Leave(status)
}

enum Line {
    /// Zeroed when dropped: it may contain a password.
    Command(Zeroizing<Vec<u8>>),
    TooLong,
    End,
}

fn next_line(lines: &mut Box<dyn BufRead + Send>, max_bytes: usize) -> io::Result<Line> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let read = lines.by_ref().take(max_bytes as u64 + 1).read_until(b'\n', &mut line)?;
    match read {
        0 => Ok(Line::End),
        read if read > max_bytes && !line.ends_with(b"\n") => {
            lines.skip_until(b'\n')?;
            Ok(Line::TooLong)
        }
        _ => Ok(Line::Command(line)),
    }
}
