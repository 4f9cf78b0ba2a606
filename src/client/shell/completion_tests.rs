use super::*;
use crate::client::commands::test_support::{TestClient, content, file};
use crate::common::types::Audience;

fn candidates(client: &TestClient, dir: &Path, line: &str) -> (usize, Vec<String>) {
    Completion::new(&client.context, dir).candidates(line)
}

#[test]
fn commands_come_first() {
    let (client, dir) = (TestClient::new(), Path::new("/nonexistent"));
    assert_eq!(candidates(&client, dir, "l"), (0, vec!["lap ".into(), "lpf ".into()]));
    assert_eq!(candidates(&client, dir, "  x"), (2, vec!["xit ".into()]));
    assert_eq!(candidates(&client, dir, "").1.len(), Verb::ALL.len());
    assert_eq!(candidates(&client, dir, "lap "), (4, vec![]));
}

#[test]
fn pub_completes_entries_of_the_shared_folder() {
    let (client, dir) = (TestClient::new(), tempfile::tempdir().unwrap());
    for name in ["a b", "ab", ".hidden"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    std::fs::write(dir.path().join("folder/x"), "").unwrap();
    let complete = |line: &str| candidates(&client, dir.path(), line);
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
fn unp_and_get_complete_published_names() {
    let client = TestClient::new();
    client.script().own.insert(file("mine"), (content(1), Audience::Everyone));
    client.run("auth hans pw");
    drop(client.context.publications.restricted_among(std::iter::empty()));
    client.found("it's", 1, 1);
    client.found("other", 1, 1);
    let dir = Path::new("/nonexistent");
    assert_eq!(candidates(&client, dir, "unp m"), (4, vec!["mine".into()]));
    assert_eq!(candidates(&client, dir, "get i"), (4, vec![r"it\'s".into()]));
    assert_eq!(candidates(&client, dir, "get other ").1.len(), 2);
}
