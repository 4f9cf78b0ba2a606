//! Keys and drawing at a terminal: completion, history, progress in narrow windows, messages while the user types.

use std::fs;

use crate::test_support::pty::Terminal;
use crate::test_support::{TestEnv, seeded_bytes};

const TAB: u8 = 0x09;
const UP: &[u8] = b"\x1b[A";
const KILL_LINE: u8 = 0x15;

fn press_all(person: &mut Terminal, keys: &[u8]) {
    keys.iter().for_each(|&key| person.press(key));
}

/// Without the escape codes that colour text and move the cursor.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain += before;
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';' || c == '?');
        rest = rest.get(1..).unwrap_or_default();
    }
    plain + rest
}

/// What was drawn of the progress of a file of 32 MiB.
fn bars(screen: &str) -> Vec<String> {
    // Ctrl-C shows behind the last one.
    let plain = without_escapes(screen).replace("^C", "");
    plain.split(['\r', '\n']).filter(|line| line.contains("/32.00 MiB")).map(str::to_owned).collect()
}

#[test]
fn commands_users_and_names_are_completed() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("report of the year.pdf", "1").file("notes.txt", "2");
    let _vader = vader.stay(&["pub *"], &["2 files published successfully"]);
    let mut person = Terminal::start(env.client("hans").user().file("mine.txt", "3").into_command());
    person.expect_on_screen("> ");
    press_all(&mut person, b"ls v\t");
    person.expect_on_screen("ls vader");
    person.type_line("");
    person.expect_on_screen("2 files shared by vader:");
    person.expect_on_screen("> ");
    press_all(&mut person, b"get rep\t");
    person.expect_on_screen(r"get report\ of\ the\ year.pdf");
    person.type_line("");
    person.expect_on_screen("report of the year.pdf downloaded successfully");
    person.expect_on_screen("> ");
    // Several candidates are listed by the second press.
    press_all(&mut person, b"l");
    press_all(&mut person, &[TAB, TAB]);
    person.expect_on_screen("lap");
    person.expect_on_screen("lpf");
    person.expect_on_screen("ls");
    person.press(KILL_LINE);
    press_all(&mut person, b"pub mi\t");
    person.expect_on_screen("pub mine.txt");
    person.type_line("");
    person.expect_on_screen("File published successfully");
    person.leave();
}

#[test]
fn earlier_lines_come_back_also_in_the_next_session() {
    let env = TestEnv::new();
    let mut person = Terminal::start(env.client("hans").user().into_command());
    person.enter("sch the-first");
    person.expect_on_screen("No files found");
    person.enter("lap");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("> ");
    press_all(&mut person, UP);
    press_all(&mut person, UP);
    person.expect_on_screen("sch the-first");
    person.type_line("");
    person.expect_on_screen("No files found");
    person.leave();
    let mut person = Terminal::start(env.client("hans").user().into_command());
    person.expect_on_screen("> ");
    press_all(&mut person, UP);
    press_all(&mut person, UP);
    person.expect_on_screen("sch the-first");
    person.press(KILL_LINE);
    person.leave();
}

#[test]
fn progress_fits_windows_of_any_width() {
    let env = TestEnv::new();
    let name = "a file with a name that takes a lot of room.bin";
    let vader = env.client("vader").user().file(name, seeded_bytes(1, 32 << 20)).args(["--limit-rate", "1M"]);
    let _vader = vader.stay(&[&format!("pub '{name}'")], &["File published successfully"]);
    let mut person = Terminal::start(env.client("hans").user().into_command());
    for (columns, has_bar) in [(80, true), (40, false)] {
        person.expect_on_screen("> ");
        person.resize(columns);
        person.type_line(&format!("get '{name}'"));
        person.expect_on_screen("/s");
        let start = person.screen.text().rfind("get '").expect("the line that was typed");
        // Again, so that several are drawn.
        person.expect_on_screen("/s");
        person.press(0x03);
        person.expect_on_screen("download failed");
        let bars = bars(&person.screen.text()[start..]);
        assert!(!bars.is_empty());
        for bar in bars {
            assert!(bar.chars().count() <= usize::from(columns), "{columns}: {bar:?}");
            assert_eq!(bar.contains('░'), has_bar, "{columns}: {bar:?}");
        }
    }
    person.expect_on_screen("> ");
    person.leave();
}

#[test]
fn a_window_may_shrink_while_progress_is_drawn() {
    let env = TestEnv::new();
    let vader = env.client("vader").user().file("large", seeded_bytes(1, 32 << 20)).args(["--limit-rate", "1M"]);
    let _vader = vader.stay(&["pub large"], &["File published successfully"]);
    let mut person = Terminal::start(env.client("hans").user().into_command());
    person.enter("get large");
    person.expect_on_screen("/32.00 MiB");
    person.resize(40);
    let before = bars(&person.screen.text());
    let mib = |bar: &String| bar.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    let last = before.last().and_then(mib).expect("the MiB that are done");
    // One may be under way. What is drawn after the next progress fits.
    let later = format!("{:.2} MiB/32.00 MiB", last + 2.0);
    person.expect_on_screen(&later);
    person.press(0x03);
    person.expect_on_screen("download failed");
    assert!(before.iter().all(|bar| bar.chars().count() > 40), "{before:?}");
    let after = bars(&person.screen.text()).into_iter().filter(|bar| bar.contains(&later));
    assert_eq!(after.filter(|bar| bar.chars().count() > 40).collect::<Vec<_>>(), [""; 0]);
    person.expect_on_screen("> ");
    person.leave();
}

#[test]
fn what_is_typed_survives_a_message() {
    let env = TestEnv::new();
    let client = env.client("hans").user().file("a", "as published");
    let file = client.dir().join("a");
    let mut person = Terminal::start(client.into_command());
    person.enter("pub a");
    person.expect_on_screen("File published successfully");
    person.expect_on_screen("> ");
    fs::write(file, "changed").expect("the file can be written");
    press_all(&mut person, b"la");
    person.expect_on_screen("la");
    env.client("vader").user().run(&["get a"]).expect_code(6);
    person.expect_on_screen("a: is not what was published any more");
    person.expect_on_screen("> la");
    person.type_line("p");
    person.expect_on_screen("No active peers");
    person.expect_on_screen("> ");
    person.leave();
}
