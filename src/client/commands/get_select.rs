//! What the arguments of `get` mean: which contents are to be fetched, and which arguments mean nothing.

use std::collections::{BTreeMap, HashMap};

use crate::client::control::RequestError;
use crate::client::download::DownloadItem;
use crate::client::files::{PathArg, Pattern, is_excluded};
use crate::client::services::Catalogue;
use crate::client::shell::path_arg::Selector;
use crate::common::message::{AvailableContent, NameQuery, ResolvePurpose};
use crate::common::types::{ContentHash, FileName};

/// Hex digits that tell contents of one name apart in a note.
const SHORT_HASH: usize = 8;

/// One result line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultLine {
    /// Nobody has what this argument asks for.
    Missing(String),
    /// What becomes of this one of [`Selection::wanted`].
    Wanted(usize),
}

/// What a `get` comes to.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The result lines, in the order asked.
    pub lines: Vec<ResultLine>,
    /// What is to be fetched, each once.
    pub wanted: Vec<DownloadItem>,
    /// Contents of the same names that were not taken.
    pub notes: Vec<String>,
    /// Where in [`wanted`](Self::wanted) a content of a name, with its size, stands.
    known: HashMap<(FileName, ContentHash, u64), usize>,
}

/// Asks the server what the arguments mean.
pub(super) fn select(catalogue: &dyn Catalogue, files: &[PathArg]) -> Result<Selection, RequestError> {
    let selectors: Vec<Option<Selector>> = files.iter().map(|argument| Selector::of(argument).ok()).collect();
    let found = resolve_names(catalogue, &selectors)?;
    let mut selection = Selection::default();
    for (argument, selector) in files.iter().zip(selectors) {
        let any = match selector {
            None => false,
            Some(Selector::Name { name, pinned }) => selection.add_name(&found, name.as_ref(), pinned.as_ref()),
            Some(Selector::Pattern(pattern, literal)) => {
                selection.add_matching(catalogue, &pattern)? || selection.add_literal(catalogue, literal)?
            }
        };
        if !any {
            selection.lines.push(ResultLine::Missing(argument.text.clone()));
        }
    }
    Ok(selection)
}

type Found = HashMap<FileName, Vec<AvailableContent>>;

/// Every name that is spelt out, all at once.
fn resolve_names(catalogue: &dyn Catalogue, selectors: &[Option<Selector>]) -> Result<Found, RequestError> {
    let mut names: Vec<FileName> = Vec::new();
    for selector in selectors.iter().flatten() {
        if let Selector::Name { name, pinned } = selector {
            names.extend(name.clone());
            names.extend(pinned.as_ref().map(|(name, _)| name.clone()));
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(Found::new());
    }
    let entries = catalogue.resolve_many(&names)?;
    Ok(names.into_iter().zip(entries).collect())
}

impl Selection {
    /// A file of exactly that name wins; otherwise the content that `name#hex` pins.
    fn add_name(&mut self, found: &Found, name: Option<&FileName>, pinned: Option<&(FileName, String)>) -> bool {
        if let Some(entries) = name.and_then(|name| found.get(name)) {
            let entries: Vec<&AvailableContent> = entries.iter().collect();
            if self.add_most_available(&entries) {
                return true;
            }
        }
        let Some((name, hex)) = pinned else { return false };
        let entries = found.get(name).into_iter().flatten();
        let entries: Vec<&AvailableContent> = entries.filter(|entry| entry.content.hash.starts_with_hex(hex)).collect();
        self.add_most_available(&entries)
    }

    /// What a pattern or a folder matches, sorted; private parts of the publishers' folders left out.
    fn add_matching(&mut self, catalogue: &dyn Catalogue, pattern: &Pattern) -> Result<bool, RequestError> {
        let entries = catalogue.resolve(pattern.query(), ResolvePurpose::Download)?;
        let mut names: BTreeMap<&FileName, Vec<&AvailableContent>> = BTreeMap::new();
        let is_private = |name: &FileName| name.components().last().is_some_and(|leaf| is_excluded(leaf.as_bytes()));
        for entry in entries.iter().filter(|entry| pattern.matches(&entry.name) && !is_private(&entry.name)) {
            names.entry(&entry.name).or_default().push(entry);
        }
        for entries in names.values() {
            self.add_most_available(entries);
        }
        Ok(!names.is_empty())
    }

    /// The file that is named as the pattern is spelt.
    fn add_literal(&mut self, catalogue: &dyn Catalogue, literal: Option<FileName>) -> Result<bool, RequestError> {
        let Some(name) = literal else { return Ok(false) };
        let entries = catalogue.resolve(NameQuery::Exact(name), ResolvePurpose::Download)?;
        Ok(self.add_most_available(&entries.iter().collect::<Vec<_>>()))
    }

    /// Of the contents of one name, takes the one with the most sources and notes the others.
    fn add_most_available(&mut self, entries: &[&AvailableContent]) -> bool {
        // Of equals the oldest, so that nobody gets in front of a file by publishing the same with another size; then the
        // first, so that the same question has the same answer.
        let Some(best) = entries.iter().rev().max_by_key(|entry| (entry.sources, entry.age_s)) else { return false };
        let what = |entry: &AvailableContent| (entry.content.hash, entry.content.size);
        for other in entries.iter().filter(|other| what(other) != what(best)) {
            self.notes.push(describe_alternative(other, best));
        }
        let next = self.wanted.len();
        let index = *self.known.entry((best.name.clone(), best.content.hash, best.content.size)).or_insert(next);
        self.lines.push(ResultLine::Wanted(index));
        if index == next {
            self.wanted.push(DownloadItem { name: best.name.clone(), content: best.content });
        }
        true
    }
}

fn describe_alternative(other: &AvailableContent, best: &AvailableContent) -> String {
    let short = |entry: &AvailableContent| entry.content.hash.to_hex()[..SHORT_HASH].to_string();
    if other.content.hash == best.content.hash {
        return format!(
            "{name}: taking #{hash} with {bytes} bytes; some tell another size of it: {other_bytes} (sources: {sources})",
            name = other.name,
            hash = short(best),
            bytes = best.content.size,
            other_bytes = other.content.size,
            sources = other.sources,
        );
    }
    format!(
        "{name}: taking #{best}; there is also {name}#{other} ({bytes} bytes, sources: {sources})",
        name = other.name,
        best = short(best),
        other = short(other),
        bytes = other.content.size,
        sources = other.sources,
    )
}
