//! Which of the missing groups a source is asked for next, and which it takes over from a slower one.

use std::time::Instant;

use super::source_state::{Bits, Cover};
use super::state::{Slot, Stage};
use super::{Assignment, FileId, Plan, SourceId};

/// Taking over is worth it when it brings a group this much sooner, seconds: what the other has begun may come all the
/// same and is lost.
const TAKE_OVER_GAIN_S: f64 = 0.05;

impl Plan {
    /// Hands out missing groups of the file; `false` when the source has enough.
    pub(super) fn hand_out(&mut self, now: Instant, source: SourceId, file: FileId, out: &mut Vec<Assignment>) -> bool {
        if self.files[file].stage != Stage::Open {
            return true;
        }
        while let Some(group) = self.choose(source, file) {
            let bytes = self.files[file].group_bytes(group);
            if !self.sources[source].has_room_for(bytes) {
                return false;
            }
            self.files[file].missing -= 1;
            self.files[file].cursor = group + 1;
            out.push(self.assign(now, source, file, group, bytes));
        }
        true
    }

    /// A missing group that the source has; of a whole source rather one that no other source has yet.
    fn choose(&self, source: SourceId, file: FileId) -> Option<u32> {
        let plan = &self.files[file];
        if let Some(part) = self.sources[source].has_part.get(&file) {
            return plan.find_missing(|group| part.contains(group));
        }
        let parts: Vec<&Bits> = self.sources.iter().filter_map(|other| other.has_part.get(&file)).collect();
        if parts.is_empty() {
            return plan.find_missing(|_| true);
        }
        // Others fetch the file too. Whoever walked on in order would follow on another's heels and ask for just what that
        // one is being sent; so each takes its next one anywhere.
        let start = scatter(plan.seed, self.last_turn) % plan.groups;
        let rare = plan.find_missing_from(start, |group| !parts.iter().any(|part| part.contains(group)));
        rare.or_else(|| plan.find_missing_from(start, |_| true))
    }

    fn assign(&mut self, now: Instant, source: SourceId, file: FileId, group: u32, bytes: u64) -> Assignment {
        self.last_turn += 1;
        let assignment = Assignment { file, group, turn: self.last_turn };
        self.files[file].slots[group as usize] = Slot::Assigned { source, turn: self.last_turn };
        self.sources[source].push(now, assignment, bytes);
        assignment
    }

    /// Takes the group that would come last from the slowest other source, if this one is sooner.
    pub(super) fn take_over(&mut self, now: Instant, source: SourceId) -> Option<Assignment> {
        let taker = &self.sources[source];
        let mut best: Option<(f64, SourceId, Assignment)> = None;
        for (id, other) in self.sources.iter().enumerate().filter(|&(id, _)| id != source) {
            let serves = |waiting: &&Assignment| {
                taker.covers[waiting.file] == Cover::Serves
                    && taker.has_part.get(&waiting.file).is_none_or(|bits| bits.contains(waiting.group))
            };
            let Some(&last) = other.queue.iter().rev().find(serves) else { continue };
            // While groups are still to be handed out, one that moves is left in peace: what it has begun would be sent
            // twice.
            if self.files[last.file].is_more_to_come() && !other.is_silent(now) {
                continue;
            }
            let bytes = self.files[last.file].group_bytes(last.group);
            // A rate not known yet is taken to be the other's: then only the longer queue decides.
            let same = taker.rate.or(other.rate).unwrap_or(1e6);
            let theirs = other.eta(now, 0, same);
            let is_sooner = theirs > 1.25 * taker.eta(now, bytes, same) + TAKE_OVER_GAIN_S;
            if is_sooner && best.as_ref().is_none_or(|(eta, ..)| theirs > *eta) {
                best = Some((theirs, id, last));
            }
        }
        let (_, from, last) = best?;
        let bytes = self.files[last.file].group_bytes(last.group);
        self.sources[from].remove(last.turn, bytes);
        self.sources[from].must_cancel = true;
        Some(self.assign(now, source, last.file, last.group, bytes))
    }
}

/// A number that looks random for every turn and seed (the finaliser of MurmurHash3): spreading needs no more.
fn scatter(seed: u32, turn: u32) -> u32 {
    let mut bits = seed.rotate_left(16) ^ turn;
    bits = (bits ^ bits >> 16).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ bits >> 13).wrapping_mul(0xc2b2_ae35);
    bits ^ bits >> 16
}
