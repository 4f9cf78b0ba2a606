//! Patterns over paths, component by component: `*` crosses no `/` and matches no leading dot, and `?` and `[...]` match one
//! character, whatever its bytes. Published names are compared by their normal forms ([`normal_form`](super::normal_form)).
//!
//! Clients expand and filter by them, and the server matches those that sessions subscribe to: their length and their
//! wildcards are bounded then, and a name that lacks the literal text of a pattern costs no more than the search for it.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::str::Chars;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::{PATTERN_MAX_BYTES, PATTERN_MAX_WILDCARDS};
use super::normal_form::normal_form;
use super::types::FileName;

/// Comparisons of a character with a part of a pattern that are one step of work, well below a microsecond.
const COMPARISONS_PER_STEP: usize = 128;
/// Bytes of a name that is not ASCII whose normal form is found in one step.
const NORMALIZED_BYTES_PER_STEP: usize = 32;

/// The text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern")]
pub struct InvalidPattern;

/// A pattern over names; cheap to clone. Equal to others of the same text.
#[derive(Debug, Clone)]
pub struct Pattern(Arc<ParsedPattern>);

#[derive(Debug)]
struct ParsedPattern {
    text: String,
    components: Vec<Component>,
    /// It ends in `/`: it matches everything beneath the folders that the components match.
    is_folder: bool,
    /// The literal text that every match starts with; may be empty.
    prefix: String,
    /// The longest literal text that every match contains; may be empty.
    longest_literal: String,
    /// The parts that are not literal, a class with every range of it.
    wildcards: usize,
}

impl Pattern {
    /// Parses a pattern over published names. A backslash makes the character after it an ordinary one.
    pub fn parse(pattern: &str) -> Result<Self, InvalidPattern> {
        Self::parse_exact(&normal_form(pattern))
    }

    /// Parses a pattern whose [`components`](Self::components) match the names of local files, byte for byte.
    pub fn parse_exact(pattern: &str) -> Result<Self, InvalidPattern> {
        let components = pattern.split('/').filter(|text| !text.is_empty()).map(Component::parse);
        let components: Vec<Component> = components.collect::<Option<_>>().ok_or(InvalidPattern)?;
        let is_folder = pattern.ends_with('/');
        let mut literals = literal_runs(&components, is_folder).into_iter();
        let prefix = literals.next().unwrap_or_default();
        let longest_literal = literals.max_by_key(String::len).filter(|text| text.len() > prefix.len());
        Ok(Self(Arc::new(ParsedPattern {
            text: pattern.into(),
            is_folder,
            longest_literal: longest_literal.unwrap_or_else(|| prefix.clone()),
            prefix,
            wildcards: components.iter().map(Component::wildcards).sum(),
            components,
        })))
    }

    /// Matches everything in `folder`, which ends in `/`; `.` is the shared folder itself.
    pub fn folder(folder: &str) -> Self {
        let components: Vec<&str> = folder.split('/').filter(|text| !text.is_empty() && *text != ".").collect();
        Self::parse(&(escape(&components.join("/")) + "/")).expect("escaped text is a pattern")
    }

    /// Matches this name alone.
    pub fn name(name: &FileName) -> Self {
        Self::parse(&escape(name.as_str())).expect("escaped text is a pattern")
    }

