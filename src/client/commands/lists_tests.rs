use crate::client::commands::test_support::{TestClient, content, file, user};
use crate::client::control::RequestError;
use crate::client::download::IncompleteFile;
use crate::client::exit_code::ExitCode;
use crate::common::types::Audience;

fn ok(text: &str) -> (ExitCode, String, String) {
    (ExitCode::Success, text.into(), String::new())
}

#[test]
fn commands_before_a_login_are_refused() {
    let client = TestClient::new();
    for line in ["lap", "lpf", "ls vader", "sch x", "get x", "pub x", "unp x"] {
        let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
        assert_eq!(client.run(line), expected, "{line}");
    }
    assert_eq!(client.run("help").0, ExitCode::Success);
    assert!(client.calls().is_empty());
}

#[test]
fn empty_lists_are_successes() {
    let client = TestClient::logged_in();
    assert_eq!(client.run("lap"), ok("No active peers\n"));
    assert_eq!(client.run("lpf"), ok("No files published\n"));
    assert_eq!(client.run("sch x"), ok("No files found\n"));
    assert_eq!(client.run("sch -l x"), ok("No files found\n"));
    assert_eq!(client.run(&format!("sch {}", "x".repeat(600))), ok("No files found\n"));
}

#[test]
fn lists_show_what_the_server_knows() {
    let client = TestClient::logged_in();
    client.script().peers = vec![user("vader"), user("yoda")];
    client.script().own.insert(file("mine"), (content(1), Audience::Everyone));
    client.found("a.PDF", 3, 1);
    client.found("b.pdf", 4, 2);
    assert_eq!(client.run("lap"), ok("2 active peers:\nvader\nyoda\n"));
    assert_eq!(client.run("lpf"), ok("1 file published:\nmine\n"));
    assert_eq!(client.run("sch pdf"), ok("1 file found:\nb.pdf\n"));
    assert_eq!(client.run("sch -i pdf"), ok("2 files found:\na.PDF\nb.pdf\n"));
    assert_eq!(client.run("sch -l pdf"), ok("1 file found:\nb.pdf\t4\t2\t60\n"));
    assert_eq!(client.run("sch ''"), ok("2 files found:\na.PDF\nb.pdf\n"));
}

#[test]
fn details_are_columns() {
    let client = TestClient::logged_in();
    client.script().peers = vec![user("vader")];
    client.found("a", 3, 1);
    client.found("b", 4, 1);
    assert_eq!(client.run("lap -l"), ok("1 active peer:\nvader\t90\n"));
    assert_eq!(client.run("ls vader"), ok("2 files shared by vader:\na\nb\n"));
    assert_eq!(client.run("ls --long vader"), ok("2 files shared by vader:\na\t3\t60\nb\t4\t60\n"));
    client.script().found.clear();
    assert_eq!(client.run("ls -l vader"), ok("No files shared\n"));
}

#[test]
fn only_active_peers_share() {
    let client = TestClient::logged_in();
    let reason = "client: yoda: no active peer has this name\n";
    assert_eq!(client.run("ls yoda"), (ExitCode::NotFound, "No such peer\n".into(), reason.into()));
    let (code, out, reason) = client.run("ls hans");
    assert!(code == ExitCode::Usage && out.is_empty() && reason.contains("your own user name"), "{out}{reason}");
    client.script().down = Some(RequestError::NotAuthenticated);
    let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
    assert_eq!(client.run("ls yoda"), expected);
}

#[test]
fn a_published_file_is_compared_with_the_one_in_the_folder() {
    let client = TestClient::logged_in();
    let names = ["same", "larger", "edited", "gone", "folder"];
    for name in names {
        client.local(name, 5);
    }
    client.run("pub same larger edited gone folder");
    client.run("pub --to yoda same");
    client.local("larger", 6);
    std::fs::write(client.dir.path().join("edited"), "other").unwrap();
    for name in ["gone", "folder"] {
        std::fs::remove_file(client.dir.path().join(name)).unwrap();
    }
    std::fs::create_dir(client.dir.path().join("folder")).unwrap();
    let lines = [
        "edited\t5\t60\tall\tchanged",
        "folder\t5\t60\tall\tmissing",
        "gone\t5\t60\tall\tmissing",
        "larger\t5\t60\tall\tchanged",
        "same\t5\t60\trestricted\tok",
    ];
    assert_eq!(client.run("lpf -l"), ok(&format!("5 files published:\n{}\n", lines.join("\n"))));
    let dir = tempfile::tempdir().unwrap();
    client.context.uploads.serve_incomplete(&file("gone"), &IncompleteFile::example(dir.path()));
    let (_, arriving, _) = client.run("lpf -l");
    assert!(arriving.contains("gone\t5\t60\tall\tok\n"), "{arriving}");
    client.context.state.close();
    assert_eq!(client.run("lpf -l").0, ExitCode::Interrupted);
}

#[test]
fn an_unreachable_server_is_reported() {
    let client = TestClient::logged_in();
    client.script().down = Some(RequestError::Unreachable);
    let expected = (ExitCode::Unreachable, String::new(), "client: the server does not answer\n".to_string());
    assert_eq!(client.run("lap"), expected);
    assert_eq!(client.run("sch x"), expected);
    client.script().down = Some(RequestError::NotAuthenticated);
    let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
    assert_eq!(client.run("lpf"), expected);
}

#[test]
fn an_ending_client_does_not_report_its_own_logout() {
    let client = TestClient::logged_in();
    client.context.state.close();
    client.script().down = Some(RequestError::NotAuthenticated);
    assert_eq!(client.run("lap"), (ExitCode::NotAuthenticated, String::new(), String::new()));
}
