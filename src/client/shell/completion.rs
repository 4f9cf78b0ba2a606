//! Completion: commands, and their arguments: entries of the shared folder, the user's publications, what goes on in the
//! background, and names and users from the server.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context as LineContext, Helper};
use zeroize::Zeroizing;

use crate::client::commands::Verb;
use crate::client::control::{RequestError, ServerApi};
use crate::client::engine::ClientEngine;
use crate::client::files::{FileKind, SharedFiles, is_excluded};
use crate::client::jobs::Job;
use crate::client::shell::path_arg::normalize;
use crate::client::shell::tokenizer::{Token, TokenizeError, Tokenizer, is_blank, quote};
use crate::common::escape::escape_controls;
use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::NameQuery;
use crate::common::threads;
use crate::common::types::FileName;

/// How long a key press waits for the server.
const SEARCH_TIMEOUT: Duration = Duration::from_millis(500);
/// Candidates offered at once.
const CANDIDATES_MAX: usize = 500;

/// Completes a line.
pub trait LineCompleter {
    /// The offset at which the last word of `line` starts, and its quoted replacements.
    fn candidates(&self, line: &str) -> (usize, Vec<String>);
}

/// Completion as the line editor needs it.
pub struct Completion<'a> {
    completer: Box<dyn LineCompleter + 'a>,
    /// The line that is being edited, and the cursor's offset.
    typed: RefCell<Option<(Zeroizing<String>, usize)>>,
}

/// Completes from the folder, the publications and the server of this process.
pub struct EngineCompleter {
    engine: Arc<ClientEngine>,
    /// A request is pending: pressing the key again sends no second one.
    is_searching: Arc<AtomicBool>,
}

impl<'a> Completion<'a> {
    pub fn new(completer: impl LineCompleter + 'a) -> Self {
        Self { completer: Box::new(completer), typed: RefCell::default() }
    }

    /// What was typed of the line that the editor read last, before and after the cursor. `None` if the terminal has no line
    /// editing.
    pub(super) fn take_typed(&self) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
        let (line, at) = self.typed.take()?;
        let (left, right) = line.split_at(at);
        Some((Zeroizing::new(left.into()), Zeroizing::new(right.into())))
    }
}

impl LineCompleter for EngineCompleter {
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let start = word_start(line);
        let Some(word) = unquoted(&line[start..]) else { return (start, Vec::new()) };
        let mut before = Tokenizer::new(&line[..start]);
        let Ok(Some(head)) = before.next_token() else {
            let verbs = Verb::ALL.iter().map(|verb| verb.name()).filter(|name| name.starts_with(&word));
            return (start, verbs.map(|name| format!("{name} ")).collect());
        };
        let words = before.collect_tokens().unwrap_or_default();
        let engine = &self.engine;
        let verb = Verb::parse(&head.text);
        let names = match (verb, words.last().map(|last| last.text.as_str())) {
            (Some(Verb::Pub), Some("--to"))
            | (Some(Verb::Follow), Some("--from"))
            | (Some(Verb::Wait), Some("peer" | "gone"))
            | (Some(Verb::Ls), _) => self.peers(&engine.server, word),
            (Some(Verb::Pub), _) => local_entries(&engine.files, &word),
            (Some(Verb::Unp), Some("--watch")) => {
                // The shared folder is the empty path.
                let shown = |path: String| if path.is_empty() { ".".into() } else { path };
                starting_with(&word, engine.watches.keys().into_iter().map(shown))
            }
            (Some(Verb::Unp), _) => to_strings(&engine.publications.names_with_prefix(&word, CANDIDATES_MAX)),
            (Some(Verb::Cat | Verb::Events | Verb::Follow | Verb::Get), _) | (Some(Verb::Wait), Some("file")) => {
                self.remote_names(&engine.server, word)
            }
            (Some(Verb::Unfollow), _) => {
                let patterns = engine.follows.keys().into_iter().map(|followed| followed.pattern);
                let typed = starting_with(&word, patterns.collect::<BTreeSet<_>>());
                return (start, typed.iter().map(|pattern| to_pattern_argument(pattern)).collect());
            }
            (Some(Verb::Cancel), None) => starting_with(&word, numbers(&engine.jobs.running())),
            (Some(Verb::Wait), None) => {
                let conditions = ["all", "file", "gone", "peer"].map(str::to_owned);
                starting_with(&word, numbers(&engine.jobs.waitable()).chain(conditions))
            }
            (Some(Verb::Help), None) => starting_with(&word, Verb::ALL.iter().map(|verb| verb.name().to_owned())),
            _ => Vec::new(),
        };
        (start, names.iter().map(|name| to_argument(name)).collect())
    }
}

impl EngineCompleter {
    pub fn new(engine: Arc<ClientEngine>) -> Self {
        Self { engine, is_searching: Arc::default() }
    }

    fn remote_names(&self, server: &ServerApi, word: String) -> Vec<String> {
        if word.len() > NEEDLE_MAX_BYTES {
            return Vec::new();
        }
        self.ask(server, |server| Ok(to_strings(&server.search(NameQuery::Prefix(word))?)))
    }

    fn peers(&self, server: &ServerApi, word: String) -> Vec<String> {
        self.ask(server, move |server| {
            let users = server.peers()?.into_iter().map(|peer| peer.user.to_string());
            Ok(users.filter(|user| user.starts_with(&word)).collect())
        })
    }

