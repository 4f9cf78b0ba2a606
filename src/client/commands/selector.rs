//! What an argument of `get` or `unp` selects among published names.

use crate::client::files::{InvalidPattern, PathArg, Pattern};
use crate::common::types::{ContentHash, FileName};

/// Fewest hex digits of `name#hex`.
const HASH_PREFIX_MIN: usize = 4;
/// Hex digits of a whole hash.
const HASH_DIGITS: usize = 64;

/// One argument, read as a name or as a pattern.
#[derive(Debug, Clone)]
pub enum Selector {
    Name {
        /// `None` if the text is no valid name.
        name: Option<FileName>,
        /// If the text may also be read as `name#hex`.
        pinned: Option<Pinned>,
    },
    /// Everything that the pattern matches, or else the file whose name is the pattern itself (`report[1].pdf`).
    Pattern(Pattern, Option<FileName>),
}

/// One content of a name.
#[derive(Debug, Clone)]
pub struct Pinned {
    pub name: FileName,
    /// First hex digits of the content's hash.
    pub hash_prefix: String,
}

impl Pinned {
    /// Whether this is the content, whatever its name.
    pub fn selects(&self, hash: &ContentHash) -> bool {
        hash.starts_with_hex(&self.hash_prefix)
    }
}

impl Selector {
    pub fn of(argument: &PathArg) -> Result<Self, InvalidPattern> {
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

fn parse_hash_suffix(text: &str) -> Option<Pinned> {
    let (name, hex) = text.rsplit_once('#')?;
    let is_hash = (HASH_PREFIX_MIN..=HASH_DIGITS).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let name = FileName::parse(name).ok().filter(|_| is_hash)?;
    Some(Pinned { name, hash_prefix: hex.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shell::path_arg::{PathError, normalize};
    use crate::client::shell::tokenizer::Tokenizer;
    use crate::common::message::NameQuery;

    fn argument(text: &str) -> Result<PathArg, PathError> {
        normalize(&Tokenizer::new(text).next_token().unwrap().unwrap())
    }

    fn matches(pattern: &str, name: &str) -> bool {
        match Selector::of(&argument(pattern).unwrap()).unwrap() {
            Selector::Pattern(pattern, _) => {
                let matched = pattern.matches(&FileName::parse(name).unwrap());
                let found = match NameQuery::for_pattern(&pattern) {
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
    fn folders_select_everything_beneath_but_hidden_entries() {
        assert!(matches("photos/", "photos/a.jpg") && matches("photos/", "photos/2024/a.jpg"));
        assert!(!matches("photos/", "photos") && !matches("photos/", "photos2/a") && !matches("photos/", "photos/.a"));
        assert!(!matches("photos/", "photos/.git/a") && matches(".config/", ".config/a"));
        assert!(matches("ph*/", "photos/x/y") && !matches("ph*/", "photos"));
        assert!(matches("'a[1]/'", "a[1]/x"));
    }

    #[test]
    fn the_query_is_the_most_selective_text() {
        let query = |text: &str| match Selector::of(&argument(text).unwrap()).unwrap() {
            Selector::Pattern(pattern, _) => NameQuery::for_pattern(&pattern),
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
    fn a_hash_suffix_selects_a_content() {
        let pin = |text: &str| match Selector::of(&argument(text).unwrap()).unwrap() {
            Selector::Name { pinned, .. } => pinned.map(|Pinned { name, hash_prefix }| format!("{name} {hash_prefix}")),
            Selector::Pattern(..) => panic!("a pattern"),
        };
        assert_eq!(pin("a.pdf#12ab").as_deref(), Some("a.pdf 12ab"));
        assert_eq!(pin("a#b#12AB").as_deref(), Some("a#b 12AB"));
        assert_eq!(pin("a#12a"), None);
        assert_eq!(pin("a#12xz"), None);
        assert_eq!(pin("#12ab"), None);
    }
}
