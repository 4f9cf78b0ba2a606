use std::time::Duration;

use crate::common::limits::{PENDING_LOGIN_LIFETIME, PROTOCOL_VERSION};
use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, ResolvePurpose, Topic};
use crate::common::packet::{CLIENT_INFO_BYTES, KE3_BYTES, Packet};
use crate::common::types::RequestId;
use crate::server::core::query_budget::STEPS_PER_ITERATION;
use crate::server::core::{
    Counts, Label, LoginStatus, OnlineUser, Refusal, ReplyStatus, RequestKind, ServerStats, SessionEnd,
};
use crate::server::test_support::{TestServer, WALL_MS, address, credentials, file, name, user, wanted};

const HERE: &str = "127.0.0.1:4000";
const THERE: &str = "127.0.0.1:4001";

/// The values that are not 0.
fn nonzero<L: Label>(counts: &Counts<L>) -> Vec<(&'static str, u64)> {
    let all = L::ALL.iter().map(|&value| (value.text(), counts.of(value)));
    all.filter(|(_, count)| *count > 0).collect()
}

fn requests(stats: &ServerStats) -> Vec<(&'static str, &'static str, u64)> {
    let of_kind = |&kind: &RequestKind| {
        let counts = nonzero(stats.counters.requests(kind)).into_iter();
        counts.map(move |(status, count)| (kind.text(), status, count))
    };
    RequestKind::ALL.iter().flat_map(of_kind).collect()
}

#[test]
fn labels_are_distinct_and_in_order() {
    fn check<L: Label>() {
        let texts: std::collections::BTreeSet<_> = L::ALL.iter().map(|value| value.text()).collect();
        assert_eq!(texts.len(), L::ALL.len());
        assert!(L::ALL.iter().enumerate().all(|(at, value)| value.index() == at));
    }
    check::<LoginStatus>();
    check::<RequestKind>();
    check::<ReplyStatus>();
    check::<SessionEnd>();
    check::<Refusal>();
}

#[test]
fn logins_are_counted_by_their_result() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let hans = test.login(HERE, "hans");
    assert!(test.try_login(address(THERE), "hans", "hans-pw").is_some(), "already active");
    assert!(test.try_login(address(THERE), "vader", "wrong").is_none());
    assert!(test.try_login(address(THERE), "nobody", "wrong").is_none());
    let mut resumed = test.resume(&hans, address(HERE)).unwrap();
    test.heartbeat(&mut resumed);
    assert!(test.resume(&hans, address(HERE)).is_none(), "the ticket is used up");
    let attempts = 50;
    for _ in 0..attempts {
        // Most get no LOGIN2.
        test.try_login(address(THERE), "vader", "wrong");
    }
    let stats = test.server.stats();
    let of = |status| stats.counters.logins.of(status);
    assert_eq!(of(LoginStatus::Refused) + of(LoginStatus::Throttled), 2 + attempts);
    assert!(of(LoginStatus::Throttled) > 0);
    let others = [LoginStatus::Accepted, LoginStatus::AlreadyActive, LoginStatus::Resumed, LoginStatus::ResumeRefused];
    assert_eq!(others.map(of), [1; 4]);
    assert_eq!(nonzero(&stats.counters.sessions_ended), [("replaced", 1)]);
    assert_eq!(stats.sessions, 1);
}

#[test]
fn logins_that_stop_before_login3_are_counted_as_unfinished() {
    let mut test = TestServer::new(&["hans"]);
    let unfinished = |test: &TestServer| test.server.stats().counters.logins.of(LoginStatus::Unfinished);
    // Who guesses learns from LOGIN2 whether the password is right.
    for guess in ["wrong", "hans-pw"] {
        assert!(test.begin_login(address(HERE), "hans", guess).is_ok());
    }
    test.login(THERE, "hans");
    assert!(test.try_login(address(THERE), "hans", "wrong").is_none());
    assert_eq!(unfinished(&test), 0, "they are in progress");
    test.advance(PENDING_LOGIN_LIFETIME);
    test.run_until_idle();
    let logins = test.server.stats().counters.logins;
    assert_eq!(nonzero(&logins), [("accepted", 1), ("refused", 1), ("unfinished", 2)], "each login ends once");
}

