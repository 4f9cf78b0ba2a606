//! Arguments of commands, read as they are: no pattern, no option, nothing quoted.

use super::CommandError;
use crate::client::ExitCode;
use crate::client::commands::Verb;
use crate::client::files::PathArg;
use crate::client::shell::command::UsageError;
use crate::client::shell::path_arg::normalize;
use crate::client::shell::tokenizer::Token;
use crate::common::types::{FileName, UserName};

/// Files and folders in the shared folder, or published names.
pub(super) fn paths(verb: Verb, texts: &[&str]) -> Result<Vec<PathArg>, CommandError> {
    if texts.is_empty() {
        return Err(refused(verb, &UsageError::Arity(verb)));
    }
    texts.iter().map(|text| path(verb, text)).collect()
}

pub(super) fn path(verb: Verb, text: &str) -> Result<PathArg, CommandError> {
    let token = Token { text: text.into(), pattern: None };
    normalize(&token).map_err(|error| refused(verb, &UsageError::Path(text.into(), error)))
}

pub(super) fn file_name(verb: Verb, text: &str) -> Result<FileName, CommandError> {
    let path = path(verb, text)?;
    FileName::parse(&path.text).map_err(|_| refused(verb, &UsageError::FileName(text.into())))
}

pub(super) fn user(verb: Verb, text: &str) -> Result<UserName, CommandError> {
    UserName::parse(text).map_err(|error| refused(verb, &UsageError::User(text.into(), error)))
}

pub(super) fn refused(verb: Verb, error: &UsageError) -> CommandError {
    CommandError { command: verb.name().into(), reason: error.to_string(), code: ExitCode::Usage }
}
