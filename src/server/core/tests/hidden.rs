//! `pub --to`: for whoever is not named, a file does not exist, in any answer and in the size of any datagram.

use crate::common::message::{
    AudienceRef, ClientMessage, Cursor, NameQuery, Request, ResolvePurpose, Response, ServerMessage,
};
use crate::common::types::RequestId;
use crate::server::test_support::{Client, World, file, name, user, wanted};

/// A reply, and how many bytes it took on the wire.
type Heard = (usize, Response);

fn publish(world: &mut World, client: &mut Client, texts: &[String], audience: AudienceRef) {
    for texts in texts.chunks(8) {
        let files = texts.iter().map(|text| file(text)).collect();
        let done = world.ask(client, Request::Publish { files, audience });
        assert!(matches!(done, Response::Published { .. }), "{done:?}");
    }
}

/// Asks, to the last page. CursorCodec are random: only that there is one, and its size, can be compared.
fn ask(world: &mut World, client: &mut Client, request: impl Fn(Option<Cursor>) -> Request, heard: &mut Vec<Heard>) {
    let mut cursor = None;
    loop {
        client.next_id += 1;
        let id = RequestId(client.next_id);
        let message = ClientMessage::Request { id, lowest_pending: id, request: request(cursor.take()) };
        let bytes = client.seal(&message);
        let sent = world.send(client.address, &bytes);
        assert_eq!(sent.len(), 1, "one datagram answers");
        let size = sent[0].bytes.len();
        let Some(ServerMessage::Reply { mut response, .. }) = client.hear(sent).pop() else { panic!("no reply") };
        if let Response::OwnPublications { next, .. }
        | Response::SearchResults { next, .. }
        | Response::Users { next, .. }
        | Response::Contents { next, .. }
        | Response::Sources { next, .. } = &mut response
        {
            cursor.clone_from(next);
            *next = next.as_ref().map(|_| Cursor(Vec::new()));
        }
        if let Response::Sources { sources, .. } = &mut response {
            // Drawn at random too.
            sources.iter_mut().for_each(|source| (source.key, source.ticket) = ([0; 32].into(), Vec::new()));
        }
        heard.push((size, response));
        if cursor.is_none() {
            return;
        }
    }
}

/// All that yoda can ask, in a world with hidden files and in one without.
fn everything_heard(hides: bool) -> Vec<Heard> {
    let mut world = World::new(&["hans", "vader", "yoda"]);
    let mut hans = world.login("127.0.0.1:4000", "hans");
    let mut vader = world.login("127.0.0.1:4001", "vader");
    let mut yoda = world.login("127.0.0.1:4002", "yoda");
    let open: Vec<String> = (0..120).map(|at| format!("open-{at:03}-plan.pdf")).collect();
    if hides {
        world.ask(&mut hans, Request::StageAudience { key: 1, part: 0, users: vec![user("vader")] });
        world.ask(&mut vader, Request::StageAudience { key: 1, part: 0, users: vec![user("hans")] });
        let hidden: Vec<String> = (0..60).map(|at| format!("hidden-{at:03}-plan.pdf")).collect();
        publish(&mut world, &mut hans, &hidden, AudienceRef::Staged(1));
        // The same name and content as an open one: yoda must not count it, nor get it as a source.
        publish(&mut world, &mut vader, &open[..20], AudienceRef::Staged(1));
        publish(&mut world, &mut vader, &["folder/hidden".into()], AudienceRef::Staged(1));
    }
    publish(&mut world, &mut hans, &open, AudienceRef::Everyone);

    let mut heard = Vec::new();
    let client = &mut yoda;
    let mut asking = |request: &dyn Fn(Option<Cursor>) -> Request| ask(&mut world, client, request, &mut heard);
    asking(&|cursor| Request::Peers { cursor });
    for text in ["", "plan", "hidden-007-plan.pdf", "hidden", "folder/", "open-007-plan.pdf", "HIDDEN", "h", "nn"] {
        let mut queries = vec![
            NameQuery::Prefix(text.into()),
            NameQuery::Substring(text.into()),
            NameQuery::SubstringIgnoreCase(text.into()),
        ];
        queries.extend(crate::common::types::FileName::parse(text).map(NameQuery::Exact));
        for query in &queries {
            asking(&|cursor| Request::Search { query: query.clone(), cursor });
            asking(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::List, cursor });
            asking(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor });
        }
    }
    for text in ["hidden-007-plan.pdf", "folder/hidden", "open-007-plan.pdf", "open-099-plan.pdf"] {
        let files = vec![wanted(text)];
        asking(&|cursor| Request::Sources { files: files.clone(), cursor });
        asking(&|cursor| Request::AudienceOf { name: name(text), cursor });
        let inherited = Request::Publish { files: vec![file("folder/hidden")], audience: AudienceRef::Inherited };
        asking(&|_| inherited.clone());
        asking(&|_| Request::Unpublish { names: vec![name(text)] });
    }
    // Its own file of that name is nobody else's business, and nobody else's is its.
    asking(&|_| Request::Publish { files: vec![file("folder/hidden")], audience: AudienceRef::Everyone });
    asking(&|cursor| Request::OwnPublications { user_initiated: true, cursor });
    asking(&|cursor| Request::AudienceOf { name: name("folder/hidden"), cursor });
    heard
}

