//! File arguments as users type them: normalized, and never outside the shared folder.

use crate::client::files::{InvalidPattern, PathArg, Pattern};
use crate::client::shell::tokenizer::Token;

/// Why a file argument is refused: exit status 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a file name cannot be empty")]
    Empty,
    #[error("names are relative to the shared folder")]
    Absolute,
    #[error("names cannot lead out of the shared folder")]
    Parent,
    #[error("invalid pattern")]
    Pattern,
}

impl From<InvalidPattern> for PathError {
    fn from(_: InvalidPattern) -> Self {
        Self::Pattern
    }
}

/// `token` as a file argument, without `.` components and doubled slashes: `./a` is `a`. A trailing `/` stays; the shared
/// folder itself is `.`.
pub fn normalize(token: &Token) -> Result<PathArg, PathError> {
    let text = normalize_str(&token.text)?;
    let pattern = token.pattern.as_deref().map(normalize_str).transpose()?;
    if let Some(pattern) = &pattern {
        Pattern::parse(pattern)?;
    }
    Ok(PathArg { text, pattern })
}

fn normalize_str(text: &str) -> Result<String, PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.starts_with('/') {
        return Err(PathError::Absolute);
    }
    let components: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if components.contains(&"..") {
        return Err(PathError::Parent);
    }
    if components.is_empty() {
        return Ok(".".into());
    }
    let suffix = if text.ends_with('/') || text.ends_with("/.") { "/" } else { "" };
    Ok(components.join("/") + suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shell::tokenizer::Tokenizer;

    fn argument(text: &str) -> Result<PathArg, PathError> {
        normalize(&Tokenizer::new(text).next_token().unwrap().unwrap())
    }

    #[test]
    fn paths_are_normalized_and_stay_inside() {
        let text = |typed: &str| argument(typed).map(|argument| argument.text);
        assert_eq!(text("./a").unwrap(), "a");
        assert_eq!(text("a/./b//c").unwrap(), "a/b/c");
        assert_eq!(text("./photos/").unwrap(), "photos/");
        assert_eq!(text(".").unwrap(), ".");
        assert_eq!(text("./").unwrap(), ".");
        assert_eq!(text("...").unwrap(), "...");
        assert_eq!(text("/a"), Err(PathError::Absolute));
        assert_eq!(text("a/../b"), Err(PathError::Parent));
        assert_eq!(text("*/.."), Err(PathError::Parent));
        assert_eq!(text("''"), Err(PathError::Empty));
        assert_eq!(argument("./*.pdf").unwrap().pattern.unwrap(), "*.pdf");
        assert_eq!(argument("[z-a]"), Err(PathError::Pattern));
    }
}
