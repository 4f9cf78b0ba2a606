//! The scheduler in virtual time, with sources of random speed that die, lie and fall silent.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

/// A plan of one file of `groups` groups that is open, with nothing in its part.
fn open_plan(groups: u64) -> Plan {
    let mut plan = unread_plan(groups);
    (0..groups as u32).for_each(|group| plan.is_missing(0, group));
    plan
}

/// The same before anyone has looked at the part.
fn unread_plan(groups: u64) -> Plan {
    let mut plan = Plan::default();
    plan.add_file(groups * MIB, None);
    let now = Instant::now();
    let first = plan.add_source(now);
    plan.cover(first, 0, None);
    assert_eq!(plan.next(now, first, &mut Vec::new()), Next::Outline(0));
    assert!(plan.outline_known(0));
    plan.opened(0, 0);
    plan
}

fn add_source(plan: &mut Plan, now: Instant) -> SourceId {
    let source = plan.add_source(now);
    plan.cover(source, 0, None);
    source
}

fn ask(plan: &mut Plan, now: Instant, source: SourceId) -> Vec<Assignment> {
    let mut out = Vec::new();
    plan.next(now, source, &mut out);
    out
}

fn groups(assignments: &[Assignment]) -> Vec<u32> {
    assignments.iter().map(|assignment| assignment.group).collect()
}

#[test]
fn a_source_gets_as_much_as_it_delivers_in_a_while() {
    let mut plan = open_plan(500);
    let mut now = Instant::now();
    let first = ask(&mut plan, now, 0);
    assert_eq!(groups(&first), [0, 1], "little before its rate is known");
    for assignment in first {
        now += Duration::from_millis(50);
        plan.received(now, 0, MIB);
        assert!(plan.arrived(0, assignment) && !plan.verified(assignment));
    }
    // 20 MiB/s over 150 ms.
    assert_eq!(groups(&ask(&mut plan, now, 0)), [2, 3, 4]);
    assert!(ask(&mut plan, now, 0).is_empty(), "it has enough");
}

#[test]
fn an_idle_source_takes_over_from_a_slow_one_and_late_bytes_do_not_count() {
    let mut plan = open_plan(4);
    let mut now = Instant::now();
    let fast = add_source(&mut plan, now);
    let slow = ask(&mut plan, now, 0);
    let begun = ask(&mut plan, now, fast);
    assert_eq!((groups(&slow), groups(&begun)), (vec![0, 1], vec![2, 3]));
    now += Duration::from_millis(100);
    plan.received(now, 0, 50_000);
    plan.received(now, fast, 2 * MIB);
    for assignment in begun {
        assert!(plan.arrived(fast, assignment) && !plan.verified(assignment));
    }
    let taken = ask(&mut plan, now, fast);
    assert_eq!(groups(&taken), [1, 0], "what would come last is taken first");
    assert!(plan.must_cancel(0));
    assert!(!plan.arrived(0, slow[1]), "it has lost its turn");
    assert!(ask(&mut plan, now, 0).is_empty(), "nothing new before it has forgotten the old");
    plan.cancelled(0);
    for (at, assignment) in taken.into_iter().enumerate() {
        assert!(plan.arrived(fast, assignment));
        assert_eq!(plan.verified(assignment), at == 1);
    }
    assert_eq!(plan.verified_bytes(0), 4 * MIB);
}

#[test]
fn nothing_is_taken_over_while_the_part_is_still_looked_at() {
    let mut plan = unread_plan(5);
    let now = Instant::now();
    let idle = add_source(&mut plan, now);
    plan.is_missing(0, 0);
    plan.is_missing(0, 1);
    assert_eq!(groups(&ask(&mut plan, now, 0)), [0, 1]);
    assert!(ask(&mut plan, now, idle).is_empty(), "what the other has begun would come twice");
    for group in 2..5 {
        assert!(!plan.is_present(0, group));
    }
    assert_eq!(groups(&ask(&mut plan, now, idle)), [1], "now it is known that nothing else is missing");
}