#[test]
fn requests_are_counted_by_kind_and_result() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let publish = |text| Request::Publish { files: vec![file(text)], audience: AudienceRef::Everyone };
    let get = |text: &str| {
        let query = NameQuery::Exact(name(text));
        Request::Resolve { query, purpose: ResolvePurpose::Download, cursor: None }
    };
    for request in [publish("a"), publish("b"), publish("a"), Request::Unpublish { names: vec![name("b")] }] {
        test.request(&mut hans, request);
    }
    test.request(&mut hans, Request::Unpublish { names: vec![name("c")] });
    test.request(&mut hans, get("missing"));
    test.request(&mut hans, Request::Peers { cursor: None });
    test.request(&mut hans, Request::AudienceOf { name: name("c"), cursor: None });
    test.heartbeat(&mut hans);
    test.heartbeat(&mut hans);
    let stats = test.server.stats();
    let expected = [
        ("heartbeat", "ok", 2),
        ("publish", "ok", 3),
        ("unpublish", "ok", 1),
        ("unpublish", "error", 1),
        ("audience_of", "error", 1),
        ("peers", "ok", 1),
        ("download", "error", 1),
    ];
    assert_eq!(requests(&stats), expected);
    assert_eq!((stats.publications, stats.journal_queue, stats.queued_queries), (1, 0, 0));
    test.journal_stores = false;
    assert_eq!(test.try_request(&mut hans, publish("d")), None);
    assert_eq!(test.request(&mut hans, publish("e")), crate::common::message::Response::Busy { retry_ms: 50 });
    let stats = test.server.stats();
    assert_eq!(stats.journal_queue, 1);
    assert_eq!(nonzero(stats.counters.requests(RequestKind::Publish)), [("ok", 3), ("busy", 1)]);
    let outdated =
        ClientMessage::Request { id: RequestId(1), lowest_pending: RequestId(2), pages: 1, request: publish("f") };
    test.send_message(&mut hans, &outdated);
    let publish = *test.server.stats().counters.requests(RequestKind::Publish);
    assert_eq!(nonzero(&publish), [("ok", 3), ("error", 1), ("busy", 1)], "it is rejected");
}

#[test]
fn what_is_not_accepted_is_counted_by_its_reason() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    let before = test.server.stats();
    assert_eq!(nonzero(&before.counters.refused), []);
    let heartbeat = hans.seal(&ClientMessage::Logout);
    test.send(address(THERE), &heartbeat);
    let mut forged = heartbeat.clone();
    *forged.last_mut().unwrap() ^= 1;
    test.send(address(HERE), &forged);
    test.send(address(HERE), b"");
    test.send(address(HERE), &[0xff; 40]);
    let nonce = [1; 16];
    test.send(address(HERE), &Packet::Hello { version: PROTOCOL_VERSION + 1, nonce }.to_bytes());
    let login1 = Packet::Login1 { nonce, cookie: [0; 32], user: "hans", ke1: &[0; 96] };
    test.send(address(HERE), &login1.to_bytes());
    test.send(address(HERE), &heartbeat);
    test.send(address(HERE), &heartbeat);
    let stats = test.server.stats();
    let expected =
        [("malformed", 2), ("version", 1), ("cookie", 1), ("ended_session", 1), ("other_address", 1), ("seal", 1)];
    assert_eq!(nonzero(&stats.counters.refused), expected);
    assert_eq!(nonzero(&stats.counters.sessions_ended), [("logout", 1)]);
    assert_eq!(requests(&stats), [("logout", "ok", 1)]);
    let received = stats.counters.received;
    assert_eq!(received.datagrams, test.recorded.len() as u64);
    assert_eq!(received.bytes, test.recorded.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
}

