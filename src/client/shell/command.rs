//! The commands: what a line means. One usage line for each, no execution.

use zeroize::Zeroizing;

use crate::client::control::Password;
use crate::client::files::PathArg;
use crate::client::shell::path_arg::{PathError, normalize};
use crate::client::shell::tokenizer::{Token, TokenizeError, Tokenizer, is_blank};
use crate::common::escape::strip_line_ending;
use crate::common::types::{UserName, UserNameError};

/// The commands by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Log in.
    Auth,
    /// Download.
    Get,
    /// Explain.
    Help,
    /// List active peers.
    Lap,
    /// List the own publications.
    Lpf,
    /// Publish.
    Pub,
    /// Search.
    Sch,
    /// Withdraw.
    Unp,
    /// Leave.
    Xit,
}

impl Verb {
    /// All, sorted by name.
    pub const ALL: [Self; 9] =
        [Self::Auth, Self::Get, Self::Help, Self::Lap, Self::Lpf, Self::Pub, Self::Sch, Self::Unp, Self::Xit];

    /// The command of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// What is typed.
    pub fn name(self) -> &'static str {
        self.texts().0
    }

    /// One line: what it takes.
    pub fn usage(self) -> &'static str {
        self.texts().1
    }

    /// One line: what it does.
    pub fn about(self) -> &'static str {
        self.texts().2
    }

    fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Auth => ("auth", "auth USERNAME [PASSWORD]", "log in; without PASSWORD it is asked for"),
            Self::Get => {
                ("get", "get [--share] FILENAME...", "download; takes names, 'name#hash', patterns and 'folder/'")
            }
            Self::Help => ("help", "help [COMMAND]", "explain the commands"),
            Self::Lap => ("lap", "lap", "list the active peers"),
            Self::Lpf => ("lpf", "lpf", "list the files you have published"),
            Self::Pub => {
                ("pub", "pub [--to USERNAME]... FILENAME...", "publish files, patterns or folders, to all or to some")
            }
            Self::Sch => ("sch", "sch [-i] [-l] SUBSTRING", "search the active peers' files; -i any case, -l details"),
            Self::Unp => ("unp", "unp FILENAME...", "take back what you have published"),
            Self::Xit => ("xit", "xit", "log out and leave"),
        }
    }
}

/// One command, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Log in.
    Auth {
        /// As typed; whether it is a user name at all is for the login to find out.
        user: String,
        /// The rest of the line; `None` if there was none.
        password: Option<Password>,
    },
    /// Download.
    Get {
        /// Names, patterns and folders, in the order asked.
        files: Vec<PathArg>,
        /// Publish what was fetched.
        share: bool,
    },
    /// Explain one command or all.
    Help(Option<Verb>),
    /// List active peers.
    ListPeers,
    /// List the own publications.
    ListPublished,
    /// Publish.
    Publish {
        /// Only these may see it; empty: everyone.
        to: Vec<UserName>,
        /// Names, patterns and folders.
        files: Vec<PathArg>,
    },
    /// Search.
    Search {
        /// A part of the name; empty: every name.
        needle: String,
        /// `-i`.
        ignore_case: bool,
        /// `-l`.
        long: bool,
    },
    /// Withdraw.
    Unpublish {
        /// Names, patterns and folders.
        files: Vec<PathArg>,
    },
    /// Leave.
    Exit,
}

impl Command {
    /// Which one it is.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Auth { .. } => Verb::Auth,
            Self::Get { .. } => Verb::Get,
            Self::Help(_) => Verb::Help,
            Self::ListPeers => Verb::Lap,
            Self::ListPublished => Verb::Lpf,
            Self::Publish { .. } => Verb::Pub,
            Self::Search { .. } => Verb::Sch,
            Self::Unpublish { .. } => Verb::Unp,
            Self::Exit => Verb::Xit,
        }
    }
}

/// Why a line is no command: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Not text.
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    /// Quotes that do not close.
    #[error("{0}")]
    Tokenizer(#[from] TokenizeError),
    /// No such command.
    #[error("unknown command '{}'; 'help' lists the commands", truncate_for_display(.0))]
    Unknown(String),
    /// Too few or too many words.
    #[error("usage: {}", .0.usage())]
    Arity(Verb),
    /// No such option.
    #[error("unknown option '{}'; usage: {}", truncate_for_display(option), verb.usage())]
    Option {
        /// Of this command.
        verb: Verb,
        /// As typed.
        option: String,
    },
    /// `--to` names nobody.
    #[error("--to {0}: {1}")]
    User(String, UserNameError),
    /// A file argument that leaves the shared folder.
    #[error("{0}: {1}")]
    Path(String, PathError),
}

/// As much of what was typed as a line of stderr should repeat.
fn truncate_for_display(text: &str) -> &str {
    &text[..text.floor_char_boundary(80)]
}

/// What `line` asks for; `None` for a blank line or a comment. One line end is ignored.
pub fn parse(line: &[u8]) -> Result<Option<Command>, UsageError> {
    let line = strip_line_ending(line);
    let text = valid_utf8_prefix(line);
    let mut words = Tokenizer::new(text);
    if text.trim_start_matches(is_blank).starts_with('#') {
        return Ok(None);
    }
    let Some(head) = words.next_token()? else {
        return if text.len() == line.len() { Ok(None) } else { Err(UsageError::NotUtf8) };
    };
    if head.text == Verb::Auth.name() {
        return parse_auth(line, words).map(Some);
    }
    if text.len() != line.len() {
        return Err(UsageError::NotUtf8);
    }
    // The name first: an unknown command is told as such even when its quotes do not close.
    let verb = Verb::parse(&head.text).ok_or(UsageError::Unknown(head.text))?;
    parse_rest(verb, words.collect_tokens()?).map(Some)
}

