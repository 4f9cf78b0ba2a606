//! One message of each kind with its encoding.

use fileshare::internals::common::glob::Pattern;
use fileshare::internals::common::message::{
    ActivePeer, AudienceRef, AvailableContent, ClientMessage, Cursor, Heartbeat, NameQuery, OwnPublication, Quota,
    Request, ResolvePurpose, Response, ServerMessage, SourceGrant, SubscriptionState, Topic,
};
use fileshare::internals::common::peer_message::{DirectSocket, GroupRange, PeerRequest, PeerResponse, RefusalReason};
use fileshare::internals::common::types::{
    Content, ContentHash, ContentRef, FileName, NamedContent, PublicationsDigest, RequestId, UserName, UsersDigest,
};
use serde::Serialize;

use crate::document::{Document, Section};

pub fn record(document: &mut Document) {
    document.add("client_messages", client_messages);
    document.add("server_messages", server_messages);
    document.add("peer_requests", peer_requests);
    document.add("peer_responses", peer_responses);
}

fn add(section: &mut Section, description: &str, message: &impl Serialize) {
    section.bytes(description, &postcard::to_stdvec(message).expect("it encodes"));
}

fn file(name: &str) -> FileName {
    name.parse().expect("a file name")
}

fn user(name: &str) -> UserName {
    name.parse().expect("a user name")
}

/// "C" in the descriptions.
fn content() -> Content {
    Content { hash: ContentHash([0xaa; 32]), size: 300, mtime_ms: -2 }
}

fn client_messages(section: &mut Section) {
    section.text("C", "Content: hash 32 bytes aa, size 300, mtime_ms -2");
    section.text("R", "Request with id 300, lowest_pending 299 and pages 1");
    let content_ref = ContentRef { name: file("a"), hash: content().hash, size: content().size };
    let published = |audience| {
        let files = vec![NamedContent { name: file("a"), content: content() }];
        Request::Publish { files, audience }
    };
    let search = |query| Request::Search { query, cursor: None };
    let requests = [
        ("Publish [a: C], Everyone", published(AudienceRef::Everyone)),
        ("Publish [a: C], Staged(3)", published(AudienceRef::Staged(3))),
        ("Publish [a: C], Inherited [h, i]", published(AudienceRef::Inherited { owners: vec![user("h"), user("i")] })),
        ("Unpublish [a, b/c]", Request::Unpublish { names: vec![file("a"), file("b/c")] }),
        ("StageAudience 3, 0, [yoda]", Request::StageAudience { key: 3, part: 0, users: vec![user("yoda")] }),
        ("OwnPublications true, none", Request::OwnPublications { user_initiated: true, cursor: None }),
        ("AudienceOf a, none", Request::AudienceOf { name: file("a"), cursor: None }),
        ("Peers cursor 01 02", Request::Peers { cursor: Some(Cursor(vec![1, 2])) }),
        ("Search Exact(a), none", search(NameQuery::Exact(file("a")))),
        ("Search Prefix(b/), none", search(NameQuery::Prefix("b/".into()))),
        ("Search Substring(), none", search(NameQuery::Substring(String::new()))),
        ("Search SubstringIgnoreCase(\u{e9}), none", search(NameQuery::SubstringIgnoreCase("\u{e9}".into()))),
        (
            "Resolve Equivalent(\u{e9}), Download, none",
            Request::Resolve {
                query: NameQuery::Equivalent(file("\u{e9}")),
                purpose: ResolvePurpose::Download,
                cursor: None,
            },
        ),
        (
            "Resolve Exact(a), Download, none",
            Request::Resolve { query: NameQuery::Exact(file("a")), purpose: ResolvePurpose::Download, cursor: None },
        ),
        (
            "Sources [a: hash and size of C], avoid [h], none",
            Request::Sources { files: vec![content_ref], avoid: vec![user("h")], cursor: None },
        ),
        ("Subscribe 3, Peer h", Request::Subscribe { number: 3, topic: Topic::Peer(user("h")) }),
        ("Subscribe 3, File a", Request::Subscribe { number: 3, topic: Topic::File(file("a")) }),
        ("Subscribe 3, Peers", Request::Subscribe { number: 3, topic: Topic::Peers }),
        (
            "Subscribe 3, Files a*",
            Request::Subscribe { number: 3, topic: Topic::Files(Pattern::parse("a*").expect("a pattern")) },
        ),
        ("Unsubscribe bits 8", Request::Unsubscribe { numbers: 8 }),
        ("Shared h, none", Request::Shared { user: user("h"), cursor: None }),
    ];
    add(section, "Heartbeat 128, 8", &ClientMessage::Heartbeat(Heartbeat { number: 128, free_slots: 8 }));
    for (description, request) in requests {
        let message = ClientMessage::Request { id: RequestId(300), lowest_pending: RequestId(299), pages: 1, request };
        add(section, &format!("R: {description}"), &message);
    }
    add(section, "Logout", &ClientMessage::Logout);
}