#[test]
fn every_other_kind_of_request_is_counted() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let (mut hans, _vader) = (test.login(HERE, "hans"), test.login(THERE, "vader"));
    let query = || NameQuery::Substring("a".into());
    let others = [
        Request::StageAudience { key: 1, part: 0, users: vec![user("vader")] },
        Request::OwnPublications { user_initiated: true, cursor: None },
        Request::Search { query: query(), cursor: None },
        Request::Resolve { query: query(), purpose: ResolvePurpose::List, cursor: None },
        Request::Sources { files: vec![wanted("a")], avoid: Vec::new(), cursor: None },
        Request::Subscribe { number: 0, topic: Topic::File(name("a")) },
        Request::Unsubscribe { numbers: 1 },
        Request::Shared { user: user("vader"), cursor: None },
    ];
    for request in others {
        test.request(&mut hans, request);
    }
    let expected = [
        ("stage_audience", "ok", 1),
        ("own_publications", "ok", 1),
        ("search", "ok", 2),
        ("sources", "ok", 1),
        ("subscribe", "ok", 1),
        ("unsubscribe", "ok", 1),
        ("shared", "ok", 1),
    ];
    assert_eq!(requests(&test.server.stats()), expected);
    test.server.config.quotas.files = 0;
    test.request(&mut hans, Request::Publish { files: vec![file("a")], audience: AudienceRef::Everyone });
    assert_eq!(nonzero(test.server.stats().counters.requests(RequestKind::Publish)), [("over_quota", 1)]);
}

#[test]
fn strange_datagrams_are_counted_by_their_reason() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let mut hans = test.login(HERE, "hans");
    let login3 = Packet::Login3 { nonce: [1; 16], ke3: &[0; KE3_BYTES], client_info: &[0; CLIENT_INFO_BYTES] };
    test.send(address(THERE), &login3.to_bytes());
    let mut of_no_session = hans.seal(&ClientMessage::Logout);
    of_no_session[1..17].fill(7);
    test.send(address(HERE), &of_no_session);
    let mut no_message = Vec::new();
    hans.cipher.seal_into(&mut no_message, |text| text.push(0xff));
    test.send(address(HERE), &no_message);
    let expected = [("unknown_login", 1), ("unknown_session", 1), ("message", 1)];
    assert_eq!(nonzero(&test.server.stats().counters.refused), expected);
    let mut sent = 0;
    while test.server.stats().counters.refused.of(Refusal::SessionShare) == 0 {
        test.try_request(&mut hans, Request::Peers { cursor: None });
        sent += 1;
    }
    let stats = test.server.stats();
    let answered: u64 = nonzero(stats.counters.requests(RequestKind::Peers)).iter().map(|(_, count)| count).sum();
    assert_eq!(answered + stats.queued_queries as u64 + 1, sent, "each is answered, waits or is refused");
    test.set_credentials(credentials(&["vader"]));
    assert_eq!(nonzero(&test.server.stats().counters.sessions_ended), [("credentials_changed", 1)]);
}

#[test]
fn queries_that_wait_are_shown() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login(HERE, "hans");
    test.server.query_budget.charge(STEPS_PER_ITERATION);
    let search = Request::Search { query: NameQuery::Substring("a".into()), cursor: None };
    let message = ClientMessage::Request { id: RequestId(1), lowest_pending: RequestId(1), pages: 1, request: search };
    let mut datagram = hans.seal(&message);
    test.server.handle_datagram(test.now, address(HERE), &mut datagram, &mut test.out);
    assert_eq!(test.server.stats().queued_queries, 1);
    test.run_until_idle();
    assert_eq!(test.server.stats().queued_queries, 0);
}

#[test]
fn sessions_and_the_start_are_shown() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let hans =
        OnlineUser { session: test.login(HERE, "hans").params.session, user: user("hans"), address: address(HERE) };
    let vader =
        OnlineUser { session: test.login(THERE, "vader").params.session, user: user("vader"), address: address(THERE) };
    assert_eq!(test.server.online_users(1), std::slice::from_ref(&hans));
    assert_eq!(test.server.online_users(9), [hans, vader]);
    test.advance(Duration::from_secs(100));
    test.server.set_wall_clock(test.now, 1);
    test.run_until_idle();
    assert_eq!(test.server.uptime(test.now), Duration::from_secs(100));
    let stats = test.server.stats();
    assert_eq!((stats.sessions, stats.started_ms), (0, WALL_MS), "the start does not move with the wall clock");
    assert_eq!(nonzero(&stats.counters.sessions_ended), [("timed_out", 2)]);
}