/// A leading `-` before a command (in batches): whether it is there, and the line without it.
pub fn strip_ignore_prefix(line: &[u8]) -> (bool, &[u8]) {
    let blanks = line.iter().take_while(|&&byte| is_blank(byte.into())).count();
    match line[blanks..].strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, line),
    }
}

/// Whether a line may hold a password, so that it stays out of histories. Errs on the safe side.
pub fn may_hold_password(line: &str) -> bool {
    match Tokenizer::new(line).next_token() {
        Ok(Some(word)) => word.text.eq_ignore_ascii_case(Verb::Auth.name()),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// `auth` takes what follows the user name and one blank as the password, whatever it is.
fn parse_auth(line: &[u8], mut words: Tokenizer<'_>) -> Result<Command, UsageError> {
    let Some(user) = words.next_token()? else {
        return Err(UsageError::Arity(Verb::Auth));
    };
    let rest = line.get(words.position() + 1..).filter(|rest| !rest.is_empty());
    let password = rest.map(|rest| Zeroizing::new(rest.to_vec()));
    Ok(Command::Auth { user: user.text, password })
}

fn parse_rest(verb: Verb, words: Vec<Token>) -> Result<Command, UsageError> {
    let options = match verb {
        Verb::Pub => Options { flags: "", valued: Some("to"), long: &[] },
        Verb::Sch => Options { flags: "il", valued: None, long: &[("ignore-case", 'i'), ("long", 'l')] },
        Verb::Get => Options { flags: "", valued: None, long: &[("share", 's')] },
        _ => Options { flags: "", valued: None, long: &[] },
    };
    let Parsed { set, values, operands } = options.parse(verb, words)?;
    match verb {
        Verb::Auth => unreachable!("auth takes its line as it is"),
        Verb::Lap | Verb::Lpf | Verb::Xit if !operands.is_empty() => Err(UsageError::Arity(verb)),
        Verb::Lap => Ok(Command::ListPeers),
        Verb::Lpf => Ok(Command::ListPublished),
        Verb::Xit => Ok(Command::Exit),
        Verb::Help => match operands.as_slice() {
            [] => Ok(Command::Help(None)),
            [word] => match Verb::parse(&word.text) {
                Some(verb) => Ok(Command::Help(Some(verb))),
                None => Err(UsageError::Unknown(word.text.clone())),
            },
            _ => Err(UsageError::Arity(verb)),
        },
        Verb::Sch => match operands.as_slice() {
            [needle] => Ok(Command::Search {
                needle: needle.text.clone(),
                ignore_case: set.contains('i'),
                long: set.contains('l'),
            }),
            _ => Err(UsageError::Arity(verb)),
        },
        Verb::Get => Ok(Command::Get { files: paths(verb, operands)?, share: set.contains('s') }),
        Verb::Unp => Ok(Command::Unpublish { files: paths(verb, operands)? }),
        Verb::Pub => Ok(Command::Publish { to: users(values)?, files: paths(verb, operands)? }),
    }
}

fn paths(verb: Verb, operands: Vec<Token>) -> Result<Vec<PathArg>, UsageError> {
    if operands.is_empty() {
        return Err(UsageError::Arity(verb));
    }
    let path = |word: Token| normalize(&word).map_err(|error| UsageError::Path(word.text, error));
    operands.into_iter().map(path).collect()
}

fn users(values: Vec<String>) -> Result<Vec<UserName>, UsageError> {
    let user = |text: String| UserName::parse(&text).map_err(|error| UsageError::User(text, error));
    values.into_iter().map(user).collect()
}

/// The options one command takes.
struct Options {
    /// Single letters.
    flags: &'static str,
    /// The long option that takes a value.
    valued: Option<&'static str>,
    /// Long forms of flags.
    long: &'static [(&'static str, char)],
}

/// The words of a command, sorted out.
struct Parsed {
    set: String,
    values: Vec<String>,
    operands: Vec<Token>,
}

impl Options {
    fn parse(&self, verb: Verb, words: Vec<Token>) -> Result<Parsed, UsageError> {
        let mut parsed = Parsed { set: String::new(), values: Vec::new(), operands: Vec::new() };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let unknown = || UsageError::Option { verb, option: word.text.clone() };
            if word.text == "--" {
                parsed.operands.extend(words);
                break;
            } else if let Some(long) = word.text.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                if self.valued == Some(name) {
                    let value = value.map(String::from).or_else(|| words.next().map(|word| word.text));
                    parsed.values.push(value.ok_or(UsageError::Arity(verb))?);
                } else {
                    let flag = self.long.iter().find(|(long, _)| *long == name && value.is_none());
                    parsed.set.push(flag.ok_or_else(unknown)?.1);
                }
            } else if let Some(flags) = word.text.strip_prefix('-').filter(|flags| !flags.is_empty()) {
                if !flags.chars().all(|flag| self.flags.contains(flag)) {
                    return Err(unknown());
                }
                parsed.set.push_str(flags);
            } else {
                parsed.operands.push(word);
            }
        }
        Ok(parsed)
    }
}

/// As much of the line as is UTF-8: a password may be any bytes.
fn valid_utf8_prefix(line: &[u8]) -> &str {
    match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&line[..error.valid_up_to()]).expect("checked just now"),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
