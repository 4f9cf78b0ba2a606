//! From a line to a command: clap reads the options, the [tokenizer](super::tokenizer) the words, since quoting decides
//! which words are patterns.
//!
//! Executes nothing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use zeroize::Zeroizing;

use crate::client::commands::Verb;
use crate::client::files::PathArg;
use crate::client::shell::path_arg::normalize;
use crate::client::shell::tokenizer::{Token, Tokenizer, is_blank};
use crate::client::shell::usage_error::SECONDS_MAX;
pub use crate::client::shell::usage_error::UsageError;
use crate::common::escape::strip_line_ending;
use crate::common::limits::AUDIENCE_MAX_USERS;
use crate::common::types::{FileName, Password, UserName};

/// Separates the text of a token from its pattern in an argument for clap. No token contains it: it is not UTF-8.
const PATTERN_SEPARATOR: u8 = 0xff;

/// How long `wait` waits without another time.
const WAIT_DEFAULT_SECS: &str = "30";
/// What clap sees before the number of a job: no word of a line can be it.
const JOB_WORD: &str = "\n";

/// One command with its arguments. Every variant but `Job` is named as its [`Verb`].
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true, args_override_self = true)]
pub enum Command {
    /// Clap never sees an `auth` line: the password is the rest of the line as it is.
    #[command(skip)]
    Auth {
        /// As typed; may be no valid user name.
        user: String,
        /// `None`: to be asked for.
        password: Option<Password>,
    },
    /// Ends what goes on in the background.
    Cancel {
        #[arg(value_parser = number_parser())]
        number: u64,
    },
    /// Writes the content of one file to standard output.
    Cat {
        /// A name, or `name#hex`.
        #[arg(value_parser = path_parser())]
        file: PathArg,
        /// As for `get`.
        #[arg(long, value_name = "SECS", value_parser = seconds_parser())]
        wait: Option<Duration>,
    },
    /// Reports what happens.
    Events {
        /// Files whose coming and going is reported as well.
        #[arg(value_parser = path_parser())]
        files: Vec<PathArg>,
    },
    /// Fetches what matches whenever it changes; without a pattern, lists what is followed.
    Follow {
        /// Remove what was fetched and is gone.
        #[arg(long)]
        mirror: bool,
        /// Only what this user shares.
        #[arg(long, allow_hyphen_values = true, value_parser = user_parser())]
        from: Option<UserName>,
        #[arg(value_parser = path_parser())]
        files: Vec<PathArg>,
    },
    Get {
        #[arg(long, conflicts_with = "output")]
        share: bool,
        /// Only say what would be done.
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Where the file goes that is named, instead of its own name.
        #[arg(short, long, value_parser = output_parser())]
        output: Option<GetOutput>,
        #[arg(required = true, value_parser = path_parser())]
        files: Vec<PathArg>,
        /// Wait at most this long for names that nobody shares yet.
        #[arg(long, value_name = "SECS", value_parser = seconds_parser())]
        wait: Option<Duration>,
    },
    /// Lists what goes on in the background.
    Jobs,
    Help {
        #[arg(value_parser = verb_parser())]
        verb: Option<Verb>,
    },
    /// A `get`, `pub` or `wait` whose last word is an unquoted `&`.
    #[command(skip)]
    Job {
        command: Box<Self>,
        /// A failure of it is none of the client.
        ignores_failure: bool,
    },
    Lap {
        #[arg(short, long)]
        long: bool,
    },
    Lpf {
        #[arg(short, long)]
        long: bool,
    },
    Ls {
        #[arg(short, long)]
        long: bool,
        #[arg(value_parser = user_parser())]
        user: UserName,
    },
    Pub {
        /// The only users who may see the files; empty: all users.
        #[arg(long, allow_hyphen_values = true, value_parser = user_parser())]
        to: Vec<UserName>,
        /// Store standard input under the name that is given, first.
        #[arg(long)]
        stdin: bool,
        /// Keep the folder published as it changes.
        #[arg(long, conflicts_with = "stdin")]
        watch: bool,
        #[arg(required = true, value_parser = path_parser())]
        files: Vec<PathArg>,
    },
    Sch {
        #[arg(short, long)]
        ignore_case: bool,
        #[arg(short, long)]
        long: bool,
        /// May be empty: every name contains it.
        #[arg(value_parser = text_parser())]
        substring: String,
    },
    Stop,
    Unfollow {
        #[arg(required = true, value_parser = path_parser())]
        files: Vec<PathArg>,
    },
    Unp {
        /// Watch the folder no longer.
        #[arg(long)]
        watch: bool,
        #[arg(required = true, value_parser = path_parser())]
        files: Vec<PathArg>,
    },
    Wait {
        #[command(subcommand)]
        target: WaitTarget,
    },
    Xit,
}

