//! The scheduler compared with a table of all groups and who owes them, whatever is called in whatever order.

mod op;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::op::{Op, op};
use super::*;

const MIB: u64 = 1 << 20;
/// The sizes of the files. File 3 has the partial file of file 2, and waits for it.
const SIZES: [u64; 5] = [1_000, 3 * MIB, 4 * MIB + 1, 2 * MIB, 0];
const BLOCKED: FileId = 3;
const SOURCES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Unchecked,
    Missing,
    Owed { source: SourceId, id: u32 },
    Checking { id: u32 },
    Verified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Blocked,
    NeedsOutline,
    Opening,
    Open,
    Done,
}

/// What a source serves of a file: these groups, or all.
type Serves = Option<BTreeSet<u32>>;

#[derive(Debug, Clone, Default)]
struct ModelSource {
    announced: BTreeSet<FileId>,
    serves: BTreeMap<FileId, Serves>,
    must_cancel: bool,
}

struct Model {
    scheduler: Scheduler,
    now: Instant,
    stages: Vec<Stage>,
    groups: BTreeMap<(FileId, u32), Group>,
    /// Who was asked for an outline last, and when.
    outlines: BTreeMap<FileId, (SourceId, Instant)>,
    sources: BTreeMap<SourceId, ModelSource>,
    /// Everything that was ever assigned.
    assigned: Vec<(SourceId, Assignment)>,
    verified_bytes: [u64; SIZES.len()],
}

fn count(file: FileId) -> u32 {
    SIZES[file].div_ceil(MIB).max(1) as u32
}

fn bytes(file: FileId, group: u32) -> u64 {
    (SIZES[file] - u64::from(group) * MIB).min(MIB)
}

impl Model {
    fn new() -> Self {
        let mut scheduler = Scheduler::default();
        for (file, size) in SIZES.into_iter().enumerate() {
            let after = (file == BLOCKED).then_some(BLOCKED - 1);
            assert_eq!(scheduler.add_file(size, after), file);
        }
        let mut model = Self {
            scheduler,
            now: Instant::now(),
            stages: vec![Stage::Open; SIZES.len()],
            groups: BTreeMap::new(),
            outlines: BTreeMap::new(),
            sources: BTreeMap::new(),
            assigned: Vec::new(),
            verified_bytes: [0; SIZES.len()],
        };
        for file in 0..SIZES.len() {
            match count(file) {
                1 => _ = model.groups.insert((file, 0), Group::Missing),
                _ if file == BLOCKED => model.stages[file] = Stage::Blocked,
                _ => model.stages[file] = Stage::NeedsOutline,
            }
        }
        model
    }

    /// Groups of a file in a state.
    fn any(&self, file: FileId, is: impl Fn(Group) -> bool) -> bool {
        (0..count(file)).any(|group| self.groups.get(&(file, group)).is_some_and(|state| is(*state)))
    }

    /// What the source owes of `file`, or of all files, is missing again.
    fn release(&mut self, source: SourceId, file: Option<FileId>) {
        for ((of, _), group) in &mut self.groups {
            if matches!(group, Group::Owed { source: owes, .. } if *owes == source)
                && file.is_none_or(|file| file == *of)
            {
                *group = Group::Missing;
            }
        }
        self.outlines.retain(|of, (from, _)| {
            *from != source || file.is_some_and(|file| file != *of) || self.stages[*of] != Stage::NeedsOutline
        });
    }

    fn owes_nothing(&self, source: SourceId) -> bool {
        !self.groups.values().any(|group| matches!(group, Group::Owed { source: owes, .. } if *owes == source))
    }

    /// Whether the source can be asked for the group.
    fn has(&self, source: SourceId, file: FileId, group: u32) -> bool {
        let served = self.sources[&source].serves.get(&file);
        served.is_some_and(|groups| groups.as_ref().is_none_or(|groups| groups.contains(&group)))
    }

