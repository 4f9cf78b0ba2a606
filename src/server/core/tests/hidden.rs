//! `pub --to`: for users outside the audience a file does not exist, neither in any reply nor in the size of one.

use crate::common::message::{
    AudienceRef, ClientMessage, Cursor, NameQuery, Request, ResolvePurpose, Response, ServerMessage,
};
use crate::common::types::RequestId;
use crate::server::test_support::{TestClient, TestServer, file, name, user, wanted};

/// A reply and the size of its datagram.
#[derive(Debug, PartialEq)]
struct Received {
    bytes: usize,
    response: Response,
}

fn publish(test: &mut TestServer, client: &mut TestClient, texts: &[String], audience: AudienceRef) {
    for texts in texts.chunks(8) {
        let files = texts.iter().map(|text| file(text)).collect();
        let done = test.request(client, Request::Publish { files, audience: audience.clone() });
        assert!(matches!(done, Response::Published { .. }), "{done:?}");
    }
}

/// Requests all pages. Cursors are random, so only their presence and size can be compared.
fn request_all(
    test: &mut TestServer,
    client: &mut TestClient,
    request: impl Fn(Option<Cursor>) -> Request,
    received: &mut Vec<Received>,
) {
    let mut cursor = None;
    loop {
        client.next_id += 1;
        let id = RequestId(client.next_id);
        let message = ClientMessage::Request { id, lowest_pending: id, pages: 1, request: request(cursor.take()) };
        let bytes = client.seal(&message);
        let sent = test.send(client.address, &bytes);
        assert_eq!(sent.len(), 1, "one datagram answers");
        let bytes = sent[0].bytes.len();
        let Some(ServerMessage::Reply { mut response, .. }) = client.receive(sent).pop() else { panic!("no reply") };
        if let Response::OwnPublications { next, .. }
        | Response::SearchResults { next, .. }
        | Response::Users { next, .. }
        | Response::Peers { next, .. }
        | Response::Contents { next, .. }
        | Response::Sources { next, .. } = &mut response
        {
            cursor.clone_from(next);
            *next = next.as_ref().map(|_| Cursor(Vec::new()));
        }
        if let Response::Sources { sources, .. } = &mut response {
            // Random as well.
            sources.iter_mut().for_each(|source| (source.key, source.ticket) = ([0; 32].into(), Vec::new()));
        }
        received.push(Received { bytes, response });
        if cursor.is_none() {
            return;
        }
    }
}

