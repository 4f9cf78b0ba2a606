//! The scheduler in virtual time, with sources of random speed that disconnect, corrupt data or stall.

mod amounts;

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// A scheduler with one open file of `groups` groups, whose partial file is empty.
fn open_scheduler(groups: u64) -> Scheduler {
    let mut scheduler = unchecked_scheduler(groups);
    (0..groups as u32).for_each(|group| scheduler.mark_missing(0, group));
    scheduler
}

/// The same before the partial file is scanned.
fn unchecked_scheduler(groups: u64) -> Scheduler {
    let mut scheduler = Scheduler::default();
    scheduler.add_file(groups * MIB, None);
    let now = Instant::now();
    let first = scheduler.add_source(now);
    scheduler.set_available(first, 0, None);
    assert_eq!(scheduler.next_request(now, first), NextRequest::Outline(0));
    assert!(scheduler.needs_outline(0));
    scheduler.on_outline(0);
    scheduler.on_opened(0, 0);
    scheduler
}

fn add_source(scheduler: &mut Scheduler, now: Instant) -> SourceId {
    let source = scheduler.add_source(now);
    scheduler.set_available(source, 0, None);
    source
}

fn request(scheduler: &mut Scheduler, now: Instant, source: SourceId) -> Vec<Assignment> {
    match scheduler.next_request(now, source) {
        NextRequest::Groups(assignments) => assignments,
        _ => Vec::new(),
    }
}

/// Receives the group; whether it is still wanted of the source.
fn receive(scheduler: &mut Scheduler, source: SourceId, assignment: Assignment) -> bool {
    let Assignment { file, group, id } = assignment;
    scheduler.on_group_received(source, assignment);
    scheduler.files[file].group(group) == Some(GroupState::Checking { id })
}

/// Verifies the group; whether the file is complete.
fn verify(scheduler: &mut Scheduler, assignment: Assignment) -> bool {
    scheduler.on_verified(assignment) == Verified::Complete
}

fn groups(assignments: &[Assignment]) -> Vec<u32> {
    assignments.iter().map(|assignment| assignment.group).collect()
}

#[test]
fn a_source_has_in_flight_what_it_delivers_in_150_ms() {
    let mut scheduler = open_scheduler(500);
    let mut now = Instant::now();
    let first = request(&mut scheduler, now, 0);
    assert_eq!(groups(&first), [0, 1], "little before its rate is known");
    for assignment in first {
        now += Duration::from_millis(50);
        scheduler.on_bytes(now, 0, MIB);
        assert!(receive(&mut scheduler, 0, assignment) && !verify(&mut scheduler, assignment));
    }
    // 20 MiB/s over 150 ms.
    assert_eq!(groups(&request(&mut scheduler, now, 0)), [2, 3, 4]);
    assert!(request(&mut scheduler, now, 0).is_empty(), "it has enough");
}

#[test]
fn an_idle_source_steals_from_a_slow_one_and_late_data_does_not_count() {
    let mut scheduler = open_scheduler(4);
    let mut now = Instant::now();
    let fast = add_source(&mut scheduler, now);
    let slow = request(&mut scheduler, now, 0);
    let started = request(&mut scheduler, now, fast);
    assert_eq!((groups(&slow), groups(&started)), (vec![0, 1], vec![2, 3]));
    now += Duration::from_millis(100);
    scheduler.on_bytes(now, 0, 50_000);
    scheduler.on_bytes(now, fast, 2 * MIB);
    for assignment in started {
        assert!(receive(&mut scheduler, fast, assignment) && !verify(&mut scheduler, assignment));
    }
    let taken = request(&mut scheduler, now, fast);
    assert_eq!(groups(&taken), [1, 0], "what would come last is taken first");
    assert!(scheduler.must_cancel(0));
    assert!(!receive(&mut scheduler, 0, slow[1]), "it has lost the group");
    assert!(request(&mut scheduler, now, 0).is_empty(), "nothing new before the cancel is confirmed");
    scheduler.on_cancelled(0);
    for (at, assignment) in taken.into_iter().enumerate() {
        assert!(receive(&mut scheduler, fast, assignment));
        assert_eq!(verify(&mut scheduler, assignment), at == 1);
    }
    assert_eq!(scheduler.verified_bytes(0), 4 * MIB);
}