#[test]
fn what_is_published_to_others_is_in_no_answer_and_in_no_size() {
    let (with, without) = (everything_heard(true), everything_heard(false));
    assert_eq!(with.len(), without.len());
    for (at, (with, without)) in with.iter().zip(&without).enumerate() {
        assert_eq!(with, without, "answer {at}");
    }
    assert!(with.len() > 100 && with.iter().any(|(size, _)| *size > 1_000), "lists of several pages were asked for");
}

/// What vader hears of three files whose places in memory depend on whether `N` was published to somebody else before.
fn heard_of_a_file_that_was_hidden(before: bool) -> Vec<Heard> {
    let mut world = World::new(&["hans", "vader", "yoda"]);
    let mut hans = world.login("127.0.0.1:4000", "hans");
    let mut vader = world.login("127.0.0.1:4001", "vader");
    let mut yoda = world.login("127.0.0.1:4002", "yoda");
    publish(&mut world, &mut yoda, &["a.pdf".into()], AudienceRef::Everyone);
    if before {
        world.ask(&mut hans, Request::StageAudience { key: 1, part: 0, users: vec![user("yoda")] });
        publish(&mut world, &mut hans, &["N.pdf".into(), "never shown".into()], AudienceRef::Staged(1));
    }
    publish(&mut world, &mut yoda, &["b.pdf".into()], AudienceRef::Everyone);
    publish(&mut world, &mut hans, &["N.pdf".into()], AudienceRef::Everyone);
    // The contents of one name have places too: whose came first.
    let other = |size| {
        let mut file = file("two.pdf");
        (file.content.hash.0[0], file.content.size) = (size as u8, size);
        Request::Publish { files: vec![file], audience: AudienceRef::Everyone }
    };
    world.ask(&mut hans, other(u64::from(before) + 1));
    world.ask(&mut yoda, other(2 - u64::from(before)));
    let mut heard = Vec::new();
    let query = NameQuery::Substring("pdf".into());
    let mut asking = |request: &dyn Fn(Option<Cursor>) -> Request| ask(&mut world, &mut vader, request, &mut heard);
    asking(&|cursor| Request::Search { query: query.clone(), cursor });
    asking(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::List, cursor });
    asking(&|cursor| Request::Resolve { query: query.clone(), purpose: ResolvePurpose::Download, cursor });
    heard
}

#[test]
fn what_was_published_to_others_before_leaves_no_trace_in_the_order() {
    assert_eq!(heard_of_a_file_that_was_hidden(true), heard_of_a_file_that_was_hidden(false));
}
