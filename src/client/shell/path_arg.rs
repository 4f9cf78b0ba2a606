//! File arguments as people type them, and which published names they mean.
//!
//! `./a` is `a`; nothing leads out of the shared folder; a pattern's `*` crosses no `/` and matches no leading dot.

use globset::{GlobBuilder, GlobMatcher};

use crate::client::files::PathArg;
use crate::client::shell::tokenizer::Token;
use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::NameQuery;
use crate::common::types::FileName;

/// A search for fewer bytes leaves out too little to be worth preferring: the server's index is over trigrams.
const TRIGRAM_BYTES: usize = 3;
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

/// A pattern over published names, part by part.
#[derive(Debug, Clone)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Everything beneath what the parts match, rather than that itself.
    folder: bool,
    /// The runs of characters that stand in it as they are; the first is where every match starts.
    literals: Vec<String>,
}

#[derive(Debug, Clone)]
enum Part {
    Literal(String),
    Glob { matcher: GlobMatcher, dot: bool },
}

impl Pattern {
    /// Reads a globset pattern as [`Token::pattern`](crate::client::shell::tokenizer::Token) holds it.
    pub fn parse(pattern: &str) -> Result<Self, PathError> {
        let folder = pattern.ends_with('/');
        let parts = pattern.split('/').filter(|part| !part.is_empty()).map(Part::parse).collect::<Result<_, _>>()?;
        Ok(Self { parts, folder, literals: literal_parts(pattern) })
    }

    /// Everything in `folder`, which ends in `/`; `.` is the shared folder itself.
    fn folder(folder: &str) -> Self {
        let parts = folder.split('/').filter(|part| !part.is_empty() && *part != ".");
        let prefix = if folder == "." { String::new() } else { folder.into() };
        Self { parts: parts.map(|part| Part::Literal(part.into())).collect(), folder: true, literals: vec![prefix] }
    }

    /// The query that every match answers to and that leaves out most else: by the start of the names, or where that
    /// says too little, by the longest text within them.
    pub fn query(&self) -> NameQuery {
        let prefix = self.literals.first().cloned().unwrap_or_default();
        match self.literals.iter().max_by_key(|run| run.len()) {
            Some(longest) if prefix.len() < TRIGRAM_BYTES && longest.len() >= TRIGRAM_BYTES => {
                NameQuery::Substring(truncate_prefix(longest.clone()))
            }
            _ => NameQuery::Prefix(truncate_prefix(prefix)),
        }
    }

    /// Whether it means `name`. A hidden part is matched only by a part that itself starts with a dot.
    pub fn matches(&self, name: &FileName) -> bool {
        let mut components = name.components();
        let matched = self.parts.iter().all(|part| components.next().is_some_and(|component| part.matches(component)));
        let mut beneath = components.peekable();
        matched && beneath.peek().is_some() == self.folder && beneath.all(|component| !component.starts_with('.'))
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, PathError> {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let matcher = glob.map_err(|_| PathError::Pattern)?.compile_matcher();
        Ok(Self::Glob { matcher, dot: text.starts_with('.') || text.starts_with("\\.") })
    }

    fn matches(&self, component: &str) -> bool {
        match self {
            Self::Literal(text) => text == component,
            Self::Glob { matcher, dot } => (*dot || !component.starts_with('.')) && matcher.is_match(component),
        }
    }
}

/// What stands literally in `pattern`, in order; the first run is what it starts with and may be empty.
fn literal_parts(pattern: &str) -> Vec<String> {
    let mut runs = vec![String::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => runs.push(String::new()),
            '[' => {
                chars.next_if(|c| matches!(c, '!' | '^'));
                chars.next();
                chars.by_ref().find(|c| *c == ']');
                runs.push(String::new());
            }
            '\\' => runs.last_mut().expect("never empty").extend(chars.next()),
            c => runs.last_mut().expect("never empty").push(c),
        }
    }
    runs
}

/// Cuts a prefix to what a query may hold; a shorter prefix only means more names to look through.
fn truncate_prefix(mut prefix: String) -> String {
    prefix.truncate(prefix.floor_char_boundary(NEEDLE_MAX_BYTES));
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shell::tokenizer::Tokenizer;

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
