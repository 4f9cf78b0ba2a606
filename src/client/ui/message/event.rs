//! The events of `events` and `--events`.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

pub use crate::client::events::EventKind;
use crate::common::escape::escape_controls;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EventMessage {
    /// Counts the events that are emitted, from 1.
    pub seq: u64,
    /// RFC 3339 in UTC, with milliseconds.
    pub time: String,
    #[serde(flatten)]
    pub kind: EventKind,
}

impl EventMessage {
    pub fn new(seq: u64, time: SystemTime, kind: EventKind) -> Self {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let time = OffsetDateTime::from(time).format(format).expect("a time of this century");
        Self { seq, time, kind }
    }

    /// One line: the columns, separated by tabs.
    pub fn to_text(&self) -> String {
        let columns = self.kind.columns();
        let escaped = columns.iter().map(|column| escape_controls(column).to_string());
        let columns: Vec<String> = [self.time.clone()].into_iter().chain(escaped).collect();
        columns.join("\t") + "\n"
    }
}
