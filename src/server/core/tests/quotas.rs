use std::time::Duration;

use crate::common::message::{AudienceRef, Quota, Request, Response};
use crate::server::core::{Quotas, ServerConfig};
use crate::server::test_support::{TestClient, TestServer, file, name, origin, user};

const HERE: &str = "127.0.0.1:4000";
const THERE: &str = "127.0.0.1:4001";
const EVERYONE: &AudienceRef = &AudienceRef::Everyone;

fn server(quotas: Quotas) -> TestServer {
    TestServer::start(&["hans", "vader"], ServerConfig { quotas, ..ServerConfig::default() }, origin())
}

fn publish(test: &mut TestServer, client: &mut TestClient, names: &[&str], audience: &AudienceRef) -> Response {
    test.request(
        client,
        Request::Publish { files: names.iter().map(|text| file(text)).collect(), audience: audience.clone() },
    )
}

fn unpublish(test: &mut TestServer, client: &mut TestClient, names: &[&str]) -> Response {
    test.request(client, Request::Unpublish { names: names.iter().map(|text| name(text)).collect() })
}

/// Stages an audience of these users under `key`.
fn stage(test: &mut TestServer, client: &mut TestClient, key: u32, users: &[&str]) -> AudienceRef {
    let users = users.iter().map(|name| user(name)).collect();
    let response = test.request(client, Request::StageAudience { key, part: 0, users });
    assert_eq!(response, Response::AudienceStaged);
    AudienceRef::Staged(key)
}

fn is_published(response: &Response) -> bool {
    matches!(response, Response::Published { .. })
}

fn refused(quota: Quota, max: u64) -> Response {
    Response::OverQuota { quota, max }
}

#[test]
fn a_batch_over_the_quota_of_files_is_refused_whole_and_what_exists_stays() {
    let mut test = server(Quotas { files: 3, ..Quotas::default() });
    let mut hans = test.login(HERE, "hans");
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b"], EVERYONE)));
    assert_eq!(publish(&mut test, &mut hans, &["c", "d"], EVERYONE), refused(Quota::Files, 3));
    assert_eq!(test.journal.len(), 1, "nothing of it is stored");
    let Response::OwnPublications { entries, .. } =
        test.request(&mut hans, Request::OwnPublications { user_initiated: true, cursor: None })
    else {
        panic!("no list")
    };
    assert_eq!(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b", "c", "c"], EVERYONE)), "two replace, one is new");
    assert_eq!(publish(&mut test, &mut hans, &["d"], EVERYONE), refused(Quota::Files, 3));
    assert!(matches!(unpublish(&mut test, &mut hans, &["a"]), Response::Unpublished { published_mask: 1, .. }));
    assert!(is_published(&publish(&mut test, &mut hans, &["d"], EVERYONE)));
    let mut vader = test.login(THERE, "vader");
    assert!(is_published(&publish(&mut test, &mut vader, &["a", "b", "c"], EVERYONE)), "each user has its own");
}

#[test]
fn names_and_audiences_have_quotas_of_their_own() {
    let mut test = server(Quotas { name_bytes: 5, audience_members: 3, ..Quotas::default() });
    let mut hans = test.login(HERE, "hans");
    assert_eq!(publish(&mut test, &mut hans, &["abcdef"], EVERYONE), refused(Quota::NameBytes, 5));
    let one = stage(&mut test, &mut hans, 1, &["vader"]);
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b"], &one)));
    let three = stage(&mut test, &mut hans, 2, &["luke", "vader", "yoda"]);
    assert_eq!(publish(&mut test, &mut hans, &["a"], &three), refused(Quota::AudienceMembers, 3));
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b"], &three)), "it replaces the last use of the other");
}

#[test]
fn an_audience_that_grows_name_by_name_counts_once() {
    let mut test = server(Quotas { audience_members: 10, ..Quotas::default() });
    let mut hans = test.login(HERE, "hans");
    let members = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    for (key, size) in (0..).zip(1..=members.len()) {
        let audience = stage(&mut test, &mut hans, key, &members[..size]);
        assert!(is_published(&publish(&mut test, &mut hans, &["x"], &audience)), "{size} members");
    }
    let audience = stage(&mut test, &mut hans, 99, &["k"]);
    assert_eq!(publish(&mut test, &mut hans, &["y"], &audience), refused(Quota::AudienceMembers, 10));
}

#[test]
fn under_a_lowered_quota_a_user_replaces_and_unpublishes_but_does_not_add() {
    let mut test = server(Quotas::default());
    let mut hans = test.login(HERE, "hans");
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b", "c"], EVERYONE)));
    test.server.config.quotas = Quotas { files: 1, name_bytes: 1, ..Quotas::default() };
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b"], EVERYONE)));
    assert_eq!(publish(&mut test, &mut hans, &["d"], EVERYONE), refused(Quota::Files, 1));
    assert!(matches!(unpublish(&mut test, &mut hans, &["a"]), Response::Unpublished { published_mask: 1, .. }));
    assert_eq!(publish(&mut test, &mut hans, &["a"], EVERYONE), refused(Quota::Files, 1));
}

#[test]
fn a_user_beyond_the_rate_is_delayed_and_no_other_user_is() {
    let mut test = server(Quotas { files_per_s: 2, ..Quotas::default() });
    let (mut hans, mut vader) = (test.login(HERE, "hans"), test.login(THERE, "vader"));
    // 100 at once, whether they are published or unpublished.
    for _ in 0..25 {
        assert!(is_published(&publish(&mut test, &mut hans, &["a", "b"], EVERYONE)));
        assert!(matches!(
            unpublish(&mut test, &mut hans, &["a", "b"]),
            Response::Unpublished { published_mask: 3, .. }
        ));
    }
    let stored = test.journal.len();
    let busy = Response::Busy { retry_ms: 500 };
    assert_eq!(publish(&mut test, &mut hans, &["a"], EVERYONE), busy);
    assert!(
        matches!(unpublish(&mut test, &mut hans, &["a"]), Response::Unpublished { published_mask: 0, .. }),
        "what stores nothing costs nothing"
    );
    assert_eq!(test.journal.len(), stored);
    assert!(is_published(&publish(&mut test, &mut vader, &["a"], EVERYONE)));
    // The same after the user has logged in again.
    hans = test.resume(&hans, hans.address).unwrap();
    assert_eq!(publish(&mut test, &mut hans, &["a"], EVERYONE), busy);
    test.advance(Duration::from_millis(500));
    assert!(is_published(&publish(&mut test, &mut hans, &["a", "b", "c"], EVERYONE)), "a batch is whole");
    assert_eq!(publish(&mut test, &mut hans, &["a"], EVERYONE), Response::Busy { retry_ms: 1_500 });
}

#[test]
fn the_members_of_a_new_audience_count_for_the_rate() {
    let mut test = server(Quotas { files_per_s: 1, ..Quotas::default() });
    let mut hans = test.login(HERE, "hans");
    let names: Vec<String> = (0..10).map(|number| format!("user{number}")).collect();
    let members: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut published = 0;
    // The audience of the only publication changes each time, so that it is stored and deleted again and again.
    for key in 0..50 {
        let audience = match key % 2 {
            0 => stage(&mut test, &mut hans, key, &members),
            _ => AudienceRef::Everyone,
        };
        published += usize::from(is_published(&publish(&mut test, &mut hans, &["a"], &audience)));
    }
    assert_eq!(published, 9, "each pair takes 12 of 50");
}
