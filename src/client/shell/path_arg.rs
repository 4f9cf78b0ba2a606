//! File arguments as people type them, and which published names they mean.
//!
//! `./a` is `a`; nothing leads out of the shared folder; a pattern's `*` crosses no `/` and matches no leading dot.

use crate::client::files::{InvalidPattern, PathArg, Pattern};
use crate::client::shell::tokenizer::Token;
use crate::common::types::FileName;

/// Fewest hex digits that `name#hex` takes.
const HASH_PREFIX_MIN: usize = 4;

/// Why a file argument is refused as such: exit status 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("a file name cannot be empty")]
    Empty,
    /// A leading `/`.
    #[error("names are relative to the shared folder")]
    Absolute,
    /// A `..`.
    #[error("names cannot lead out of the shared folder")]
    Parent,
    /// Not a pattern.
    #[error("this pattern is not understood")]
    Pattern,
}

impl From<InvalidPattern> for PathError {
    fn from(_: InvalidPattern) -> Self {
        Self::Pattern
    }
}

/// `word` as a file argument: without `.` parts and doubled slashes, never leaving the folder. A trailing `/` stays; the
/// folder itself is `.`.
pub fn normalize(word: &Token) -> Result<PathArg, PathError> {
    let text = normalize_str(&word.text)?;
    let pattern = word.pattern.as_deref().map(normalize_str).transpose()?;
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
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err(PathError::Parent);
    }
    if parts.is_empty() {
        return Ok(".".into());
    }
    let folder = if text.ends_with('/') || text.ends_with("/.") { "/" } else { "" };
    Ok(parts.join("/") + folder)
}

/// What an argument of `get` or `unp` selects among published names.
#[derive(Debug, Clone)]
pub enum Selector {
    /// One name; `pinned` if the text may also be read as `name#hex`.
    Name {
        /// The whole text, if it can be a name.
        name: Option<FileName>,
        /// Another name and the first hex digits of a content's hash.
        pinned: Option<(FileName, String)>,
    },
    /// Whatever the pattern matches; failing that, the file of just this name (`report[1].pdf`).
    Pattern(Pattern, Option<FileName>),
}

impl Selector {
    /// Reads an argument that [`normalize`] has made.
    pub fn of(argument: &PathArg) -> Result<Self, PathError> {
        let text = argument.text.as_str();
        let name = FileName::parse(text).ok();
        if let Some(pattern) = &argument.pattern {
            return Ok(Self::Pattern(Pattern::parse(pattern)?, name));
        }
        if text == "." || text.ends_with('/') {
            return Ok(Self::Pattern(Pattern::folder(text), None));
        }
        Ok(Self::Name { name, pinned: parse_hash_suffix(text) })
    }
}

fn parse_hash_suffix(text: &str) -> Option<(FileName, String)> {
    let (name, hex) = text.rsplit_once('#')?;
    let is_hex = (HASH_PREFIX_MIN..=64).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| FileName::parse(name).ok())?.map(|name| (name, hex.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shell::tokenizer::Tokenizer;
    use crate::common::message::NameQuery;

    fn argument(text: &str) -> Result<PathArg, PathError> {
        normalize(&Tokenizer::new(text).next_token().unwrap().unwrap())
    }

    fn matches(pattern: &str, name: &str) -> bool {
        match Selector::of(&argument(pattern).unwrap()).unwrap() {
            Selector::Pattern(pattern, _) => {
                let matched = pattern.matches(&FileName::parse(name).unwrap());
                let found = match pattern.query() {
                    NameQuery::Prefix(prefix) => name.starts_with(&prefix),
                    NameQuery::Substring(needle) => name.contains(&needle),
                    other => panic!("{other:?}"),
                };
                assert!(!matched || found, "{pattern:?} {name}");
                matched
            }
            Selector::Name { .. } => panic!("{pattern} is a name"),
        }
    }

    #[test]
    fn names_are_tidied_and_kept_inside() {
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

    #[test]
    fn stars_cross_no_slash_and_match_no_leading_dot() {
        assert!(matches("*.pdf", "a.pdf") && matches("*", "a b"));
        assert!(!matches("*.pdf", "x/a.pdf") && !matches("*.pdf", "a.PDF"));
        assert!(!matches("*", ".hidden") && !matches("?x", ".x") && !matches("[.]x", ".x"));
        assert!(matches(".*", ".hidden") && !matches("*", "x/.hidden"));
        assert!(matches("*/*.jpg", "photos/a.jpg") && !matches("*/*.jpg", "photos/2024/a.jpg"));
        assert!(!matches("**", "a/b") && !matches("*/*", "photos/.a"));
        assert!(matches("a[0-9]?", "a1x") && !matches("a[!0-9]?", "a1x"));
        assert!(matches("{a,b}*", "{a,b}c") && !matches("{a,b}*", "ac"));
        assert!(matches("'*'*", "*x") && !matches("'*'*", "x"));
        assert!(matches("ä*", "äb"));
    }

    #[test]
    fn folders_mean_everything_beneath_but_what_is_hidden() {
        assert!(matches("photos/", "photos/a.jpg") && matches("photos/", "photos/2024/a.jpg"));
        assert!(!matches("photos/", "photos") && !matches("photos/", "photos2/a") && !matches("photos/", "photos/.a"));
        assert!(!matches("photos/", "photos/.git/a") && matches(".config/", ".config/a"));
        assert!(matches("ph*/", "photos/x/y") && !matches("ph*/", "photos"));
        assert!(matches("'a[1]/'", "a[1]/x"));
    }

    #[test]
    fn the_query_is_the_most_telling_text() {
        let query = |text: &str| match Selector::of(&argument(text).unwrap()).unwrap() {
            Selector::Pattern(pattern, _) => pattern.query(),
            Selector::Name { .. } => panic!("a name"),
        };
        assert_eq!(query("report*.pdf"), NameQuery::Prefix("report".into()));
        assert_eq!(query("*.pdf"), NameQuery::Substring(".pdf".into()));
        assert_eq!(query("a[xyz]?b"), NameQuery::Prefix("a".into()));
        assert_eq!(query("[]abc]*long"), NameQuery::Substring("long".into()));
        assert_eq!(query("*"), NameQuery::Prefix(String::new()));
        assert_eq!(query("photos/"), NameQuery::Prefix("photos/".into()));
        assert_eq!(query("'*a'*"), NameQuery::Prefix("*a".into()));
    }

    #[test]
    fn a_hash_pins_a_content() {
        let pin = |text: &str| match Selector::of(&argument(text).unwrap()).unwrap() {
            Selector::Name { pinned, .. } => pinned.map(|(name, hex)| format!("{name} {hex}")),
            Selector::Pattern(..) => panic!("a pattern"),
        };
        assert_eq!(pin("a.pdf#12ab").as_deref(), Some("a.pdf 12ab"));
        assert_eq!(pin("a#b#12AB").as_deref(), Some("a#b 12AB"));
        assert_eq!(pin("a#12a"), None);
        assert_eq!(pin("a#12xz"), None);
        assert_eq!(pin("#12ab"), None);
    }
}
