//! Sources that corrupt data, die, stall, refuse or are busy; interrupted downloads that are resumed.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::*;
use crate::common::peer_message::RefusalReason;
use crate::common::threads::test_limit::with_threads;

const LARGE: usize = 12 * MIB + 345;
/// It is shorter than the others.
const LAST_GROUP: u32 = 12;

fn large() -> DownloadFixture {
    DownloadFixture::new(&[("large", bytes(LARGE, 0))])
}

fn dropped(fixture: &DownloadFixture) -> Vec<String> {
    fixture.progress.dropped.lock().unwrap().iter().map(|(user, _)| user.clone()).collect()
}

#[test]
fn a_source_with_wrong_bytes_is_dropped_and_reported() {
    for behaviour in [
        PeerBehaviour::CorruptsGroup(0),
        PeerBehaviour::CorruptsGroup(3),
        PeerBehaviour::CorruptsGroup(LAST_GROUP),
        PeerBehaviour::FalseHashes,
        PeerBehaviour::OutOfOrder,
        PeerBehaviour::Repeats,
        PeerBehaviour::Unrequested,
    ] {
        let fixture = large();
        let (misbehaving, honest) = (fixture.peer("vader", behaviour), fixture.peer("hans", PeerBehaviour::Honest));
        // The misbehaving source is the only one at first, so the group that it corrupts is requested from it.
        let discovery = TestDiscovery::of(&[&misbehaving]);
        let downloader = Downloader::with_discovery(fixture.dir.path(), discovery).unwrap();
        let on_report = |report| fixture.progress.record(report);
        downloader.fetch(&fixture.wanted, &fixture.options, &fixture.progress.cancelled, &on_report);
        let outcomes = fixture.progress.take_outcomes(1);
        assert!(
            matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::HashMismatch)),
            "{behaviour:?}: {outcomes:?}"
        );
        assert_eq!(dropped(&fixture), ["vader"], "{behaviour:?}");
        assert!(!fixture.path("large").exists());
        assert_all_saved(&fixture.fetch(&[&misbehaving, &honest]));
        fixture.assert_whole();
    }
}

#[test]
fn a_gap_or_an_overlap_ends_the_connection_at_once() {
    for behaviour in [PeerBehaviour::OutOfOrder, PeerBehaviour::Repeats, PeerBehaviour::Unrequested] {
        let fixture = large();
        let misbehaving = fixture.peer("vader", behaviour);
        fixture.fetch(&[&misbehaving]);
        let dropped = fixture.progress.dropped.lock().unwrap();
        let why = &dropped[0].1;
        assert!(why.contains("broke the protocol"), "{behaviour:?}: nothing is kept of what comes too early: {why}");
    }
}

#[test]
fn a_wrong_outline_or_acknowledgement_ends_the_connection() {
    for (behaviour, violation) in [
        (PeerBehaviour::NumbersOutlineFromOne, "outline parts out of order"),
        (PeerBehaviour::EmptyOutline, "outline parts out of order"),
        (PeerBehaviour::AcknowledgesNothing, "unexpected cancel acknowledgement"),
    ] {
        let fixture = large();
        let misbehaving = fixture.peer("vader", behaviour);
        fixture.fetch(&[&misbehaving]);
        let dropped = fixture.progress.dropped.lock().unwrap();
        let (user, why) = dropped.first().unwrap_or_else(|| panic!("{behaviour:?}"));
        assert!(user == "vader" && why.ends_with(violation), "{behaviour:?}: {why}");
    }
}

#[test]
fn corrupt_small_files_are_detected() {
    let fixture = DownloadFixture::new(&[("a", bytes(10, 0)), ("b", bytes(200_000, 0))]);
    let (misbehaving, honest) =
        (fixture.peer("vader", PeerBehaviour::CorruptsGroup(0)), fixture.peer("hans", PeerBehaviour::Honest));
    let outcomes = fixture.fetch(&[&misbehaving]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, DownloadOutcome::Failed(_))), "{outcomes:?}");
    assert_eq!(files_in(fixture.dir.path()), 0);
    assert_eq!(dropped(&fixture), ["vader"]);
    assert_all_saved(&fixture.fetch(&[&misbehaving, &honest]));
    fixture.assert_whole();
}

#[test]
fn a_dying_source_is_replaced_by_the_others() {
    let fixture = large();
    let (dies, honest) =
        (fixture.peer("vader", PeerBehaviour::Dies(3_000_000)), fixture.peer("hans", PeerBehaviour::Honest));
    assert_all_saved(&fixture.fetch(&[&dies, &honest]));
    fixture.assert_whole();
    assert!(honest.requested.load(Ordering::SeqCst) > 0);
    assert!(dropped(&fixture).is_empty(), "a lost connection is not misbehaviour");
}

