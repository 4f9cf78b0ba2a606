use std::collections::BTreeSet;
use std::sync::Arc;

use crate::common::message::{AudienceRef, ClientMessage, Cursor, NameQuery, Request, Response, ServerMessage};
use crate::common::types::{Audience, FileName, RequestId, UserName};
use crate::server::test_support::{TestClient, TestServer, address, file, name, user};

fn users(test: &mut TestServer, client: &mut TestClient, request: impl Fn(Option<Cursor>) -> Request) -> Vec<UserName> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        match test.request(client, request(cursor)) {
            Response::Users { users, next } => {
                all.extend(users);
                if next.is_none() {
                    return all;
                }
                cursor = next;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn search(test: &mut TestServer, client: &mut TestClient, query: &NameQuery) -> Vec<FileName> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        match test.request(client, Request::Search { query: query.clone(), cursor }) {
            Response::SearchResults { names, next } => {
                all.extend(names);
                if next.is_none() {
                    return all;
                }
                cursor = next;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_hundred_thousand_peers_are_listed_once_each() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let expected: BTreeSet<UserName> = (0..100_000)
        .map(|at| {
            let name = format!("user-{at}");
            test.insert_session(&name);
            user(&name)
        })
        .collect();
    let (mut listed, mut cursor) = (Vec::new(), None);
    loop {
        let Response::Peers { peers, next } = test.request(&mut hans, Request::Peers { cursor }) else {
            panic!("no peers")
        };
        listed.extend(peers.into_iter().map(|peer| peer.user));
        let Some(next) = next else { break };
        cursor = Some(next);
    }
    assert_eq!(listed.len(), expected.len(), "each once");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_hundred_thousand_names_are_listed_once_each_and_no_hidden_one() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    test.insert_session("vader");
    let owner = test.server.index.intern_owner(&user("vader"));
    let hidden = Arc::new(Audience::only(vec![user("yoda")]));
    let open = Arc::new(Audience::Everyone);
    let names: BTreeSet<FileName> = (0..100_000).map(|at| name(&format!("file-{at}.pdf"))).collect();
    for (at, visible) in names.iter().enumerate() {
        test.server.index.publish(owner, &file(visible.as_str()), &open, 1);
        if at % 2 == 0 {
            test.server.index.publish(owner, &file(&format!("hidden-{at}.pdf")), &hidden, 1);
        }
    }
    for needle in ["", ".pdf", "pd"] {
        let found = search(&mut test, &mut hans, &NameQuery::Substring(needle.into()));
        assert_eq!(found.len(), names.len(), "each once");
        assert!(found.iter().all(|name| names.contains(name)));
    }
    assert!(search(&mut test, &mut hans, &NameQuery::Substring("hidden".into())).is_empty());
}

#[test]
fn hidden_names_do_not_shorten_a_page() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    test.insert_session("vader");
    let owner = test.server.index.intern_owner(&user("vader"));
    let hidden = Arc::new(Audience::only(vec![user("yoda")]));
    let open = Arc::new(Audience::Everyone);
    for at in 0..20_000 {
        test.server.index.publish(owner, &file(&format!("hidden-{at}.pdf")), &hidden, 1);
    }
    test.server.index.publish(owner, &file("visible.pdf"), &open, 1);
    let query = NameQuery::Substring("pdf".into());
    let response = test.request(&mut hans, Request::Search { query, cursor: None });
    assert_eq!(response, Response::SearchResults { names: vec![name("visible.pdf")], next: None });
}

#[test]
fn an_audience_of_several_parts_is_staged_and_read_back() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let everyone: Vec<UserName> = (0..100).map(|at| user(&format!("user{at:03}"))).collect();
    let parts: Vec<&[UserName]> = everyone.chunks(15).collect();
    let stage = |part: usize| Request::StageAudience { key: 5, part: part as u16, users: parts[part].to_vec() };
    let publish = Request::Publish { files: vec![file("a")], audience: AudienceRef::Staged(5) };
    assert_eq!(test.request(&mut hans, publish.clone()), Response::UnknownAudience);
    assert_eq!(test.request(&mut hans, stage(1)), Response::UnknownAudience, "parts come in order");
    for part in [0, 1, 0, 1, 2, 3, 4, 5, 6] {
        assert_eq!(test.request(&mut hans, stage(part)), Response::AudienceStaged, "part {part}");
    }
    assert_eq!(test.request(&mut hans, stage(5)), Response::UnknownAudience, "each part once");
    assert!(matches!(test.request(&mut hans, publish), Response::Published { .. }));
    let listed = users(&mut test, &mut hans, |cursor| Request::AudienceOf { name: name("a"), cursor });
    assert_eq!(listed, everyone);
    let none = Request::AudienceOf { name: name("b"), cursor: None };
    assert_eq!(test.request(&mut hans, none), Response::NotPublished);
}

#[test]
fn an_audience_has_at_most_4096_users() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let everyone: Vec<UserName> = (0..4_096).map(|at| user(&format!("user{at:04}"))).collect();
    for (part, users) in (0..).zip(everyone.chunks(15)) {
        let stage = Request::StageAudience { key: 5, part, users: users.to_vec() };
        assert_eq!(test.request(&mut hans, stage), Response::AudienceStaged, "part {part}");
    }
    let one_more = Request::StageAudience { key: 5, part: 274, users: vec![user("yoda")] };
    assert_eq!(test.request(&mut hans, one_more), Response::Rejected);
    let publish = Request::Publish { files: vec![file("a")], audience: AudienceRef::Staged(5) };
    assert!(matches!(test.request(&mut hans, publish), Response::Published { .. }));
    assert_eq!(users(&mut test, &mut hans, |cursor| Request::AudienceOf { name: name("a"), cursor }), everyone);
}

