//! Which contents the arguments of `get` select.

use std::collections::{BTreeMap, HashMap};

use super::selector::{Pinned, Selector};
use crate::client::control::{RequestError, ServerApi};
use crate::client::files::{PathArg, Pattern, SharedFiles, is_excluded};
use crate::common::message::{AvailableContent, NameQuery, ResolvePurpose};
use crate::common::normal_form::has_variants;
use crate::common::types::{ContentHash, FileName, NamedContent};

/// Hex digits that tell contents of one name apart in a note.
const SHORT_HASH_DIGITS: usize = 8;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResultLine {
    /// No active peer has published what this argument names.
    NotFound(String),
    /// What is published differs from the name of a file in the folder, which is this argument, only in its Unicode form.
    Confusable(String),
    /// The outcome of this one of [`Selection::items`].
    Item(usize),
}

/// What one `get` downloads and prints.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// In the order of the request.
    pub lines: Vec<ResultLine>,
    /// What is to be downloaded, each once.
    pub items: Vec<NamedContent>,
    /// The other contents of the same names, by the index of the item, the best first.
    alternatives: BTreeMap<usize, Vec<NamedContent>>,
    /// Of an item, the one that is downloaded if its sources have changed their files. See
    /// [`add_alternatives`](Self::add_alternatives).
    pub next: BTreeMap<usize, usize>,
    /// Alternative contents of the same names.
    pub notes: Vec<String>,
    indices: HashMap<(FileName, ContentHash, u64), usize>,
}

/// Asks the server which contents the arguments name. `folder`: where they are saved under
/// their names.
pub(super) fn select(
    server: &ServerApi,
    folder: Option<&SharedFiles>,
    files: &[PathArg],
) -> Result<Selection, RequestError> {
    let selectors: Vec<Option<Selector>> = files.iter().map(|argument| Selector::of(argument).ok()).collect();
    let contents = resolve_names(server, &selectors)?;
    let mut selection = Selection::default();
    for (argument, selector) in files.iter().zip(selectors) {
        let lines_before = selection.lines.len();
        match selector {
            None => {}
            Some(Selector::Name { name, pinned }) => {
                let is_found = selection.add_name(&contents, name.as_ref(), pinned.as_ref());
                if !is_found {
                    selection.add_equivalent(server, folder, name, pinned)?;
                }
            }
            Some(Selector::Pattern(pattern, literal)) => selection.add_matching(server, folder, &pattern, literal)?,
        }
        if selection.lines.len() == lines_before {
            selection.lines.push(ResultLine::NotFound(argument.text.clone()));
        }
    }
    Ok(selection)
}

type ContentsByName = HashMap<FileName, Vec<AvailableContent>>;

/// Resolves all names that are not patterns, at once.
fn resolve_names(server: &ServerApi, selectors: &[Option<Selector>]) -> Result<ContentsByName, RequestError> {
    let mut names: Vec<FileName> = Vec::new();
    for selector in selectors.iter().flatten() {
        if let Selector::Name { name, pinned } = selector {
            names.extend(name.clone());
            names.extend(pinned.as_ref().map(|pinned| pinned.name.clone()));
        }
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(ContentsByName::new());
    }
    let entries = server.resolve_many(&names)?;
    Ok(names.into_iter().zip(entries).collect())
}

impl Selection {
    /// Appends the other contents to the items. Returns how many items there were.
    pub fn add_alternatives(&mut self) -> usize {
        let selected = self.items.len();
        for (mut index, alternatives) in std::mem::take(&mut self.alternatives) {
            for alternative in alternatives {
                self.next.insert(index, self.items.len());
                index = self.items.len();
                self.items.push(alternative);
            }
        }
        selected
    }

    /// A file of exactly that name, or else the content that `name#hex` names. Returns whether there is one.
    fn add_name(&mut self, contents: &ContentsByName, name: Option<&FileName>, pinned: Option<&Pinned>) -> bool {
        let named: Vec<&AvailableContent> = name.and_then(|name| contents.get(name)).into_iter().flatten().collect();
        if !named.is_empty() {
            self.add_most_available(&named);
            return true;
        }
        let Some(pinned) = pinned else { return false };
        let entries =
            contents.get(&pinned.name).into_iter().flatten().filter(|entry| pinned.selects(&entry.content.hash));
        let entries: Vec<&AvailableContent> = entries.collect();
        self.add_most_available(&entries);
        !entries.is_empty()
    }

