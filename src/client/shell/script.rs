//! Commands from a pipe, a file or the command line: no prompt, no escape codes.

use std::io::{self, BufRead, Read};

use zeroize::Zeroizing;

use super::{Ended, Step, execute};
use crate::client::command::strip_ignore_mark;
use crate::client::commands::Context;
use crate::client::exit_code::ExitCode;

/// Longest line, bytes: far more than any command needs, and a bound on what a broken script makes us keep.
const LINE_MAX_BYTES: usize = 1 << 20;

/// Where the lines come from, and what a failure means.
pub struct Script {
    /// One command a line.
    pub lines: Box<dyn BufRead + Send>,
    /// `-b` and `-c`: the first failure ends it, and a leading `-` ignores one.
    pub batch: bool,
    /// `--stay`: the end of input does not end the client, unless a command has failed.
    pub stay: bool,
}

/// Runs all lines, or those up to the first failure that counts.
pub fn run(context: &Context, mut script: Script) -> Ended {
    let mut status = ExitCode::Success;
    while !context.life.ending() && !context.console.is_closed() {
        let step = match next_line(&mut script.lines) {
            Ok(Line::End) if script.stay && status.is_success() => return Ended::Stay,
            Ok(Line::End) => break,
            Ok(Line::TooLong) => Step::Done(context.trouble("", ExitCode::Usage, "the line is too long")),
            Ok(Line::Is(line)) if script.batch => match strip_ignore_mark(&line) {
                (true, line) => ignoring_failure(execute(context, line)),
                (false, line) => execute(context, line),
            },
            Ok(Line::Is(line)) => execute(context, &line),
            Err(error) => {
                let code = context.trouble("", ExitCode::LocalFile, format!("cannot read the commands: {error}"));
                return Ended::Leave(status.or(code));
            }
        };
        let Step::Done(code) = step else { break };
        status = status.or(code);
        if !code.is_success() && script.batch {
            break;
        }
    }
    Ended::Leave(status)
}

fn ignoring_failure(step: Step) -> Step {
    match step {
        Step::Done(_) => Step::Done(ExitCode::Success),
        Step::Exit => Step::Exit,
    }
}

enum Line {
    /// Wiped when dropped: it may hold a password.
    Is(Zeroizing<Vec<u8>>),
    TooLong,
    End,
}

fn next_line(lines: &mut Box<dyn BufRead + Send>) -> io::Result<Line> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let read = lines.by_ref().take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line)?;
    match read {
        0 => Ok(Line::End),
        LINE_MAX_BYTES if !line.ends_with(b"\n") => {
            skip_line(lines)?;
            Ok(Line::TooLong)
        }
        _ => Ok(Line::Is(line)),
    }
}

fn skip_line(lines: &mut Box<dyn BufRead + Send>) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        let last = end.is_some() || used == 0;
        lines.consume(used);
        if last {
            return Ok(());
        }
    }
}