#[test]
fn part_0_replaces_the_staged_audience_also_under_the_same_key() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let all = ["vader", "yoda"].map(user);
    let stage = |users: &[UserName]| Request::StageAudience { key: 5, part: 0, users: users.to_vec() };
    test.request(&mut hans, stage(&all));
    assert_eq!(test.request(&mut hans, stage(&all[..1])), Response::AudienceStaged);
    test.request(&mut hans, Request::Publish { files: vec![file("a")], audience: AudienceRef::Staged(5) });
    let listed = users(&mut test, &mut hans, |cursor| Request::AudienceOf { name: name("a"), cursor });
    assert_eq!(listed, all[..1], "nobody is named who was not staged last");
}

#[test]
fn a_late_copy_of_part_0_does_not_shorten_the_audience() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let all = ["vader", "yoda"].map(user);
    let mut stage = |id: u64, part: u16| {
        let request = Request::StageAudience { key: 5, part, users: vec![all[usize::from(part)].clone()] };
        let message = ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), pages: 1, request };
        test.send_message(&mut hans, &message)
    };
    for (id, part) in [(1, 0), (2, 1), (2, 1), (1, 0)] {
        let reply = ServerMessage::Reply { id: RequestId(id), page: 0, response: Response::AudienceStaged };
        assert_eq!(stage(id, part), [reply]);
    }
    hans.next_id = 2;
    test.request(&mut hans, Request::Publish { files: vec![file("a")], audience: AudienceRef::Staged(5) });
    assert_eq!(users(&mut test, &mut hans, |cursor| Request::AudienceOf { name: name("a"), cursor }), all);
}

#[test]
fn a_late_copy_of_what_was_staged_before_is_no_part_of_the_audience() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let mut stage = |id: u64, key: u32, part: u16| {
        let request = Request::StageAudience { key, part, users: vec![user("vader")] };
        let message = ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(1), pages: 1, request };
        match test.send_message(&mut hans, &message).pop() {
            Some(ServerMessage::Reply { response, .. }) => response,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(stage(1, 5, 0), Response::AudienceStaged);
    assert_eq!(stage(2, 6, 0), Response::AudienceStaged);
    assert_eq!(stage(1, 5, 0), Response::UnknownAudience, "it was replaced");
    assert_eq!(stage(2, 6, 1), Response::UnknownAudience, "no request has staged this part");
    assert_eq!(stage(2, 6, 0), Response::AudienceStaged);
}

#[test]
fn a_cursor_of_another_list_is_stale() {
    let mut test = TestServer::new(&["hans"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    for at in 0..1_000 {
        test.insert_session(&format!("user-{at}"));
    }
    let Response::Peers { next: Some(cursor), .. } = test.request(&mut hans, Request::Peers { cursor: None }) else {
        panic!("one page")
    };
    let response =
        test.request(&mut hans, Request::OwnPublications { user_initiated: true, cursor: Some(cursor.clone()) });
    assert_eq!(response, Response::StaleCursor);
    let (mut other, _) = (test.insert_session("vader"), address("127.0.0.1:1"));
    assert_eq!(test.request(&mut other, Request::Peers { cursor: Some(cursor) }), Response::StaleCursor);
}
