//! Sources that claim what is not theirs, or promise what they do not send.

use super::*;
use crate::common::limits::{AVOIDED_MAX_BYTES, AVOIDED_MAX_USERS};
use crate::common::message::encoded_len;

#[test]
fn another_user_who_claims_the_address_of_a_source_does_not_keep_it_away() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    // "hugo" reports the port of "hans".
    assert_eq!(port("hugo"), port("hans"));
    let offers: [(&str, &[FileId]); 2] = [("hugo", &[0]), ("hans", &[0])];
    assert_eq!(dialled(&fixture.first_found(&offers)), ["hugo"], "an address is dialled once at a time");
    let rejected = || SourceEvent::Ended(SourceEnd::Lost("the connection was closed".to_owned()));
    assert!(kinds(&fixture.source(0, rejected())).is_empty(), "a source is left, so the file is not abandoned");
    assert_eq!(dialled(&fixture.wait()), ["hans"]);
    assert_eq!(kinds(&fixture.source(0, SourceEvent::Connected(vec![0]))), ["outline of 0 from 0"]);
    let outline = fixture.outline(0);
    fixture.source(0, SourceEvent::Outline(0, outline));
    let owed = requested(&fixture.open(), 0);
    fixture.deliver(0, &owed[..1]);
    // The connection is lost; the user who has failed comes last now.
    let effects = fixture.source(0, rejected());
    assert_eq!(kinds(&effects), ["find sources of [0]"]);
    let Some(Effect::FindSources { avoid, .. }) = effects.first() else { panic!("a query") };
    assert_eq!(*avoid, [UserName::parse("hugo").unwrap()], "who brought nothing is named to the server");
    let requested_at = fixture.now;
    fixture.found(requested_at, &offers);
    assert_eq!(dialled(&fixture.wait()), ["hans"]);
}

#[test]
fn many_users_who_claim_one_address_delay_its_source_by_a_moment_each() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    let users = ["h1", "h2", "h3", "h4", "h5", "h6", "h7", "hans"];
    let offers = users.map(|user| (user, &[0][..]));
    let mut effects = fixture.first_found(&offers);
    let begun = fixture.now;
    for user in &users[..7] {
        assert_eq!(dialled(&effects), [*user]);
        fixture.source(0, SourceEvent::Ended(SourceEnd::Lost("the connection was closed".to_owned())));
        effects = fixture.wait();
    }
    assert_eq!(dialled(&effects), ["hans"]);
    assert_eq!(fixture.now - begun, Duration::from_millis(7 * 200));
}

#[test]
fn a_source_that_never_sends_the_groups_it_reports_is_passed_over() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let mut owed = requested(&fixture.connect_and_open(), 0);
    let mut rounds = 0;
    while !kinds(&fixture.source(0, SourceEvent::NotAvailable(0, owed))).contains(&"dropped hans for 0".to_owned()) {
        rounds += 1;
        assert!(rounds < 100, "the download would wait for it for ever");
        owed = requested(&fixture.source(0, SourceEvent::Availability(0, None)), 0);
    }
    assert_eq!(rounds, BROKEN_PROMISES_MAX + 1);
    let requested_at = fixture.now;
    assert_eq!(kinds(&fixture.found(requested_at, &[("hans", &[0])])), ["close", "finished 0"]);
    assert_eq!(fixture.failure(0), "hans: it does not send what it says that it has");
}

#[test]
fn a_source_that_hashes_its_file_for_long_is_reported_once() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.connect_and_open();
    assert_eq!(kinds(&fixture.source(0, SourceEvent::Hashing)), ["waiting for hans: Hashing"]);
    assert!(kinds(&fixture.source(0, SourceEvent::Hashing)).is_empty());
}

#[test]
fn a_busy_user_is_avoided_for_a_few_queries_and_one_that_brought_nothing_until_it_helps() {
    let mut history = PeerHistory::default();
    let users = ["hans", "vader"].map(|user| UserName::parse(user).unwrap());
    history.record_no_help(&users[0], false);
    history.record_no_help(&users[1], true);
    let named: Vec<usize> = (0..5).map(|_| history.avoided().len()).collect();
    assert_eq!(named, [2, 2, 2, 1, 1]);
    history.record_help(&users[0]);
    assert!(history.avoided().is_empty());
    for at in 0..100 {
        history.record_no_help(&UserName::parse(&format!("{at:064}")).unwrap(), false);
    }
    let avoided = history.avoided();
    assert!(encoded_len(&avoided) <= AVOIDED_MAX_BYTES && avoided.len() <= AVOIDED_MAX_USERS);
    assert_eq!(avoided[0].as_str(), format!("{:064}", 99), "the last ones");
}

