use crate::common::crypto::{AeadKey, context};
use crate::common::message::{
    AudienceRef, ClientMessage, Heartbeat, NameQuery, Request, ResolvePurpose, Response, SourceGrant,
};
use crate::common::ticket::TransferTicket;
use crate::common::types::{Audience, ContentRef, UserName};
use crate::server::test_support::{TestClient, TestServer, WALL_MS, file, name, user, wanted};

fn publish(test: &mut TestServer, client: &mut TestClient, texts: &[&str], audience: AudienceRef) -> Response {
    test.request(client, Request::Publish { files: texts.iter().map(|text| file(text)).collect(), audience })
}

fn sources(test: &mut TestServer, client: &mut TestClient, texts: &[&str]) -> Vec<SourceGrant> {
    sources_of(test, client, texts.iter().map(|text| wanted(text)).collect())
}

fn sources_of(test: &mut TestServer, client: &mut TestClient, files: Vec<ContentRef>) -> Vec<SourceGrant> {
    sources_avoiding(test, client, files, &[])
}

fn sources_avoiding(
    test: &mut TestServer,
    client: &mut TestClient,
    files: Vec<ContentRef>,
    avoid: &[UserName],
) -> Vec<SourceGrant> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        match test.request(client, Request::Sources { files: files.clone(), avoid: avoid.to_vec(), cursor }) {
            Response::Sources { sources, next } => {
                all.extend(sources);
                if next.is_none() {
                    return all;
                }
                cursor = next;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn resolve(name: &str) -> Request {
    Request::Resolve {
        query: NameQuery::Exact(crate::server::test_support::name(name)),
        purpose: ResolvePurpose::Download,
        cursor: None,
    }
}

#[test]
fn a_request_for_more_than_a_ticket_holds_is_rejected() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let files: Vec<ContentRef> = ["a", "b", "c"].map(|text| wanted(&text.repeat(255))).to_vec();
    let mut ask = |files: &[ContentRef]| {
        test.request(&mut hans, Request::Sources { files: files.to_vec(), avoid: Vec::new(), cursor: None })
    };
    assert!(matches!(ask(&files[..1]), Response::Sources { .. }));
    assert_eq!(ask(&files), Response::Rejected);
}

#[test]
fn no_source_is_skipped_when_slots_fill_between_two_pages() {
    let names: Vec<String> = (0..9).map(|at| format!("user{at}")).collect();
    let mut test = TestServer::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut requester = test.login("127.0.0.1:4000", &names[0]);
    let mut clients: Vec<TestClient> =
        (1..9).map(|at| test.login(&format!("127.0.0.1:{}", 5_000 + at), &names[at])).collect();
    for (client, file) in clients.iter_mut().zip(["a", "b", "c", "d", "e", "f", "g", "h"]) {
        publish(&mut test, client, &[file], AudienceRef::Everyone);
    }
    let files: Vec<ContentRef> = ["a", "b", "c", "d", "e", "f", "g", "h"].map(wanted).to_vec();
    for round in 0..20 {
        let (mut covered, mut cursor, mut pages) = (0, None, 0);
        loop {
            let request = Request::Sources { files: files.clone(), avoid: Vec::new(), cursor };
            let Response::Sources { sources, next } = test.request(&mut requester, request) else { panic!("sources") };
            assert!(sources.is_sorted_by_key(|source| std::cmp::Reverse(source.has_free_slot)));
            covered |= sources.iter().fold(0, |all, source| all | source.file_mask);
            pages += 1;
            cursor = next;
            if cursor.is_none() {
                break;
            }
            for (at, client) in clients.iter_mut().enumerate() {
                let free_slots = ((at * 5 + round + pages) % 8) as u8;
                test.send_message(
                    client,
                    &ClientMessage::Heartbeat(Heartbeat { number: (20 * round + pages) as u32, free_slots }),
                );
            }
        }
        assert!(pages > 1 && covered == 0xff, "{covered:#b} on {pages} pages");
    }
}

#[test]
fn a_source_carries_its_observed_address_and_a_ticket_it_can_open() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (test.login("192.0.2.1:4000", "hans"), test.login("192.0.2.2:4000", "vader"));
    publish(&mut test, &mut vader, &["a", "b"], AudienceRef::Everyone);
    let found = sources(&mut test, &mut hans, &["a", "x", "b"]);
    let [source] = &found[..] else { panic!("{found:?}") };
    assert_eq!((source.user.as_str(), source.address.to_string().as_str()), ("vader", "192.0.2.2:7000"));
    assert_eq!((source.file_mask, source.has_free_slot), (0b101, true));
    let key = AeadKey::derived(context::TRANSFER_TICKETS, vader.secret.as_slice());
    let ticket = TransferTicket::open(&source.ticket, &key, WALL_MS + 59_999).expect("sealed for vader");
    assert_eq!((ticket.downloader, ticket.key), (user("hans"), source.key));
    let granted: Vec<_> = ticket.grants.iter().map(|grant| (grant.name.as_str(), grant.size)).collect();
    assert_eq!(granted, [("a", 10), ("b", 10)]);
    assert!(TransferTicket::open(&source.ticket, &key, WALL_MS + 60_000).is_err());
    let other = AeadKey::derived(context::TRANSFER_TICKETS, hans.secret.as_slice());
    assert!(TransferTicket::open(&source.ticket, &other, WALL_MS).is_err());
}

