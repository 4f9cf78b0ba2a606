//! What an argument of `pub` means: a file, everything in a folder, or whatever a pattern matches.
//!
//! Folders and patterns leave out what nobody means to share: hidden entries, unfinished parts, the server's own files
//! (a client often runs in the server's folder). Each of them can still be named by itself.

use globset::{GlobBuilder, GlobMatcher};

use super::shared_dir::{Entry, FileKind, SharedDir};
use super::{ExpandedPaths, PathArg, ShareError};
use crate::common::escape::escape_controls;
use crate::common::types::FileName;

/// Files the server keeps; the second stands for everything that starts so.
const CREDENTIALS: &[u8] = b"credentials.txt";
const DATA_FILE: &[u8] = b"fileshare.db";

impl SharedDir {
    /// The files that `argument` means, sorted, each once, and what stood in the way of others.
    pub(in crate::client) fn expand(&self, argument: &PathArg) -> ExpandedPaths {
        let mut found = ExpandedPaths::default();
        match &argument.pattern {
            Some(pattern) => self.expand_pattern(argument, pattern, &mut found),
            None => self.expand_name(&argument.text, &mut found),
        }
        found.files.sort_unstable();
        found.files.dedup();
        found
    }

    fn expand_name(&self, text: &str, found: &mut ExpandedPaths) {
        let trimmed = text.trim_end_matches('/');
        if matches!(trimmed, "" | ".") && !text.starts_with('/') {
            return self.expand_dir(None, found);
        }
        let name = match FileName::parse(trimmed) {
            Ok(name) => name,
            Err(error) => return found.errors.push(ShareError::Name(escape_controls(text).to_string(), error)),
        };
        match self.kind(name.as_str()) {
            Ok(FileKind::Directory) => self.expand_dir(Some(name.as_str()), found),
            Ok(FileKind::File) if trimmed.len() == text.len() => found.files.push(name),
            Ok(FileKind::File) => found.errors.push(ShareError::Missing(text.into())),
            Ok(FileKind::Special) => found.errors.push(ShareError::Special(text.into())),
            Err(error) => found.errors.push(error),
        }
    }

    /// Everything in a folder; it is an error that there is nothing.
    fn expand_dir(&self, path: Option<&str>, found: &mut ExpandedPaths) {
        let before = (found.files.len(), found.errors.len());
        self.walk(path.map(String::from), found);
        if before == (found.files.len(), found.errors.len()) {
            found.errors.push(ShareError::Empty(path.unwrap_or(".").into()));
        }
    }

    fn walk(&self, top: Option<String>, found: &mut ExpandedPaths) {
        let mut waiting = vec![top];
        while let Some(path) = waiting.pop() {
            let entries = match self.list(path.as_deref()) {
                Ok(entries) => entries,
                Err(error) => {
                    found.errors.push(error);
                    continue;
                }
            };
            for entry in entries.iter().filter(|entry| !is_hidden(entry) && !is_excluded(&entry.name)) {
                match (entry.kind, entry_name(path.as_deref(), entry)) {
                    (FileKind::Special, _) => {}
                    (_, Err(error)) => found.errors.push(error),
                    (FileKind::File, Ok(name)) => found.files.push(name),
                    (FileKind::Directory, Ok(name)) => waiting.push(Some(name.to_string())),
                }
            }
        }
    }