#[test]
fn another_user_at_the_address_of_a_busy_source_does_not_shorten_its_wait() {
    let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    assert_eq!(dialled(&fixture.first_found(&[("hans", &[0]), ("hugo", &[1])])), ["hans"]);
    assert_eq!(dialled(&fixture.source(0, SourceEvent::Connected(vec![0]))), ["hugo"]);
    fixture.source(0, SourceEvent::Ended(SourceEnd::Busy { retry_ms: 5_000 }));
    fixture.source(1, SourceEvent::Ended(SourceEnd::Lost("the connection was closed".to_owned())));
    let (busy_at, requested_at) = (fixture.now, fixture.now);
    let mut effects = fixture.found(requested_at, &[("hans", &[0])]);
    while dialled(&effects).is_empty() {
        effects = fixture.wait();
    }
    assert_eq!(fixture.now - busy_at, Duration::from_secs(5));
}

#[test]
fn offers_replace_those_for_the_same_files_that_are_not_used_yet() {
    let (jobs, mut history) = (jobs(&[100, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let offers: [(&str, &[FileId]); 2] = [("hans", &[0]), ("vader", &[1])];
    assert_eq!(dialled(&fixture.first_found(&offers)), ["hans", "vader"]);
    let lost = || SourceEvent::Ended(SourceEnd::Lost("the connection was refused".to_owned()));
    fixture.source(0, lost());
    fixture.source(1, lost());
    let asked_at = fixture.now;
    assert!(dialled(&fixture.found(asked_at, &offers)).is_empty(), "both addresses have to wait");
    assert_eq!(kinds(&fixture.wait()), ["find sources of [0, 1]"]);
    // The server names another source of file 0, and the offer for file 1 stays.
    assert_eq!(dialled(&fixture.found_of(vec![0], fixture.now, &[("luke", &[0])])), ["luke"]);
    fixture.now = asked_at + Duration::from_millis(200);
    assert_eq!(dialled(&fixture.advance()), ["vader"]);
}

#[test]
fn the_wait_of_an_address_grows_with_each_failure_but_the_first_of_each_of_a_few_users() {
    let (now, address) = (Instant::now(), ([127, 0, 0, 1], 1_000).into());
    let mut history = PeerHistory::default();
    let peer = |user: &str| PeerAddress { user: UserName::parse(user).unwrap(), address };
    let mut wait_after = |user: &str| {
        let dial = history.address(now, address);
        dial.record_failure(&peer(user).user);
        dial.backoff.wait().as_millis()
    };
    assert_eq!(["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"].map(&mut wait_after), [200; 8]);
    assert_eq!(["u9", "u1", "u9"].map(&mut wait_after), [400, 800, 1_600]);
    let turns = |history: &PeerHistory| ["u2", "u3", "u8", "u1", "u9"].map(|user| history.turn(&peer(user)));
    assert_eq!(turns(&history), [0, 1, 6, 7, 8], "the latest of a few come last");
    let dial = history.address(now, address);
    dial.record_success(&peer("u1").user);
    assert_eq!(dial.backoff.wait().as_millis(), 100);
    assert_eq!(turns(&history), [0, 1, 6, 0, 7]);
}

/// A user who is never dialled would count as a source that may still help, and the download would not end.
#[test]
fn users_at_one_address_are_dialled_in_turn() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(60));
    let offers: [(&str, &[FileId]); 2] = [("hans", &[0]), ("hugo", &[0])];
    let mut effects = fixture.first_found(&offers);
    let mut users = Vec::new();
    while users.len() < 6 {
        if let [user] = dialled(&effects)[..] {
            users.push(user.to_owned());
            effects = fixture.source(0, SourceEvent::Ended(SourceEnd::Lost("the connection was refused".to_owned())));
        } else if matches!(effects.last(), Some(Effect::FindSources { .. })) {
            effects = fixture.found(fixture.now, &offers);
        } else {
            effects = fixture.wait();
        }
    }
    assert_eq!(users, ["hans", "hugo", "hans", "hugo", "hans", "hugo"]);
}
