//! What is wrong with a line that is no command.

use std::error::Error;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::path_arg::PathError;
use super::suggestion::similar_command;
use super::tokenizer::TokenizeError;
use crate::client::commands::Verb;
use crate::common::limits::AUDIENCE_MAX_USERS;
use crate::common::types::UserNameError;

/// Bytes of a typed word that an error message repeats.
const SHOWN_MAX_BYTES: usize = 80;

/// Longest time that a command waits: the clock would overflow in centuries.
pub const SECONDS_MAX: Duration = Duration::from_secs(10_000_000);

/// Why a line is not a command: exit status 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("the line is not valid UTF-8")]
    NotUtf8,
    /// A line break that is not the end of the line.
    #[error("a command is one line")]
    LineBreak,
    #[error("{0}")]
    Tokenize(#[from] TokenizeError),
    #[error("unknown command '{}'; 'help' lists the commands", truncate_for_display(.0))]
    Unknown(String),
    /// Too few or too many arguments.
    #[error("usage: {}", .0.usage())]
    Arity(Verb),
    #[error("unknown option '{}'; usage: {}", truncate_for_display(option), verb.usage())]
    Option {
        /// The command that does not have the option.
        verb: Verb,
        /// As typed.
        option: String,
    },
    #[error("the content of a file is not written to standard output in the background")]
    OutputOfJob,
    #[error("--to: an audience has at most {AUDIENCE_MAX_USERS} users")]
    Audience,
    /// Something that is no user name.
    #[error("{0}: {1}")]
    User(String, UserNameError),
    #[error("{0}: {1}")]
    Path(String, PathError),
    /// `wait file` or `get -o` with a pattern, a folder, or something that is no file name.
    #[error("{0}: expected the name of one file")]
    FileName(String),
    /// More than one file, a pattern or a folder where one file is expected.
    #[error("{0}: expected the name of one file")]
    OneFile(&'static str),
    #[error("{}: expected the number of a job", truncate_for_display(.0))]
    Number(String),
    #[error("--watch: expected the name of one folder")]
    OneFolder,
    #[error("{0}: expected a number of seconds, at most {max}", max = SECONDS_MAX.as_secs())]
    Seconds(String),
}

impl UsageError {
    /// For a person, who may have mistyped the name of a command.
    pub fn to_text_for_person(&self) -> String {
        match self {
            Self::Unknown(typed) if let Some(name) = similar_command(typed) => {
                format!("unknown command '{typed}'; did you mean '{name}'?")
            }
            other => other.to_string(),
        }
    }

    /// What clap refused, in one line.
    pub fn of_clap(verb: Verb, error: &clap::Error) -> Self {
        if let Some(error) = error.source().and_then(|source| source.downcast_ref::<Self>()) {
            return error.clone();
        }
        let text = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        };
        let option = text(ContextKind::InvalidArg).filter(|arg| arg.starts_with('-'));
        match (error.kind(), option) {
            (ErrorKind::UnknownArgument, Some(option)) => Self::Option { verb, option: option.into() },
            (ErrorKind::TooManyValues, Some(flag)) => {
                let value = text(ContextKind::InvalidValue).unwrap_or_default();
                Self::Option { verb, option: format!("{flag}={value}") }
            }
            _ => Self::Arity(verb),
        }
    }
}

fn truncate_for_display(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_MAX_BYTES)]
}