    fn request(&mut self, source: SourceId) -> Result<(), TestCaseError> {
        let was_idle = self.owes_nothing(source) && !self.sources[&source].must_cancel;
        let missing =
            |model: &Self, file: FileId, group: u32| model.groups.get(&(file, group)) == Some(&Group::Missing);
        match self.scheduler.next_request(self.now, source) {
            NextRequest::Groups(assignments) => {
                prop_assert!(!assignments.is_empty() && !self.sources[&source].must_cancel);
                for assignment in assignments {
                    let Assignment { file, group, id } = assignment;
                    prop_assert!(self.assigned.iter().all(|(_, before)| before.id < id), "ids rise");
                    prop_assert!(self.stages[file] == Stage::Open && self.has(source, file, group), "{:?}", assignment);
                    match self.groups[&(file, group)] {
                        Group::Missing => {}
                        Group::Owed { source: from, .. } if from != source => {
                            self.sources.get_mut(&from).expect("it owes").must_cancel = true;
                        }
                        other => prop_assert!(false, "{:?} was {:?}", assignment, other),
                    }
                    self.groups.insert((file, group), Group::Owed { source, id });
                    self.assigned.push((source, assignment));
                }
            }
            NextRequest::Outline(file) => {
                prop_assert!(self.stages[file] == Stage::NeedsOutline);
                prop_assert!(self.sources[&source].serves.contains_key(&file));
                if let Some((from, since)) = self.outlines.insert(file, (source, self.now)) {
                    prop_assert!(from != source && self.now > since + OUTLINE_TIMEOUT, "asked for twice");
                }
            }
            NextRequest::Wait if !was_idle => {}
            result => {
                let served = &self.sources[&source].serves;
                for &file in served.keys() {
                    let wanted =
                        (0..count(file)).find(|&group| missing(self, file, group) && self.has(source, file, group));
                    prop_assert!(self.stages[file] != Stage::Open || wanted.is_none(), "{:?}: {:?}", file, wanted);
                    prop_assert!(self.stages[file] != Stage::NeedsOutline || self.outlines.contains_key(&file));
                }
                let all = served.keys().chain(&self.sources[&source].announced);
                let is_done = all.copied().all(|file| self.stages[file] == Stage::Done);
                prop_assert_eq!(result == NextRequest::Nothing, is_done && was_idle);
            }
        }
        Ok(())
    }

    fn source(&self, number: usize) -> Option<SourceId> {
        self.sources.keys().copied().nth(number % self.sources.len().max(1))
    }

    fn assignment(&self, ago: usize) -> Option<(SourceId, Assignment)> {
        self.assigned.iter().rev().nth(ago).copied()
    }
}

