use super::*;
use crate::client::commands::test_support::{Bench, content, file};
use crate::common::types::Audience;

fn candidates(bench: &Bench, dir: &Path, line: &str) -> (usize, Vec<String>) {
    Completion::new(&bench.context, dir).candidates(line)
}

#[test]
fn commands_come_first() {
    let (bench, dir) = (Bench::new(), Path::new("/nonexistent"));
    assert_eq!(candidates(&bench, dir, "l"), (0, vec!["lap ".into(), "lpf ".into()]));
    assert_eq!(candidates(&bench, dir, "  x"), (2, vec!["xit ".into()]));
    assert_eq!(candidates(&bench, dir, "").1.len(), Verb::ALL.len());
    assert_eq!(candidates(&bench, dir, "lap "), (4, vec![]));
}

#[test]
fn publishing_completes_what_lies_in_the_folder() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    for name in ["a b", "ab", ".hidden"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::fs::write(dir.path().join("folder/x"), "").unwrap();
    let complete = |line: &str| candidates(&bench, dir.path(), line);
    assert_eq!(complete("pub a"), (4, vec![r"a\ b".into(), "ab".into()]));
    assert_eq!(complete("pub x 'a "), (6, vec![r"a\ b".into()]));
    assert_eq!(complete(r"pub a\ "), (4, vec![r"a\ b".into()]));
    assert_eq!(complete("pub f"), (4, vec!["folder/".into()]));
    assert_eq!(complete("pub folder/"), (4, vec!["folder/x".into()]));
    assert_eq!(complete("pub ."), (4, vec![".hidden".into()]));
    assert_eq!(complete("pub ../"), (4, vec![]));
    assert_eq!(complete("pub /"), (4, vec![]));
}

#[test]
fn withdrawing_and_getting_complete_published_names() {
    let bench = Bench::new();
    bench.world.state().own.insert(file("mine"), (content(1), Audience::Everyone));
    bench.run("auth hans pw");
    drop(bench.context.own.restricted_among(std::iter::empty()));
    bench.found("it's", 1, 1);
    bench.found("other", 1, 1);
    let dir = Path::new("/nonexistent");
    assert_eq!(candidates(&bench, dir, "unp m"), (4, vec!["mine".into()]));
    assert_eq!(candidates(&bench, dir, "get i"), (4, vec![r"it\'s".into()]));
    assert_eq!(candidates(&bench, dir, "get other ").1.len(), 2);
}