/// The argument of `get -o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GetOutput {
    /// `-`
    Stdout,
    File(FileName),
}

/// What `wait` waits for, and for how long at most.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum WaitTarget {
    /// The user is active.
    Peer {
        #[arg(value_parser = user_parser())]
        user: UserName,
        #[arg(default_value = WAIT_DEFAULT_SECS, value_parser = seconds_parser())]
        timeout: Duration,
    },
    /// The user is not active.
    Gone {
        #[arg(value_parser = user_parser())]
        user: UserName,
        #[arg(default_value = WAIT_DEFAULT_SECS, value_parser = seconds_parser())]
        timeout: Duration,
    },
    /// The job has ended.
    #[command(name = JOB_WORD)]
    Job {
        #[arg(value_parser = number_parser())]
        number: u64,
        #[arg(value_parser = seconds_parser())]
        timeout: Option<Duration>,
    },
    /// All jobs have ended.
    All {
        #[arg(value_parser = seconds_parser())]
        timeout: Option<Duration>,
    },
    /// An active peer shares the file.
    File {
        #[arg(value_parser = name_parser())]
        name: FileName,
        #[arg(default_value = WAIT_DEFAULT_SECS, value_parser = seconds_parser())]
        timeout: Duration,
    },
}

impl Command {
    /// The command itself, also of one that goes on in the background.
    pub fn without_job(&self) -> &Self {
        match self {
            Self::Job { command, .. } => command,
            command => command,
        }
    }

    /// The command's name.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Auth { .. } => Verb::Auth,
            Self::Cancel { .. } => Verb::Cancel,
            Self::Cat { .. } => Verb::Cat,
            Self::Events { .. } => Verb::Events,
            Self::Follow { .. } => Verb::Follow,
            Self::Get { .. } => Verb::Get,
            Self::Help { .. } => Verb::Help,
            Self::Jobs => Verb::Jobs,
            Self::Job { command, .. } => command.verb(),
            Self::Lap { .. } => Verb::Lap,
            Self::Lpf { .. } => Verb::Lpf,
            Self::Ls { .. } => Verb::Ls,
            Self::Pub { .. } => Verb::Pub,
            Self::Sch { .. } => Verb::Sch,
            Self::Stop => Verb::Stop,
            Self::Unfollow { .. } => Verb::Unfollow,
            Self::Unp { .. } => Verb::Unp,
            Self::Wait { .. } => Verb::Wait,
            Self::Xit => Verb::Xit,
        }
    }

    /// What clap cannot check, and what a command that no line says may have.
    pub fn check(&self) -> Result<(), UsageError> {
        match self {
            Self::Get { wait: Some(timeout), .. }
            | Self::Cat { wait: Some(timeout), .. }
            | Self::Wait {
                target:
                    WaitTarget::Peer { timeout, .. } | WaitTarget::Gone { timeout, .. } | WaitTarget::File { timeout, .. },
            } if *timeout > SECONDS_MAX => Err(UsageError::Seconds(timeout.as_secs().to_string())),
            Self::Pub { to, .. } if to.iter().collect::<BTreeSet<_>>().len() > AUDIENCE_MAX_USERS => {
                Err(UsageError::Audience)
            }
            Self::Pub { stdin: true, files, .. } => check_one_file("--stdin", files),
            Self::Pub { watch: true, files, .. } | Self::Unp { watch: true, files } => check_one_folder(files),
            Self::Get { output: Some(_), files, .. } => check_one_file("-o", files),
            Self::Cat { file, .. } => check_one_file("cat", std::slice::from_ref(file)),
            _ => Ok(()),
        }
    }
}

