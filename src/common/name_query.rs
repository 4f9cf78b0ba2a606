//! How lists select published names.

use serde::{Deserialize, Serialize};

use super::case_fold::contains_ignoring_case;
use super::glob::Pattern;
use super::limits::NEEDLE_MAX_BYTES;
use super::normal_form::normal_form;
use super::types::FileName;

/// A substring query for fewer bytes than the server's index has excludes too little to be worth it.
const TRIGRAM_BYTES: usize = 3;

/// Selects published names. All but [`Exact`](Self::Exact) compare normal forms ([`normal_form`](super::normal_form)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameQuery {
    Exact(FileName),
    /// Names that start with this text; for folders and patterns.
    Prefix(String),
    /// Names that contain this text. The empty text selects all names.
    Substring(String),
    /// Names that contain this text when both are folded ([`case_fold`](super::case_fold)).
    SubstringIgnoreCase(String),
    /// Names of the same normal form.
    Equivalent(FileName),
}

impl NameQuery {
    /// Selects every match of a pattern, and as few other names as possible: by the prefix of the names, or by the longest
    /// literal text in them if the prefix is too short for the server's index, which is over trigrams.
    pub fn for_pattern(pattern: &Pattern) -> Self {
        // A text that is cut only selects more names.
        let cut = |text: &str| text[..text.floor_char_boundary(NEEDLE_MAX_BYTES)].into();
        let (prefix, longest) = (pattern.prefix(), pattern.longest_literal());
        match prefix.len() < TRIGRAM_BYTES && longest.len() >= TRIGRAM_BYTES {
            true => Self::Substring(cut(longest)),
            false => Self::Prefix(cut(prefix)),
        }
    }

    /// Whether the query selects this name. Clients detect with it a response that does not fit their query.
    pub fn matches(&self, name: &FileName) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(text) => normal_form(name.as_str()).starts_with(&*normal_form(text)),
            Self::Substring(text) => normal_form(name.as_str()).contains(&*normal_form(text)),
            Self::SubstringIgnoreCase(text) => contains_ignoring_case(name.as_str(), text),
            Self::Equivalent(other) => normal_form(name.as_str()) == normal_form(other.as_str()),
        }
    }

    /// Whether its text is within its limit.
    pub fn fits(&self) -> bool {
        match self {
            Self::Exact(_) | Self::Equivalent(_) => true,
            Self::Prefix(text) | Self::Substring(text) | Self::SubstringIgnoreCase(text) => {
                text.len() <= NEEDLE_MAX_BYTES
            }
        }
    }
}
