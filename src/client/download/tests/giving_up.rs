//! When a download continues without a source, and when it is abandoned.

use super::*;

const LARGE: usize = 12 * MIB + 345;

fn alone(discovery: &TestDiscovery, files: &[(&str, &str)]) {
    *discovery.alone.lock().unwrap() =
        files.iter().map(|(file, user)| ((*file).to_owned(), (*user).to_owned())).collect();
}

#[test]
fn sources_that_reconnect_without_delivering_a_group_are_given_up() {
    let fixture = DownloadFixture::new(&[("large", bytes(LARGE, 0))]);
    let flapping = ["vader", "yoda"].map(|name| fixture.peer(name, PeerBehaviour::Flaps(300_000)));
    let outcomes = fixture.fetch(&[&flapping[0], &flapping[1]]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
}

#[test]
fn sources_that_reconnect_and_deliver_groups_are_used_to_the_end() {
    let mut fixture = DownloadFixture::new(&[("large", bytes(LARGE, 0))]);
    fixture.options.retry_for = Duration::from_secs(20);
    let flapping = ["vader", "yoda"].map(|name| fixture.peer(name, PeerBehaviour::Flaps(2 * MIB as u64)));
    assert_all_saved(&fixture.fetch(&[&flapping[0], &flapping[1]]));
    fixture.assert_whole();
}

#[test]
fn a_corrupting_source_is_blamed_for_the_corrupt_file_only() {
    let fixture = DownloadFixture::new(&[("a", bytes(10, 0)), ("b", bytes(200_000, 0)), ("c", bytes(20, 0))]);
    let outcomes = fixture.fetch(&[&fixture.peer("vader", PeerBehaviour::CorruptsGroup(0))]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::HashMismatch)), "{outcomes:?}");
    for outcome in &outcomes[1..] {
        let DownloadOutcome::Failed(error @ DownloadError::Transfer(_)) = outcome else { panic!("{outcomes:?}") };
        assert!(error.to_string().starts_with("vader was dropped: "), "{error}");
    }
}

#[test]
fn a_content_that_failed_under_one_name_is_resumed_under_the_next() {
    let fixture = DownloadFixture::new(&[("a", bytes(LARGE, 0)), ("b", bytes(LARGE, 0))]);
    let (dies, honest) =
        (fixture.peer("vader", PeerBehaviour::Dies(6 * MIB as u64)), fixture.peer("hans", PeerBehaviour::Honest));
    let discovery = TestDiscovery::of(&[&dies, &honest]);
    alone(&discovery, &[("a", "vader"), ("b", "hans")]);
    let outcomes = fixture.fetch_from(discovery);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    assert!(matches!(outcomes[1], DownloadOutcome::Saved { .. }), "{outcomes:?}");
    assert_eq!(std::fs::read(fixture.path("b")).unwrap(), bytes(LARGE, 0));
    assert!(
        honest.requested.load(Ordering::SeqCst) <= 9,
        "groups received under the first name are not requested again"
    );
    assert!(!fixture.partial_path(0).exists());
}

#[test]
fn a_source_that_gains_a_file_serves_it_over_its_open_connection() {
    let mut fixture = DownloadFixture::new(&[("small", bytes(70_000, 0)), ("large", bytes(LARGE, 0))]);
    fixture.options.retry_for = Duration::from_secs(20);
    let dies = fixture.peer("vader", PeerBehaviour::Dies(1));
    let slow = fixture.peer("hans", PeerBehaviour::Slow(Duration::from_millis(5)));
    let discovery = TestDiscovery::of(&[&dies, &slow]);
    alone(&discovery, &[("small", "vader"), ("large", "hans")]);
    let late = discovery.clone();
    std::thread::spawn(move || {
        while late.requested.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        alone(&late, &[("large", "hans")]);
    });
    assert_all_saved(&fixture.fetch_from(discovery));
    assert_eq!(slow.dialled.load(Ordering::SeqCst), 1);
    fixture.assert_whole();
}

#[test]
fn waiting_for_an_upload_slot_is_reported_once() {
    let fixture = DownloadFixture::new(&[("large", bytes(LARGE, 0))]);
    let busy = fixture.peer("vader", PeerBehaviour::Busy(3));
    assert_all_saved(&fixture.fetch(&[&busy]));
    assert_eq!(*fixture.progress.waiting.lock().unwrap(), ["vader"]);
}
