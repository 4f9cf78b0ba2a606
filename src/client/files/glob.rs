//! Patterns over paths, component by component: `*` crosses no `/` and matches no leading dot.

use globset::{GlobBuilder, GlobMatcher};

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
    /// Parses a pattern in which quoted special characters are escaped by a backslash.
    pub fn parse(pattern: &str) -> Result<Self, InvalidPattern> {
        let components = pattern.split('/').filter(|text| !text.is_empty()).map(Component::parse);
        Ok(Self {
            components: components.collect::<Option<_>>().ok_or(InvalidPattern)?,
            is_folder: pattern.ends_with('/'),
            literals: literal_parts(pattern),
        })
    }

    /// Matches everything in `folder`, which ends in `/`; `.` is the shared folder itself.
    pub fn folder(folder: &str) -> Self {
        let components = folder.split('/').filter(|text| !text.is_empty() && *text != ".");
        let prefix = if folder == "." { "" } else { folder };
        Self {
            components: components.map(|text| Component::Literal(text.into())).collect(),
            is_folder: true,
            literals: vec![prefix.into()],
        }
    }

    pub fn components(&self) -> &[Component] {
        &self.components
    }

    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether any component is more than literal text.
    pub fn has_glob(&self) -> bool {
        self.components.iter().any(|component| matches!(component, Component::Glob { .. }))
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

/// One component of a pattern.
#[derive(Debug, Clone)]
pub enum Component {
    Literal(String),
    Glob {
        matcher: GlobMatcher,
        /// The component starts with a dot.
        matches_hidden: bool,
    },
}

impl Component {
    /// `None`: not a pattern.
    fn parse(text: &str) -> Option<Self> {
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' | '[' | '{' => return Self::glob(text),
                '\\' => literal.push(chars.next()?),
                c => literal.push(c),
            }
        }
        Some(Self::Literal(literal))
    }

    fn glob(text: &str) -> Option<Self> {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build().ok()?;
        let matches_hidden = text.starts_with('.') || text.starts_with("\\.");
        Some(Self::Glob { matcher: glob.compile_matcher(), matches_hidden })
    }

    /// Whether it matches one component of a name. Only a component that starts with a dot matches a hidden one.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Literal(text) => text == name,
            Self::Glob { matcher, matches_hidden } => {
                (*matches_hidden || !name.starts_with('.')) && matcher.is_match(name)
            }
        }
    }
}

fn literal_parts(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' => parts.push(String::new()),
            '[' => {
                chars.next_if(|c| matches!(c, '!' | '^'));
                chars.next();
                chars.by_ref().find(|c| *c == ']');
                parts.push(String::new());
            }
            '\\' => parts.last_mut().expect("never empty").extend(chars.next()),
            c => parts.last_mut().expect("never empty").push(c),
        }
    }
    parts
}

/// Cuts text to what a query may hold. A shorter text only means more names to filter.
fn truncate_prefix(text: &str) -> String {
    text[..text.floor_char_boundary(NEEDLE_MAX_BYTES)].into()
}