/// Reads one line, with or without its line ending. `None` for a blank line or a comment.
pub fn parse(line: &[u8]) -> Result<Option<Command>, UsageError> {
    let line = strip_line_ending(line);
    if line.contains(&b'\n') {
        return Err(UsageError::LineBreak);
    }
    let text = valid_utf8_prefix(line);
    let mut tokens = Tokenizer::new(text);
    if text.trim_start_matches(is_blank).starts_with('#') {
        return Ok(None);
    }
    let Some(head) = tokens.next_token()? else {
        return if text.len() == line.len() { Ok(None) } else { Err(UsageError::NotUtf8) };
    };
    if head.text == Verb::Auth.name() {
        return parse_auth(line, tokens).map(Some);
    }
    if text.len() != line.len() {
        return Err(UsageError::NotUtf8);
    }
    // The name before the rest: an unknown command is reported as such even if its quotes do not close.
    let verb = Verb::parse(&head.text).ok_or(UsageError::Unknown(head.text))?;
    let mut tokens = tokens.collect_tokens()?;
    let is_job = matches!(verb, Verb::Get | Verb::Pub | Verb::Wait) && pop_ampersand(text, &mut tokens);
    let is_number = |word: &Token| !word.text.is_empty() && word.text.bytes().all(|byte| byte.is_ascii_digit());
    if verb == Verb::Wait && tokens.first().is_some_and(is_number) {
        tokens.insert(0, Token { text: JOB_WORD.into(), pattern: None });
    }
    let arguments = to_arguments(tokens);
    let command = Command::try_parse_from(std::iter::once(verb.name().into()).chain(arguments));
    let command = command.map_err(|error| UsageError::of_clap(verb, &error))?;
    command.check()?;
    let command = match command {
        Command::Get { output: Some(GetOutput::Stdout), dry_run: false, .. } if is_job => {
            return Err(UsageError::OutputOfJob);
        }
        Command::Get { output: Some(GetOutput::Stdout), dry_run: false, mut files, wait, .. } => {
            Command::Cat { file: files.remove(0), wait }
        }
        command => command,
    };
    Ok(Some(match is_job {
        true => Command::Job { command: Box::new(command), ignores_failure: false },
        false => command,
    }))
}

/// Removes the last word if it is an unquoted `&`.
fn pop_ampersand(line: &str, tokens: &mut Vec<Token>) -> bool {
    // A word of this text that is quoted ends in another way.
    let is_last = tokens.last().is_some_and(|last| last.text == "&");
    let before = line.trim_end_matches(is_blank).strip_suffix('&');
    let is_ampersand = is_last && before.is_some_and(|before| before.ends_with(is_blank));
    if is_ampersand {
        tokens.pop();
    }
    is_ampersand
}

/// The text of a job's line, without the `&`.
pub fn job_text(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    text.strip_suffix('&').unwrap_or(text).trim_end().to_owned()
}

fn check_one_file(what: &'static str, files: &[PathArg]) -> Result<(), UsageError> {
    let is_file = |file: &PathArg| file.pattern.is_none() && file.text != "." && !file.text.ends_with('/');
    if matches!(files, [file] if is_file(file)) { Ok(()) } else { Err(UsageError::OneFile(what)) }
}

fn check_one_folder(files: &[PathArg]) -> Result<(), UsageError> {
    if matches!(files, [PathArg { pattern: None, .. }]) { Ok(()) } else { Err(UsageError::OneFolder) }
}

/// The line behind a leading `-`, which in a batch makes the shell ignore a failure; `None` without it.
pub fn strip_ignore_prefix(line: &[u8]) -> Option<&[u8]> {
    let blanks = line.iter().take_while(|&&byte| is_blank(byte.into())).count();
    line[blanks..].strip_prefix(b"-")
}

