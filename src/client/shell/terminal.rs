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

use super::complete::Completion;
use super::{Ended, Step, execute};
use crate::client::command::may_hold_password;
use crate::client::commands::Context;
use crate::client::exit_code::ExitCode;

const PROMPT: &str = "> ";
/// Lines of history that are kept.
const HISTORY_MAX: usize = 1_000;

/// Reads and runs lines until `xit` or the end of input. `dir`: the shared folder, for completion.
pub fn run(context: &Context, dir: &Path, stay: bool) -> Ended {
    let mut terminal = match Terminal::open(context, dir) {
        Ok(terminal) => terminal,
        Err(error) => {
            let code = context.trouble("", ExitCode::Internal, format!("cannot use this terminal: {error}"));
            return Ended::Leave(code);
        }
    };
    context.life.at_a_prompt();
    let ended = terminal.run(context, stay);
    context.console.set_prompt_printer(None);
    ended
}

struct Terminal {
    editor: Editor<Completion, FileHistory>,
    history: Option<PathBuf>,
}

impl Terminal {
    fn open(context: &Context, dir: &Path) -> rustyline::Result<Self> {
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

    fn run(&mut self, context: &Context, stay: bool) -> Ended {
        while !context.life.ending() && !context.console.is_closed() {
            match self.editor.readline(PROMPT) {
                Ok(typed) => {
                    let typed = Zeroizing::new(typed);
                    if self.run_lines(context, &typed) == Step::Exit {
                        return Ended::Leave(ExitCode::Success);
                    }
                }
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => (),
                Err(ReadlineError::Eof) if stay => return Ended::Stay,
                Err(_) => break,
            }
        }
        Ended::Leave(ExitCode::Success)
    }

    /// What is pasted may be several lines; a cancelled one takes the rest with it.
    fn run_lines(&mut self, context: &Context, typed: &str) -> Step {
        for line in typed.lines() {
            self.remember(line);
            match execute(context, line.as_bytes()) {
                Step::Done(_) if !context.life.cancelled() => (),
                step => return step,
            }
        }
        Step::Done(ExitCode::Success)
    }

    /// Written at once: a client that is killed has lost nothing.
    fn remember(&mut self, line: &str) {
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
