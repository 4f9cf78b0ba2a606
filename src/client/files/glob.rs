//! Patterns over paths, component by component: `*` crosses no `/` and matches no leading dot, and `?` and `[...]` match one
//! character, whatever its bytes.

use std::ops::RangeInclusive;
use std::str::Chars;

use crate::common::limits::NEEDLE_MAX_BYTES;
use crate::common::message::NameQuery;
use crate::common::types::FileName;

/// The server's index is over trigrams: a substring query for fewer bytes excludes too little to be worth it.
const TRIGRAM_BYTES: usize = 3;

/// The text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPattern;

/// A pattern over names.
#[derive(Debug, Clone)]
pub struct Pattern {
    components: Vec<Component>,
    /// It ends in `/`: it matches everything beneath the folders that the components match.
    is_folder: bool,
    /// The runs of literal characters in order. Every match starts with the first, which may be empty.
    literals: Vec<String>,
}

impl Pattern {
    /// Parses a pattern. A backslash makes the character after it an ordinary one.
    pub fn parse(pattern: &str) -> Result<Self, InvalidPattern> {
        let components = pattern.split('/').filter(|text| !text.is_empty()).map(Component::parse);
        Ok(Self::new(components.collect::<Option<_>>().ok_or(InvalidPattern)?, pattern.ends_with('/')))
    }

    /// Matches everything in `folder`, which ends in `/`; `.` is the shared folder itself.
    pub fn folder(folder: &str) -> Self {
        let components = folder.split('/').filter(|text| !text.is_empty() && *text != ".");
        Self::new(components.map(|text| Component::Literal(text.into())).collect(), true)
    }

    fn new(components: Vec<Component>, is_folder: bool) -> Self {
        let literals = literal_runs(&components, is_folder);
        Self { components, is_folder, literals }
    }

    pub fn components(&self) -> &[Component] {
        &self.components
    }

    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether any component is more than literal text.
    pub fn has_glob(&self) -> bool {
        self.components.iter().any(|component| matches!(component, Component::Glob(_)))
    }

    /// A query whose results include every match, and as few other names as possible: by the prefix of the names, or by the
    /// longest literal text in them if the prefix is too short.
    pub fn query(&self) -> NameQuery {
        let prefix = self.literals.first().map_or("", String::as_str);
        match self.literals.iter().max_by_key(|text| text.len()) {
            Some(longest) if prefix.len() < TRIGRAM_BYTES && longest.len() >= TRIGRAM_BYTES => {
                NameQuery::Substring(truncate_prefix(longest))
            }
            _ => NameQuery::Prefix(truncate_prefix(prefix)),
        }
    }

    /// Whether the pattern matches a name. Beneath a folder it matches no hidden entries.
    pub fn matches(&self, name: &FileName) -> bool {
        let mut names = name.components();
        let is_match = self.components.iter().all(|component| names.next().is_some_and(|name| component.matches(name)));
        let mut beneath = names.peekable();
        is_match && beneath.peek().is_some() == self.is_folder && beneath.all(|name| !name.starts_with('.'))
    }
}

#[derive(Debug, Clone)]
pub enum Component {
    Literal(String),
    Glob(Vec<Part>),
}

/// What a part of a pattern stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Char(char),
    /// `?`
    AnyChar,
    /// `*`
    AnyText,
    /// `[...]`: one character that is in a range, or in none if `is_negated`.
    Class {
        is_negated: bool,
        ranges: Vec<RangeInclusive<char>>,
    },
}

impl Component {
    /// `None`: not a pattern.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::AnyText,
                '?' => Part::AnyChar,
                '[' => parse_class(&mut chars)?,
                '\\' => Part::Char(chars.next()?),
                c => Part::Char(c),
            });
        }
        let literal = parts.iter().map(Part::literal).collect::<Option<String>>();
        Some(literal.map_or(Self::Glob(parts), Self::Literal))
    }

    /// Whether it matches one component of a name. Only a component that starts with a dot matches a hidden one.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(text) => text == name,
            Self::Glob(parts) => {
                let matches_hidden = parts.first() == Some(&Part::Char('.'));
                (matches_hidden || !name.starts_with('.')) && matches_parts(parts, name)
            }
        }
    }
}

impl Part {
    fn literal(&self) -> Option<char> {
        match self {
            Self::Char(c) => Some(*c),
            _ => None,
        }
    }

    /// Whether it matches this character alone.
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Char(literal) => *literal == c,
            Self::AnyChar => true,
            Self::AnyText => false,
            Self::Class { is_negated, ranges } => ranges.iter().any(|range| range.contains(&c)) != *is_negated,
        }
    }
}