#[test]
fn nothing_is_stolen_while_the_partial_file_is_scanned() {
    let mut scheduler = unchecked_scheduler(5);
    let now = Instant::now();
    let idle = add_source(&mut scheduler, now);
    scheduler.mark_missing(0, 0);
    scheduler.mark_missing(0, 1);
    assert_eq!(groups(&request(&mut scheduler, now, 0)), [0, 1]);
    assert!(request(&mut scheduler, now, idle).is_empty(), "the other source's groups would be sent twice");
    for group in 2..5 {
        assert_eq!(scheduler.mark_present(0, group), Verified::Partial);
    }
    assert_eq!(groups(&request(&mut scheduler, now, idle)), [1], "now it is known that nothing else is missing");
}

#[test]
fn a_stalled_source_loses_everything() {
    let mut scheduler = open_scheduler(2);
    let mut now = Instant::now();
    assert_eq!(request(&mut scheduler, now, 0).len(), 2);
    let idle = add_source(&mut scheduler, now);
    assert_eq!(
        groups(&request(&mut scheduler, now, idle)),
        [1],
        "the queue is halved while nothing is known of either"
    );
    now += STALL_TIMEOUT;
    assert!(request(&mut scheduler, now, idle).is_empty());
    now += Duration::from_millis(1);
    assert!(request(&mut scheduler, now, idle).is_empty(), "it is no better itself");
    scheduler.on_bytes(now, idle, 1_000);
    assert_eq!(groups(&request(&mut scheduler, now, idle)), [0]);
}

#[test]
fn assignments_of_a_removed_source_are_free_again() {
    let mut scheduler = open_scheduler(3);
    let now = Instant::now();
    let owed = request(&mut scheduler, now, 0);
    assert!(receive(&mut scheduler, 0, owed[0]));
    scheduler.remove_source(0);
    assert!(!scheduler.has_source(0));
    let other = add_source(&mut scheduler, now);
    assert_eq!(groups(&request(&mut scheduler, now, other)), [2, 1], "group 0 is still being verified");
    scheduler.on_verify_failed(owed[0]);
    assert!(request(&mut scheduler, now, other).is_empty(), "two are enough for now");
}

#[test]
fn small_files_are_requested_in_large_batches_and_in_order() {
    let mut scheduler = Scheduler::default();
    for file in 0..3_000 {
        assert_eq!(scheduler.add_file(4_096, None), file);
    }
    let now = Instant::now();
    let source = scheduler.add_source(now);
    (0..3_000).for_each(|file| scheduler.set_available(source, file, None));
    let first = request(&mut scheduler, now, source);
    assert_eq!(first.len(), 512, "2 MiB");
    assert!(first.iter().enumerate().all(|(at, assignment)| assignment.file == at));
    for assignment in &first[..300] {
        assert!(receive(&mut scheduler, source, *assignment) && verify(&mut scheduler, *assignment));
        scheduler.finish_file(assignment.file);
    }
    assert_eq!(request(&mut scheduler, now, source)[0].file, 512);
}

#[test]
fn files_with_the_same_partial_file_wait_for_each_other() {
    let mut scheduler = Scheduler::default();
    let first = scheduler.add_file(2 * MIB, None);
    let second = scheduler.add_file(2 * MIB, Some(first));
    let now = Instant::now();
    let source = scheduler.add_source(now);
    scheduler.set_available(source, first, None);
    scheduler.set_available(source, second, None);
    assert_eq!(scheduler.next_request(now, source), NextRequest::Outline(first));
    assert_eq!(scheduler.next_request(now, source), NextRequest::Wait);
    scheduler.finish_file(first);
    assert_eq!(scheduler.next_request(now, source), NextRequest::Outline(second));
    scheduler.finish_file(second);
    assert_eq!(scheduler.next_request(now, source), NextRequest::Nothing);
}

#[test]
fn a_file_that_fails_while_it_waits_for_a_partial_file_releases_nothing() {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    let first = scheduler.add_file(2 * MIB, None);
    let second = scheduler.add_file(2 * MIB, Some(first));
    let third = scheduler.add_file(2 * MIB, Some(second));
    let source = scheduler.add_source(now);
    (0..3).for_each(|file| scheduler.set_available(source, file, None));
    assert_eq!(scheduler.next_request(now, source), NextRequest::Outline(first));
    scheduler.on_outline(first);
    scheduler.finish_file(second);
    assert_eq!(scheduler.next_request(now, source), NextRequest::Wait);
    scheduler.finish_file(first);
    assert_eq!(scheduler.next_request(now, source), NextRequest::Outline(third));
}

