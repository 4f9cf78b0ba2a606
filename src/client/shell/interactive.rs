//! The shell at a terminal: prompt, history, completion. The exit status is always success.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter};
use zeroize::Zeroizing;

use super::completion::Completion;
use super::interrupt::InterruptState;
use super::{LineOutcome, ShellExit, execute};
use crate::client::commands::CommandContext;
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::may_hold_password;

const PROMPT: &str = "> ";
/// Lines that the history keeps.
const HISTORY_MAX: usize = 1_000;

/// Reads and runs lines until `xit` or the end of input. Completion lists `dir`, the shared folder.
pub fn run(context: &CommandContext, interrupts: &InterruptState, dir: &Path, stay: bool) -> ShellExit {
    let mut terminal = match Terminal::open(context, dir) {
        Ok(terminal) => terminal,
        Err(error) => {
            let code = context.report_error("", ExitCode::Internal, format!("cannot use this terminal: {error}"));
            return ShellExit::Leave(code);
        }
    };
    interrupts.set_interactive();
    let exit = terminal.run(context, stay);
    context.console.set_prompt_printer(None);
    exit
}

struct Terminal {
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    fn open(context: &CommandContext, dir: &Path) -> rustyline::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            // Pasted lines run one by one, and a signal leaves the terminal in its ordinary mode.
            .bracketed_paste(false)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Completion::new(context, dir)));
        let history = history_file();
        if let Some(path) = &history {
            // Missing at the first start; without a history the shell works all the same.
            let _ = editor.load_history(path);
        }
        if io::stderr().is_terminal()
            && let Ok(mut printer) = editor.create_external_printer()
        {
            let print = move |line: String| drop(printer.print(line));
            context.console.set_prompt_printer(Some(Box::new(print)));
        }
        Ok(Self { editor, history })
    }

    fn run(&mut self, context: &CommandContext, stay: bool) -> ShellExit {
        while !context.state.is_closed() && !context.console.is_closed() {
            match self.editor.readline(PROMPT) {
                Ok(typed) => {
                    let typed = Zeroizing::new(typed);
                    if self.run_lines(context, &typed) == LineOutcome::Exit {
                        return ShellExit::Leave(ExitCode::Success);
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => (),
                Err(ReadlineError::Eof) if stay => return ShellExit::Stay,
                Err(_) => break,
            }
        }
        ShellExit::Leave(ExitCode::Success)
    }

    /// Pasted text may be several lines. A cancellation skips the rest of them.
    fn run_lines(&mut self, context: &CommandContext, typed: &str) -> LineOutcome {
        for line in typed.lines() {
            self.add_to_history(line);
            match execute(context, line.as_bytes()) {
                LineOutcome::Done(_) if !context.state.is_cancelled() => (),
                outcome => return outcome,
            }
        }
        LineOutcome::Done(ExitCode::Success)
    }

    /// Writes the line to the history file at once, so that it survives a kill.
    fn add_to_history(&mut self, line: &str) {
        if may_hold_password(line) || line.trim().is_empty() {
            return;
        }
        if self.editor.add_history_entry(line).is_ok_and(|added| added)
            && let Some(path) = &self.history
        {
            let _ = self.editor.append_history(path);
        }
    }
}

/// In the XDG state folder; `None` if that cannot be created.
fn history_file() -> Option<PathBuf> {
    let dir = etcetera::choose_base_strategy().ok()?.state_dir()?.join("fileshare");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
    Some(dir.join("history"))
}
