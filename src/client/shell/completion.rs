//! Completion: commands, files of the folder after `pub`, own publications after `unp`, the server's names after `get`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context as LineContext, Helper};

use crate::client::commands::{CommandContext, Verb};
use crate::client::control::ServerApi;
use crate::client::publications::OwnPublications;
use crate::client::shell::tokenizer::{TokenizeError, Tokenizer, is_blank, quote};
use crate::common::escape::escape_controls;
use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::NameQuery;
use crate::common::types::FileName;

/// A key press waits this long for the server and no longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Most candidates that are offered.
const CANDIDATES_MAX: usize = 500;

/// See the module.
pub(super) struct Completion {
    server: ServerApi,
    own: Arc<OwnPublications>,
    dir: PathBuf,
    /// A search is under way: pressing the key again starts no second one.
    searching: Arc<AtomicBool>,
}

impl Completion {
    pub(super) fn new(context: &CommandContext, dir: &Path) -> Self {
        Self {
            server: context.server.clone(),
            own: Arc::clone(&context.own),
            dir: dir.into(),
            searching: Arc::default(),
        }
    }

    /// Where the word before `line`'s end starts, and what it may become, quoted.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let start = word_start(line);
        let Some(word) = unquoted(&line[start..]) else { return (start, Vec::new()) };
        let Ok(Some(head)) = Tokenizer::new(&line[..start]).next_token() else {
            let verbs = Verb::ALL.iter().map(|verb| verb.name()).filter(|name| name.starts_with(&word));
            return (start, verbs.map(|name| format!("{name} ")).collect());
        };
        let names = match Verb::parse(&head.text) {
            Some(Verb::Pub) => self.local_entries(&word),
            Some(Verb::Unp) => to_strings(&self.own.names_with_prefix(&word, CANDIDATES_MAX)),
            Some(Verb::Get) => self.remote_names(word),
            _ => Vec::new(),
        };
        (start, names.iter().map(|name| quote(name)).collect())
    }

    /// Entries of the shared folder; hidden ones only when the word asks for them.
    fn local_entries(&self, word: &str) -> Vec<String> {
        let (folder, start) = word.rsplit_once('/').map_or(("", word), |(folder, start)| (folder, start));
        if word.starts_with('/') || folder.split('/').any(|part| part == "..") {
            return Vec::new();
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.dir.join(folder)).into_iter().flatten().flatten().take(CANDIDATES_MAX * 20)
        {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let asked_for = name.starts_with(start) && (!name.starts_with('.') || start.starts_with('.'));
            let Ok(kind) = entry.file_type() else { continue };
            if asked_for && (kind.is_file() || kind.is_dir()) {
                let slash = if kind.is_dir() { "/" } else { "" };
                names.push(format!("{}{name}{slash}", &word[..word.len() - start.len()]));
            }
        }
        names.sort();
        names.truncate(CANDIDATES_MAX);
        names
    }

    /// Names from the server; none if it does not answer at once.
    fn remote_names(&self, word: String) -> Vec<String> {
        if word.len() > NEEDLE_MAX_BYTES || self.searching.swap(true, SeqCst) {
            return Vec::new();
        }
        let (found, answer) = mpsc::channel();
        let (server, searching) = (self.server.clone(), Arc::clone(&self.searching));
        std::thread::spawn(move || {
            let names = server.search(NameQuery::Prefix(word)).unwrap_or_default();
            searching.store(false, SeqCst);
            // Whoever asked may have stopped waiting.
            let _ = found.send(names);
        });
        let mut names = answer.recv_timeout(PATIENCE).unwrap_or_default();
        names.truncate(CANDIDATES_MAX);
        to_strings(&names)
    }
}

fn to_strings(names: &[FileName]) -> Vec<String> {
    names.iter().map(FileName::to_string).collect()
}

/// Where the last word of `line` starts; the end of the line if a new one would.
fn word_start(line: &str) -> usize {
    let mut words = Tokenizer::new(line);
    loop {
        let behind = words.position();
        let start = behind + line[behind..].chars().take_while(|c| is_blank(*c)).count();
        match words.next_token() {
            Ok(Some(_)) if words.position() < line.len() => (),
            Ok(None) => return line.len(),
            _ => return start,
        }
    }
}

/// What a word that may still be open has come to.
fn unquoted(word: &str) -> Option<String> {
    let closed = match Tokenizer::new(word).next_token() {
        Err(TokenizeError::Unterminated(quote)) => format!("{word}{quote}"),
        Err(TokenizeError::TrailingBackslash) => word[..word.len() - 1].to_string(),
        Ok(_) => word.to_string(),
    };
    Tokenizer::new(&closed).next_token().ok().map(|word| word.map(|word| word.text).unwrap_or_default())
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.candidates(&line[..pos]);
        let pair =
            |replacement: String| Pair { display: escape_controls(replacement.trim_end()).to_string(), replacement };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl Helper for Completion {}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