impl Model {
    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match *op {
            Op::Pass { ms } => self.now += Duration::from_millis(ms),
            Op::Add if self.sources.len() < SOURCES => {
                let added = self.scheduler.add_source(self.now);
                prop_assert!(self.sources.insert(added, ModelSource::default()).is_none(), "an id of its own");
            }
            Op::Outline { file } if self.stages[file] == Stage::NeedsOutline => {
                self.scheduler.on_outline(file);
                self.stages[file] = Stage::Opening;
                self.groups.extend((0..count(file)).map(|group| ((file, group), Group::Unchecked)));
            }
            Op::Opened { file, start } => {
                self.scheduler.on_opened(file, start % count(file));
                if self.stages[file] == Stage::Opening {
                    self.stages[file] = Stage::Open;
                }
            }
            Op::Scanned { file, group, is_present } => self.on_scanned(file, group % count(file), is_present)?,
            Op::Received { ago } | Op::NotAvailable { ago } | Op::Checked { ago, .. } => {
                if let Some((source, assignment)) = self.assignment(ago) {
                    self.on_assignment(op, source, assignment)?;
                }
            }
            Op::Finish { file } => self.finish(file),
            Op::Remove { source: number }
            | Op::Announce { source: number, .. }
            | Op::Confirm { source: number, .. }
            | Op::Available { source: number, .. }
            | Op::Unknown { source: number, .. }
            | Op::RemoveFor { source: number, .. }
            | Op::Request { source: number }
            | Op::Bytes { source: number, .. }
            | Op::Cancelled { source: number } => {
                if let Some(source) = self.source(number) {
                    self.on_source(op, source)?;
                }
            }
            Op::Add | Op::Outline { .. } => {}
        }
        Ok(())
    }

    fn on_source(&mut self, op: &Op, source: SourceId) -> Result<(), TestCaseError> {
        let now = self.now;
        let (scheduler, state) = (&mut self.scheduler, self.sources.get_mut(&source).expect("it is there"));
        match *op {
            Op::Remove { .. } => {
                scheduler.remove_source(source);
                self.sources.remove(&source);
                self.release(source, None);
            }
            Op::Announce { file, .. } => {
                scheduler.announce_source(source, file);
                if !state.serves.contains_key(&file) {
                    state.announced.insert(file);
                }
            }
            Op::Confirm { file, .. } => {
                scheduler.confirm_source(source, file);
                if state.announced.remove(&file) {
                    state.serves.insert(file, None);
                }
            }
            Op::Available { file, groups, .. } => {
                scheduler.set_available(source, file, groups.map(|bits| GroupSet::from_bytes(&[bits])));
                state.announced.remove(&file);
                state.serves.insert(file, groups.map(|bits| (0..8).filter(|bit| bits & 1 << bit != 0).collect()));
            }
            Op::Unknown { file, .. } => {
                if let Some(groups) = state.serves.get_mut(&file) {
                    scheduler.set_availability_unknown(source, file);
                    groups.get_or_insert_default();
                }
            }
            Op::RemoveFor { file, .. } => {
                scheduler.remove_source_for(source, file);
                state.announced.remove(&file);
                state.serves.remove(&file);
                self.release(source, Some(file));
            }
            Op::Bytes { bytes, .. } => scheduler.on_bytes(now, source, bytes),
            Op::Cancelled { .. } => {
                scheduler.on_cancelled(source);
                state.must_cancel = false;
                // It may still send an outline.
                let outlines = self.outlines.clone();
                self.release(source, None);
                self.outlines = outlines;
            }
            _ => self.request(source)?,
        }
        Ok(())
    }

    fn on_assignment(&mut self, op: &Op, source: SourceId, assignment: Assignment) -> Result<(), TestCaseError> {
        let Assignment { file, group, id } = assignment;
        let is_checked = self.groups.get(&(file, group)) == Some(&Group::Checking { id });
        let is_owed = self.groups.get(&(file, group)) == Some(&Group::Owed { source, id });
        match *op {
            Op::Received { .. } => {
                self.scheduler.on_group_received(source, assignment);
                if is_owed {
                    self.groups.insert((file, group), Group::Checking { id });
                }
            }
            Op::NotAvailable { .. } => {
                self.scheduler.on_not_available(source, assignment);
                if is_owed {
                    self.groups.insert((file, group), Group::Missing);
                }
                let served = self.sources.get_mut(&source).and_then(|state| state.serves.get_mut(&file));
                served.into_iter().flatten().for_each(|groups| _ = groups.remove(&group));
            }
            Op::Checked { is_right: true, .. } => {
                let expected = self.verified(is_checked, file, group);
                prop_assert_eq!(self.scheduler.on_verified(assignment), expected);
            }
            _ => {
                self.scheduler.on_verify_failed(assignment);
                if is_checked {
                    self.groups.insert((file, group), Group::Missing);
                }
            }
        }
        Ok(())
    }

    /// The group is verified if `counts`.
    fn verified(&mut self, counts: bool, file: FileId, group: u32) -> Verified {
        if !counts {
            return Verified::Stale;
        }
        self.groups.insert((file, group), Group::Verified);
        self.verified_bytes[file] += bytes(file, group);
        if self.any(file, |group| group != Group::Verified) { Verified::Partial } else { Verified::Complete }
    }

    fn on_scanned(&mut self, file: FileId, group: u32, is_present: bool) -> Result<(), TestCaseError> {
        let is_unchecked = self.groups.get(&(file, group)) == Some(&Group::Unchecked);
        if is_present {
            let expected = self.verified(is_unchecked, file, group);
            prop_assert_eq!(self.scheduler.mark_present(file, group), expected);
        } else {
            self.scheduler.mark_missing(file, group);
            if is_unchecked {
                self.groups.insert((file, group), Group::Missing);
            }
        }
        Ok(())
    }

    fn finish(&mut self, file: FileId) {
        self.scheduler.finish_file(file);
        for (source, state) in &mut self.sources {
            let owes = |group: &Group| matches!(group, Group::Owed { source: owes, .. } if owes == source);
            state.must_cancel |= self.groups.iter().any(|((of, _), group)| *of == file && owes(group));
        }
        self.groups.retain(|(of, _), _| *of != file);
        self.stages[file] = Stage::Done;
        if file + 1 == BLOCKED && self.stages[BLOCKED] == Stage::Blocked {
            self.stages[BLOCKED] = Stage::NeedsOutline;
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (&source, state) in &self.sources {
            prop_assert_eq!(self.scheduler.must_cancel(source), state.must_cancel);
            for file in 0..SIZES.len() {
                let serves = state.serves.contains_key(&file) || state.announced.contains(&file);
                prop_assert_eq!(self.scheduler.serves(source, file), serves);
            }
        }
        for file in 0..SIZES.len() {
            prop_assert_eq!(self.scheduler.needs_outline(file), self.stages[file] == Stage::NeedsOutline);
            prop_assert_eq!(self.scheduler.verified_bytes(file), self.verified_bytes[file]);
            let is_served = |state: &ModelSource| state.serves.contains_key(&file) || state.announced.contains(&file);
            prop_assert_eq!(self.scheduler.has_source(file), self.sources.values().any(is_served));
            let has_all = |state: &ModelSource| {
                state.announced.contains(&file) || state.serves.get(&file).is_some_and(Option::is_none)
            };
            let is_stuck = self.stages[file] == Stage::Open
                && self.any(file, |group| group == Group::Missing)
                && !self.any(file, |group| matches!(group, Group::Owed { .. } | Group::Checking { .. }))
                && !self.sources.values().any(has_all);
            prop_assert_eq!(self.scheduler.is_stuck(file), is_stuck);
        }
        Ok(())
    }

    /// An honest source ends every file that is left.
    fn complete(&mut self) -> Result<(), TestCaseError> {
        while let Some(source) = self.source(0) {
            self.on_source(&Op::Remove { source: 0 }, source)?;
        }
        self.apply(&Op::Add)?;
        for file in (0..SIZES.len()).filter(|&file| self.stages[file] != Stage::Done).collect::<Vec<_>>() {
            self.apply(&Op::Available { source: 0, file, groups: None })?;
            if self.stages[file] == Stage::NeedsOutline {
                self.apply(&Op::Outline { file })?;
            }
            self.apply(&Op::Opened { file, start: 0 })?;
            (0..count(file)).try_for_each(|group| self.on_scanned(file, group, false))?;
            for &(source, assignment) in self.assigned.clone().iter().filter(|(_, assignment)| assignment.file == file)
            {
                self.on_assignment(&Op::Checked { ago: 0, is_right: false }, source, assignment)?;
            }
            while self.any(file, |group| group != Group::Verified) {
                self.apply(&Op::Request { source: 0 })?;
                let owed = self.groups.values().filter(|group| matches!(group, Group::Owed { .. })).count();
                prop_assert!(owed > 0, "it goes on");
                for ago in 0..owed {
                    self.apply(&Op::Received { ago })?;
                    self.apply(&Op::Checked { ago, is_right: true })?;
                }
            }
            prop_assert!(self.scheduler.is_complete(file));
            self.finish(file);
            self.check()?;
        }
        prop_assert_eq!(self.scheduler.open_large_files, 0);
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_scheduler_agrees_with_a_table_of_groups(ops in prop::collection::vec(op(), 0..250)) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op)?;
            model.check()?;
        }
        model.complete()?;
    }
}