/// The server's clock as an uploader estimates it: learned once at the login, then advanced.
fn estimated_clock_ms(test: &TestServer, uploader: &TestClient, began: std::time::Instant) -> u64 {
    uploader.params.server_time_ms + u64::try_from((test.now - began).as_millis()).unwrap()
}

#[test]
fn the_lifetime_of_tickets_does_not_depend_on_the_wall_clock() {
    for set_to_ms in [WALL_MS - 60_000, WALL_MS + 3_600_000, 0] {
        let mut test = TestServer::new(&["hans", "vader", "yoda"]);
        let began = test.now;
        let mut vader = test.login("192.0.2.2:4000", "vader");
        publish(&mut test, &mut vader, &["a"], AudienceRef::Everyone);
        test.advance(std::time::Duration::from_secs(1));
        test.server.set_wall_clock(test.now, set_to_ms);
        // Clients that logged in before and after the jump agree on the clock.
        let yoda = test.login("192.0.2.3:4000", "yoda");
        assert_eq!(estimated_clock_ms(&test, &yoda, test.now), estimated_clock_ms(&test, &vader, began), "{set_to_ms}");
        let mut hans = test.login("192.0.2.1:4000", "hans");
        let ticket = &sources(&mut test, &mut hans, &["a"])[0].ticket;
        let key = AeadKey::derived(context::TRANSFER_TICKETS, vader.secret.as_slice());
        let now_ms = estimated_clock_ms(&test, &vader, began);
        assert!(TransferTicket::open(ticket, &key, now_ms + 59_999).is_ok(), "{set_to_ms}");
        assert!(TransferTicket::open(ticket, &key, now_ms + 60_000).is_err(), "{set_to_ms}");
    }
}

#[test]
fn loopback_peers_are_sources_for_loopback_requesters_only() {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("192.0.2.1:4000", "hans");
    let mut vader = test.login("127.0.0.1:4000", "vader");
    let mut yoda = test.login("[::1]:4000", "yoda");
    publish(&mut test, &mut vader, &["a"], AudienceRef::Everyone);
    publish(&mut test, &mut hans, &["b"], AudienceRef::Everyone);
    assert!(sources(&mut test, &mut hans, &["a"]).is_empty());
    assert_eq!(sources(&mut test, &mut yoda, &["a"]).len(), 1);
    assert_eq!(sources(&mut test, &mut yoda, &["b"]).len(), 1);
}

/// Adds sessions of `count` users, who publish `files` and report these free slots.
fn publishers(test: &mut TestServer, prefix: &str, count: usize, files: &[&str], free_slots: u8) {
    for at in 0..count {
        let mut client = test.insert_session(&format!("{prefix}{at}"));
        publish(test, &mut client, files, AudienceRef::Everyone);
        test.send_message(&mut client, &ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots }));
    }
}

/// In how many of 200 requests for these files a source's name starts with each prefix.
fn selections(test: &mut TestServer, requester: &mut TestClient, files: &[&str], prefixes: [&str; 2]) -> [usize; 2] {
    let mut selected = [0; 2];
    for _ in 0..200 {
        let found = sources(test, requester, files);
        for (count, prefix) in selected.iter_mut().zip(prefixes) {
            *count += found.iter().filter(|source| source.user.as_str().starts_with(prefix)).count();
        }
    }
    selected
}

