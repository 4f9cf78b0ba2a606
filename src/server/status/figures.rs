//! All figures at one moment, and how they are shown: as Prometheus metrics, as JSON, and in the log.

use std::fmt::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Health;
use crate::server::core::{Counts, Label, OnlineUser, RequestKind, ServerStats, Traffic};
use crate::server::histogram::{BOUNDS_US, Histogram};

/// What the core, the journal and the event loop have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    pub stats: ServerStats,
    pub sent: Traffic,
    /// Datagrams that the system did not take.
    pub send_failures: u64,
    /// Datagrams that the system dropped because the socket's receive buffer was full.
    pub kernel_drops: u64,
    pub loop_turns: Histogram,
    pub loop_turns_cpu: Histogram,
    pub journal_commits: Histogram,
    pub health: Health,
    pub uptime: Duration,
    /// `None` unless users are to be shown.
    pub users: Option<Vec<OnlineUser>>,
}

impl Figures {
    /// In the text format of Prometheus, version 0.0.4.
    pub fn to_metrics(&self) -> String {
        let Self { stats, .. } = self;
        let counters = &stats.counters;
        let mut text = MetricsText::default();
        text.gauge("sessions", "Clients that are logged in.", stats.sessions);
        text.counter("logins_total", "Logins and resumptions by their result.");
        text.counts("logins_total", "result", &counters.logins);
        text.counter("sessions_ended_total", "Sessions that have ended by the reason.");
        text.counts("sessions_ended_total", "reason", &counters.sessions_ended);
        text.counter("requests_total", "Requests answered, repeated ones each time.");
        for &kind in RequestKind::ALL {
            let labels = format!("kind=\"{}\",result", kind.text());
            text.counts("requests_total", &labels, counters.requests(kind));
        }
        text.counter("datagrams_total", "Datagrams that the system has delivered to the server and taken from it.");
        text.directions("datagrams_total", counters.received.datagrams, self.sent.datagrams);
        let help = "Bytes of these datagrams, without their headers; of a received one at most 1201.";
        text.counter("datagram_bytes_total", help);
        text.directions("datagram_bytes_total", counters.received.bytes, self.sent.bytes);
        text.counter("send_failures_total", "Datagrams that the system did not take; clients ask again.");
        text.sample("send_failures_total", "", self.send_failures);
        text.counter("refused_total", "Datagrams that were not accepted by the reason.");
        text.counts("refused_total", "reason", &counters.refused);
        text.counter("kernel_drops_total", "Datagrams dropped because the receive buffer was full.");
        text.sample("kernel_drops_total", "", self.kernel_drops);
        text.gauge("publications", "Publications of all users in the credentials.", stats.publications);
        text.gauge("queued_queries", "Queries that wait for their turn.", stats.queued_queries);
        text.gauge("journal_queue", "Changes that wait to be stored.", stats.journal_queue);
        text.histogram("journal_commit_seconds", "How long commits to the data file took.", &self.journal_commits);
        text.histogram("loop_turn_seconds", "How long turns of the event loop took, without waits.", &self.loop_turns);
        text.histogram("loop_turn_cpu_seconds", "CPU time of turns of the event loop.", &self.loop_turns_cpu);
        let started = format!("{:.3}", stats.started_ms as f64 / 1e3);
        text.gauge("start_time_seconds", "When the server started, seconds since 1970.", started);
        text.gauge("healthy", "1 while /healthz is 200, otherwise 0.", u8::from(self.health == Health::Ok));
        text.header("build_info", "gauge", "Always 1; the version is a label.");
        text.sample("build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
        text.0
    }

    pub fn to_json(&self) -> String {
        let Self { stats, .. } = self;
        let counters = &stats.counters;
        let requests: Map<_, _> =
            RequestKind::ALL.iter().map(|&kind| (kind.text().into(), counts(counters.requests(kind)))).collect();
        let traffic = |traffic: &Traffic| json!({ "datagrams": traffic.datagrams, "bytes": traffic.bytes });
        let figures = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "health": self.health.to_string(),
            "started_ms": stats.started_ms,
            "uptime_ms": u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX),
            "sessions": stats.sessions,
            "publications": stats.publications,
            "journal_queue": stats.journal_queue,
            "queued_queries": stats.queued_queries,
            "kernel_drops": self.kernel_drops,
            "logins": counts(&counters.logins),
            "sessions_ended": counts(&counters.sessions_ended),
            "requests": requests,
            "refused": counts(&counters.refused),
            "received": traffic(&counters.received),
            "sent": traffic(&self.sent),
            "send_failures": self.send_failures,
            "loop_turn_seconds": histogram(&self.loop_turns),
            "loop_turn_cpu_seconds": histogram(&self.loop_turns_cpu),
            "journal_commit_seconds": histogram(&self.journal_commits),
        });
        serde_json::to_string(&FiguresJson { figures, users: self.users.as_deref() }).expect("no map with other keys")
    }

    /// The figures of [`to_metrics`](Self::to_metrics), one line each, without buckets of histograms, and without counts of a
    /// label that are 0.
    pub fn to_log_lines(&self) -> Vec<String> {
        let metrics = self.to_metrics();
        let is_empty_count = |line: &str| line.contains('{') && line.ends_with(" 0");
        let is_omitted = |line: &str| {
            line.starts_with('#') || is_empty_count(line) || line.contains("_bucket{") || line.contains("build_info")
        };
        let samples = metrics.lines().filter(|line| !is_omitted(line));
        samples.map(str::to_owned).collect()
    }
}