#[test]
fn an_overdue_outline_is_requested_from_another_source() {
    let mut scheduler = Scheduler::default();
    scheduler.add_file(2 * MIB, None);
    let now = Instant::now();
    let (first, second) = (add_source(&mut scheduler, now), add_source(&mut scheduler, now));
    assert_eq!(scheduler.next_request(now, first), NextRequest::Outline(0));
    assert_eq!(scheduler.next_request(now, second), NextRequest::Wait);
    let later = now + OUTLINE_TIMEOUT + Duration::from_millis(1);
    assert_eq!(scheduler.next_request(later, second), NextRequest::Outline(0));
    scheduler.remove_source(second);
    assert_eq!(scheduler.next_request(later, first), NextRequest::Outline(0));
    assert!(scheduler.needs_outline(0));
    scheduler.on_outline(0);
    assert!(!scheduler.needs_outline(0));
}

#[test]
fn a_file_whose_outline_comes_late_is_open_like_any_other() {
    let mut scheduler = Scheduler::default();
    (0..2).for_each(|_| _ = scheduler.add_file(2 * MIB, None));
    let now = Instant::now();
    let (slow, other) = (scheduler.add_source(now), scheduler.add_source(now));
    scheduler.set_available(slow, 0, None);
    scheduler.set_available(other, 0, None);
    assert_eq!(scheduler.next_request(now, slow), NextRequest::Outline(0));
    let later = now + OUTLINE_TIMEOUT + Duration::from_millis(1);
    assert_eq!(scheduler.next_request(later, other), NextRequest::Outline(0));
    scheduler.remove_source(other);
    scheduler.on_outline(0);
    scheduler.finish_file(0);
    scheduler.set_available(slow, 1, None);
    assert_eq!(scheduler.next_request(later, slow), NextRequest::Outline(1));
}

#[test]
fn an_incomplete_source_is_asked_for_its_groups_and_a_complete_one_for_the_others_first() {
    let mut scheduler = open_scheduler(6);
    let now = Instant::now();
    let part = scheduler.add_source(now);
    scheduler.set_available(part, 0, Some(GroupSet::from_bytes(&[0b001_011])));
    assert_eq!(groups(&request(&mut scheduler, now, 0)), [2, 4], "0, 1 and 3 are elsewhere");
    assert_eq!(groups(&request(&mut scheduler, now, part)), [0, 1]);
    scheduler.remove_source(0);
    assert!(!scheduler.is_stuck(0));
    let stuck = request(&mut scheduler, now, part);
    assert!(stuck.is_empty());
}

#[derive(Debug, Clone)]
struct Sim {
    /// Bytes a millisecond.
    rate: u64,
    dies_ms: Option<u64>,
    silent_from_ms: Option<u64>,
    corrupts_at: Option<u32>,
}

fn sims() -> impl Strategy<Value = Vec<Sim>> {
    let sim = (1_000u64..200_000, option(0..3_000), option(0..3_000), proptest::option::weighted(0.2, 0u32..60));
    let sim =
        sim.prop_map(|(rate, dies_ms, silent_from_ms, corrupts_at)| Sim { rate, dies_ms, silent_from_ms, corrupts_at });
    proptest::collection::vec(sim, 1..6)
}

fn option(range: std::ops::Range<u64>) -> impl Strategy<Value = Option<u64>> {
    proptest::option::weighted(0.3, range)
}

/// A source in virtual time: what it was asked for, in order, and how far it is.
#[derive(Default)]
struct Simulated {
    queue: VecDeque<Assignment>,
    sent: u64,
    is_gone: bool,
}

/// Otherwise a hostile source could hold the last groups by replying late.
#[test]
fn a_source_stalls_in_time_however_slow_its_replies_were() {
    let (mut scheduler, now) = (open_scheduler(2), Instant::now());
    assert_eq!(request(&mut scheduler, now, 0).len(), 2);
    let replied = now + Duration::from_secs(60);
    scheduler.on_bytes(replied, 0, 1);
    assert!(!scheduler.sources[0].is_stalled(replied + STALL_TIMEOUT_MAX));
    assert!(scheduler.sources[0].is_stalled(replied + STALL_TIMEOUT_MAX + Duration::from_millis(1)));
}