#[test]
fn sources_without_a_free_slot_come_last_and_the_load_is_spread() {
    let mut test = TestServer::new(&["hans"]);
    let mut requester = test.login("127.0.0.1:4000", "hans");
    publishers(&mut test, "busy", 3, &["a"], 0);
    publishers(&mut test, "honest", 16, &["a"], 2);
    assert_eq!(sources(&mut test, &mut requester, &["a"]).len(), 8);
    let [busy, free] = selections(&mut test, &mut requester, &["a"], ["busy", "honest"]);
    assert_eq!((busy, free), (0, 8 * 200));
    publishers(&mut test, "few", 2, &["b"], 1);
    publishers(&mut test, "other", 2, &["b"], 0);
    let slots: Vec<_> = sources(&mut test, &mut requester, &["b"]).iter().map(|source| source.has_free_slot).collect();
    assert_eq!(slots, [true, true, false, false]);
    let once = |test: &mut TestServer, requester: &mut TestClient| -> std::collections::BTreeSet<UserName> {
        sources(test, requester, &["a"]).into_iter().map(|source| source.user).collect()
    };
    let first = once(&mut test, &mut requester);
    assert!((0..20).any(|_| once(&mut test, &mut requester) != first), "the load is spread");
}

#[test]
fn claiming_255_free_slots_or_more_files_gives_no_preference() {
    let mut test = TestServer::new(&["hans"]);
    let mut requester = test.login("127.0.0.1:4000", "hans");
    publishers(&mut test, "bad", 8, &["a", "b"], 255);
    publishers(&mut test, "honest", 1, &["a"], 1);
    // Eight of the nine are selected for the file: by lot, the honest one in 178 of 200 requests, with a standard deviation
    // of 4.4.
    for files in [&["a"][..], &["a", "b"]] {
        let [bad, honest] = selections(&mut test, &mut requester, files, ["bad", "honest"]);
        assert!((150..200).contains(&honest), "{honest} of 200 for {files:?}, {bad} of the others");
    }
}

#[test]
fn users_to_avoid_serve_only_what_nobody_else_does() {
    let mut test = TestServer::new(&["hans"]);
    let mut requester = test.login("127.0.0.1:4000", "hans");
    publishers(&mut test, "bad", 16, &["a", "b"], 255);
    publishers(&mut test, "honest", 2, &["a"], 0);
    let avoid: Vec<UserName> = (0..16).map(|at| user(&format!("bad{at}"))).collect();
    for _ in 0..50 {
        let found = sources_avoiding(&mut test, &mut requester, vec![wanted("a")], &avoid);
        let mut users: Vec<&str> = found.iter().map(|source| source.user.as_str()).collect();
        users.sort();
        assert_eq!(users, ["honest0", "honest1"]);
    }
    let found = sources_avoiding(&mut test, &mut requester, vec![wanted("a"), wanted("b")], &avoid);
    let masks = |prefix: &str| -> Vec<u64> {
        found.iter().filter(|source| source.user.as_str().starts_with(prefix)).map(|source| source.file_mask).collect()
    };
    assert_eq!((masks("honest"), masks("bad")), (vec![0b01; 2], vec![0b10; 8]));
}

#[test]
fn a_batch_of_many_files_needs_one_ticket_per_peer() {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];
    for user in ["vader", "yoda"] {
        let mut client = test.login(&format!("127.0.0.1:{}", 5_000 + user.len()), user);
        publish(&mut test, &mut client, &texts, AudienceRef::Everyone);
    }
    let found = sources(&mut test, &mut hans, &texts);
    let mut covers: Vec<_> = found.iter().map(|source| (source.user.to_string(), source.file_mask)).collect();
    covers.sort();
    assert_eq!(covers, [("vader".into(), 0xffff), ("yoda".into(), 0xffff)]);
}