/// The class whose `[` precedes `chars`, up to its `]`. A `]` at its start and a `-` at either end stand for themselves.
fn parse_class(chars: &mut Chars<'_>) -> Option<Part> {
    let mut ranges = Vec::new();
    let is_negated = chars.as_str().starts_with(['!', '^']);
    if is_negated {
        chars.next();
    }
    loop {
        let first = match chars.next()? {
            ']' if !ranges.is_empty() => return Some(Part::Class { is_negated, ranges }),
            '\\' => chars.next()?,
            c => c,
        };
        let mut ahead = chars.clone();
        let last = match (ahead.next(), ahead.next()) {
            (Some('-'), Some('\\')) => ahead.next(),
            (Some('-'), last) => last.filter(|&last| last != ']'),
            _ => None,
        };
        if last.is_some() {
            *chars = ahead;
        }
        let range = first..=last.unwrap_or(first);
        if range.is_empty() {
            return None;
        }
        ranges.push(range);
    }
}

/// Whether `parts` match the whole of `text`, in time of at most the product of their lengths.
fn matches_parts(parts: &[Part], text: &str) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    // After the last `AnyText` so far: the next part, and the first text that this part has not been tried at.
    let mut retry: Option<(usize, Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        match parts.get(at) {
            Some(Part::AnyText) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            Some(part) if ahead.next().is_some_and(|c| part.matches(c)) => {
                (at, rest) = (at + 1, ahead);
                continue;
            }
            None if rest.as_str().is_empty() => return true,
            _ => {}
        }
        // The last `AnyText` takes one more character.
        let Some((next, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (at, rest) = (*next, from.clone());
    }
}

/// The runs of literal characters of a pattern, in order. Every match starts with the first, which may be empty.
fn literal_runs(components: &[Component], is_folder: bool) -> Vec<String> {
    let mut runs = vec![String::new()];
    for (at, component) in components.iter().enumerate() {
        let run = |runs: &mut Vec<String>, c: char| runs.last_mut().expect("never empty").push(c);
        if at > 0 {
            run(&mut runs, '/');
        }
        match component {
            Component::Literal(text) => text.chars().for_each(|c| run(&mut runs, c)),
            Component::Glob(parts) => parts.iter().for_each(|part| match part.literal() {
                Some(c) => run(&mut runs, c),
                None => runs.push(String::new()),
            }),
        }
    }
    if is_folder && !components.is_empty() {
        runs.last_mut().expect("never empty").push('/');
    }
    runs
}

/// Cuts text to what a query may hold. A shorter text only means more names to filter.
fn truncate_prefix(text: &str) -> String {
    text[..text.floor_char_boundary(NEEDLE_MAX_BYTES)].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(&FileName::parse(name).unwrap())
    }

    #[test]
    fn a_character_is_matched_whatever_its_bytes() {
        for name in ["a.txt", "ä.txt", "日.txt", "🙂.txt"] {
            assert!(matches("?.txt", name), "{name}");
            assert!(!matches("??.txt", name), "{name}");
            assert!(matches("[!b].txt", name), "{name}");
            assert!(matches("*", name) && matches("*?.txt", name), "{name}");
        }
        assert!(matches("[äö]", "ö") && matches("[à-ü]", "ä") && matches("[日本]", "本"));
        assert!(!matches("[äö]", "ü") && !matches("[!äö]", "ä"));
    }

    #[test]
    fn classes_are_those_of_a_shell() {
        assert!(matches("[]a]", "]") && matches("[!]a]", "b") && matches("[a-]", "-") && matches("[-a]", "-"));
        assert!(matches("[a-cx]", "b") && matches("[a-cx]", "x") && !matches("[a-cx]", "d"));
        assert!(matches("[^a]", "b") && !matches("[^a]", "a"));
        assert!(matches(r"[a\]b]", "]") && matches(r"[a\]b]", "b"));
        for invalid in ["[c-a]", "[a", "[]", "[!]", r"a\", "x/[b"] {
            assert!(Pattern::parse(invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn any_text_backtracks() {
        assert!(matches("*a*b*c", "xaybzbc") && !matches("*a*b*c", "xaybz"));
        assert!(matches("a*", "a") && matches("*.tar.*", "x.tar.tar.gz") && !matches("*.tar", "x.tar.gz"));
        let stars = "*a".repeat(60);
        assert!(!matches(&stars, &"a".repeat(59)) && matches(&stars, &"a".repeat(200)));
    }

    #[test]
    fn a_star_matches_neither_a_slash_nor_a_leading_dot() {
        assert!(!matches("*", "a/b") && matches("*/*", "a/b") && matches("*/", "a/b/c"));
        assert!(!matches("*", ".a") && !matches("?a", ".a") && !matches("[.]a", ".a") && matches(".*", ".a"));
        assert!(matches(r"\.*", ".a") && !matches("d/", "d/.a"));
    }

    #[test]
    fn the_query_includes_every_match() {
        let prefix = |text: &str| NameQuery::Prefix(text.into());
        let substring = |text: &str| NameQuery::Substring(text.into());
        let query = |pattern: &str| Pattern::parse(pattern).unwrap().query();
        assert_eq!(query("photos/*.jpg"), prefix("photos/"));
        assert_eq!(query("*.jpeg"), substring(".jpeg"));
        assert_eq!(query(r"[a\]b]xyz"), substring("xyz"));
        assert_eq!((Pattern::folder(".").query(), Pattern::folder("a/b/").query()), (prefix(""), prefix("a/b/")));
    }
}
