//! Sources that stop, are lost, or have nothing to give.

use super::*;
use crate::client::download::discovery::OFFER_LIFETIME;

fn lost() -> SourceEvent {
    SourceEvent::Ended(SourceEnd::Lost("the connection was closed".to_owned()))
}

/// The users that the query for sources names as those that brought nothing.
fn avoided(effects: &[Effect]) -> &[UserName] {
    let Some(Effect::FindSources { avoid, .. }) = effects.last() else { panic!("no query") };
    avoid
}

#[test]
fn a_source_that_is_stopping_is_granted_nothing_and_dialled_again_once_it_has_ended() {
    let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.first_found(&[("hans", &[0]), ("vader", &[1])]);
    let completed = requested(&fixture.source(0, SourceEvent::Connected(vec![0])), 0);
    fixture.source(0, SourceEvent::Received { bytes: 100, completed });
    let stored = SourceEvent::Stored(vec![StoreResult::SmallFile(0, saved(&jobs[0]))]);
    assert_eq!(kinds(&fixture.source(0, stored)), ["received 100 of 0", "finished 0", "stop 0"]);
    assert_eq!(kinds(&fixture.source(1, lost())), ["find sources of [1]"]);
    let requested_at = fixture.now;
    assert!(kinds(&fixture.found(requested_at, &[("hans", &[1])])).is_empty());
    assert_eq!(dialled(&fixture.source(0, SourceEvent::Ended(SourceEnd::Done))), ["hans"]);
}