fn counts<L: Label>(counts: &Counts<L>) -> Value {
    L::ALL.iter().map(|&value| (value.text().to_owned(), counts.of(value).into())).collect::<Map<_, _>>().into()
}

fn histogram(histogram: &Histogram) -> Value {
    let bounds: Vec<_> = BOUNDS_US.iter().map(|&us| us as f64 / 1e6).collect();
    let (cumulative, sum) = (histogram.cumulative(), histogram.sum().as_secs_f64());
    json!({ "bounds": bounds, "cumulative": cumulative, "count": histogram.count(), "sum": sum })
}

/// The users are written as they are: making a `Value` of each, and dropping it, takes longer than all else.
#[derive(Serialize)]
struct FiguresJson<'a> {
    #[serde(flatten)]
    figures: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<&'a [OnlineUser]>,
}

/// Metrics, each with the prefix of this program.
#[derive(Default)]
struct MetricsText(String);

impl MetricsText {
    fn push(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes everything");
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP fileshare_{name} {help}"));
        self.push(format_args!("# TYPE fileshare_{name} {kind}"));
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.header(name, "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl fmt::Display) {
        self.header(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl fmt::Display) {
        match labels {
            "" => self.push(format_args!("fileshare_{name} {value}")),
            _ => self.push(format_args!("fileshare_{name}{{{labels}}} {value}")),
        }
    }

    /// A sample for each value; `labels` ends with the name of its label.
    fn counts<L: Label>(&mut self, name: &str, labels: &str, counts: &Counts<L>) {
        for &value in L::ALL {
            self.sample(name, &format!("{labels}=\"{}\"", value.text()), counts.of(value));
        }
    }

    fn directions(&mut self, name: &str, received: u64, sent: u64) {
        self.sample(name, "direction=\"received\"", received);
        self.sample(name, "direction=\"sent\"", sent);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.header(name, "histogram", help);
        for (bound_us, count) in BOUNDS_US.iter().zip(histogram.cumulative()) {
            self.sample(&format!("{name}_bucket"), &format!("le=\"{}\"", *bound_us as f64 / 1e6), count);
        }
        self.sample(&format!("{name}_bucket"), "le=\"+Inf\"", histogram.count());
        self.sample(&format!("{name}_sum"), "", histogram.sum().as_secs_f64());
        self.sample(&format!("{name}_count"), "", histogram.count());
    }
}

#[cfg(test)]
#[path = "figures_tests.rs"]
mod tests;
