use std::collections::BTreeMap;

use super::*;
use crate::common::message::{AudienceRef, Request};
use crate::common::types::SessionId;
use crate::server::test_support::{TestServer, address, file, user};

/// A parser of the text format that accepts only what it allows: each family is introduced by HELP and TYPE, its samples
/// follow, and no sample occurs twice.
fn parse(metrics: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(metrics.ends_with('\n'));
    for line in metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(
                help.ends_with('.') && !samples.keys().any(|sample: &String| sample.starts_with(&format!("{name}{{")))
            );
            (family, kind) = (name.into(), String::new());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert!(name == family && ["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            kind = of.into();
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| *name == format!("{family}{suffix}")), "{line} in {family}");
            let labels = labels.strip_suffix('}').unwrap();
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').unwrap();
                assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
                assert!(value.len() >= 3 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} occurs twice");
        }
    }
    samples
}

/// hans and vader log in, hans publishes a file whose name must not show, and luke is refused.
fn figures() -> Figures {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let mut vader = test.login("127.0.0.1:4001", "vader");
    let files = vec![file("secret-plans.txt")];
    test.request(&mut hans, Request::Publish { files, audience: AudienceRef::Everyone });
    test.heartbeat(&mut vader);
    assert!(test.try_login(address("127.0.0.1:4002"), "luke", "x").is_none());
    test.send(address("127.0.0.1:4002"), b"junk");
    let mut loop_turns = Histogram::default();
    [10, 60, 20_000_000].iter().for_each(|&us| loop_turns.record(Duration::from_micros(us)));
    let mut loop_turns_cpu = Histogram::default();
    loop_turns_cpu.record(Duration::from_micros(200));
    let mut journal_commits = Histogram::default();
    journal_commits.record(Duration::from_millis(5));
    Figures {
        stats: test.server.stats(),
        sent: Traffic { datagrams: 11, bytes: 1_234 },
        send_failures: 3,
        kernel_drops: 7,
        loop_turns,
        loop_turns_cpu,
        journal_commits,
        health: Health::Ok,
        uptime: Duration::from_millis(12_345),
        users: None,
    }
}

/// Every sample that is not 0 is listed, so each figure is the one of its name.
#[test]
fn every_metric_is_the_figure_of_a_known_run() {
    let figures = figures();
    let received = figures.stats.counters.received;
    let metrics = figures.to_metrics();
    let samples = parse(&metrics);
    let version = env!("CARGO_PKG_VERSION");
    let mut expected: BTreeMap<String, f64> = [
        ("sessions", 2.0),
        ("logins_total{result=\"accepted\"}", 2.0),
        ("logins_total{result=\"refused\"}", 1.0),
        ("requests_total{kind=\"heartbeat\",result=\"ok\"}", 1.0),
        ("requests_total{kind=\"publish\",result=\"ok\"}", 1.0),
        ("datagrams_total{direction=\"received\"}", 12.0),
        ("datagrams_total{direction=\"sent\"}", 11.0),
        ("datagram_bytes_total{direction=\"received\"}", received.bytes as f64),
        ("datagram_bytes_total{direction=\"sent\"}", 1_234.0),
        ("refused_total{reason=\"malformed\"}", 1.0),
        ("send_failures_total", 3.0),
        ("kernel_drops_total", 7.0),
        ("publications", 1.0),
        ("journal_commit_seconds_sum", 0.005),
        ("journal_commit_seconds_count", 1.0),
        ("loop_turn_seconds_sum", 20.00007),
        ("loop_turn_seconds_count", 3.0),
        ("loop_turn_cpu_seconds_sum", 0.0002),
        ("loop_turn_cpu_seconds_count", 1.0),
        ("start_time_seconds", 1.7e9),
        ("healthy", 1.0),
        (&format!("build_info{{version=\"{version}\"}}"), 1.0),
    ]
    .map(|(name, value)| (format!("fileshare_{name}"), value))
    .into();
    let bounds = [
        "0.00005", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
        "1", "10", "+Inf",
    ];
    for (at, bound) in bounds.iter().enumerate() {
        let turns = [1.0, 2.0, 3.0][usize::from(at > 0) + usize::from(*bound == "+Inf")];
        expected.insert(format!("fileshare_loop_turn_seconds_bucket{{le=\"{bound}\"}}"), turns);
        for (name, first) in [("loop_turn_cpu", 2), ("journal_commit", 6)] {
            expected
                .insert(format!("fileshare_{name}_seconds_bucket{{le=\"{bound}\"}}"), f64::from(u8::from(at >= first)));
        }
    }
    expected.retain(|_, value| *value != 0.0);
    let nonzero: BTreeMap<_, _> = samples.into_iter().filter(|(_, value)| *value != 0.0).collect();
    assert_eq!(nonzero, expected);
}

