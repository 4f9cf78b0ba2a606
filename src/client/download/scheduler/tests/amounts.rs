//! How much a source is asked for, which groups come first, and what is stolen from whom.

use super::*;

/// A scheduler with so many small files, all of which source 0 serves.
fn small_files(count: usize, size: u64) -> (Scheduler, Instant) {
    let (mut scheduler, now) = (Scheduler::default(), Instant::now());
    (0..count).for_each(|_| _ = scheduler.add_file(size, None));
    let source = scheduler.add_source(now);
    (0..count).for_each(|file| scheduler.set_available(source, file, None));
    (scheduler, now)
}

/// The source has delivered `bytes` in the last `ms` milliseconds.
fn measure(scheduler: &mut Scheduler, now: &mut Instant, source: SourceId, bytes: u64, ms: u64) {
    *now += Duration::from_millis(ms);
    scheduler.on_bytes(*now, source, bytes);
}

#[test]
fn more_is_requested_once_half_of_it_has_arrived() {
    let (mut scheduler, now) = small_files(100, 100_000);
    let owed = request(&mut scheduler, now, 0);
    assert_eq!(owed.len(), 20, "2 MiB");
    for assignment in &owed[..9] {
        assert!(receive(&mut scheduler, 0, *assignment));
        assert!(request(&mut scheduler, now, 0).is_empty());
    }
    assert!(receive(&mut scheduler, 0, owed[9]));
    assert_eq!(request(&mut scheduler, now, 0).len(), 10);
}

#[test]
fn at_most_1024_groups_are_in_flight_from_a_source() {
    let (mut scheduler, now) = small_files(3_000, 1);
    let owed = request(&mut scheduler, now, 0);
    assert_eq!(owed.len(), 1_024);
    for assignment in &owed[..512] {
        assert!(receive(&mut scheduler, 0, *assignment));
        assert!(request(&mut scheduler, now, 0).is_empty());
    }
    assert!(receive(&mut scheduler, 0, owed[512]));
    assert_eq!(request(&mut scheduler, now, 0).len(), 513);
}

#[test]
fn a_source_of_large_groups_is_asked_when_less_than_two_are_in_flight() {
    let mut scheduler = open_scheduler(5);
    let now = Instant::now();
    let owed = request(&mut scheduler, now, 0);
    assert_eq!(owed.len(), 2);
    assert!(request(&mut scheduler, now, 0).is_empty());
    assert!(receive(&mut scheduler, 0, owed[0]));
    assert_eq!(request(&mut scheduler, now, 0).len(), 1);
}

#[test]
fn a_slow_source_has_1_mib_in_flight() {
    let (mut scheduler, mut now) = small_files(100, 100_000);
    let owed = request(&mut scheduler, now, 0);
    measure(&mut scheduler, &mut now, 0, 10_000, 1_000);
    for assignment in &owed {
        assert!(receive(&mut scheduler, 0, *assignment));
    }
    assert_eq!(request(&mut scheduler, now, 0).len(), 10);
    assert_eq!(scheduler.received_bytes, 10_000);
}

#[test]
fn what_a_source_will_not_send_takes_no_room() {
    let (mut scheduler, now) = small_files(100, 100_000);
    assert_eq!(request(&mut scheduler, now, 0).len(), 20);
    scheduler.on_cancelled(0);
    assert_eq!(request(&mut scheduler, now, 0).len(), 20);
}

#[test]
fn sixteen_large_files_are_in_progress_at_once() {
    let (mut scheduler, now) = small_files(20, 2 * MIB);
    for file in 0..16 {
        assert_eq!(scheduler.next_request(now, 0), NextRequest::Outline(file));
    }
    assert_eq!(scheduler.next_request(now, 0), NextRequest::Wait);
    scheduler.finish_file(18);
    assert_eq!(scheduler.next_request(now, 0), NextRequest::Wait, "it was not in progress");
    scheduler.finish_file(3);
    assert_eq!(scheduler.next_request(now, 0), NextRequest::Outline(16));
    assert_eq!(scheduler.next_request(now, 0), NextRequest::Wait);
}