    /// Part by part, so that only folders that match so far are looked into.
    fn expand_pattern(&self, argument: &PathArg, pattern: &str, found: &mut ExpandedPaths) {
        let wants_folders = pattern.ends_with('/');
        let parts: Option<Vec<Part>> = pattern.trim_end_matches('/').split('/').map(Part::parse).collect();
        let Some(parts) = parts.filter(|parts| parts.iter().any(|part| matches!(part, Part::Glob { .. }))) else {
            return self.expand_name(&argument.text, found);
        };
        let mut folders: Vec<Option<String>> = vec![None];
        for (at, part) in parts.iter().enumerate() {
            let last = at + 1 == parts.len();
            let mut next = Vec::new();
            for folder in &folders {
                self.matching(folder.as_deref(), part, last && !wants_folders, &mut next, found);
            }
            folders = next;
        }
        for folder in folders.into_iter().filter(|_| wants_folders) {
            self.walk(folder, found);
        }
        if found.files.is_empty() && found.errors.is_empty() {
            // As in a shell: a pattern that matches nothing may be a name with a bracket in it.
            match FileName::parse(&argument.text).map(|name| (self.kind(name.as_str()), name)) {
                Ok((Ok(FileKind::File), name)) => found.files.push(name),
                _ => found.errors.push(ShareError::NoMatch(escape_controls(&argument.text).to_string())),
            }
        }
    }

    /// The entries of `folder` that `part` matches: files go to `found`, folders to `next`.
    fn matching(
        &self,
        folder: Option<&str>,
        part: &Part,
        wants_files: bool,
        next: &mut Vec<Option<String>>,
        found: &mut ExpandedPaths,
    ) {
        let entries = match part {
            Part::Literal(name) => {
                let path = join(folder, name);
                let usable = FileName::parse(&path).is_ok();
                let kind = if usable { self.kind(&path).ok() } else { None };
                kind.map(|kind| Entry { name: name.clone().into_bytes(), kind }).into_iter().collect()
            }
            Part::Glob { .. } => match self.list(folder) {
                Ok(entries) => entries,
                // A pattern matches what is there; a folder that cannot be read is worth a word all the same.
                Err(error) => return found.errors.push(error),
            },
        };
        let wanted = if wants_files { FileKind::File } else { FileKind::Directory };
        for entry in entries.iter().filter(|entry| entry.kind == wanted && part.takes(entry)) {
            match entry_name(folder, entry) {
                Err(error) => found.errors.push(error),
                Ok(name) if wants_files => found.files.push(name),
                Ok(name) => next.push(Some(name.to_string())),
            }
        }
    }
}

/// One part of a pattern, between slashes.
enum Part {
    Literal(String),
    Glob {
        matcher: GlobMatcher,
        /// It starts with a dot itself, so it may match hidden entries.
        dot: bool,
    },
}

impl Part {
    /// `None`: not a pattern after all.
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
        Some(Self::Glob { matcher: glob.compile_matcher(), dot: text.starts_with('.') || text.starts_with("\\.") })
    }

    fn takes(&self, entry: &Entry) -> bool {
        match self {
            Self::Literal(_) => true,
            Self::Glob { matcher, dot } => {
                let name = String::from_utf8_lossy(&entry.name);
                (*dot || !is_hidden(entry)) && !is_excluded(&entry.name) && matcher.is_match(&*name)
            }
        }
    }
}

fn is_hidden(entry: &Entry) -> bool {
    entry.name.starts_with(b".")
}

/// What folders and patterns leave out wherever it stands, even a pattern for hidden entries: the server's own files and
/// unfinished parts. `name` is the last component alone.
pub fn is_excluded(name: &[u8]) -> bool {
    name == CREDENTIALS || name.starts_with(DATA_FILE) || is_partial_file(name)
}

/// `.<32 hex digits>.part`.
fn is_partial_file(name: &[u8]) -> bool {
    let middle = name.strip_prefix(b".").and_then(|rest| rest.strip_suffix(b".part"));
    middle.is_some_and(|middle| middle.len() == 32 && middle.iter().all(u8::is_ascii_hexdigit))
}

fn join(folder: Option<&str>, name: &str) -> String {
    folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"))
}

fn entry_name(folder: Option<&str>, entry: &Entry) -> Result<FileName, ShareError> {
    let shown = || escape_controls(&join(folder, &String::from_utf8_lossy(&entry.name))).to_string();
    let name = std::str::from_utf8(&entry.name).map_err(|_| ShareError::NotUtf8(shown()))?;
    FileName::parse(&join(folder, name)).map_err(|error| ShareError::Name(shown(), error))
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
