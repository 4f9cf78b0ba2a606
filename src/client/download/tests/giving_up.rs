//! When a download goes on without a source, and when it gives up.

use super::*;

const LARGE: usize = 12 * MIB + 345;

fn alone(listing: &Listing, files: &[(&str, &str)]) {
    *listing.alone.lock().unwrap() =
        files.iter().map(|(file, user)| ((*file).to_owned(), (*user).to_owned())).collect();
}

#[test]
fn sources_that_come_and_go_without_a_whole_group_are_given_up() {
    let scene = Scene::new(&[("large", bytes(LARGE, 0))]);
    let flapping = ["vader", "yoda"].map(|name| scene.peer(name, PeerBehaviour::Flaps(300_000)));
    let outcomes = scene.fetch(&[&flapping[0], &flapping[1]]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
}

#[test]
fn sources_that_come_and_go_but_bring_something_are_used_to_the_end() {
    let mut scene = Scene::new(&[("large", bytes(LARGE, 0))]);
    scene.options.retry_for = Duration::from_secs(20);
    let flapping = ["vader", "yoda"].map(|name| scene.peer(name, PeerBehaviour::Flaps(2 * MIB as u64)));
    assert_all_done(&scene.fetch(&[&flapping[0], &flapping[1]]));
    scene.assert_whole();
}

#[test]
fn a_liar_is_blamed_for_the_file_it_spoiled_and_not_for_the_others() {
    let scene = Scene::new(&[("a", bytes(10, 0)), ("b", bytes(200_000, 0)), ("c", bytes(20, 0))]);
    let outcomes = scene.fetch(&[&scene.peer("vader", PeerBehaviour::Lies(0))]);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::HashMismatch)), "{outcomes:?}");
    for outcome in &outcomes[1..] {
        let DownloadOutcome::Failed(error @ DownloadError::Transfer(_)) = outcome else { panic!("{outcomes:?}") };
        assert!(error.to_string().starts_with("vader was dropped: "), "{error}");
    }
}

#[test]
fn a_content_that_failed_under_one_name_goes_on_under_the_next() {
    let scene = Scene::new(&[("a", bytes(LARGE, 0)), ("b", bytes(LARGE, 0))]);
    let (dies, honest) =
        (scene.peer("vader", PeerBehaviour::Dies(6 * MIB as u64)), scene.peer("hans", PeerBehaviour::Honest));
    let listing = Listing::of(&[&dies, &honest]);
    alone(&listing, &[("a", "vader"), ("b", "hans")]);
    let outcomes = scene.fetch_from(listing);
    assert!(matches!(outcomes[0], DownloadOutcome::Failed(DownloadError::Transfer(_))), "{outcomes:?}");
    assert!(matches!(outcomes[1], DownloadOutcome::Saved { .. }), "{outcomes:?}");
    assert_eq!(std::fs::read(scene.path("b")).unwrap(), bytes(LARGE, 0));
    assert!(honest.asked.load(Ordering::SeqCst) <= 9, "what came under the first name is not fetched again");
    assert!(!scene.part(0).exists());
}

#[test]
fn a_source_that_gains_a_file_is_asked_for_it_on_its_open_connection() {
    let mut scene = Scene::new(&[("small", bytes(70_000, 0)), ("large", bytes(LARGE, 0))]);
    scene.options.retry_for = Duration::from_secs(20);
    let dies = scene.peer("vader", PeerBehaviour::Dies(1));
    let slow = scene.peer("hans", PeerBehaviour::Slow(Duration::from_millis(5)));
    let listing = Listing::of(&[&dies, &slow]);
    alone(&listing, &[("small", "vader"), ("large", "hans")]);
    let late = listing.clone();
    std::thread::spawn(move || {
        while late.asked.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        alone(&late, &[("large", "hans")]);
    });
    assert_all_done(&scene.fetch_from(listing));
    assert_eq!(slow.dialled.load(Ordering::SeqCst), 1);
    scene.assert_whole();
}

#[test]
fn a_user_who_waits_for_a_slot_is_told_once() {
    let scene = Scene::new(&[("large", bytes(LARGE, 0))]);
    let busy = scene.peer("vader", PeerBehaviour::Busy(3));
    assert_all_done(&scene.fetch(&[&busy]));
    assert_eq!(*scene.progress.waiting.lock().unwrap(), ["vader"]);
}