#[test]
fn a_source_that_delivers_is_dialled_again_soon_however_often_it_is_lost() {
    let (jobs, mut history) = (jobs(&[12 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let mut owed = requested(&fixture.connect_and_open(), 0);
    for _ in 0..5 {
        fixture.deliver(0, &owed[..1]);
        let effects = fixture.source(0, lost());
        assert_eq!(kinds(&effects), ["find sources of [0]"], "at once, and it is not abandoned");
        assert!(avoided(&effects).is_empty(), "it has helped");
        let (lost_at, requested_at) = (fixture.now, fixture.now);
        let mut effects = fixture.found(requested_at, &[("hans", &[0])]);
        while dialled(&effects).is_empty() {
            effects = fixture.wait();
        }
        assert_eq!(fixture.now - lost_at, Duration::from_millis(100));
        owed = requested(&fixture.source(0, SourceEvent::Connected(vec![0])), 0);
    }
}

#[test]
fn a_source_that_connects_and_delivers_nothing_does_not_keep_a_download_waiting_for_ever() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.connect_and_open();
    let effects = fixture.source(0, lost());
    let dials = run_to_the_end(&mut fixture, effects, |fixture| {
        fixture.source(0, SourceEvent::Connected(vec![0]));
        // It is connected for longer than files without a source are waited for.
        fixture.now += Duration::from_secs(11);
        fixture.source(0, lost())
    });
    assert_eq!(1 + dials, 4, "the first three might have delivered something");
    assert_eq!(fixture.failure(0), "hans: the connection was closed");
}

/// The server knows hans alone whenever it is asked, and `on_dial` says what becomes of each dial. Returns the number of dials.
fn run_to_the_end(
    fixture: &mut Fixture<'_>,
    mut effects: Vec<Effect>,
    on_dial: impl Fn(&mut Fixture<'_>) -> Vec<Effect>,
) -> usize {
    let mut dials = 0;
    while !fixture.coordinator.is_finished() {
        if let Some(requested_at) = queried(&effects, fixture.now) {
            effects = fixture.found(requested_at, &[("hans", &[0])]);
        } else if dialled(&effects).is_empty() {
            effects = fixture.wait();
        } else {
            dials += 1;
            effects = on_dial(fixture);
        }
    }
    dials
}

/// When the server was asked for sources, if that is among the effects.
fn queried(effects: &[Effect], now: Instant) -> Option<Instant> {
    effects.iter().any(|effect| matches!(effect, Effect::FindSources { .. })).then_some(now)
}

#[test]
fn an_unreachable_source_is_dialled_until_the_retry_time_is_over() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let begun = fixture.now;
    let effects = fixture.first_found(&[("hans", &[0])]);
    let dials = run_to_the_end(&mut fixture, effects, |fixture| fixture.source(0, lost()));
    assert!(dials > 3, "{dials} dials");
    assert_eq!(fixture.now - begun, Duration::from_secs(10));
}

#[test]
fn a_file_of_which_nobody_has_the_rest_is_abandoned_while_its_source_is_connected() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let owed = requested(&fixture.connect_and_open(), 0);
    fixture.deliver(0, &owed[..1]);
    let begun = fixture.now;
    let mut effects = fixture.source(0, SourceEvent::NotAvailable(0, owed[1..].to_vec()));
    while !fixture.coordinator.is_finished() {
        effects = match queried(&effects, fixture.now) {
            Some(requested_at) => fixture.found(requested_at, &[("hans", &[0])]),
            None => fixture.wait(),
        };
        assert!(fixture.now - begun <= Duration::from_secs(10), "{:?}", kinds(&effects));
    }
    assert_eq!(fixture.now - begun, Duration::from_secs(10));
}

#[test]
fn a_source_is_kept_until_its_tickets_are_answered() {
    for is_granted in [true, false] {
        let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
        let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
        fixture.first_found(&[("hans", &[0]), ("vader", &[1])]);
        let completed = requested(&fixture.source(0, SourceEvent::Connected(vec![0])), 0);
        assert_eq!(kinds(&fixture.source(1, lost())), ["find sources of [1]"]);
        let requested_at = fixture.now;
        assert_eq!(kinds(&fixture.found(requested_at, &[("hans", &[1])])), ["grant to 0"]);
        fixture.source(0, SourceEvent::Received { bytes: 100, completed });
        let stored = SourceEvent::Stored(vec![StoreResult::SmallFile(0, saved(&jobs[0]))]);
        assert_eq!(kinds(&fixture.source(0, stored)), ["received 100 of 0", "finished 0"]);
        let (answer, effects) = match is_granted {
            true => (SourceEvent::Granted(vec![1]), &["1 groups from 0"][..]),
            false => (SourceEvent::GrantRefused(vec![1]), &["stop 0"][..]),
        };
        assert_eq!(kinds(&fixture.source(0, answer))[..1], *effects);
        if is_granted {
            let stored = StoreResult::SmallFile(1, saved(&jobs[1]));
            fixture.source(0, SourceEvent::Stored(vec![stored]));
            assert!(fixture.coordinator.is_finished());
        }
    }
}

#[test]
fn a_user_who_cannot_serve_a_file_is_reported_only_if_the_file_has_changed_and_once() {
    let (jobs, mut history) = (jobs(&[2 * MIB, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.first_found(&[("hans", &[0, 1]), ("vader", &[0, 1])]);
    fixture.source(0, SourceEvent::Connected(vec![0, 1]));
    let refused = |file, reason| SourceEvent::Refused(file, reason);
    assert_eq!(kinds(&fixture.source(0, refused(0, RefusalReason::Changed))), ["dropped hans for 0"]);
    assert!(!kinds(&fixture.source(0, refused(0, RefusalReason::Changed))).contains(&"dropped hans for 0".to_owned()));
    let effects = kinds(&fixture.source(0, refused(1, RefusalReason::NotShared)));
    assert!(!effects.iter().any(|effect| effect.starts_with("dropped")), "{effects:?}");
}

#[test]
fn what_an_earlier_download_has_left_is_counted() {
    let (jobs, mut history) = (jobs(&[3 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0])]);
    fixture.source(0, SourceEvent::Connected(vec![0]));
    let outline = fixture.outline(0);
    fixture.source(0, SourceEvent::Outline(0, outline));
    let opened = OpenedFile { incomplete: fixture.incomplete(0), candidates: vec![0, 1, 2], start_group: 0 };
    fixture.file(0, FileEvent::Opened(opened));
    for (group, bytes) in [(0, MIB), (1, 2 * MIB)] {
        let effects = kinds(&fixture.file(0, FileEvent::GroupPresent(group)));
        assert_eq!(effects[..2], [format!("resumed {bytes} of 0"), format!("received {bytes} of 0")]);
    }
}

#[test]
fn an_outdated_error_of_the_server_ends_nothing() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let (requested_at, offers) = (fixture.now, Err(RequestError::Unreachable));
    fixture.now += Duration::from_secs(2);
    let found = SourcesFound { requested_at, received_at: requested_at, files: vec![0], offers };
    assert_eq!(kinds(&fixture.feed(DownloadEvent::SourcesFound(found))), ["find sources of [0]"]);
}

#[test]
fn a_source_is_not_dialled_for_what_has_arrived_since() {
    let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let offers: [(&str, &[FileId]); 3] = [("hugo", &[0]), ("hans", &[0]), ("vader", &[1])];
    assert_eq!(dialled(&fixture.first_found(&offers)), ["hugo", "vader"], "one at an address");
    fixture.source(0, SourceEvent::Connected(vec![0]));
    let stored = SourceEvent::Stored(vec![StoreResult::SmallFile(0, saved(&jobs[0]))]);
    assert!(dialled(&fixture.source(0, stored)).is_empty());
    assert!(kinds(&fixture.source(0, SourceEvent::Ended(SourceEnd::Done))).is_empty());
}

#[test]
fn ten_sources_are_dialled_at_once_and_further_ones_once_these_end() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let users = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let offers = users.map(|user| (user, &[0][..]));
    assert_eq!(dialled(&fixture.first_found(&offers)), users[..10]);
    assert_eq!(dialled(&fixture.source(3, lost())), ["k"]);
    // An offer that is too old is not used: its ticket may have expired.
    fixture.now += OFFER_LIFETIME + Duration::from_secs(1);
    assert!(dialled(&fixture.source(4, lost())).is_empty());
}

#[test]
fn more_sources_of_a_large_file_are_asked_for_each_second() {
    let (jobs, mut history) = (jobs(&[12 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    let mut last = fixture.now;
    fixture.connect_and_open();
    let offers = ["hans", "a", "b", "c", "d", "e", "f", "g"].map(|user| (user, &[0][..]));
    for known in [1, 2, 3, 8] {
        assert_eq!(kinds(&fixture.wait()), ["find sources of [0]"]);
        assert_eq!(fixture.now - last, Duration::from_secs(1));
        last = fixture.now;
        fixture.found(last, &offers[..known]);
        assert_eq!(fixture.coordinator.sources.len(), known);
    }
    assert_eq!(fixture.coordinator.next_query_at(), None, "eight are enough");
    fixture.now += Duration::from_secs(5);
    assert!(kinds(&fixture.advance()).is_empty());
}

#[test]
fn who_ends_a_connection_for_want_of_descriptors_here_is_not_to_blame() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.first_found(&[("hans", &[0])]);
    let end = SourceEnd::NoResources("no descriptor is left".to_owned());
    let effects = fixture.source(0, SourceEvent::Ended(end));
    assert_eq!(kinds(&effects), ["find sources of [0]"]);
    assert!(avoided(&effects).is_empty());
}

#[test]
fn a_busy_source_is_waited_for_longer_than_it_asks_for() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0])]);
    fixture.source(0, SourceEvent::Ended(SourceEnd::Busy { retry_ms: 500 }));
    fixture.now += Duration::from_millis(1_400);
    fixture.advance();
    assert!(!fixture.coordinator.is_finished());
}