#[test]
fn a_silent_source_is_relieved_of_everything() {
    let mut plan = open_plan(2);
    let mut now = Instant::now();
    assert_eq!(ask(&mut plan, now, 0).len(), 2);
    let idle = add_source(&mut plan, now);
    assert_eq!(groups(&ask(&mut plan, now, idle)), [1], "the queue is halved while nothing is known of either");
    now += SILENCE;
    assert!(ask(&mut plan, now, idle).is_empty());
    now += Duration::from_millis(1);
    assert!(ask(&mut plan, now, idle).is_empty(), "it is no better itself");
    plan.received(now, idle, 1_000);
    assert_eq!(groups(&ask(&mut plan, now, idle)), [0]);
}

#[test]
fn what_a_lost_source_owed_is_free_again() {
    let mut plan = open_plan(3);
    let now = Instant::now();
    let owed = ask(&mut plan, now, 0);
    assert!(plan.arrived(0, owed[0]));
    plan.gone(0);
    assert!(!plan.is_covered(0));
    let other = add_source(&mut plan, now);
    assert_eq!(groups(&ask(&mut plan, now, other)), [2, 1], "group 0 is still being verified");
    plan.spoiled(owed[0]);
    assert!(ask(&mut plan, now, other).is_empty(), "two are enough for now");
}

#[test]
fn small_files_go_in_large_lots_and_in_order() {
    let mut plan = Plan::default();
    for file in 0..3_000 {
        assert_eq!(plan.add_file(4_096, None), file);
    }
    let now = Instant::now();
    let source = plan.add_source(now);
    (0..3_000).for_each(|file| plan.cover(source, file, None));
    let first = ask(&mut plan, now, source);
    assert_eq!(first.len(), 512, "2 MiB");
    assert!(first.iter().enumerate().all(|(at, assignment)| assignment.file == at));
    for assignment in &first[..300] {
        assert!(plan.arrived(source, *assignment) && plan.verified(*assignment));
        plan.done(assignment.file);
    }
    assert_eq!(ask(&mut plan, now, source)[0].file, 512);
}

#[test]
fn files_that_write_the_same_part_wait_for_each_other() {
    let mut plan = Plan::default();
    let first = plan.add_file(2 * MIB, None);
    let second = plan.add_file(2 * MIB, Some(first));
    let now = Instant::now();
    let source = plan.add_source(now);
    plan.cover(source, first, None);
    plan.cover(source, second, None);
    let mut out = Vec::new();
    assert_eq!(plan.next(now, source, &mut out), Next::Outline(first));
    assert_eq!(plan.next(now, source, &mut out), Next::Wait);
    plan.done(first);
    assert_eq!(plan.next(now, source, &mut out), Next::Outline(second));
    plan.done(second);
    assert_eq!(plan.next(now, source, &mut out), Next::Nothing);
}

#[test]
fn an_outline_that_does_not_come_is_asked_for_elsewhere() {
    let mut plan = Plan::default();
    plan.add_file(2 * MIB, None);
    let now = Instant::now();
    let (first, second) = (add_source(&mut plan, now), add_source(&mut plan, now));
    assert_eq!(plan.next(now, first, &mut Vec::new()), Next::Outline(0));
    assert_eq!(plan.next(now, second, &mut Vec::new()), Next::Wait);
    let later = now + OUTLINE_PATIENCE + Duration::from_millis(1);
    assert_eq!(plan.next(later, second, &mut Vec::new()), Next::Outline(0));
    plan.gone(second);
    assert_eq!(plan.next(later, first, &mut Vec::new()), Next::Outline(0));
    assert!(plan.outline_known(0) && !plan.outline_known(0));
}

#[test]
fn a_part_source_is_asked_for_what_it_has_and_a_whole_one_for_the_rest_first() {
    let mut plan = open_plan(6);
    let now = Instant::now();
    let part = plan.add_source(now);
    plan.cover(part, 0, Some(Bits::of_bytes(&[0b001_011])));
    assert_eq!(groups(&ask(&mut plan, now, 0)), [2, 4], "0, 1 and 3 are elsewhere");
    assert_eq!(groups(&ask(&mut plan, now, part)), [0, 1]);
    plan.gone(0);
    assert!(!plan.is_stuck(0));
    let stuck = ask(&mut plan, now, part);
    assert!(stuck.is_empty());
}