/// Whether a line, with or without a leading `-`, is an `auth` with a password.
pub fn holds_password(line: &[u8]) -> bool {
    let command = parse(strip_ignore_prefix(line).unwrap_or(line));
    matches!(command, Ok(Some(Command::Auth { password: Some(_), .. })))
}

/// Whether a line may contain a password, and so must not enter the history. Errs on the safe side.
pub fn may_hold_password(line: &str) -> bool {
    match Tokenizer::new(line).next_token() {
        Ok(Some(token)) => token.text.eq_ignore_ascii_case(Verb::Auth.name()),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The password is everything after the user name and one blank, including bytes that are not UTF-8.
fn parse_auth(line: &[u8], mut tokens: Tokenizer<'_>) -> Result<Command, UsageError> {
    let Some(user) = tokens.next_token()? else {
        return Err(UsageError::Arity(Verb::Auth));
    };
    let rest = line.get(tokens.position() + 1..).filter(|rest| !rest.is_empty());
    let password = rest.map(|rest| Zeroizing::new(rest.to_vec()));
    Ok(Command::Auth { user: user.text, password })
}

fn valid_utf8_prefix(line: &[u8]) -> &str {
    match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&line[..error.valid_up_to()]).expect("valid up to here"),
    }
}

/// Tokens as arguments for clap. Operands carry their pattern behind [`PATTERN_SEPARATOR`]; options have none.
fn to_arguments(tokens: Vec<Token>) -> impl Iterator<Item = OsString> {
    let mut only_operands = false;
    tokens.into_iter().map(move |token| {
        let is_operand = only_operands || !token.text.starts_with('-');
        only_operands |= token.text == "--";
        let mut bytes = token.text.into_bytes();
        if let Some(pattern) = token.pattern.filter(|_| is_operand) {
            bytes.push(PATTERN_SEPARATOR);
            bytes.extend(pattern.into_bytes());
        }
        OsString::from_vec(bytes)
    })
}

/// The inverse of [`to_arguments`], for one argument or the value of an option.
fn to_token(argument: OsString) -> Token {
    let mut parts = argument.as_bytes().splitn(2, |&byte| byte == PATTERN_SEPARATOR);
    let mut next = || parts.next().map(|part| String::from_utf8_lossy(part).into_owned());
    Token { text: next().unwrap_or_default(), pattern: next() }
}

fn text_parser() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|argument| to_token(argument).text)
}

fn path_parser() -> impl TypedValueParser<Value = PathArg> {
    OsStringValueParser::new().try_map(|argument| {
        let token = to_token(argument);
        normalize(&token).map_err(|error| UsageError::Path(token.text, error))
    })
}

fn user_parser() -> impl TypedValueParser<Value = UserName> {
    text_parser().try_map(|text| UserName::parse(&text).map_err(|error| UsageError::User(text, error)))
}

fn name_parser() -> impl TypedValueParser<Value = FileName> {
    OsStringValueParser::new().try_map(|argument| to_file_name(to_token(argument)))
}

fn output_parser() -> impl TypedValueParser<Value = GetOutput> {
    OsStringValueParser::new().try_map(|argument| match to_token(argument) {
        token if token.text == "-" => Ok(GetOutput::Stdout),
        token => to_file_name(token).map(GetOutput::File),
    })
}

fn to_file_name(token: Token) -> Result<FileName, UsageError> {
    let path = normalize(&token).map_err(|error| UsageError::Path(token.text, error))?;
    let name = FileName::parse(&path.text).ok().filter(|_| path.pattern.is_none());
    name.ok_or(UsageError::FileName(path.text))
}

fn number_parser() -> impl TypedValueParser<Value = u64> {
    text_parser().try_map(|text| text.parse().map_err(|_| UsageError::Number(text)))
}

fn seconds_parser() -> impl TypedValueParser<Value = Duration> {
    text_parser().try_map(|text| {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.filter(|seconds| *seconds <= SECONDS_MAX).ok_or(UsageError::Seconds(text))
    })
}

fn verb_parser() -> impl TypedValueParser<Value = Verb> {
    text_parser().try_map(|text| Verb::parse(&text).ok_or(UsageError::Unknown(text)))
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