fn server_messages(section: &mut Section) {
    section.text("C", "Content: hash 32 bytes aa, size 300, mtime_ms -2");
    section.text("D", "digest 16 bytes dd");
    section.text("R", "Reply with id 5 and page 0");
    let digest = PublicationsDigest([0xdd; 16]);
    let own = OwnPublication { name: file("a"), content: content(), restricted: true, age_s: 60 };
    let found = AvailableContent { name: file("a"), content: content(), sources: 2, age_s: 60, users: UsersDigest(3) };
    let grant = |address: &str| SourceGrant {
        user: user("h"),
        address: address.parse().expect("an address"),
        has_free_slot: true,
        file_mask: 5,
        key: [0xcc; 32].into(),
        ticket: vec![9],
    };
    let responses = [
        ("Published D", Response::Published { digest }),
        ("Unpublished 3, D", Response::Unpublished { published_mask: 3, digest }),
        ("AudienceStaged", Response::AudienceStaged),
        (
            "OwnPublications [a: C, restricted, 60 s], none",
            Response::OwnPublications { entries: vec![own], next: None },
        ),
        (
            "SearchResults [a], cursor 01 02",
            Response::SearchResults { names: vec![file("a")], next: Some(Cursor(vec![1, 2])) },
        ),
        ("Users [h], none", Response::Users { users: vec![user("h")], next: None }),
        ("Contents [a: C, 2 sources, 60 s, digest 3], none", Response::Contents { entries: vec![found], next: None }),
        (
            "Sources [h, 127.0.0.1:258, free, mask 5, key 32 bytes cc, ticket 09], none",
            Response::Sources { sources: vec![grant("127.0.0.1:258")], next: None },
        ),
        ("Sources [the same at [::1]:258], none", Response::Sources { sources: vec![grant("[::1]:258")], next: None }),
        ("Busy 200", Response::Busy { retry_ms: 200 }),
        ("UnknownAudience", Response::UnknownAudience),
        ("NotPublished", Response::NotPublished),
        ("StaleCursor", Response::StaleCursor),
        ("Rejected", Response::Rejected),
        ("OverQuota, bytes of names, 33554432", Response::OverQuota { quota: Quota::NameBytes, max: 33_554_432 }),
        (
            "Subscribed changes 1, present 0, absent 0",
            Response::Subscribed(SubscriptionState { changes: 1, present: 0, absent: 0 }),
        ),
        (
            "Peers [h, 300 s], none",
            Response::Peers { peers: vec![ActivePeer { user: user("h"), active_s: 300 }], next: None },
        ),
        ("NotActive", Response::NotActive),
    ];
    let state = SubscriptionState { changes: 300, present: 3, absent: 4 };
    let ack = |subscriptions| ServerMessage::HeartbeatAck { number: 128, subscriptions };
    add(section, "HeartbeatAck 128, none", &ack(None));
    add(section, "HeartbeatAck 128, changes 300, present 3, absent 4", &ack(Some(state)));
    for (description, response) in responses {
        add(section, &format!("R: {description}"), &ServerMessage::Reply { id: RequestId(5), page: 0, response });
    }
    add(section, "LogoutAck", &ServerMessage::LogoutAck);
    add(section, "SessionRevoked", &ServerMessage::SessionRevoked);
    add(section, "Changed changes 300, present 3, absent 4", &ServerMessage::Changed(state));
}

fn peer_requests(section: &mut Section) {
    let ranges = vec![GroupRange { content: 0, first: 128, count: 1 }, GroupRange { content: 300, first: 0, count: 2 }];
    add(section, "AddTicket 01 02", &PeerRequest::AddTicket { ticket: vec![1, 2] });
    add(section, "GetGroupHashes 300", &PeerRequest::GetGroupHashes { content: 300 });
    add(section, "RequestGroups [(0, 128, 1), (300, 0, 2)]", &PeerRequest::RequestGroups { ranges });
    add(section, "Cancel", &PeerRequest::Cancel);
    add(section, "QueryAvailability 1", &PeerRequest::QueryAvailability { content: 1 });
    add(section, "OpenDirectPath", &PeerRequest::OpenDirectPath);
}

fn peer_responses(section: &mut Section) {
    let refused = |reason| PeerResponse::Refused { content: 1, reason };
    let hashes = vec![[0xaa; 32], [0xbb; 32]];
    add(section, "TicketAccepted 2", &PeerResponse::TicketAccepted { first: 2 });
    add(section, "TicketRefused", &PeerResponse::TicketRefused);
    add(
        section,
        "GroupHashes 1, 0, [32 bytes aa, 32 bytes bb]",
        &PeerResponse::GroupHashes { content: 1, first: 0, hashes },
    );
    add(section, "Refused 1, not published", &refused(RefusalReason::NotShared));
    add(section, "Refused 1, changed", &refused(RefusalReason::Changed));
    add(section, "Refused 1, unreadable", &refused(RefusalReason::Unreadable));
    add(section, "Busy 300", &PeerResponse::Busy { retry_ms: 300 });
    add(section, "Cancelled", &PeerResponse::Cancelled);
    add(
        section,
        "Availability 1, groups 0 and 9 of 10",
        &PeerResponse::Availability { content: 1, groups: vec![0b0000_0001, 0b0000_0010] },
    );
    add(section, "Availability 1, all", &PeerResponse::Availability { content: 1, groups: Vec::new() });
    add(section, "NotAvailable 1, 4, 2", &PeerResponse::NotAvailable { content: 1, first: 4, count: 2 });
    add(section, "Hashing 1", &PeerResponse::Hashing { content: 1 });
    let socket = DirectSocket { folder: b"/run".to_vec(), name: "a.sock".into(), token: [0xcc; 16] };
    add(section, "DirectPath none", &PeerResponse::DirectPath { socket: None });
    add(section, "DirectPath /run, a.sock, 16 bytes cc", &PeerResponse::DirectPath { socket: Some(socket) });
    let ranges = vec![GroupRange { content: 0, first: 128, count: 3 }];
    add(section, "GroupsPassed [(0, 128, 3)]", &PeerResponse::GroupsPassed { ranges });
}
