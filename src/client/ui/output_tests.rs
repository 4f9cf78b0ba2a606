use super::test_support::Messages;
use super::*;

fn at(ms: u64) -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(clock) + Duration::from_millis(ms)
}

fn ids(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| serde_json::to_string(&message.id).unwrap()).collect()
}

#[test]
fn commands_are_counted_unless_they_have_an_id() {
    let messages = Messages::default();
    let output = messages.output();
    let first = output.begin(None);
    output.of(&first).info("a note");
    output.info("of no command");
    output.end(first, "lap", ExitCode::Success);
    let named = output.begin(Some(CommandId::Text("a1".into())));
    output.of(&named).of_none().info("of a thread that outlives it");
    output.end(named, "get", ExitCode::NotFound);
    let third = output.begin(None);
    output.end(third, "lap", ExitCode::Success);
    let sent = messages.take();
    assert_eq!(ids(&sent), ["1", "null", "1", "null", "\"a1\"", "3"]);
    let MessageBody::End(end) = &sent[4].body else { panic!("an end") };
    assert_eq!((end.command.as_str(), end.ok, end.code), ("get", false, ExitCode::NotFound));
}

#[test]
fn progress_comes_at_intervals_with_the_rate_since_the_last() {
    let mut intervals = ProgressIntervals::starting(at(0));
    let count = |done| ByteCount { done, total: 1_000 };
    let mut next = |ms, name, done, all| intervals.next(at(ms), name, count(done), all);
    assert_eq!(next(99, "a", 10, 10), None);
    assert_eq!(next(100, "a", 20, 20), Some(200), "of the command, from its start");
    assert_eq!(next(199, "a", 30, 30), None);
    assert_eq!(next(199, "b", 5, 35), None, "the first of a file waits for the command's interval");
    assert_eq!(next(200, "b", 15, 45), Some(250));
    assert_eq!(next(200, "a", 30, 45), Some(100), "its own interval");
    assert_eq!(next(299, "b", 1_000, 1_030), None);
    assert_eq!(next(300, "b", 1_000, 1_030), Some(9_850));
    assert!(!intervals.files.contains_key("b"), "complete files take no memory");
}

#[test]
fn many_small_files_share_the_interval_of_the_command() {
    let mut intervals = ProgressIntervals::starting(at(0));
    let whole = ByteCount { done: 10, total: 10 };
    let sent = (0..10_000).filter(|&n| intervals.next(at(n / 10), &n.to_string(), whole, 10 * n).is_some());
    assert_eq!(sent.count(), 9);
    assert!(intervals.files.is_empty());
}
