//! Rust source files as text: which module they are, their production lines, and the modules that these name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One file of production code, without what is compiled for tests alone.
pub struct SourceFile {
    /// Relative to the project.
    pub path: String,
    /// `client`, `session`, `requests` for `src/client/session/requests.rs`; a `mod.rs` is its folder.
    pub module: Vec<String>,
    pub lines: Vec<String>,
}

/// All Rust files beneath a folder of the project, sorted.
pub fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("readable").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The files of `src` that are compiled into the programs.
pub fn production_files() -> Vec<SourceFile> {
    rust_files("src").into_iter().filter(|path| !is_test_code(path)).map(|path| read(&path)).collect()
}

/// The words of a line: runs of letters, digits and `_`.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

fn is_test_code(path: &Path) -> bool {
    let is_test_name = |name: &str| name == "tests" || name == "test_support" || name.ends_with("_tests");
    path.with_extension("").iter().any(|part| is_test_name(&part.to_string_lossy()))
}

fn read(path: &Path) -> SourceFile {
    let text = fs::read_to_string(path).expect("readable");
    let mut module: Vec<String> =
        path.with_extension("").iter().skip(1).map(|part| part.to_string_lossy().into()).collect();
    module.pop_if(|last| last == "mod" || last == "lib");
    SourceFile { path: path.display().to_string(), module, lines: without_tests(&text) }
}

/// Leaves out each item that follows `#[cfg(test)]`, by its braces.
fn without_tests(text: &str) -> Vec<String> {
    let mut kept = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line.to_owned());
            continue;
        }
        let mut depth = 0_usize;
        for line in lines.by_ref().skip_while(|line| line.trim_start().starts_with("#[")) {
            depth += line.matches('{').count();
            depth = depth.saturating_sub(line.matches('}').count());
            if depth == 0 && line.trim_end().ends_with([';', '}']) {
                break;
            }
        }
    }
    kept
}

impl SourceFile {
    /// The other modules that the file names in a path, in `use` or in code.
    pub fn references(&self, modules: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
        let code: String = self
            .lines
            .iter()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut found = BTreeSet::new();
        for (start, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
            let before = code[..start].chars().next_back().unwrap_or(' ');
            if !before.is_alphanumeric() && before != '_' && before != ':' {
                collect(&code[start..], self.module.clone(), &mut |path| found.extend(longest_module(path, modules)));
            }
        }
        found.remove(&self.module);
        found
    }
}

/// Resolves the path at the start of `code`, with every branch of its braces, from the module `from`.
fn collect(code: &str, mut from: Vec<String>, found: &mut dyn FnMut(&[String])) {
    let mut rest = code;
    loop {
        if let Some(after) = rest.strip_prefix("crate::") {
            from.clear();
            rest = after;
        } else if let Some(after) = rest.strip_prefix("super::") {
            from.pop();
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            for branch in branches(after) {
                collect(branch.trim(), from.clone(), found);
            }
            return;
        } else {
            let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
            from.push(rest[..end].to_owned());
            match rest[end..].strip_prefix("::") {
                Some(after) if end > 0 => rest = after,
                _ => return found(&from),
            }
        }
    }
}

/// The parts between the commas up to the brace that closes the list.
fn branches(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

/// The module that an item's path leads into.
fn longest_module(path: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    (1..=path.len()).rev().map(|length| path[..length].to_vec()).find(|module| modules.contains(module))
}