#[test]
fn a_stalled_source_loses_its_groups() {
    let fixture = large();
    let (stalls, honest) =
        (fixture.peer("vader", PeerBehaviour::Stalls(1_500_000)), fixture.peer("hans", PeerBehaviour::Honest));
    // When it does is decided by the scheduler, whose tests use virtual time.
    assert_all_saved(&fixture.fetch(&[&stalls, &honest]));
    fixture.assert_whole();
}

#[test]
fn a_slow_source_does_not_delay_the_end() {
    let fixture = large();
    let slow = fixture.peer("vader", PeerBehaviour::Slow(Duration::from_secs(1)));
    let honest = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&slow, &honest]));
    fixture.assert_whole();
    let received = slow.requested.load(Ordering::SeqCst);
    assert!(received <= 2, "its first groups alone would take it 32 pieces of a second: {received}");
}

#[test]
fn after_a_refusal_another_source_is_used_or_the_reason_reported() {
    for size in [1_000, LARGE] {
        let fixture = DownloadFixture::new(&[("file", bytes(size, 0))]);
        let refuses = fixture.peer("vader", PeerBehaviour::Refuses(RefusalReason::Changed));
        let outcomes = fixture.fetch(&[&refuses]);
        let DownloadOutcome::Failed(error @ DownloadError::Changed(_)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(error.to_string(), "vader: the file was changed after it was published");
        let other = fixture.peer("luke", PeerBehaviour::Refuses(RefusalReason::Unreadable));
        let outcomes = fixture.fetch(&[&refuses, &other]);
        assert!(
            matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))),
            "not all say so: {outcomes:?}"
        );
        let honest = fixture.peer("hans", PeerBehaviour::Honest);
        assert_all_saved(&fixture.fetch(&[&refuses, &honest]));
        fixture.assert_whole();
    }
}

#[test]
fn a_busy_source_is_waited_for() {
    let mut fixture = large();
    fixture.options.retry_for = Duration::from_secs(20);
    let busy = fixture.peer("vader", PeerBehaviour::Busy(3));
    assert_all_saved(&fixture.fetch(&[&busy]));
    fixture.assert_whole();
    assert_eq!(busy.dialled.load(Ordering::SeqCst), 4);
}

#[test]
fn verified_groups_are_kept_when_all_sources_die_and_resumed_later() {
    let fixture = large();
    let dies = fixture.peer("vader", PeerBehaviour::Dies(7_000_000));
    let outcomes = fixture.fetch(&[&dies]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    assert!(fixture.partial_path(0).exists() && !fixture.path("large").exists());
    let honest = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&honest]));
    fixture.assert_whole();
    let requested = honest.requested.load(Ordering::SeqCst);
    assert!(requested <= 13 - 6, "six groups were there: {requested}");
}

#[test]
fn a_source_that_appears_within_the_retry_time_is_used() {
    let mut fixture = large();
    fixture.options.retry_for = Duration::from_secs(20);
    let dies = fixture.peer("vader", PeerBehaviour::Dies(3_000_000));
    let honest = fixture.peer("hans", PeerBehaviour::Honest);
    let discovery = TestDiscovery::of(&[&dies]);
    let late = discovery.clone();
    let address = honest.address;
    std::thread::spawn(move || {
        while late.requested.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        *late.peers.lock().unwrap() = vec![(UserName::parse("hans").unwrap(), address)];
    });
    assert_all_saved(&fixture.fetch_from(discovery));
    fixture.assert_whole();
}

#[test]
fn a_damaged_partial_file_is_repaired_and_truncated() {
    let fixture = large();
    let content = bytes(LARGE, 0);
    let mut part = content.clone();
    part[5 * MIB + 7] ^= 1;
    part.extend_from_slice(b"too long");
    std::fs::write(fixture.partial_path(0), &part).unwrap();
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
    assert_eq!(peer.requested.load(Ordering::SeqCst), 1, "only the damaged group is requested");
}

#[test]
fn holes_of_a_partial_file_are_not_taken_for_content() {
    let fixture = DownloadFixture::new(&[("zeros", vec![0; 3 * MIB])]);
    let part = std::fs::File::create(fixture.partial_path(0)).unwrap();
    part.set_len(3 * MIB as u64).unwrap();
    part.write_all_at(&[1; 100], 2 * MIB as u64).unwrap();
    drop(part);
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
}

