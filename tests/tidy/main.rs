//! The shape of the source tree itself: small files, no cycle between modules, one meaning for each type name, plain
//! words. Each check names the place to change.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{SourceFile, rust_files, words};

/// Longest file, in lines.
const FILE_MAX_LINES: usize = 450;

/// Type names that both programs define for their own side of the same thing.
const MIRRORED_TYPES: &[&str] = &["Session"];

/// Words of an earlier vocabulary that had no technical meaning.
const RETIRED_WORDS: &[&str] = &["town", "liar", "desk", "verdict", "whoever", "somebody", "patience", "disappoint"];

#[test]
fn files_are_short() {
    let too_long: Vec<_> = ["src", "tests", "benches", "fuzz"]
        .iter()
        .flat_map(|folder| rust_files(folder))
        .map(|path| (fs::read_to_string(&path).expect("readable").lines().count(), path))
        .filter(|(lines, _)| *lines > FILE_MAX_LINES)
        .collect();
    assert!(too_long.is_empty(), "more than {FILE_MAX_LINES} lines: {too_long:?}");
}

/// Siblings in a folder, each with all beneath it, depend on each other in one direction only.
#[test]
fn modules_have_no_cycles() {
    let files = source::production_files();
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| file.module.clone()).collect();
    let mut edges: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for file in &files {
        for target in file.references(&modules) {
            let common = file.module.iter().zip(&target).take_while(|(from, to)| from == to).count();
            // A reference between a folder's `mod.rs` and what is beneath it has no siblings.
            if let (Some(from), Some(to)) = (file.module.get(common), target.get(common)) {
                let folder = edges.entry(file.module[..common].to_vec()).or_default();
                folder.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let cycles: Vec<String> = edges
        .iter()
        .filter_map(|(folder, edges)| find_cycle(edges).map(|cycle| format!("{folder:?}: {}", cycle.join(" -> "))))
        .collect();
    assert!(cycles.is_empty(), "modules in a cycle:\n{}", cycles.join("\n"));
}

/// A cycle in the graph, if there is one: its nodes in order, the first one repeated at the end.
fn find_cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        node: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        finished: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|visited| visited == node) {
            return Some(path[start..].iter().cloned().chain([node.to_owned()]).collect());
        }
        if finished.contains(node) {
            return None;
        }
        path.push(node.to_owned());
        for next in edges.get(node).into_iter().flatten() {
            if let Some(cycle) = visit(next, edges, path, finished) {
                return Some(cycle);
            }
        }
        path.pop();
        finished.insert(node.to_owned());
        None
    }
    let mut finished = BTreeSet::new();
    edges.keys().find_map(|node| visit(node, edges, &mut Vec::new(), &mut finished))
}

#[test]
fn a_cycle_is_found() {
    let edge = |to: &[&str]| to.iter().map(|node| (*node).to_owned()).collect::<BTreeSet<String>>();
    let mut edges = BTreeMap::from([("a".to_owned(), edge(&["b", "c"])), ("b".to_owned(), edge(&["c"]))]);
    assert_eq!(find_cycle(&edges), None);
    edges.insert("c".to_owned(), edge(&["b"]));
    assert_eq!(find_cycle(&edges), Some(["b", "c", "b"].map(str::to_owned).to_vec()));
}

#[test]
fn the_two_programs_and_the_common_part_depend_in_one_direction() {
    let files = source::production_files();
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| file.module.clone()).collect();
    for file in &files {
        let forbidden: &[&str] = match file.module.first().map(String::as_str) {
            Some("common") => &["client", "server"],
            Some("client") => &["server"],
            Some("server") => &["client"],
            _ => &[],
        };
        for target in file.references(&modules) {
            assert!(!forbidden.contains(&target[0].as_str()), "{} uses {}", file.path, target.join("::"));
        }
    }
}

#[test]
fn a_type_name_has_one_meaning() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in source::production_files() {
        for name in file.type_names() {
            defined.entry(name).or_default().push(file.path.clone());
        }
    }
    defined.retain(|name, paths| paths.len() > 1 && !MIRRORED_TYPES.contains(&name.as_str()));
    assert!(defined.is_empty(), "types with the same name: {defined:#?}");
}

#[test]
fn retired_words_do_not_come_back() {
    let markdown = fs::read_dir("docs").expect("docs").map(|entry| entry.expect("readable").path());
    let texts = rust_files("src")
        .into_iter()
        .chain(markdown.filter(|path| path.is_file()))
        .chain([Path::new("README.md").to_owned()]);
    let mut found = Vec::new();
    for path in texts {
        let text = fs::read_to_string(&path).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let retired = words(line).find(|word| RETIRED_WORDS.contains(&word.to_lowercase().as_str()));
            found.extend(retired.map(|word| format!("{}:{}: {word}", path.display(), number + 1)));
        }
    }
    assert!(found.is_empty(), "retired words:\n{}", found.join("\n"));
}

/// Prints the number of production lines by folder: `cargo test --test tidy -- --nocapture production_lines`.
#[test]
fn production_lines_are_counted() {
    let mut by_folder: BTreeMap<String, usize> = BTreeMap::new();
    for file in source::production_files() {
        let folder = Path::new(&file.path).parent().expect("a folder").display().to_string();
        *by_folder.entry(folder).or_default() += file.lines.len();
    }
    by_folder.iter().for_each(|(folder, lines)| println!("{lines:6} {folder}"));
    println!("{:6} in all", by_folder.values().sum::<usize>());
    assert!(by_folder.contains_key("src/common"));
}

impl SourceFile {
    /// Names of the structs, enums, traits and type aliases that the file defines outside functions and impls.
    fn type_names(&self) -> Vec<String> {
        let name = |line: &String| {
            let line = line.strip_prefix("pub ").unwrap_or_else(|| match line.strip_prefix("pub(") {
                Some(rest) => rest.split_once(") ").map_or("", |(_, rest)| rest),
                None => line,
            });
            let kinds = ["struct ", "enum ", "trait ", "type "];
            let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
            words(rest).next().map(str::to_owned)
        };
        self.lines.iter().filter_map(name).collect()
    }
}

/// Starting a thread may fail: `common/threads.rs` makes that an error, where the standard functions panic.
#[test]
fn threads_are_started_in_one_place() {
    let starts = ["thread::spawn(", "thread::Builder", "scope.spawn(", "ThreadPoolBuilder"];
    let found: Vec<String> = source::production_files()
        .iter()
        .filter(|file| file.module != ["common", "threads"])
        .flat_map(|file| file.lines.iter().map(move |line| (&file.path, line)))
        .filter(|(_, line)| starts.iter().any(|start| line.contains(start)))
        .map(|(path, line)| format!("{path}: {}", line.trim()))
        .collect();
    assert!(found.is_empty(), "threads started without `common::threads`:\n{}", found.join("\n"));
}