    /// A text that [`parse`](Self::parse) makes the same pattern from.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub fn components(&self) -> &[Component] {
        &self.0.components
    }

    pub fn is_folder(&self) -> bool {
        self.0.is_folder
    }

    /// Whether any component is more than literal text.
    pub fn has_glob(&self) -> bool {
        self.0.components.iter().any(|component| matches!(component, Component::Glob(_)))
    }

    /// The literal text that every match starts with; may be empty.
    pub fn prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The longest literal text that every match contains; may be empty.
    pub fn longest_literal(&self) -> &str {
        &self.0.longest_literal
    }

    /// Whether the server accepts it in a subscription: it has at most [`PATTERN_MAX_BYTES`] and [`PATTERN_MAX_WILDCARDS`].
    pub fn is_within_limits(&self) -> bool {
        self.0.text.len() <= PATTERN_MAX_BYTES && self.0.wildcards <= PATTERN_MAX_WILDCARDS
    }

    /// Whether the pattern matches a name. Beneath a folder it matches no hidden entries.
    pub fn matches(&self, name: &FileName) -> bool {
        let name = normal_form(name.as_str());
        self.may_match(&name) && self.matches_components(&name)
    }

    /// The same, and the steps it took: below a microsecond each.
    pub fn matches_in_steps(&self, name: &FileName) -> (bool, usize) {
        let name = name.as_str();
        let steps = 1 + if name.is_ascii() { 0 } else { name.len() / NORMALIZED_BYTES_PER_STEP };
        let name = normal_form(name);
        if !self.may_match(&name) {
            return (false, steps);
        }
        (self.matches_components(&name), steps + self.0.text.len() * name.len() / COMPARISONS_PER_STEP)
    }

    fn may_match(&self, name: &str) -> bool {
        name.starts_with(&self.0.prefix) && name.contains(&self.0.longest_literal)
    }

    fn matches_components(&self, name: &str) -> bool {
        let mut names = name.split('/');
        let is_match =
            self.0.components.iter().all(|component| names.next().is_some_and(|name| component.matches(name)));
        let mut beneath = names.peekable();
        is_match && beneath.peek().is_some() == self.0.is_folder && beneath.all(|name| !name.starts_with('.'))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_str().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(<&str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
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

    /// How many parts are not literal, a class counted by its ranges.
    fn wildcards(&self) -> usize {
        let Self::Glob(parts) = self else { return 0 };
        let wildcards = parts.iter().map(|part| match part {
            Part::Char(_) => 0,
            Part::AnyChar | Part::AnyText => 1,
            Part::Class { ranges, .. } => ranges.len(),
        });
        wildcards.sum()
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

/// A pattern that matches this text alone.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
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
    fn forms_of_one_text_are_matched_alike() {
        for name in ["café/é.txt", "cafe\u{301}/é.txt", "cafe\u{301}/e\u{301}.txt"] {
            for pattern in ["café/?.txt", "caf?/*.txt", "cafe\u{301}/[e\u{301}].txt", "*/[à-ü].txt", "cafe\u{301}/"]
            {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            assert!(!matches("cafe*/*", name) && !matches("caf?/e*", name), "a letter without its accent");
        }
        let exact = Pattern::parse_exact("cafe\u{301}/*").unwrap();
        assert!(exact.components()[0].matches("cafe\u{301}") && !exact.components()[0].matches("café"));
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
    fn folders_and_names_match_what_they_are_named_after() {
        let name = |text: &str| FileName::parse(text).unwrap();
        for text in ["a*b?[c].txt", "photos/a.jpg", ".hidden"] {
            let pattern = Pattern::name(&name(text));
            assert!(pattern.matches(&name(text)) && !pattern.matches(&name("axbxc.txt")), "{text}");
            assert_eq!(Pattern::parse(pattern.as_str()), Ok(pattern));
        }
        assert!(Pattern::folder("a[1]/").matches(&name("a[1]/x")) && !Pattern::folder("a[1]/").matches(&name("a1/x")));
        assert!(Pattern::folder(".").matches(&name("a/b")) && !Pattern::folder(".").matches(&name("a/.b")));
    }

    #[test]
    fn the_work_of_the_server_is_bounded() {
        let fits = |text: &str| Pattern::parse(text).unwrap().is_within_limits();
        assert!(fits(&"?".repeat(PATTERN_MAX_WILDCARDS)) && !fits(&"?".repeat(PATTERN_MAX_WILDCARDS + 1)));
        assert!(!fits(&"*/".repeat(PATTERN_MAX_WILDCARDS + 1)) && !fits(&format!("[{}]", "a".repeat(65))));
        assert!(fits(&"a".repeat(PATTERN_MAX_BYTES)) && !fits(&"a".repeat(PATTERN_MAX_BYTES + 1)));
        let name = FileName::parse(&"a".repeat(255)).unwrap();
        let worst = Pattern::parse(&format!("*{}b", "[a]".repeat(PATTERN_MAX_WILDCARDS - 1))).unwrap();
        assert_eq!(worst.matches_in_steps(&name), (false, 1), "it lacks the literal text");
        let worst = Pattern::parse(&format!("*{}", "[!b]".repeat(PATTERN_MAX_WILDCARDS - 1) + "[b]")).unwrap();
        let (is_match, steps) = worst.matches_in_steps(&name);
        assert!(!is_match && (100..1_000).contains(&steps), "{steps}");
    }
}
