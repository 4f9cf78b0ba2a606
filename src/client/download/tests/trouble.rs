//! Sources that lie, die, stall, refuse or are busy; interrupted downloads taken up again.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use super::*;
use crate::common::peer_message::RefusalReason;

const LARGE: usize = 12 * MIB + 345;

fn large() -> Scene {
    Scene::new(&[("large", bytes(LARGE, 0))])
}

fn dropped(scene: &Scene) -> Vec<String> {
    scene.progress.dropped.lock().unwrap().iter().map(|(user, _)| user.clone()).collect()
}

#[test]
fn a_source_with_wrong_bytes_is_dropped_and_named() {
    for behaviour in [
        PeerBehaviour::Lies(3),
        PeerBehaviour::FalseOutline,
        PeerBehaviour::OutOfOrder,
        PeerBehaviour::Repeats,
        PeerBehaviour::Unrequested,
    ] {
        let scene = large();
        let (liar, honest) = (scene.peer("vader", behaviour), scene.peer("hans", PeerBehaviour::Honest));
        // The liar is alone at first, so it is certainly asked for the group it spoils.
        let listing = Listing::of(&[&liar]);
        let downloader = Downloader::with_discovery(scene.dir.path(), listing).unwrap();
        let outcomes = downloader.fetch(&scene.wanted, &scene.options, &scene.progress.cancelled, &scene.progress);
        assert!(
            matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::HashMismatch)),
            "{behaviour:?}: {outcomes:?}"
        );
        assert_eq!(dropped(&scene), ["vader"], "{behaviour:?}");
        assert!(!scene.path("large").exists());
        assert_all_done(&scene.fetch(&[&liar, &honest]));
        scene.assert_whole();
    }
}

#[test]
fn a_gap_or_an_overlap_ends_the_connection_at_once() {
    for behaviour in [PeerBehaviour::OutOfOrder, PeerBehaviour::Repeats, PeerBehaviour::Unrequested] {
        let scene = large();
        let liar = scene.peer("vader", behaviour);
        scene.fetch(&[&liar]);
        let dropped = scene.progress.dropped.lock().unwrap();
        let why = &dropped[0].1;
        assert!(why.contains("broke the protocol"), "{behaviour:?}: nothing is kept of what comes too early: {why}");
    }
}

#[test]
fn wrong_small_files_are_noticed() {
    let scene = Scene::new(&[("a", bytes(10, 0)), ("b", bytes(200_000, 0))]);
    let (liar, honest) = (scene.peer("vader", PeerBehaviour::Lies(0)), scene.peer("hans", PeerBehaviour::Honest));
    let outcomes = scene.fetch(&[&liar]);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, DownloadOutcome::Failed(_))), "{outcomes:?}");
    assert_eq!(files_in(scene.dir.path()), 0);
    assert_eq!(dropped(&scene), ["vader"]);
    assert_all_done(&scene.fetch(&[&liar, &honest]));
    scene.assert_whole();
}

#[test]
fn a_dying_source_is_replaced_by_the_others() {
    let scene = large();
    let (dies, honest) =
        (scene.peer("vader", PeerBehaviour::Dies(3_000_000)), scene.peer("hans", PeerBehaviour::Honest));
    assert_all_done(&scene.fetch(&[&dies, &honest]));
    scene.assert_whole();
    let asked = dies.asked.load(Ordering::SeqCst) + honest.asked.load(Ordering::SeqCst);
    assert!(asked <= 13 + 2, "at most one group begun is asked for again, and a tail: {asked}");
    assert!(dropped(&scene).is_empty(), "to die is no lie");
}

#[test]
fn a_stalled_source_is_relieved() {
    let scene = large();
    let (stalls, honest) =
        (scene.peer("vader", PeerBehaviour::Stalls(1_500_000)), scene.peer("hans", PeerBehaviour::Honest));
    // How soon is decided by the plan, whose tests have a clock of their own.
    assert_all_done(&scene.fetch(&[&stalls, &honest]));
    scene.assert_whole();
}

