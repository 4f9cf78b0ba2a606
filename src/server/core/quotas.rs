//! What one user may publish: quotas on the whole, and a rate.
//!
//! Defended: a user who fills the memory of the server and its disk, or keeps its journal from serving others. What exists
//! stays: a user over a quota, since it was lowered, can replace and unpublish, but not add.

use std::time::{Duration, Instant};

use crate::common::message::{Quota, Response};
use crate::common::rate::{Rate, TokenBucket};
use crate::server::index::UsageChange;

/// Seconds at the full rate that a user may publish at once after a pause.
const BURST_S: u64 = 50;
/// Shortest and longest delay before a client repeats a request that exceeds the rate.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The quotas of each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Publications.
    pub files: u64,
    /// Bytes of the names of the publications.
    pub name_bytes: u64,
    /// Members of the distinct audiences of the publications, summed.
    pub audience_members: u64,
    /// Publications and members of new audiences to store, and publications to remove, each second; 50 times as many at
    /// once.
    pub files_per_s: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { files: 250_000, name_bytes: 32 << 20, audience_members: 100_000, files_per_s: 2_000 }
    }
}

impl Quotas {
    /// The response that refuses a PUBLISH: one that makes the user exceed a quota, or exceed it further.
    pub(super) fn refusal(&self, change: &UsageChange) -> Option<Response> {
        let UsageChange { before, after, .. } = change;
        let quotas = [
            (Quota::Files, self.files, before.files, after.files),
            (Quota::NameBytes, self.name_bytes, before.name_bytes, after.name_bytes),
            (Quota::AudienceMembers, self.audience_members, before.audience_members, after.audience_members),
        ];
        let exceeded = quotas.into_iter().find(|&(_, max, before, after)| after > max && after > before);
        exceeded.map(|(quota, max, ..)| Response::OverQuota { quota, max })
    }

    /// Takes `files` from the user's bucket, in debt if need be. While the bucket is in debt, returns the response that
    /// delays the request.
    pub(super) fn take(&self, bucket: &mut TokenBucket, now: Instant, files: u64) -> Result<(), Response> {
        let rate = Rate::per_second(self.files_per_s, self.files_per_s.saturating_mul(BURST_S));
        match bucket.try_take(now, rate) {
            Ok(()) => {
                bucket.take_in_advance(now, rate, files.saturating_sub(1));
                Ok(())
            }
            Err(wait) => {
                let retry_ms = wait.clamp(RETRY_MIN, RETRY_MAX).as_millis() as u16;
                Err(Response::Busy { retry_ms })
            }
        }
    }
}
