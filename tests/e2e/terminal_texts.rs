//! What only a person at a terminal sees: the user in the prompt, colours, units, summaries, suggestions, wrapped help.
//! That none of it gets into a pipe is tested by `recorded`.

use crate::test_support::pty::Terminal;
use crate::test_support::{Client, TestEnv, seeded_bytes};

fn hans(env: &TestEnv) -> Client {
    env.client("hans").user()
}

#[test]
fn the_prompt_names_the_user() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").into_command());
    person.log_in("hans");
    person.expect_on_screen("hans\x1b[0m> ");
    person.type_line("lap");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("hans\x1b[0m> ");
    let mut side = Terminal::start(env.client("hans").args(["--attach"]).into_command());
    side.expect_on_screen("hans\x1b[0m");
    side.leave();
    person.type_line("xit");
    person.expect_on_screen("Goodbye!");
    assert!(!person.finish().1.contains("hans> "), "the user stands out");
}

#[test]
fn colors_are_for_terminals_that_want_them() {
    let env = TestEnv::new();
    let look = |client: Client| {
        let mut person = Terminal::start(client.into_command());
        for (line, reply) in
            [("ls nobody", "No such peer"), ("lap", "No active peers"), ("pub x", "publication failed")]
        {
            person.enter(line);
            person.expect_on_screen(reply);
        }
        person.leave()
    };
    let screen = look(hans(&env));
    for text in ["\x1b[31mNo such peer\x1b[0m", "\x1b[31mclient:\x1b[0m nobody: ", "\x1b[1mhans\x1b[0m> "] {
        assert!(screen.contains(text), "{text:?} in\n{screen}");
    }
    for plain in
        [hans(&env).env("NO_COLOR", "1"), hans(&env).args(["--color", "never"]), hans(&env).env("TERM", "dumb")]
    {
        let screen = look(plain);
        assert!(screen.contains("hans> ") && screen.contains("\nclient: nobody: "), "{screen}");
        assert!(!screen.contains("\x1b[31m") && !screen.contains("\x1b[1m"), "{screen}");
    }
    assert!(!look(hans(&env).env("TERM", "dumb")).contains('\x1b'));
    let mut dumb = hans(&env).env("TERM", "dumb").args(["--color", "always", "-q"]).pipe(&["ls nobody"]);
    assert_eq!(dumb.stdout, "\x1b[31mNo such peer\x1b[0m\n");
    dumb = hans(&env).args(["-q"]).pipe(&["ls nobody"]);
    assert_eq!((dumb.stdout.as_str(), dumb.stderr.contains('\x1b')), ("No such peer\n", false));
}

#[test]
fn sizes_and_ages_have_units() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("small", "12345").file("large", seeded_bytes(1, 1_300 << 10));
    let _vader = vader.stay(&["pub small large"], &["2 files published successfully"]);
    let mut person = Terminal::start(hans(&env).env("NO_COLOR", "1").into_command());
    person.enter("sch -l l");
    person.expect_on_screen("2 files found:\r\n1.3 MiB  1 source  ");
    person.expect_on_screen(" s  large\r\n    5 B  1 source  ");
    person.expect_on_screen(" s  small\r\n");
    person.enter("ls -l vader");
    person.expect_on_screen("2 files shared by vader:\r\n1.3 MiB  ");
    person.enter("lap -l");
    person.expect_on_screen(" s  vader\r\n");
    person.leave();
}

#[test]
fn a_get_is_summed_up_and_an_interrupted_one_can_be_resumed() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("a", seeded_bytes(1, 1 << 20)).file("b", "").file("c", "12");
    let _vader = vader.stay(&["pub a b c"], &["3 files published successfully"]);
    let yoda = env.client("yoda").user().file("large", seeded_bytes(2, 8 << 20)).args(["--limit-rate", "256K"]);
    let _yoda = yoda.stay(&["pub large"], &["File published successfully"]);
    let mut person = Terminal::start(hans(&env).env("NO_COLOR", "1").into_command());
    person.enter("get a");
    person.expect_on_screen("a downloaded successfully\r\na: 1.0 MiB in ");
    person.expect_on_screen(" s, ");
    person.expect_on_screen("/s, from vader\r\n");
    person.enter("get a");
    person.expect_on_screen("a: 1.0 MiB, already there\r\n");
    person.enter("get b c");
    person.expect_on_screen("2 files: 2 B in ");
    person.enter("get large");
    person.expect_on_screen("MiB");
    person.press(0x03);
    person.expect_on_screen("large download failed\r\n");
    person.expect_on_screen("run the same again to resume\r\n");
    person.enter("get nothing");
    person.expect_on_screen("File not found\r\n");
    let screen = person.leave();
    assert_eq!(screen.matches("run the same again").count(), 1, "{screen}");
    let mut quiet = Terminal::start(hans(&env).args(["-q", "--on-exists", "overwrite"]).into_command());
    quiet.enter("get a");
    quiet.expect_on_screen("a downloaded successfully\r\n");
    quiet.enter("xit");
    assert!(!quiet.finish().1.contains("already there"));
}

#[test]
fn a_job_whose_side_has_left_is_summed_up_without_what_is_followed() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("a", "1").file("b", "2").file("slow", seeded_bytes(1, 512 << 10));
    let _vader = vader.args(["--limit-rate", "256K"]).stay(&["pub a b slow"], &["3 files published successfully"]);
    let mut person = Terminal::start(hans(&env).env("NO_COLOR", "1").into_command());
    person.enter("follow [ab]");
    person.expect_on_screen("a downloaded successfully\r\n");
    person.expect_on_screen("b downloaded successfully\r\n");
    env.client("hans").args(["-a", "-q"]).run(&["get slow &"]).expect(0, &["[2] get slow"]);
    person.expect_on_screen("slow downloaded successfully\r\n");
    person.expect_on_screen("slow: 512 KiB in ");
    person.leave();
}

#[test]
fn a_mistyped_command_has_a_suggestion() {
    let env = TestEnv::new();
    let mut person = Terminal::start(hans(&env).into_command());
    person.enter("shc pdf");
    person.expect_on_screen("unknown command 'shc'; did you mean 'sch'?");
    person.enter("help qiut");
    person.expect_on_screen("did you mean 'quit'?");
    person.enter("frobnicate");
    person.expect_on_screen("unknown command 'frobnicate'; 'help' lists the commands");
    person.enter("quit");
    person.expect_on_screen("Goodbye!");
    assert_eq!(person.finish().0, 0);
}

#[test]
fn help_fits_the_window() {
    let env = TestEnv::new();
    let mut person = Terminal::start(hans(&env).into_command());
    for columns in [80, 40] {
        person.expect_on_screen("> ");
        person.resize(columns);
        person.type_line("help");
        person.expect_on_screen("help\r\n");
        let shown = person.screen.text().len();
        person.expect_on_screen("example: xit\r\n");
        let screen = person.screen.text();
        let start = screen[..shown].rfind("help\r\n").expect("the line that was typed");
        let page = screen[start..].split("example: xit").next().expect("a page");
        let too_long: Vec<&str> = page.lines().filter(|line| line.len() > usize::from(columns)).collect();
        assert!(too_long.is_empty(), "{columns}: {too_long:?}");
        assert!(page.contains("example: get report.pdf"), "{page}");
    }
    person.enter("? ls");
    person.expect_on_screen("usage: ls [-l] USERNAME\r\n");
    person.expect_on_screen("example: ls -l vader\r\n");
    person.leave();
}
