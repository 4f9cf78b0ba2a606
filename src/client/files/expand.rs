//! The files that an argument of `pub` means: one file, everything in a folder, or the matches of a pattern.
//!
//! Folders and patterns exclude hidden entries, part files, and the server's own files (a client often runs in the
//! server's folder). Each of them can still be published by its own name.

use super::shared_dir::{DirEntry, FileKind, SharedDir};
use super::{ExpandedPaths, PathArg, ShareError};
use crate::common::escape::escape_controls;
use crate::common::glob::{Component, Pattern};
use crate::common::types::FileName;

/// Names that contain it are those of the server's credentials, and of what editors leave beside them.
const CREDENTIALS: &[u8] = b"credentials.txt";
/// Names that start with it are those of the server's data file and its journals.
const DATA_FILE: &[u8] = b"fileshare.db";

impl SharedDir {
    /// The files that `argument` means, sorted, each once, and why others are left out.
    pub fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        let mut found = ExpandedPaths::default();
        let pattern = argument.pattern.as_deref().and_then(|pattern| Pattern::parse_exact(pattern).ok());
        match pattern.filter(Pattern::has_glob) {
            Some(pattern) => self.expand_pattern(argument, &pattern, &mut found),
            None => self.expand_name(&argument.text, &mut found),
        }
        found.files.sort_unstable();
        found.files.dedup();
        found
    }

    fn expand_name(&self, text: &str, found: &mut ExpandedPaths) {
        let trimmed = text.trim_end_matches('/');
        if matches!(trimmed, "" | ".") && !text.starts_with('/') {
            return self.expand_dir("", found);
        }
        let name = match FileName::parse(trimmed) {
            Ok(name) => name,
            Err(error) => return found.errors.push(ShareError::Name(escape_controls(text).to_string(), error)),
        };
        match self.stat(name.as_str()).map(|stat| stat.kind) {
            Ok(FileKind::Directory) => self.expand_dir(name.as_str(), found),
            Ok(FileKind::File) if trimmed.len() == text.len() => found.files.push(name),
            Ok(FileKind::File) => found.errors.push(ShareError::Missing(text.into())),
            Ok(FileKind::Special) => found.errors.push(ShareError::Special(text.into())),
            Err(error) => found.errors.push(error),
        }
    }

    /// Everything in a folder. An empty folder is an error.
    fn expand_dir(&self, path: &str, found: &mut ExpandedPaths) {
        let before = (found.files.len(), found.errors.len());
        self.walk(path.into(), found);
        if before == (found.files.len(), found.errors.len()) {
            let shown = if path.is_empty() { "." } else { path };
            found.errors.push(ShareError::Empty(shown.into()));
        }
    }

    fn walk(&self, top: String, found: &mut ExpandedPaths) {
        let mut remaining = vec![top];
        while let Some(path) = remaining.pop() {
            let entries = self.list(&path).unwrap_or_else(|error| {
                found.errors.push(error);
                Vec::new()
            });
            for entry in entries.iter().filter(|entry| !is_left_out(&entry.name)) {
                match (entry.kind, entry_name(&path, entry)) {
                    (FileKind::Special, _) => {}
                    (_, Err(error)) => found.errors.push(error),
                    (FileKind::File, Ok(name)) => found.files.push(name),
                    (FileKind::Directory, Ok(name)) => remaining.push(name.to_string()),
                }
            }
        }
    }

    /// Component by component: only folders that match so far are listed. A match that is a folder means everything in it.
    fn expand_pattern(&self, argument: &PathArg, pattern: &Pattern, found: &mut ExpandedPaths) {
        let mut folders = vec![String::new()];
        if let Some((last, parents)) = pattern.components().split_last() {
            for component in parents {
                folders = self.matching_dirs(&folders, component, found);
            }
            if !pattern.is_folder() {
                let files = self.matching(&folders, last, FileKind::File, found);
                found.files.extend(files);
            }
            let tops = self.matching_dirs(&folders, last, found);
            tops.into_iter().for_each(|top| self.walk(top, found));
        }
        if found.files.is_empty() && found.errors.is_empty() {
            // As in a shell: a pattern that matches nothing may be a name with a bracket in it.
            match FileName::parse(&argument.text).map(|name| (self.stat(name.as_str()), name)) {
                Ok((Ok(stat), name)) if stat.kind == FileKind::File => found.files.push(name),
                _ => found.errors.push(ShareError::NoMatch(escape_controls(&argument.text).to_string())),
            }
        }
    }

    fn matching_dirs(&self, folders: &[String], component: &Component, found: &mut ExpandedPaths) -> Vec<String> {
        let dirs = self.matching(folders, component, FileKind::Directory, found);
        dirs.iter().map(ToString::to_string).collect()
    }

    /// The entries of one kind in `folders` that a component of a pattern matches.
    fn matching(
        &self,
        folders: &[String],
        component: &Component,
        kind: FileKind,
        found: &mut ExpandedPaths,
    ) -> Vec<FileName> {
        let mut names = Vec::new();
        for folder in folders {
            let entries = match component {
                Component::Literal(name) => self.named_entry(folder, name).into_iter().collect(),
                Component::Glob(_) => self.list(folder).unwrap_or_else(|error| {
                    found.errors.push(error);
                    Vec::new()
                }),
            };
            for entry in entries.iter().filter(|entry| entry.kind == kind && is_match(component, entry)) {
                match entry_name(folder, entry) {
                    Ok(name) => names.push(name),
                    Err(error) => found.errors.push(error),
                }
            }
        }
        names
    }

    fn named_entry(&self, folder: &str, name: &str) -> Option<DirEntry> {
        let path = join(folder, name);
        FileName::parse(&path).ok()?;
        let kind = self.stat(&path).ok()?.kind;
        Some(DirEntry { name: name.into(), kind })
    }
}

fn is_match(component: &Component, entry: &DirEntry) -> bool {
    matches!(component, Component::Literal(_))
        || (!is_excluded(&entry.name) && component.matches(&String::from_utf8_lossy(&entry.name)))
}

/// Whether folders leave out an entry: it is hidden or excluded. `name` is the last component alone.
pub fn is_left_out(name: &[u8]) -> bool {
    name.starts_with(b".") || is_excluded(name)
}

/// Whether folders and patterns exclude an entry, even a pattern for hidden entries: the server's own files and part
/// files. `name` is the last component alone.
pub fn is_excluded(name: &[u8]) -> bool {
    memchr::memmem::find(name, CREDENTIALS).is_some() || name.starts_with(DATA_FILE) || is_partial_file(name)
}

/// `.<32 hex digits>.part`.
pub fn is_partial_file(name: &[u8]) -> bool {
    let middle = name.strip_prefix(b".").and_then(|rest| rest.strip_suffix(b".part"));
    middle.is_some_and(|middle| middle.len() == 32 && middle.iter().all(u8::is_ascii_hexdigit))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The name of an entry, relative to the shared folder.
pub fn entry_name(folder: &str, entry: &DirEntry) -> Result<FileName, ShareError> {
    let shown = || escape_controls(&join(folder, &String::from_utf8_lossy(&entry.name))).to_string();
    let name = std::str::from_utf8(&entry.name).map_err(|_| ShareError::NotUtf8(shown()))?;
    FileName::parse(&join(folder, name)).map_err(|error| ShareError::Name(shown(), error))
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