#[test]
fn a_slow_source_does_not_hold_up_the_end() {
    let scene = large();
    let slow = scene.peer("vader", PeerBehaviour::Slow(Duration::from_millis(300)));
    let honest = scene.peer("hans", PeerBehaviour::Honest);
    assert_all_done(&scene.fetch(&[&slow, &honest]));
    scene.assert_whole();
    let received = slow.asked.load(Ordering::SeqCst);
    assert!(received <= 2, "its first groups alone would take it 32 pieces of 300 ms: {received}");
}

#[test]
fn a_refusal_sends_us_elsewhere_or_gives_the_reason() {
    for size in [1_000, LARGE] {
        let scene = Scene::new(&[("file", bytes(size, 0))]);
        let refuses = scene.peer("vader", PeerBehaviour::Refuses(RefusalReason::Changed));
        let outcomes = scene.fetch(&[&refuses]);
        let DownloadOutcome::Failed(error @ DownloadError::Transfer(_)) = &outcomes[0] else { panic!("{outcomes:?}") };
        assert_eq!(error.to_string(), "vader: the file was changed after it was published");
        let honest = scene.peer("hans", PeerBehaviour::Honest);
        assert_all_done(&scene.fetch(&[&refuses, &honest]));
        scene.assert_whole();
    }
}

#[test]
fn a_busy_source_is_waited_for() {
    let mut scene = large();
    scene.options.retry_for = Duration::from_secs(20);
    let busy = scene.peer("vader", PeerBehaviour::Busy(3));
    assert_all_done(&scene.fetch(&[&busy]));
    scene.assert_whole();
    assert_eq!(busy.dialled.load(Ordering::SeqCst), 4);
}

#[test]
fn what_is_verified_is_kept_when_all_sources_die_and_resumed_later() {
    let scene = large();
    let dies = scene.peer("vader", PeerBehaviour::Dies(7_000_000));
    let outcomes = scene.fetch(&[&dies]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    assert!(scene.part(0).exists() && !scene.path("large").exists());
    let honest = scene.peer("hans", PeerBehaviour::Honest);
    assert_all_done(&scene.fetch(&[&honest]));
    scene.assert_whole();
    let asked = honest.asked.load(Ordering::SeqCst);
    assert!(asked <= 13 - 6, "six groups were there: {asked}");
}

#[test]
fn a_source_that_returns_within_the_time_is_used_without_asking_the_user() {
    let mut scene = large();
    scene.options.retry_for = Duration::from_secs(20);
    let dies = scene.peer("vader", PeerBehaviour::Dies(3_000_000));
    let honest = scene.peer("hans", PeerBehaviour::Honest);
    let listing = Listing::of(&[&dies]);
    let late = listing.clone();
    let address = honest.address;
    std::thread::spawn(move || {
        while late.asked.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        *late.peers.lock().unwrap() = vec![(UserName::parse("hans").unwrap(), address)];
    });
    assert_all_done(&scene.fetch_from(listing));
    scene.assert_whole();
}

#[test]
fn a_damaged_part_is_repaired_and_an_overlong_one_cut() {
    let scene = large();
    let content = bytes(LARGE, 0);
    let mut part = content.clone();
    part[5 * MIB + 7] ^= 1;
    part.extend_from_slice(b"too long");
    std::fs::write(scene.part(0), &part).unwrap();
    let peer = scene.peer("hans", PeerBehaviour::Honest);
    assert_all_done(&scene.fetch(&[&peer]));
    scene.assert_whole();
    assert_eq!(peer.asked.load(Ordering::SeqCst), 1, "only the damaged group is fetched");
}

#[test]
fn holes_of_a_part_are_not_taken_for_content() {
    let scene = Scene::new(&[("zeros", vec![0; 3 * MIB])]);
    let part = std::fs::File::create(scene.part(0)).unwrap();
    part.set_len(3 * MIB as u64).unwrap();
    part.write_all_at(&[1; 100], 2 * MIB as u64).unwrap();
    drop(part);
    let peer = scene.peer("hans", PeerBehaviour::Honest);
    assert_all_done(&scene.fetch(&[&peer]));
    scene.assert_whole();
}

#[test]
fn an_interrupt_keeps_the_part() {
    let mut scene = large();
    scene.progress.stop_at = Some(4 * MIB as u64);
    let peer = scene.peer("hans", PeerBehaviour::Slow(Duration::from_millis(1)));
    let outcomes = scene.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Interrupted)), "{outcomes:?}");
    assert!(scene.part(0).exists() && !scene.path("large").exists());
    scene.progress = RecordedProgress::default();
    // Another peer: the first may still be counting what it was asked for before the interrupt.
    let peer = scene.peer("hans", PeerBehaviour::Honest);
    assert_all_done(&scene.fetch(&[&peer]));
    scene.assert_whole();
    assert!(peer.asked.load(Ordering::SeqCst) <= 9, "four groups were there");
}

