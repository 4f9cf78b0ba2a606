//! The shell at a terminal: prompt, history, completion. The exit status is always success.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use etcetera::BaseStrategy;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor, ExternalPrinter};
use zeroize::Zeroizing;

use super::completion::Completion;
use super::interrupt::InterruptState;
use super::{LineOutcome, Shell, ShellExit, execute, skip_line};
use crate::client::exit_code::ExitCode;
use crate::client::shell::command::{UsageError, may_hold_password};
use crate::client::ui::console::Console;
use crate::client::ui::look::{Emphasis, Look};
use crate::client::ui::terminal::PromptTerminal;

/// Lines that the history keeps.
const HISTORY_MAX: usize = 1_000;

/// Reads and runs lines until `xit` or the end of input.
pub fn run(
    shell: &Shell<'_>,
    completion: Completion<'_>,
    console: &Console,
    interrupts: &InterruptState,
    terminal: &PromptTerminal,
    stay: bool,
) -> ShellExit {
    if shell.runner.user().is_none() {
        shell.output.info("'auth USERNAME' logs in; 'help' explains the commands");
    }
    let mut prompt = match LinePrompt::open(completion, console) {
        Ok(prompt) => prompt,
        Err(error) => {
            let why = format!("cannot use this terminal: {error}");
            return ShellExit::Leave(skip_line(&shell.output, None, ExitCode::Internal, why));
        }
    };
    interrupts.set_interactive();
    let exit = prompt.run(shell, terminal, stay);
    console.set_prompt_printer(None);
    exit
}

struct LinePrompt<'a> {
    editor: Editor<Completion<'a>, FileHistory>,
    history: Option<PathBuf>,
    look: Look,
}

impl<'a> LinePrompt<'a> {
    fn open(completion: Completion<'a>, console: &Console) -> rustyline::Result<Self> {
        let look = console.look();
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            // Pasted lines run one by one, and a signal leaves the terminal in its ordinary mode.
            .bracketed_paste(false)
            .color_mode(if look.has_color { ColorMode::Forced } else { ColorMode::Disabled })
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(completion));
        let history = history_file();
        if let Some(path) = &history {
            // Missing at the first start; without a history the shell works all the same.
            let _ = editor.load_history(path);
        }
        if io::stderr().is_terminal()
            && let Ok(mut printer) = editor.create_external_printer()
        {
            let print = move |line: String| drop(printer.print(line));
            console.set_prompt_printer(Some(Box::new(print)));
        }
        Ok(Self { editor, history, look })
    }

    fn run(&mut self, shell: &Shell<'_>, terminal: &PromptTerminal, stay: bool) -> ShellExit {
        // What has been typed of a line with a byte that is not UTF-8: before and after the cursor.
        let mut damaged: Option<(Zeroizing<String>, Zeroizing<String>)> = None;
        while !shell.state.is_closed() && !shell.output.has_ended() {
            let (left, right) = damaged.as_ref().map_or(("", ""), |(left, right)| (left.as_str(), right.as_str()));
            let user = shell.runner.user().map(|user| user.to_string()).unwrap_or_default();
            let prompt = (format!("{user}> "), self.look.emphasize(Emphasis::Heading, &user) + "> ");
            let read = terminal.at_prompt(|| self.editor.readline_with_initial(&prompt, (left, right)));
            let was_damaged = damaged.take().is_some();
            match read {
                Some(Ok(typed)) => {
                    let typed = Zeroizing::new(typed);
                    if was_damaged && typed.contains(char::REPLACEMENT_CHARACTER) {
                        report_not_utf8(shell);
                        continue;
                    }
                    self.add_to_history(&typed);
                    if let LineOutcome::Exit(run) = execute(shell, typed.as_bytes(), false) {
                        return ShellExit::Xit(ExitCode::Success, run);
                    }
                }
                Some(Err(ReadlineError::Interrupted | ReadlineError::Signal(_))) => (),
                Some(Err(ReadlineError::Eof)) if stay => return ShellExit::Stay,
                // The line is shown again, so that its rest does not become a line of its own: it may be a password.
                Some(Err(ReadlineError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
                    match self.editor.helper().and_then(Completion::take_typed) {
                        Some((mut left, right)) => {
                            left.push(char::REPLACEMENT_CHARACTER);
                            damaged = Some((left, right));
                        }
                        // A terminal without line editing: the whole line has been read.
                        None => report_not_utf8(shell),
                    }
                }
                Some(Err(_)) | None => break,
            }
        }
        ShellExit::Leave(ExitCode::Success)
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

fn report_not_utf8(shell: &Shell<'_>) {
    skip_line(&shell.output, None, ExitCode::Usage, UsageError::NotUtf8);
}

/// In the XDG state folder; `None` if that cannot be created.
fn history_file() -> Option<PathBuf> {
    let dir = etcetera::choose_base_strategy().ok()?.state_dir()?.join("fileshare");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
    Some(dir.join("history"))
}