#[test]
fn sources_with_slow_replies_do_not_take_a_group_from_each_other_for_ever() {
    let (reply_time, begun) = (STALL_TIMEOUT + Duration::from_millis(100), Instant::now());
    let (mut scheduler, mut now) = (open_scheduler(2), begun);
    let other = add_source(&mut scheduler, now);
    let mut under_way: Vec<(Instant, SourceId, Assignment)> = Vec::new();
    while !scheduler.is_complete(0) {
        assert!(now - begun < 10 * reply_time, "{under_way:?}");
        for source in [0, other] {
            let requested = request(&mut scheduler, now, source);
            under_way.extend(requested.into_iter().map(|assignment| (now + reply_time, source, assignment)));
        }
        now += Duration::from_millis(10);
        for &(_, source, assignment) in under_way.iter().filter(|(at, ..)| *at <= now) {
            scheduler.on_bytes(now, source, MIB);
            if receive(&mut scheduler, source, assignment) {
                verify(&mut scheduler, assignment);
            }
            if scheduler.must_cancel(source) {
                scheduler.on_cancelled(source);
            }
        }
        under_way.retain(|(at, ..)| *at > now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_group_is_verified_exactly_once_whatever_the_sources_do(groups in 2u64..60, mut sims in sims()) {
        // The last source is honest, so that there is an end.
        sims.push(Sim { rate: 20_000, dies_ms: None, silent_from_ms: None, corrupts_at: None });
        let mut scheduler = open_scheduler(groups);
        let started = Instant::now();
        scheduler.remove_source(0);
        let ids: Vec<SourceId> = sims.iter().map(|_| add_source(&mut scheduler, started)).collect();
        let mut states: Vec<Simulated> = sims.iter().map(|_| Simulated::default()).collect();
        let mut verified = HashSet::new();
        let mut turns = HashMap::new();
        let (mut requested, mut takeovers) = (0, 0);
        for ms in 0u64.. {
            prop_assert!(ms < 60_000, "the download never ends: {} of {groups} groups", verified.len());
            let now = started + Duration::from_millis(ms);
            for (at, sim) in sims.iter().enumerate() {
                let (id, state) = (ids[at], &mut states[at]);
                if state.is_gone {
                    continue;
                }
                if sim.dies_ms == Some(ms) {
                    state.is_gone = true;
                    scheduler.remove_source(id);
                    continue;
                }
                if scheduler.must_cancel(id) && sim.silent_from_ms.is_none_or(|from| ms < from) {
                    // The group in transfer still arrives, and is ignored.
                    state.queue.clear();
                    state.sent = 0;
                    scheduler.on_cancelled(id);
                }
                for assignment in request(&mut scheduler, now, id) {
                    requested += 1;
                    takeovers += usize::from(turns.insert(assignment.group, assignment.id).is_some());
                    prop_assert!(!verified.contains(&assignment.group), "asked for again");
                    state.queue.push_back(assignment);
                }
                if state.queue.is_empty() || sim.silent_from_ms.is_some_and(|from| ms >= from) {
                    continue;
                }
                state.sent += sim.rate;
                scheduler.on_bytes(now, id, sim.rate);
                while state.sent >= MIB && !state.is_gone {
                    let Some(assignment) = state.queue.pop_front() else { break };
                    state.sent -= MIB;
                    if !receive(&mut scheduler, id, assignment) {
                        continue;
                    }
                    if sim.corrupts_at == Some(assignment.group) {
                        scheduler.on_verify_failed(assignment);
                        state.is_gone = true;
                        scheduler.remove_source(id);
                    } else {
                        prop_assert!(verified.insert(assignment.group), "verified twice");
                        prop_assert_eq!(verify(&mut scheduler, assignment), verified.len() as u64 == groups);
                    }
                }
            }
            if scheduler.is_complete(0) {
                break;
            }
        }
        prop_assert_eq!(verified.len() as u64, groups);
        prop_assert_eq!(requested, groups as usize + takeovers);
        scheduler.finish_file(0);
        let last = *ids.last().expect("there is one");
        scheduler.on_cancelled(last);
        prop_assert_eq!(scheduler.next_request(started, last), NextRequest::Nothing);
    }

    #[test]
    fn sets_of_groups_are_the_wire_form(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let bits = GroupSet::from_bytes(&bytes);
        for group in 0..bytes.len() as u32 * 8 + 70 {
            let expected = bytes.get(group as usize / 8).is_some_and(|byte| byte & 1 << (group % 8) != 0);
            prop_assert_eq!(bits.contains(group), expected);
        }
    }
}
