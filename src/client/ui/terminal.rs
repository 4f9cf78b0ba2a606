//! The terminal, which this process shares with its shell, other jobs, and a pager at the other end of a pipe.
//!
//! Only the foreground process group changes its settings or draws on it, and this client restores only what it has set.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::common::sync::lock;

/// Whether this process may draw on a terminal and change its settings: it is in the foreground process group, or the
/// terminal has no job control for it.
pub fn is_foreground(terminal: impl AsFd) -> bool {
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == getpgrp())
}

/// Whether this process belongs to a background job of its controlling terminal. Also if that cannot be opened.
pub fn is_background() -> bool {
    File::open("/dev/tty").map_or(true, |terminal| !is_foreground(terminal))
}

/// Restores the settings that the terminal had before a prompt changed them, if a signal ends the client at that prompt.
#[derive(Default)]
pub struct PromptTerminal(Mutex<PromptState>);

#[derive(Default)]
enum PromptState {
    /// No prompt is active: the terminal's settings are not ours.
    #[default]
    Idle,
    /// A prompt reads from the terminal. With the settings from before it; `None` if stdin is no terminal.
    Prompting(Option<Box<Termios>>),
    /// The client is ending.
    Closed,
}

impl PromptTerminal {
    /// Runs `prompt`, which may change settings of the terminal at stdin and restores them before it returns. `None`,
    /// without running it, if the client is ending.
    pub fn at_prompt<T>(&self, prompt: impl FnOnce() -> T) -> Option<T> {
        {
            let mut state = lock(&self.0);
            if matches!(*state, PromptState::Closed) {
                return None;
            }
            *state = PromptState::Prompting(tcgetattr(io::stdin()).ok().map(Box::new));
        }
        let typed = prompt();
        let mut state = lock(&self.0);
        if matches!(*state, PromptState::Prompting(_)) {
            *state = PromptState::Idle;
        }
        Some(typed)
    }

    /// Restores the settings if a prompt is active, and lets no further prompt start. In the background the settings stay
    /// as they are: they belong to the foreground job, and setting them would stop this process (SIGTTOU).
    pub fn close(&self) {
        let mut state = lock(&self.0);
        if let PromptState::Prompting(Some(settings)) = &*state
            && is_foreground(io::stdin())
        {
            // Fails if the terminal is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, settings);
        }
        *state = PromptState::Closed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prompt_starts_once_the_client_is_ending() {
        let terminal = PromptTerminal::default();
        assert_eq!(terminal.at_prompt(|| "typed"), Some("typed"));
        terminal.close();
        assert_eq!(terminal.at_prompt(|| "typed"), None);
    }
}