#[test]
fn the_names_are_fixed() {
    let metrics = figures().to_metrics();
    let names: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE fileshare_")).collect();
    let expected = [
        "sessions gauge",
        "logins_total counter",
        "sessions_ended_total counter",
        "requests_total counter",
        "datagrams_total counter",
        "datagram_bytes_total counter",
        "send_failures_total counter",
        "refused_total counter",
        "kernel_drops_total counter",
        "publications gauge",
        "queued_queries gauge",
        "journal_queue gauge",
        "journal_commit_seconds histogram",
        "loop_turn_seconds histogram",
        "loop_turn_cpu_seconds histogram",
        "start_time_seconds gauge",
        "healthy gauge",
        "build_info gauge",
    ];
    assert_eq!(names, expected);
}

#[test]
fn json_has_the_same_figures() {
    let mut figures = figures();
    let json: Value = serde_json::from_str(&figures.to_json()).unwrap();
    assert_eq!((&json["sessions"], &json["publications"], &json["health"]), (&json!(2), &json!(1), &json!("ok")));
    assert_eq!((&json["uptime_ms"], &json["started_ms"]), (&json!(12_345), &json!(1_700_000_000_000_u64)));
    assert_eq!(json["logins"]["accepted"], json!(2));
    assert_eq!(json["requests"]["publish"], json!({"ok": 1, "error": 0, "busy": 0, "over_quota": 0}));
    assert_eq!(json["sent"], json!({"datagrams": 11, "bytes": 1_234}));
    assert_eq!(json["loop_turn_seconds"]["cumulative"][1], json!(2));
    let bounds = json["loop_turn_seconds"]["bounds"].as_array().unwrap();
    assert_eq!((bounds.len(), &bounds[0], &bounds[12]), (14, &json!(0.000_05), &json!(1.0)));
    assert_eq!(json["loop_turn_cpu_seconds"]["count"], json!(1));
    assert!(json.get("users").is_none());
    let session = SessionId([1; 16]);
    figures.users = Some(vec![OnlineUser { user: user("hans"), address: address("127.0.0.1:4000"), session }]);
    let json: Value = serde_json::from_str(&figures.to_json()).unwrap();
    assert_eq!(json["users"], json!([{"user": "hans", "address": "127.0.0.1:4000"}]));
}

#[test]
fn neither_files_nor_users_are_named() {
    let figures = figures();
    for text in [figures.to_metrics(), figures.to_json(), figures.to_log_lines().join("\n")] {
        for hidden in ["secret-plans", "hans", "vader", "luke", "127.0.0.1"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}

#[test]
fn the_log_leaves_out_counts_of_a_label_that_are_0() {
    let mut figures = figures();
    figures.stats.publications = 0;
    let lines = figures.to_log_lines();
    for line in ["fileshare_sessions 2", "fileshare_publications 0"] {
        assert!(lines.iter().any(|logged| logged == line), "{line} is not in {lines:?}");
    }
    let is_empty_count = |line: &String| line.contains('{') && line.ends_with(" 0");
    assert!(lines.iter().all(|line| line.starts_with("fileshare_")) && !lines.iter().any(is_empty_count), "{lines:?}");
}