    /// The same, of a name of the same Unicode normal form. It is saved as published, but never beside a file that has the
    /// name asked for: users could not tell the two apart.
    fn add_equivalent(
        &mut self,
        server: &ServerApi,
        folder: Option<&SharedFiles>,
        name: Option<FileName>,
        pinned: Option<Pinned>,
    ) -> Result<(), RequestError> {
        let alternatives = name.map(|name| (name, None)).into_iter();
        let alternatives = alternatives.chain(pinned.map(|pinned| (pinned.name.clone(), Some(pinned))));
        for (name, pinned) in alternatives.filter(|(name, _)| has_variants(name.as_str())) {
            let entries = server.resolve(NameQuery::Equivalent(name.clone()), ResolvePurpose::Download)?;
            let entries =
                entries.iter().filter(|entry| pinned.as_ref().is_none_or(|pinned| pinned.selects(&entry.content.hash)));
            let mut entries: Vec<&AvailableContent> = entries.collect();
            let Some(best) = most_available(&entries) else { continue };
            if best.name != name && folder.is_some_and(|folder| folder.exists(&name)) {
                self.lines.push(ResultLine::Confusable(name.to_string()));
            } else {
                entries.retain(|entry| entry.name == best.name);
                self.add_most_available(&entries);
            }
            return Ok(());
        }
        Ok(())
    }

    /// Every name that a pattern or folder matches, sorted, without private files of the publishers' folders; or else the
    /// file whose name is the pattern itself.
    fn add_matching(
        &mut self,
        server: &ServerApi,
        folder: Option<&SharedFiles>,
        pattern: &Pattern,
        literal: Option<FileName>,
    ) -> Result<(), RequestError> {
        let entries = server.resolve(NameQuery::for_pattern(pattern), ResolvePurpose::Download)?;
        let mut names: BTreeMap<&FileName, Vec<&AvailableContent>> = BTreeMap::new();
        let is_private = |name: &FileName| name.components().last().is_some_and(|leaf| is_excluded(leaf.as_bytes()));
        for entry in entries.iter().filter(|entry| pattern.matches(&entry.name) && !is_private(&entry.name)) {
            names.entry(&entry.name).or_default().push(entry);
        }
        for entries in names.values() {
            self.add_most_available(entries);
        }
        if names.is_empty()
            && let Some(name) = literal
        {
            let entries = server.resolve(NameQuery::Exact(name.clone()), ResolvePurpose::Download)?;
            self.add_most_available(&entries.iter().collect::<Vec<_>>());
            if entries.is_empty() {
                self.add_equivalent(server, folder, Some(name), None)?;
            }
        }
        Ok(())
    }

    /// Of the contents of one name, takes the one with the most sources and notes the others.
    fn add_most_available(&mut self, entries: &[&AvailableContent]) {
        let Some(best) = most_available(entries) else { return };
        let identity = |entry: &AvailableContent| (entry.content.hash, entry.content.size);
        for other in entries.iter().filter(|other| identity(other) != identity(best)) {
            self.notes.push(describe_alternative(other, best));
        }
        let next = self.items.len();
        let index = *self.indices.entry((best.name.clone(), best.content.hash, best.content.size)).or_insert(next);
        self.lines.push(ResultLine::Item(index));
        if index == next {
            self.items.push(NamedContent { name: best.name.clone(), content: best.content });
            let mut others: Vec<&AvailableContent> =
                entries.iter().filter(|other| identity(other) != identity(best)).copied().collect();
            others.sort_by_key(|entry| std::cmp::Reverse((entry.sources, entry.age_s)));
            let others = others.iter().map(|entry| NamedContent { name: entry.name.clone(), content: entry.content });
            self.alternatives.insert(index, others.collect());
        }
    }
}

/// Of equally many sources the oldest content: publishing the same hash with another size must not displace it. Then the
/// first, so that the same request always has the same result.
fn most_available<'a>(entries: &[&'a AvailableContent]) -> Option<&'a AvailableContent> {
    entries.iter().rev().max_by_key(|entry| (entry.sources, entry.age_s)).copied()
}

pub(super) fn short_hash(hash: &ContentHash) -> String {
    hash.to_hex()[..SHORT_HASH_DIGITS].to_string()
}

fn describe_alternative(other: &AvailableContent, best: &AvailableContent) -> String {
    if other.content.hash == best.content.hash {
        return format!(
            "{name}: taking #{hash} with {bytes} bytes; also published with {other_bytes} bytes (sources: {sources})",
            name = other.name,
            hash = short_hash(&best.content.hash),
            bytes = best.content.size,
            other_bytes = other.content.size,
            sources = other.sources,
        );
    }
    format!(
        "{name}: taking #{best}; there is also {name}#{other} ({bytes} bytes, sources: {sources})",
        name = other.name,
        best = short_hash(&best.content.hash),
        other = short_hash(&other.content.hash),
        bytes = other.content.size,
        sources = other.sources,
    )
}
