use std::sync::Arc;

use rustix::io::Errno;

use super::test_support::Sink;
use super::*;
use crate::client::ui::message::{CommandResult, PeerList, True};
use crate::client::ui::output::Output;

/// Every write fails with this error.
struct FailingStream(Errno);

impl Write for FailingStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was written to stdout and stderr.
struct Written {
    out: Sink,
    err: Sink,
}

impl Written {
    fn take(&self) -> (String, String) {
        (self.out.take(), self.err.take())
    }
}

fn console(options: OutputOptions) -> (Arc<Console>, Output, Written) {
    let written = Written { out: Sink::default(), err: Sink::default() };
    let (out, err) = (Box::new(written.out.clone()), Box::new(written.err.clone()));
    let console = Arc::new(Console::with_writers(options, out, err));
    (Arc::clone(&console), Output::new(console), written)
}

fn no_peers() -> CommandResult {
    CommandResult::Lap(PeerList { ok: True, peers: Vec::new(), details: None })
}

#[test]
fn only_a_closed_pipe_ends_quietly() {
    let end = |errno, json| {
        let err = Sink::default();
        let options = OutputOptions { json, ..OutputOptions::default() };
        let console = Console::with_writers(options, Box::new(FailingStream(errno)), Box::new(err.clone()));
        let console = Arc::new(console);
        let output = Output::new(Arc::clone(&console) as Arc<dyn MessageSink>);
        assert!(!output.has_ended() && console.output_status().is_success());
        output.result(no_peers());
        output.result(CommandResult::goodbye());
        assert!(output.has_ended());
        (console.output_status(), err.take())
    };
    for json in [false, true] {
        assert_eq!(end(Errno::PIPE, json), (ExitCode::Success, String::new()));
        for (errno, status) in [
            (Errno::NOSPC, ExitCode::DiskFull),
            (Errno::DQUOT, ExitCode::DiskFull),
            (Errno::FBIG, ExitCode::DiskFull),
            (Errno::IO, ExitCode::LocalFile),
        ] {
            let reason = format!("client: cannot write to standard output: {}\n", io::Error::from(errno));
            assert_eq!(end(errno, json), (status, reason), "once, and a failure");
        }
    }
}

#[test]
fn a_closed_stderr_is_no_failure() {
    let err = Box::new(FailingStream(Errno::PIPE));
    let console = Console::with_writers(OutputOptions::default(), Box::new(Sink::default()), err);
    let output = Output::new(Arc::new(console));
    output.error("lost");
    assert!(!output.has_ended());
}

#[test]
fn quiet_leaves_out_greetings_and_notes_but_no_errors() {
    let (_, output, written) = console(OutputOptions { quiet: true, ..OutputOptions::default() });
    output.result(CommandResult::goodbye());
    output.result(no_peers());
    output.info("a note");
    output.error("two\nlines\x1b");
    assert_eq!(written.take(), ("No active peers\n".into(), "client: two\\u{a}lines\\u{1b}\n".into()));
}

#[test]
fn json_is_all_on_stdout() {
    for quiet in [false, true] {
        let (_, output, written) = console(OutputOptions { json: true, quiet, ..OutputOptions::default() });
        let run = output.begin(None);
        output.of(&run).info("a note");
        output.of(&run).error("a reason");
        output.of(&run).result(CommandResult::goodbye());
        output.end(run, "xit", ExitCode::Success);
        let (out, err) = written.take();
        let types = out.lines().map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["type"].as_str().unwrap().to_owned()
        });
        let types: Vec<String> = types.collect();
        let expected = if quiet { vec!["note", "end"] } else { vec!["note", "note", "result", "end"] };
        assert_eq!((types, err.as_str()), (expected.into_iter().map(String::from).collect(), ""));
    }
}

#[test]
fn notes_of_no_command_are_printed_above_the_prompt() {
    let prompt = Sink::default();
    let (console, output, written) = console(OutputOptions::default());
    output.info("first");
    let mut printer = prompt.clone();
    console.set_prompt_printer(Some(Box::new(move |line| printer.write_all(line.as_bytes()).unwrap())));
    output.info("second");
    output.of(&output.begin(None)).info("third");
    console.set_prompt_printer(None);
    assert_eq!(written.take().1, "client: first\nclient: third\n");
    assert_eq!(prompt.take(), "client: second\n");
}

#[test]
fn no_bar_is_drawn_without_the_option() {
    let progress = FileProgress { name: "x".into(), done: 1, total: 2, rate: 1, command_done: 1, command_total: 2 };
    let (text, output, written) = console(OutputOptions::default());
    assert!(!text.wants_progress());
    output.send(MessageBody::Progress(progress));
    assert!(lock(&text.bar).is_none());
    assert_eq!(written.take(), (String::new(), String::new()));
}