#[derive(Debug, Clone)]
struct Sim {
    /// Bytes a millisecond.
    rate: u64,
    dies_ms: Option<u64>,
    silent_from_ms: Option<u64>,
    lies_at: Option<u32>,
}

fn sims() -> impl Strategy<Value = Vec<Sim>> {
    let sim = (1_000u64..200_000, option(0..3_000), option(0..3_000), proptest::option::weighted(0.2, 0u32..60));
    let sim = sim.prop_map(|(rate, dies_ms, silent_from_ms, lies_at)| Sim { rate, dies_ms, silent_from_ms, lies_at });
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_group_is_verified_just_once_whatever_the_sources_do(groups in 2u64..60, mut sims in sims()) {
        // The last source is honest, so that there is an end.
        sims.push(Sim { rate: 20_000, dies_ms: None, silent_from_ms: None, lies_at: None });
        let mut plan = open_plan(groups);
        let begun = Instant::now();
        plan.gone(0);
        let ids: Vec<SourceId> = sims.iter().map(|_| add_source(&mut plan, begun)).collect();
        let mut states: Vec<Simulated> = sims.iter().map(|_| Simulated::default()).collect();
        let mut verified = HashSet::new();
        let mut turns = HashMap::new();
        let (mut requested, mut takeovers) = (0, 0);
        for ms in 0u64.. {
            prop_assert!(ms < 60_000, "it never ends: {} of {groups} groups", verified.len());
            let now = begun + Duration::from_millis(ms);
            for (at, sim) in sims.iter().enumerate() {
                let (id, state) = (ids[at], &mut states[at]);
                if state.is_gone {
                    continue;
                }
                if sim.dies_ms == Some(ms) {
                    state.is_gone = true;
                    plan.gone(id);
                    continue;
                }
                if plan.must_cancel(id) && sim.silent_from_ms.is_none_or(|from| ms < from) {
                    // The group begun still comes, for nothing.
                    state.queue.clear();
                    state.sent = 0;
                    plan.cancelled(id);
                }
                for assignment in ask(&mut plan, now, id) {
                    requested += 1;
                    takeovers += usize::from(turns.insert(assignment.group, assignment.turn).is_some());
                    prop_assert!(!verified.contains(&assignment.group), "asked for again");
                    state.queue.push_back(assignment);
                }
                if state.queue.is_empty() || sim.silent_from_ms.is_some_and(|from| ms >= from) {
                    continue;
                }
                state.sent += sim.rate;
                plan.received(now, id, sim.rate);
                while state.sent >= MIB && !state.is_gone {
                    let Some(assignment) = state.queue.pop_front() else { break };
                    state.sent -= MIB;
                    if !plan.arrived(id, assignment) {
                        continue;
                    }
                    if sim.lies_at == Some(assignment.group) {
                        plan.spoiled(assignment);
                        state.is_gone = true;
                        plan.gone(id);
                    } else {
                        prop_assert!(verified.insert(assignment.group), "verified twice");
                        prop_assert_eq!(plan.verified(assignment), verified.len() as u64 == groups);
                    }
                }
            }
            if plan.is_whole(0) {
                break;
            }
        }
        prop_assert_eq!(verified.len() as u64, groups);
        prop_assert_eq!(requested, groups as usize + takeovers);
        plan.done(0);
        let last = *ids.last().expect("there is one");
        plan.cancelled(last);
        prop_assert_eq!(plan.next(begun, last, &mut Vec::new()), Next::Nothing);
    }

    #[test]
    fn sets_of_groups_are_the_wire_form(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let bits = Bits::of_bytes(&bytes);
        for group in 0..bytes.len() as u32 * 8 + 70 {
            let expected = bytes.get(group as usize / 8).is_some_and(|byte| byte & 1 << (group % 8) != 0);
            prop_assert_eq!(bits.contains(group), expected);
        }
    }
}
