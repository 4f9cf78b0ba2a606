//! Someone at a terminal: prompt, history, completion. The status is success whatever was typed.

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
/// Lines of history that are kept.
const HISTORY_MAX: usize = 1_000;

/// Reads and runs lines until `xit` or the end of input. `dir`: the shared folder, for completion.
pub fn run(context: &CommandContext, interrupts: &InterruptState, dir: &Path, stay: bool) -> ShellExit {
    let mut terminal = match Terminal::open(context, dir) {
        Ok(terminal) => terminal,
        Err(error) => {
            let code = context.report_error("", ExitCode::Internal, format!("cannot use this terminal: {error}"));
            return ShellExit::Leave(code);
        }
    };
    interrupts.set_interactive();
    let ended = terminal.run(context, stay);
    context.console.set_prompt_printer(None);
    ended
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
            // Lines that are pasted run one by one, and a signal leaves the terminal in no mode of ours.
            .bracketed_paste(false)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Completion::new(context, dir)));
        let history = history_file();
        if let Some(path) = &history {
            // A first run has none, and one that cannot be read is no reason not to work.
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

    /// What is pasted may be several lines; a cancelled one takes the rest with it.
    fn run_lines(&mut self, context: &CommandContext, typed: &str) -> LineOutcome {
        for line in typed.lines() {
            self.add_to_history(line);
            match execute(context, line.as_bytes()) {
                LineOutcome::Done(_) if !context.state.is_cancelled() => (),
                step => return step,
            }
        }
        LineOutcome::Done(ExitCode::Success)
    }

    /// Written at once: a client that is killed has lost nothing.
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

/// The history in the user's XDG state folder; `None` if there can be none.
fn history_file() -> Option<PathBuf> {
    let folder = etcetera::choose_base_strategy().ok()?.state_dir()?.join("fileshare");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join("history"))
}
