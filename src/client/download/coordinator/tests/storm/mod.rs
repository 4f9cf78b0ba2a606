//! Storms: whole batches in virtual time, in which the server, peers and the disk do everything that they may do.
//!
//! [`plan`] chooses what happens, [`batch`] and [`connection`] let it happen, and the oracle says after every step what must
//! hold, from what the coordinator was told and wanted done. proptest makes a plan that fails small; the failure shows who
//! did what when.

mod batch;
mod checks;
mod connection;
mod known;
mod oracle;
mod plan;
mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use self::batch::SimulatedBatch;
use self::oracle::{Checked, DownloadOracle};
use self::plan::{AnswerKind, Conduct, DiskFault, DownloadStorm, PlannedAnswer, PlannedFile, PlannedPeer, storm};
use self::trace::StormTrace;
use super::*;

/// Calls without an event or an effect, at most, and more of them for each second.
const IDLE_CALLS_MAX: f64 = 100.0;
const IDLE_CALLS_PER_SECOND: f64 = 50.0;

fn planned_jobs(plan: &DownloadStorm) -> Vec<FileJob> {
    let size = |groups: u32| if groups == 1 { 1_000 } else { u64::from(groups) * MIB - 7 };
    let mut jobs = jobs(&plan.files.iter().map(|file| size(file.groups)).collect::<Vec<_>>());
    for at in 1..jobs.len() {
        if plan.repeats_previous(at) {
            jobs[at].item.content = jobs[at - 1].item.content;
        }
    }
    jobs
}

/// Runs the batch to its end.
fn run(plan: &DownloadStorm, trace: &mut StormTrace) -> Checked {
    let (jobs, mut history, begun) = (planned_jobs(plan), PeerHistory::default(), Instant::now());
    let mut batch = SimulatedBatch::new(plan, &jobs, begun);
    let mut oracle = DownloadOracle::new(plan, &jobs, begun);
    let mut coordinator = Coordinator::new(begun, &jobs, oracle.retry_for, &mut history, Some(begun));
    let (mut now, mut idle_calls) = (begun, 0.0);
    loop {
        let (timer, is_idle) = step(now, &mut batch, &mut oracle, &mut coordinator, trace)?;
        if coordinator.is_finished() {
            return check_end(plan, &oracle);
        }
        prop_assert!(timer.is_some() || batch.is_busy(), "it waits for ever");
        prop_assert!(!is_idle || timer.is_none_or(|at| at > now), "its timer has passed, and it does nothing");
        idle_calls += f64::from(u8::from(is_idle));
        let elapsed = now - begun;
        prop_assert!(idle_calls < IDLE_CALLS_MAX + IDLE_CALLS_PER_SECOND * elapsed.as_secs_f64(), "a busy loop");
        check_time(plan, &oracle, elapsed)?;
        let next = timer.into_iter().chain(batch.next_at()).min().expect("it waits for something");
        now = next.max(now);
    }
}

/// Feeds the coordinator what happens now. Returns its timer, and whether nothing happened.
fn step(
    now: Instant,
    batch: &mut SimulatedBatch<'_>,
    oracle: &mut DownloadOracle<'_>,
    coordinator: &mut Coordinator<'_>,
    trace: &mut StormTrace,
) -> Result<(Option<Instant>, bool), TestCaseError> {
    let at = batch.elapsed(now);
    let events = batch.events_at(now);
    oracle.begin_step(now);
    let mut is_idle = events.is_empty();
    for event in events {
        trace.event(at, &event);
        oracle.on_event(&event);
        coordinator.on_event(now, event);
    }
    let effects = coordinator.advance(now);
    is_idle &= effects.is_empty();
    for effect in &effects {
        trace.effect(at, effect);
        oracle.on_effect(effect)?;
    }
    effects.into_iter().for_each(|effect| batch.apply(effect));
    let timer = coordinator.poll_timeout(now);
    oracle.end_step(timer, coordinator.is_finished())?;
    Ok((timer, is_idle))
}

/// Nothing takes longer than all faults together.
fn check_time(plan: &DownloadStorm, oracle: &DownloadOracle<'_>, elapsed: Duration) -> Checked {
    let longest = Duration::from_millis(plan.longest_ms());
    let file = (0..plan.files.len()).find(|&file| !oracle.files[file].is_ended && plan.must_succeed(file));
    prop_assert!(file.is_none() || elapsed <= longest, "file {file:?} takes longer than {longest:?}");
    // Files of one content come one after the other, and sources of each are waited for.
    let in_turn = 1 + (0..plan.files.len()).filter(|&file| plan.waits_for_previous(file)).count() as u32;
    prop_assert!(elapsed <= longest + in_turn * oracle.retry_for, "some file does not end");
    Ok(())
}

fn check_end(plan: &DownloadStorm, oracle: &DownloadOracle<'_>) -> Checked {
    for file in (0..plan.files.len()).filter(|&file| plan.must_succeed(file)) {
        prop_assert!(oracle.files[file].is_saved, "an honest source of file {file} was there, and it failed");
    }
    Ok(())
}

/// Runs the batch; a failure shows its trace.
fn run_traced(plan: &DownloadStorm) -> Checked {
    let mut trace = StormTrace::default();
    let result = catch_unwind(AssertUnwindSafe(|| run(plan, &mut trace)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(TestCaseError::fail(text.unwrap_or_default()))
    });
    result.map_err(|error| TestCaseError::fail(format!("{error}\n{}\n", trace.text())))
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4_000, ..ProptestConfig::default() })]
    #[test]
    fn storms_of_downloads_break_no_promise(plan in storm()) {
        run_traced(&plan)?;
    }
}

/// The rate of a source is estimated too low while its first bytes come, so that each of the two seems slow to the other.
#[test]
fn two_slow_sources_do_not_take_a_group_from_each_other_for_ever() {
    for (delay_ms, groups) in (0..50).step_by(10).flat_map(|delay_ms| (3..8).map(move |groups| (delay_ms, groups))) {
        let peer = |delay_ms, group_ms, conducts| PlannedPeer {
            files: u32::MAX,
            delay_ms,
            group_ms,
            conducts,
            away: None,
            forgets: None,
            grow_ms: None,
            is_liar: false,
        };
        let stalls = peer(0, 1, vec![Conduct::Stalls { after: 0 }]);
        let slow = [vec![Conduct::Cuts { after: 1 }], Vec::new()].map(|conducts| peer(400, 700, conducts));
        let file = PlannedFile { groups, candidates: 0, present: 0, disk: DiskFault::None, is_repeated: false };
        let plan = DownloadStorm {
            files: vec![file],
            peers: [vec![stalls], slow.into()].concat(),
            answers: vec![PlannedAnswer { delay_ms, kind: AnswerKind::Right }],
            lag_ms: 0,
            retry_ms: 0,
            store_ms: 0,
            is_batched: false,
            interrupt_ms: None,
        };
        run_traced(&plan).unwrap();
    }
}