    /// Names from the server; none if it does not reply within [`SEARCH_TIMEOUT`].
    fn ask(
        &self,
        server: &ServerApi,
        request: impl FnOnce(&ServerApi) -> Result<Vec<String>, RequestError> + Send + 'static,
    ) -> Vec<String> {
        if self.is_searching.swap(true, SeqCst) {
            return Vec::new();
        }
        let (sender, found) = mpsc::channel();
        let (server, is_searching) = (server.clone(), Arc::clone(&self.is_searching));
        let search = move || {
            let names = request(&server).unwrap_or_default();
            is_searching.store(false, SeqCst);
            // Fails after the timeout.
            let _ = sender.send(names);
        };
        if threads::spawn("completion", search).is_err() {
            self.is_searching.store(false, SeqCst);
        }
        let mut names = found.recv_timeout(SEARCH_TIMEOUT).unwrap_or_default();
        names.truncate(CANDIDATES_MAX);
        names
    }
}

/// Entries of the shared folder that `pub` accepts; hidden ones only if the word starts like one.
fn local_entries(files: &SharedFiles, word: &str) -> Vec<String> {
    let (dir, start) = word.rsplit_once('/').unwrap_or(("", word));
    if normalize(&name_token(word.into())).is_err() && !word.is_empty() {
        return Vec::new();
    }
    let mut names = Vec::new();
    for entry in files.dir().list(dir).unwrap_or_default() {
        let slash = match entry.kind {
            FileKind::File => "",
            FileKind::Directory => "/",
            FileKind::Special => continue,
        };
        let Ok(name) = std::str::from_utf8(&entry.name) else { continue };
        let is_match = name.starts_with(start) && (!name.starts_with('.') || start.starts_with('.'));
        let path = format!("{}{name}", &word[..word.len() - start.len()]);
        if is_match && !is_excluded(&entry.name) && is_publishable(&path) {
            names.push(path + slash);
        }
    }
    names.sort();
    names.truncate(CANDIDATES_MAX);
    names
}

fn starting_with(word: &str, names: impl IntoIterator<Item = String>) -> Vec<String> {
    names.into_iter().filter(|name| name.starts_with(word)).collect()
}

fn numbers(jobs: &[Arc<Job>]) -> impl Iterator<Item = String> + '_ {
    jobs.iter().map(|job| job.number.to_string())
}

/// A name that is no pattern.
fn name_token(text: String) -> Token {
    Token { text, pattern: None }
}

/// Whether the path is a name that can be published, or one of a folder beneath which names can.
fn is_publishable(path: &str) -> bool {
    normalize(&name_token(path.into())).is_ok_and(|argument| FileName::parse(&argument.text).is_ok())
}

/// `name` as the command reads it back. A leading dash makes an option, even a quoted one.
fn to_argument(name: &str) -> String {
    if name.starts_with('-') { quote(&format!("./{name}")) } else { quote(name) }
}

/// A name or pattern as `follow` reads it back: unquoted, if that is the same.
fn to_pattern_argument(text: &str) -> String {
    let reads_back = |tokens: Vec<Token>| matches!(&*tokens, [token] if token.text == text && normalize(token).is_ok());
    let is_plain = !text.starts_with(['-', '#']) && Tokenizer::new(text).collect_tokens().is_ok_and(reads_back);
    if is_plain { text.to_owned() } else { to_argument(text) }
}

fn to_strings(names: &[FileName]) -> Vec<String> {
    names.iter().map(FileName::to_string).collect()
}

/// The offset of the last word of `line`; the end of the line if a new word would start there.
fn word_start(line: &str) -> usize {
    let mut tokens = Tokenizer::new(line);
    loop {
        let end = tokens.position();
        let start = end + line[end..].chars().take_while(|c| is_blank(*c)).count();
        match tokens.next_token() {
            Ok(Some(_)) if tokens.position() < line.len() => (),
            Ok(None) => return line.len(),
            _ => return start,
        }
    }
}

/// The text of a word whose quotes may still be open.
fn unquoted(word: &str) -> Option<String> {
    let closed = match Tokenizer::new(word).next_token() {
        Err(TokenizeError::Unterminated(quote)) => format!("{word}{quote}"),
        Err(TokenizeError::TrailingBackslash) => word[..word.len() - 1].to_string(),
        Ok(_) => word.to_string(),
    };
    Tokenizer::new(&closed).next_token().ok().map(|word| word.map(|word| word.text).unwrap_or_default())
}

impl Completer for Completion<'_> {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.completer.candidates(&line[..pos]);
        let pair =
            |replacement: String| Pair { display: escape_controls(replacement.trim_end()).to_string(), replacement };
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

/// Shows no hints: the editor calls it after each change of the line.
impl Hinter for Completion<'_> {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, _: &LineContext<'_>) -> Option<String> {
        *self.typed.borrow_mut() = Some((Zeroizing::new(line.into()), pos));
        None
    }
}

impl Highlighter for Completion<'_> {}

impl Validator for Completion<'_> {}

impl Helper for Completion<'_> {}

#[cfg(test)]
#[path = "completion_tests.rs"]
mod tests;
