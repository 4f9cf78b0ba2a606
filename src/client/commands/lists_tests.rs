use crate::client::commands::test_support::{Bench, content, file, user};
use crate::client::control::RequestError;
use crate::client::exit_code::ExitCode;
use crate::common::types::Audience;

fn ok(text: &str) -> (ExitCode, String, String) {
    (ExitCode::Success, text.into(), String::new())
}

#[test]
fn commands_before_a_login_are_refused() {
    let bench = Bench::new();
    for line in ["lap", "lpf", "sch x", "get x", "pub x", "unp x"] {
        let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
        assert_eq!(bench.run(line), expected, "{line}");
    }
    assert_eq!(bench.run("help").0, ExitCode::Success);
    assert!(bench.world.calls().is_empty());
}

#[test]
fn empty_lists_are_no_failures() {
    let bench = Bench::logged_in();
    assert_eq!(bench.run("lap"), ok("No active peers\n"));
    assert_eq!(bench.run("lpf"), ok("No files published\n"));
    assert_eq!(bench.run("sch x"), ok("No files found\n"));
    assert_eq!(bench.run("sch -l x"), ok("No files found\n"));
    assert_eq!(bench.run(&format!("sch {}", "x".repeat(600))), ok("No files found\n"));
}

#[test]
fn lists_show_what_the_server_knows() {
    let bench = Bench::logged_in();
    bench.world.state().peers = vec![user("vader"), user("yoda")];
    bench.world.state().own.insert(file("mine"), (content(1), Audience::Everyone));
    bench.found("a.PDF", 3, 1);
    bench.found("b.pdf", 4, 2);
    assert_eq!(bench.run("lap"), ok("2 active peers:\nvader\nyoda\n"));
    assert_eq!(bench.run("lpf"), ok("1 file published:\nmine\n"));
    assert_eq!(bench.run("sch pdf"), ok("1 file found:\nb.pdf\n"));
    assert_eq!(bench.run("sch -i pdf"), ok("2 files found:\na.PDF\nb.pdf\n"));
    assert_eq!(bench.run("sch -l pdf"), ok("1 file found:\nb.pdf\t4\t2\t60\n"));
    assert_eq!(bench.run("sch ''"), ok("2 files found:\na.PDF\nb.pdf\n"));
}

#[test]
fn a_server_that_is_gone_is_told() {
    let bench = Bench::logged_in();
    bench.world.state().down = Some(RequestError::Unreachable);
    let expected = (ExitCode::Unreachable, String::new(), "client: the server does not answer\n".to_string());
    assert_eq!(bench.run("lap"), expected);
    assert_eq!(bench.run("sch x"), expected);
    bench.world.state().down = Some(RequestError::NotAuthenticated);
    let expected = (ExitCode::NotAuthenticated, "Please authenticate first\n".into(), String::new());
    assert_eq!(bench.run("lpf"), expected);
}

#[test]
fn a_client_that_ends_says_nothing_about_the_session_it_has_left() {
    let bench = Bench::logged_in();
    bench.context.state.close();
    bench.world.state().down = Some(RequestError::NotAuthenticated);
    assert_eq!(bench.run("lap"), (ExitCode::NotAuthenticated, String::new(), String::new()));
}