#[test]
fn files_published_to_some_do_not_exist_for_others() {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let mut vader = test.login("127.0.0.1:4001", "vader");
    let mut yoda = test.login("127.0.0.1:4002", "yoda");
    let everything = |test: &mut TestServer, client: &mut TestClient| {
        let search = Request::Search { query: NameQuery::Substring(String::new()), cursor: None };
        let audience = AudienceRef::Inherited { owners: vec![user("hans")] };
        let inherited = Request::Publish { files: vec![file("secret")], audience };
        let files = vec![wanted("secret")];
        [
            search,
            resolve("secret"),
            Request::Sources { files, avoid: Vec::new(), cursor: None },
            inherited,
            Request::OwnPublications { user_initiated: true, cursor: None },
        ]
        .map(|request| test.request(client, request))
    };
    let before = everything(&mut test, &mut yoda);
    test.request(&mut hans, Request::StageAudience { key: 1, part: 0, users: vec![user("vader")] });
    publish(&mut test, &mut hans, &["secret"], AudienceRef::Staged(1));
    assert_eq!(everything(&mut test, &mut yoda), before);
    assert_eq!(sources(&mut test, &mut vader, &["secret"]).len(), 1);
    let inherited = AudienceRef::Inherited { owners: vec![user("hans")] };
    assert!(matches!(publish(&mut test, &mut vader, &["secret"], inherited), Response::Published { .. }));
    assert_eq!(everything(&mut test, &mut yoda), before, "the downloaded copy is hidden as well");
    let owner = test.server.index.intern_owner(&user("vader"));
    let (_, audience) = test.server.index.publication(owner, &name("secret")).unwrap();
    assert_eq!(*audience, Audience::Only(vec![user("hans")]));
}

#[test]
fn a_peer_that_claims_another_size_is_a_source_for_that_size_only() {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let (mut vader, mut yoda) = (test.login("127.0.0.1:4001", "vader"), test.login("127.0.0.1:4002", "yoda"));
    publish(&mut test, &mut vader, &["a"], AudienceRef::Everyone);
    let mut false_claim = file("a");
    false_claim.content.size += 1;
    let publish = Request::Publish { files: vec![false_claim.clone()], audience: AudienceRef::Everyone };
    assert!(matches!(test.request(&mut yoda, publish), Response::Published { .. }));
    for (size, user, secret) in [(10, "vader", &vader.secret), (11, "yoda", &yoda.secret)] {
        let found = sources_of(&mut test, &mut hans, vec![ContentRef { size, ..wanted("a") }]);
        let [source] = &found[..] else { panic!("{found:?}") };
        assert_eq!(source.user.as_str(), user);
        let key = AeadKey::derived(context::TRANSFER_TICKETS, secret.as_slice());
        let ticket = TransferTicket::open(&source.ticket, &key, WALL_MS).expect("sealed for the source");
        assert_eq!(ticket.grants[0].size, size);
    }
    assert!(sources_of(&mut test, &mut hans, vec![ContentRef { size: 12, ..wanted("a") }]).is_empty());
}

#[test]
fn a_peer_that_logged_out_is_no_source() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (test.login("127.0.0.1:4000", "hans"), test.login("127.0.0.1:4001", "vader"));
    publish(&mut test, &mut vader, &["a"], AudienceRef::Everyone);
    assert!(matches!(test.request(&mut hans, resolve("a")), Response::Contents { entries, .. } if entries.len() == 1));
    test.send_message(&mut vader, &ClientMessage::Logout);
    assert!(sources(&mut test, &mut hans, &["a"]).is_empty());
    assert_eq!(test.request(&mut hans, resolve("a")), Response::Contents { entries: Vec::new(), next: None });
}

#[test]
fn ages_follow_the_wall_clock() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut vader = test.login("192.0.2.2:4000", "vader");
    publish(&mut test, &mut vader, &["a"], AudienceRef::Everyone);
    let mut hans = test.login("192.0.2.1:4000", "hans");
    let mut age_s = |test: &mut TestServer| match test.request(&mut hans, resolve("a")) {
        Response::Contents { entries, .. } => entries[0].age_s,
        other => panic!("{other:?}"),
    };
    let before = age_s(&mut test);
    let wall_ms = WALL_MS + u64::try_from((test.now - crate::server::test_support::origin()).as_millis()).unwrap();
    test.server.set_wall_clock(test.now, wall_ms + 3_600_000);
    assert!((before + 3_599..=before + 3_601).contains(&age_s(&mut test)), "it was set an hour ahead");
}
