//! What a `get` has done in all, in a line for a person.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::exit_code::ExitCode;
use crate::client::ui::message::GetResult;
use crate::client::ui::units;
use crate::common::escape::escape_controls;

/// Users that are named.
const NAMED_MAX: usize = 3;

/// The results of one command so far.
#[derive(Debug, Default)]
pub struct GetSummary {
    /// Files that were saved, or were there already.
    files: usize,
    /// The name of the last one.
    name: String,
    /// Of those that some user has sent, with what an earlier attempt had left.
    bytes: u64,
    /// Of those that were there already.
    present_bytes: u64,
    resumed_bytes: u64,
    sources: BTreeSet<String>,
    elapsed: Duration,
    /// Whether another attempt continues one that failed.
    is_resumable: bool,
}

impl GetSummary {
    pub fn add(&mut self, result: &GetResult) {
        match result {
            GetResult::Saved { saved, bytes, sources, resumed_bytes, elapsed_ms, .. } => {
                self.files += 1;
                self.name.clone_from(saved);
                *if sources.is_empty() { &mut self.present_bytes } else { &mut self.bytes } += bytes;
                self.resumed_bytes += resumed_bytes;
                self.sources.extend(sources.iter().cloned());
                self.elapsed = self.elapsed.max(Duration::from_millis(*elapsed_ms));
            }
            GetResult::Failed(failed) => {
                self.is_resumable |= matches!(failed.failure.code, ExitCode::TransferFailed | ExitCode::Interrupted);
            }
            GetResult::Skipped { .. } | GetResult::Planned { .. } => {}
        }
    }

    /// Complete lines; may be empty.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if self.files > 0 {
            let bytes = if self.sources.is_empty() { self.present_bytes } else { self.bytes };
            let what = if self.files == 1 { self.name.clone() } else { format!("{} files", self.files) };
            text += &format!("{}: {}{}\n", escape_controls(&what), units::bytes(bytes), self.transfer());
        }
        if self.is_resumable {
            text += "run the same again to resume\n";
        }
        text
    }

    fn transfer(&self) -> String {
        if self.sources.is_empty() {
            return if self.present_bytes == 0 { String::new() } else { ", already there".into() };
        }
        let seconds = self.elapsed.as_secs_f64().max(0.001);
        let rate = units::bytes(((self.bytes.saturating_sub(self.resumed_bytes)) as f64 / seconds) as u64);
        let mut users: Vec<&str> = self.sources.iter().map(String::as_str).take(NAMED_MAX).collect();
        let others = format!("{} more", self.sources.len() - users.len());
        if self.sources.len() > NAMED_MAX {
            users.push(&others);
        }
        let resumed = match self.resumed_bytes {
            0 => String::new(),
            bytes => format!(", {} were there", units::bytes(bytes)),
        };
        format!(" in {}, {rate}/s, from {}{resumed}", units::elapsed(self.elapsed), users.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ui::message::{ItemFailure, True};

    fn saved(name: &str, bytes: u64, sources: &[&str], resumed_bytes: u64) -> GetResult {
        GetResult::Saved {
            ok: True,
            name: name.into(),
            saved: name.into(),
            bytes,
            hash: String::new(),
            sources: sources.iter().map(|&user| user.into()).collect(),
            resumed_bytes,
            elapsed_ms: 310,
        }
    }

    fn summary(results: &[GetResult]) -> String {
        let mut summary = GetSummary::default();
        results.iter().for_each(|result| summary.add(result));
        summary.to_text()
    }

    #[test]
    fn one_file_is_named_and_several_are_counted() {
        let big = saved("big.bin", 400 << 20, &["hans"], 0);
        let line = "big.bin: 400 MiB in 0.31 s, 1.3 GiB/s, from hans\n";
        assert_eq!(summary(std::slice::from_ref(&big)), line);
        let users = ["a", "b", "c", "d", "e"];
        let others = saved("x\x1b", 400 << 20, &users, 400 << 20);
        let line = "2 files: 800 MiB in 0.31 s, 1.3 GiB/s, from a, b, c, 3 more, 400 MiB were there\n";
        assert_eq!(summary(&[big, others]), line);
        assert_eq!(summary(&[saved("x\x1b", 7, &[], 0)]), "x\\u{1b}: 7 B, already there\n");
        assert_eq!(summary(&[saved("empty", 0, &[], 0)]), "empty: 0 B\n");
        assert_eq!(summary(&[]), "");
    }

    #[test]
    fn a_transfer_that_failed_can_be_resumed() {
        let failed = |code| {
            let failure = ItemFailure { name: "x".into(), error: "why".into(), code };
            summary(&[GetResult::Failed(failure.into())])
        };
        let hint = "run the same again to resume\n";
        assert_eq!([ExitCode::TransferFailed, ExitCode::Interrupted].map(failed), [hint; 2]);
        assert_eq!([ExitCode::NotFound, ExitCode::DiskFull].map(failed), [""; 2]);
    }
}