#[test]
fn downloads_that_begin_elsewhere_ask_for_other_groups() {
    let picked = |begin: u32| {
        let mut scheduler = open_scheduler(8);
        let now = Instant::now();
        scheduler.files[0].seed = begin;
        let part = scheduler.add_source(now);
        scheduler.set_available(part, 0, Some(GroupSet::default()));
        let mut picked = Vec::new();
        while let Some(&next) = request(&mut scheduler, now, 0).first() {
            picked.push(next.group);
            scheduler.sources[0].queue.clear();
            scheduler.sources[0].queued_bytes = 0;
        }
        picked
    };
    let (first, second) = (picked(1), picked(2));
    assert!(first.iter().zip(&second).filter(|(first, second)| first == second).count() < 3, "{first:?} {second:?}");
    let in_order = |groups: &[u32]| groups.windows(2).filter(|pair| pair[1] == (pair[0] + 1) % 8).count();
    assert!(in_order(&first) < 3 && in_order(&second) < 3, "{first:?} {second:?}");
}

/// A file of so many groups that sources 0, 1, ... owe, `owed[i]` of them source i; the last source is idle.
fn owing(owed: &[usize]) -> (Scheduler, Instant) {
    let (mut scheduler, now) = (open_scheduler(owed.iter().sum::<usize>() as u64), Instant::now());
    (0..owed.len()).for_each(|_| _ = add_source(&mut scheduler, now));
    for (source, &owed) in owed.iter().enumerate() {
        assert_eq!(request(&mut scheduler, now, source).len(), owed);
    }
    (scheduler, now)
}

#[test]
fn nothing_is_stolen_that_the_other_source_sends_about_as_soon() {
    let (mut scheduler, mut now) = owing(&[2]);
    // The rate of source 0 is not known: it is assumed to be as fast as this one.
    measure(&mut scheduler, &mut now, 1, 10_000_000, 100);
    assert!(request(&mut scheduler, now, 1).is_empty());
}

#[test]
fn nothing_is_stolen_that_has_nearly_arrived() {
    let (mut scheduler, mut now) = owing(&[2]);
    let first = scheduler.sources[0].queue[0];
    assert!(receive(&mut scheduler, 0, first));
    measure(&mut scheduler, &mut now, 1, 50_000_000, 50);
    // At about 1 MB/s, the whole group would take a second longer.
    measure(&mut scheduler, &mut now, 0, MIB - 20_000, 1_000);
    measure(&mut scheduler, &mut now, 1, 50_000_000, 0);
    assert!(request(&mut scheduler, now, 1).is_empty());
}

#[test]
fn the_slowest_source_loses_a_group_first() {
    for slowest in [0, 1] {
        let (mut scheduler, mut now) = owing(&[2, 2]);
        measure(&mut scheduler, &mut now, slowest, 100_000, 100);
        measure(&mut scheduler, &mut now, 1 - slowest, 500_000, 0);
        measure(&mut scheduler, &mut now, 2, 10_000_000, 0);
        assert_eq!(request(&mut scheduler, now, 2).len(), 2);
        assert!(scheduler.must_cancel(slowest), "source {slowest}");
        assert!(!scheduler.must_cancel(1 - slowest), "source {slowest}");
    }
}

#[test]
fn an_overdue_outline_wakes_the_other_sources() {
    for sources in [2, 3] {
        let (mut scheduler, now) = (Scheduler::default(), Instant::now());
        scheduler.add_file(2 * MIB, None);
        (0..sources).for_each(|_| _ = add_source(&mut scheduler, now));
        assert_eq!(scheduler.poll_timeout(now), None);
        assert_eq!(scheduler.next_request(now, 0), NextRequest::Outline(0));
        assert_eq!(scheduler.next_request(now, 1), NextRequest::Wait);
        let overdue = scheduler.poll_timeout(now).expect("an outline is awaited");
        assert!(overdue > now + OUTLINE_TIMEOUT && overdue <= now + OUTLINE_TIMEOUT + Duration::from_micros(1));
        assert_eq!(scheduler.next_request(overdue, 1), NextRequest::Outline(0));
    }
}
