//! Picks the next missing group for a source, or one that it steals from a slower source.

use std::ops::ControlFlow;
use std::time::Instant;

use super::source_state::Coverage;
use super::state::{FileStage, GroupState};
use super::{Assignment, FileId, Scheduler, SourceId};
use crate::client::download::group_set::GroupSet;

/// A group is stolen if that brings it at least this much sooner, seconds: what the other source has begun to send is
/// lost.
const STEAL_GAIN_S: f64 = 0.05;
/// And only if the other source is estimated to take this many times as long, twice as many for each time that the group was
/// stolen already. Estimates may be wrong again and again, and two sources would take a group from each other for ever.
const STEAL_RATIO: f64 = 1.25;
/// 2^32 divided by the golden ratio: its multiples are spread evenly, whatever their number.
const SCATTER: u32 = 0x9e37_79b9;
/// Another odd number: downloaders with seeds that are close do not follow each other through the same groups.
const SEED_SCATTER: u32 = 0x85eb_ca6b;

impl Scheduler {
    /// Assigns missing groups of the file. Breaks when the source has enough in flight.
    pub(super) fn assign_groups(
        &mut self,
        now: Instant,
        source: SourceId,
        file: FileId,
        assigned: &mut Vec<Assignment>,
    ) -> ControlFlow<()> {
        if self.files[file].stage != FileStage::Open {
            return ControlFlow::Continue(());
        }
        while let Some(group) = self.pick_group(source, file) {
            let bytes = self.files[file].group_bytes(group);
            if !self.sources[source].has_room_for(bytes) {
                return ControlFlow::Break(());
            }
            self.files[file].missing -= 1;
            self.files[file].cursor = group + 1;
            assigned.push(self.assign(now, source, file, group, 0));
        }
        ControlFlow::Continue(())
    }

    /// A missing group that the source has. From a source that has all groups, preferably one that no other source has.
    fn pick_group(&self, source: SourceId, file: FileId) -> Option<u32> {
        let state = &self.files[file];
        if let Some(groups) = self.sources[source].partial.get(&file) {
            return state.find_missing(|group| groups.contains(group));
        }
        let others: Vec<&GroupSet> = self.sources.iter().filter_map(|other| other.partial.get(&file)).collect();
        if others.is_empty() {
            return state.find_missing(|_| true);
        }
        // Other peers download the file too. Downloaders that all proceed in file order would request the groups their
        // peers are just receiving. Start elsewhere each time instead.
        let scattered = state.seed.wrapping_mul(SEED_SCATTER).wrapping_add(self.last_assignment.wrapping_mul(SCATTER));
        let start = ((u64::from(scattered) * u64::from(state.group_count)) >> 32) as u32;
        let rare = state.find_missing_from(start, |group| !others.iter().any(|groups| groups.contains(group)));
        rare.or_else(|| state.find_missing_from(start, |_| true))
    }

    fn assign(&mut self, now: Instant, source: SourceId, file: FileId, group: u32, steals: u8) -> Assignment {
        self.last_assignment += 1;
        let assignment = Assignment { file, group, id: self.last_assignment };
        let bytes = self.files[file].group_bytes(group);
        self.files[file].groups[group as usize] = GroupState::Assigned { source, id: assignment.id, steals };
        self.sources[source].enqueue(now, assignment, bytes);
        assignment
    }

    /// How often a group that is assigned was stolen.
    fn steals(&self, file: FileId, group: u32) -> u8 {
        match self.files[file].groups[group as usize] {
            GroupState::Assigned { steals, .. } => steals,
            _ => 0,
        }
    }

    /// Takes the group that would arrive last from the slowest other source, if this source delivers it sooner.
    pub(super) fn steal_group(&mut self, now: Instant, source: SourceId) -> Option<Assignment> {
        let thief = &self.sources[source];
        let mut best: Option<(f64, SourceId, Assignment)> = None;
        for (id, other) in self.sources.iter().enumerate().filter(|&(id, _)| id != source) {
            let can_serve = |queued: &&Assignment| {
                thief.coverage[queued.file] == Coverage::Serves
                    && thief.partial.get(&queued.file).is_none_or(|groups| groups.contains(queued.group))
            };
            let Some(&last) = other.queue.iter().rev().find(can_serve) else { continue };
            // While groups are left to assign, only stalled sources lose theirs: what has begun would be sent twice.
            if self.files[last.file].has_unassigned() && !other.is_stalled(now) {
                continue;
            }
            let bytes = self.files[last.file].group_bytes(last.group);
            // An unknown rate is assumed equal to the other's: then only the longer queue decides.
            let fallback_rate = thief.rate().or(other.rate()).unwrap_or(1e6);
            let their_eta = other.eta(now, 0, fallback_rate);
            let ratio = STEAL_RATIO * 2_f64.powi(self.steals(last.file, last.group).into());
            let is_sooner = their_eta > ratio * thief.eta(now, bytes, fallback_rate) + STEAL_GAIN_S;
            if is_sooner && best.as_ref().is_none_or(|(eta, ..)| their_eta > *eta) {
                best = Some((their_eta, id, last));
            }
        }
        let (_, from, last) = best?;
        let bytes = self.files[last.file].group_bytes(last.group);
        let _ = self.sources[from].dequeue(last.id, bytes);
        self.sources[from].must_cancel = true;
        let steals = self.steals(last.file, last.group).saturating_add(1);
        Some(self.assign(now, source, last.file, last.group, steals))
    }
}