/// All replies that yoda can get, with hidden files or without.
fn all_replies(with_hidden_files: bool) -> Vec<Received> {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let mut vader = test.login("127.0.0.1:4001", "vader");
    let mut yoda = test.login("127.0.0.1:4002", "yoda");
    let open: Vec<String> = (0..120).map(|at| format!("open-{at:03}-plan.pdf")).collect();
    if with_hidden_files {
        test.request(&mut hans, Request::StageAudience { key: 1, part: 0, users: vec![user("vader")] });
        test.request(&mut vader, Request::StageAudience { key: 1, part: 0, users: vec![user("hans")] });
        let hidden: Vec<String> = (0..60).map(|at| format!("hidden-{at:03}-plan.pdf")).collect();
        publish(&mut test, &mut hans, &hidden, AudienceRef::Staged(1));
        // The same name and content as an open one: yoda must not count it, nor get it as a source.
        publish(&mut test, &mut vader, &open[..20], AudienceRef::Staged(1));
        publish(&mut test, &mut vader, &["folder/hidden".into()], AudienceRef::Staged(1));
    }
    publish(&mut test, &mut hans, &open, AudienceRef::Everyone);

    let mut received = Vec::new();
    let client = &mut yoda;
    let mut request = |make: &dyn Fn(Option<Cursor>) -> Request| request_all(&mut test, client, make, &mut received);
    request(&|cursor| Request::Peers { cursor });
    for owner in ["hans", "vader", "yoda", "nobody"] {
        request(&|cursor| Request::Shared { user: user(owner), cursor });
    }
    for text in ["", "plan", "hidden-007-plan.pdf", "hidden", "folder/", "open-007-plan.pdf", "HIDDEN", "h", "nn"] {
        let mut queries = vec![
            NameQuery::Prefix(text.into()),
            NameQuery::Substring(text.into()),
            NameQuery::SubstringIgnoreCase(text.into()),
        ];
        queries.extend(crate::common::types::FileName::parse(text).map(NameQuery::Exact));
        for query in &queries {
            request(&|cursor| Request::Search { query: query.clone(), cursor });
            request(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::List, cursor });
            request(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor });
        }
    }
    for text in ["hidden-007-plan.pdf", "folder/hidden", "open-007-plan.pdf", "open-099-plan.pdf"] {
        let files = vec![wanted(text)];
        request(&|cursor| Request::Sources { files: files.clone(), avoid: Vec::new(), cursor });
        request(&|cursor| Request::AudienceOf { name: name(text), cursor });
        let audience = AudienceRef::Inherited { owners: vec![user("hans")] };
        let inherited = Request::Publish { files: vec![file("folder/hidden")], audience };
        request(&|_| inherited.clone());
        request(&|_| Request::Unpublish { names: vec![name(text)] });
    }
    // yoda's own file of the same name is independent of the hidden one.
    request(&|_| Request::Publish { files: vec![file("folder/hidden")], audience: AudienceRef::Everyone });
    request(&|cursor| Request::OwnPublications { user_initiated: true, cursor });
    request(&|cursor| Request::AudienceOf { name: name("folder/hidden"), cursor });
    received
}

#[test]
fn files_hidden_from_a_user_affect_no_reply_and_no_size() {
    let (with, without) = (all_replies(true), all_replies(false));
    assert_eq!(with.len(), without.len());
    for (at, (with, without)) in with.iter().zip(&without).enumerate() {
        assert_eq!(with, without, "reply {at}");
    }
    assert!(with.len() > 100 && with.iter().any(|reply| reply.bytes > 1_000), "lists of several pages were requested");
}

/// Replies to vader about files whose places in memory depend on whether `N.pdf` was hidden before.
fn replies_after_a_file_was_hidden(before: bool) -> Vec<Received> {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let mut hans = test.login("127.0.0.1:4000", "hans");
    let mut vader = test.login("127.0.0.1:4001", "vader");
    let mut yoda = test.login("127.0.0.1:4002", "yoda");
    publish(&mut test, &mut yoda, &["a.pdf".into()], AudienceRef::Everyone);
    if before {
        test.request(&mut hans, Request::StageAudience { key: 1, part: 0, users: vec![user("yoda")] });
        publish(&mut test, &mut hans, &["N.pdf".into(), "never shown".into()], AudienceRef::Staged(1));
    }
    publish(&mut test, &mut yoda, &["b.pdf".into()], AudienceRef::Everyone);
    publish(&mut test, &mut hans, &["N.pdf".into()], AudienceRef::Everyone);
    // The contents of one name have places too, in the order of their publication.
    let other = |size| {
        let mut file = file("two.pdf");
        (file.content.hash.0[0], file.content.size) = (size as u8, size);
        Request::Publish { files: vec![file], audience: AudienceRef::Everyone }
    };
    let mut contents = [(&mut hans, 1), (&mut yoda, 2)];
    if before {
        contents.reverse();
    }
    contents.into_iter().for_each(|(owner, size)| drop(test.request(owner, other(size))));
    let mut received = Vec::new();
    let query = NameQuery::Substring("pdf".into());
    let mut request =
        |make: &dyn Fn(Option<Cursor>) -> Request| request_all(&mut test, &mut vader, make, &mut received);
    request(&|cursor| Request::Search { query: query.clone(), cursor });
    request(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::List, cursor });
    request(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor });
    received
}

#[test]
fn earlier_hidden_publications_do_not_affect_the_order() {
    assert_eq!(replies_after_a_file_was_hidden(true), replies_after_a_file_was_hidden(false));
}