#[test]
fn nobody_to_ask_and_nobody_listed_are_told_apart() {
    let scene = large();
    assert!(matches!(scene.fetch(&[])[0], DownloadOutcome::Failed(DownloadError::NotFound)));
    let listing = Listing::of(&[]);
    *listing.error.lock().unwrap() = Some(RequestError::Unreachable);
    assert!(matches!(
        scene.fetch_from(listing)[0],
        DownloadOutcome::Failed(DownloadError::Request(RequestError::Unreachable))
    ));
    assert_eq!(files_in(scene.dir.path()), 0, "not even a folder");
}

#[test]
fn a_dead_address_is_not_hammered() {
    let mut scene = large();
    scene.options.retry_for = Duration::from_millis(600);
    let peer = scene.peer("hans", PeerBehaviour::HangsUp);
    let outcomes = scene.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    let dialled = peer.dialled.load(Ordering::SeqCst);
    assert!((2..=6).contains(&dialled), "{dialled}");
}

#[test]
fn nobody_waits_for_an_address_that_does_not_answer() {
    let scene = large();
    let honest = scene.peer("hans", PeerBehaviour::Honest);
    // Connections are taken by the kernel, and nobody ever answers them.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listing = Listing::of(&[&honest]);
    listing.peers.lock().unwrap().push((UserName::parse("vader").unwrap(), mute.local_addr().unwrap()));
    assert_all_done(&scene.fetch_from(listing));
    scene.assert_whole();
    let mut dialled = mute.accept().unwrap().0;
    dialled.set_nonblocking(true).unwrap();
    let waits = loop {
        match dialled.read(&mut [0; 1_024]) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    assert!(waits, "the dial has not even given up yet");
}

/// `mount -t tmpfs -o size=8m none DIR`, then run with `FILESHARE_TEST_SMALL_DISK=DIR` and `--ignored`.
#[test]
#[ignore = "needs an empty file system of 8 MiB, which only root can make"]
fn a_full_disk_keeps_what_is_verified() {
    let small = std::env::var_os("FILESHARE_TEST_SMALL_DISK").expect("where the small disk is mounted");
    let mut scene = large();
    scene.dir = tempfile::tempdir_in(small).unwrap();
    let peer = scene.peer("hans", PeerBehaviour::Honest);
    let outcomes = scene.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::DiskFull)), "{outcomes:?}");
    assert_eq!(files_in(scene.dir.path()), 0, "an empty part is not kept");
    let verified = &bytes(LARGE, 0)[..6 * MIB];
    std::fs::write(scene.part(0), verified).unwrap();
    let outcomes = scene.fetch(&[&peer]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::DiskFull)), "{outcomes:?}");
    assert!(std::fs::read(scene.part(0)).unwrap().starts_with(verified));
}