#[test]
fn an_interrupt_keeps_the_partial_file() {
    let mut fixture = large();
    fixture.progress.stop_at = Some(4 * MIB as u64);
    let peer = fixture.peer("hans", PeerBehaviour::Slow(Duration::from_millis(1)));
    let outcomes = fixture.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Interrupted)), "{outcomes:?}");
    assert!(fixture.partial_path(0).exists() && !fixture.path("large").exists());
    fixture.progress = RecordedProgress::default();
    // Another peer: the first may still be counting the requests from before the interrupt.
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    assert_all_saved(&fixture.fetch(&[&peer]));
    fixture.assert_whole();
    assert!(peer.requested.load(Ordering::SeqCst) <= 9, "four groups were there");
}

#[test]
fn an_unreachable_server_and_no_source_are_different_errors() {
    let fixture = large();
    assert!(matches!(fixture.fetch(&[])[0], DownloadOutcome::Failed(DownloadError::NotFound)));
    let discovery = TestDiscovery::of(&[]);
    *discovery.error.lock().unwrap() = Some(RequestError::Unreachable);
    assert!(matches!(
        fixture.fetch_from(discovery)[0],
        DownloadOutcome::Failed(DownloadError::Request(RequestError::Unreachable))
    ));
    assert_eq!(files_in(fixture.dir.path()), 0, "not even a folder");
}

#[test]
fn a_dead_address_is_redialled_with_backoff() {
    let mut fixture = large();
    fixture.options.retry_for = Duration::from_millis(600);
    let peer = fixture.peer("hans", PeerBehaviour::HangsUp);
    let outcomes = fixture.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    let dialled = peer.dialled.load(Ordering::SeqCst);
    assert!((2..=6).contains(&dialled), "{dialled}");
}

#[test]
fn an_address_that_does_not_reply_delays_nothing() {
    let fixture = large();
    let honest = fixture.peer("hans", PeerBehaviour::Honest);
    // The kernel accepts connections, and nothing replies on them.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let discovery = TestDiscovery::of(&[&honest]);
    discovery.peers.lock().unwrap().push((UserName::parse("vader").unwrap(), mute.local_addr().unwrap()));
    assert_all_saved(&fixture.fetch_from(discovery));
    fixture.assert_whole();
    let mut dialled = mute.accept().unwrap().0;
    dialled.set_nonblocking(true).unwrap();
    let waits = loop {
        match dialled.read(&mut [0; 1_024]) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    assert!(waits, "the dial has not timed out yet");
}

/// `mount -t tmpfs -o size=8m none DIR`, then run with `FILESHARE_TEST_SMALL_DISK=DIR` and `--ignored`.
#[test]
#[ignore = "needs an empty file system of 8 MiB, which only root can make"]
fn a_full_disk_keeps_verified_groups() {
    let small = std::env::var_os("FILESHARE_TEST_SMALL_DISK").expect("where the small disk is mounted");
    let mut fixture = large();
    fixture.dir = tempfile::tempdir_in(small).unwrap();
    let peer = fixture.peer("hans", PeerBehaviour::Honest);
    let outcomes = fixture.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::DiskFull)), "{outcomes:?}");
    assert_eq!(files_in(fixture.dir.path()), 0, "an empty partial file is not kept");
    let verified = &bytes(LARGE, 0)[..6 * MIB];
    std::fs::write(fixture.partial_path(0), verified).unwrap();
    let outcomes = fixture.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::DiskFull)), "{outcomes:?}");
    assert!(std::fs::read(fixture.partial_path(0)).unwrap().starts_with(verified));
}

/// Whichever thread is the first that the system does not give: the download fails with the reason, and ends.
#[test]
fn without_threads_a_download_fails_and_ends() {
    for size in [100, 3 * MIB] {
        let fixture = DownloadFixture::new(&[("file", bytes(size, 0))]);
        let peer = fixture.peer("hans", PeerBehaviour::Honest);
        let mut threads = 0;
        loop {
            let outcomes = with_threads(threads, || fixture.fetch(&[&peer]));
            match &outcomes[0] {
                DownloadOutcome::Saved { .. } => break,
                DownloadOutcome::Failed(error @ DownloadError::NoResources(reason)) => {
                    assert!(reason.starts_with("cannot start a thread: "), "{reason}");
                    assert_eq!(ExitCode::from(error), ExitCode::Internal);
                }
                other => panic!("{threads} threads: {other:?}"),
            }
            threads += 1;
        }
        // One each for the sources, the cancellation, the source, its dialling and its writer.
        assert!(threads >= 5, "{threads}");
        fixture.assert_whole();
    }
}