#[test]
fn a_file_fails_for_its_hash_only_if_that_file_was_wrong() {
    let (jobs, mut history) = (jobs(&[2 * MIB, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0, 1])]);
    fixture.source(0, SourceEvent::Connected(vec![0, 1]));
    let reason = "it sent something else".to_owned();
    fixture.source(0, SourceEvent::Ended(SourceEnd::Misbehaved { file: 0, reason }));
    assert!(fixture.coordinator.is_finished());
    assert_eq!(fixture.failure(0), "what the sources sent does not match the published hash");
    assert_eq!(fixture.failure(1), "hans was dropped: it sent something else (file0)");
}

#[test]
fn a_busy_source_is_waited_for_although_those_that_the_server_names_cannot_help() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0]), ("vader", &[0])]);
    fixture.source(0, SourceEvent::Ended(SourceEnd::Busy { retry_ms: 500 }));
    fixture.source(1, SourceEvent::Connected(vec![0]));
    fixture.source(1, SourceEvent::Refused(0, RefusalReason::Unreadable));
    let requested_at = fixture.now;
    fixture.found(requested_at, &[("vader", &[0])]);
    assert!(!fixture.coordinator.is_finished());
}

#[test]
fn a_source_that_was_busy_is_queried_again_although_the_others_have_misbehaved_meanwhile() {
    let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(5));
    fixture.first_found(&[("hans", &[1]), ("vader", &[0, 1])]);
    fixture.source(0, SourceEvent::Ended(SourceEnd::Busy { retry_ms: 0 }));
    fixture.source(1, SourceEvent::Connected(vec![0, 1]));
    fixture.source(1, SourceEvent::Stored(vec![StoreResult::SmallFile(0, saved(&jobs[0]))]));
    fixture.now += Duration::from_secs(3);
    let reason = "it sent something else".to_owned();
    let effects = fixture.source(1, SourceEvent::Ended(SourceEnd::Misbehaved { file: 1, reason }));
    assert_eq!(avoided(&effects).len(), 1, "hans, so that the server leaves him out");
    let requested_at = fixture.now;
    fixture.found(requested_at, &[("vader", &[1])]);
    assert!(!fixture.coordinator.is_finished());
}
