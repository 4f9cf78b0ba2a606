use super::*;
use crate::common::limits::{MESSAGE_MAX_BYTES, NEEDLE_MAX_BYTES, PAGE_MAX_BYTES, PATTERN_MAX_BYTES, REPLY_PAGES_MAX};
use crate::common::types::{ContentHash, UsersDigest};

fn file(name: &str) -> FileName {
    FileName::parse(name).unwrap()
}

fn files(pattern: &str) -> Topic {
    Topic::Files(Pattern::parse(pattern).unwrap())
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn content() -> Content {
    Content { hash: ContentHash([0xaa; 32]), size: 300, mtime_ms: -1 }
}

fn cursor() -> Option<Cursor> {
    Some(Cursor(vec![1, 2]))
}

fn request(request: Request) -> ClientMessage {
    ClientMessage::Request { id: RequestId(300), lowest_pending: RequestId(299), pages: 1, request }
}

fn reply(response: Response) -> ServerMessage {
    ServerMessage::Reply { id: RequestId(5), page: 0, response }
}

/// One message of each kind with its encoding. A change of an encoding is a change of the protocol version.
fn client_messages() -> Vec<(ClientMessage, String)> {
    let hash = "aa".repeat(32);
    let published = NamedContent { name: file("a"), content: content() };
    let exact = NameQuery::Exact(file("a"));
    let wanted = ContentRef { name: file("a"), hash: content().hash, size: content().size };
    vec![
        (ClientMessage::Heartbeat(Heartbeat { number: 128, free_slots: 8 }), "00800108".into()),
        (
            request(Request::Publish { files: vec![published], audience: AudienceRef::Staged(3) }),
            format!("01ac02ab020100010161{hash}ac02010103"),
        ),
        (
            request(Request::Publish {
                files: vec![NamedContent { name: file("a"), content: content() }],
                audience: AudienceRef::Inherited { owners: vec![user("h"), user("yoda")] },
            }),
            format!("01ac02ab020100010161{hash}ac02010202016804796f6461"),
        ),
        (request(Request::Unpublish { names: vec![file("a"), file("b/c")] }), "01ac02ab02010102016103622f63".into()),
        (
            request(Request::StageAudience { key: 3, part: 0, users: vec![user("yoda")] }),
            "01ac02ab0201020300010479".to_owned() + "6f6461",
        ),
        (request(Request::OwnPublications { user_initiated: true, cursor: None }), "01ac02ab0201030100".into()),
        (request(Request::AudienceOf { name: file("a"), cursor: None }), "01ac02ab020104016100".into()),
        (request(Request::Peers { cursor: cursor() }), "01ac02ab02010501020102".into()),
        (
            request(Request::Search { query: NameQuery::SubstringIgnoreCase("é".into()), cursor: None }),
            "01ac02ab0201060302c3a900".into(),
        ),
        (
            request(Request::Resolve { query: exact, purpose: ResolvePurpose::Download, cursor: None }),
            "01ac02ab0201070001610100".into(),
        ),
        (
            request(Request::Sources { files: vec![wanted], avoid: vec![user("h")], cursor: None }),
            format!("01ac02ab020108010161{hash}ac0201016800"),
        ),
        (
            request(Request::Subscribe { number: 3, topic: Topic::Peer(user("h")) }),
            "01ac02ab0201090300".to_owned() + "0168",
        ),
        (
            request(Request::Subscribe { number: 3, topic: Topic::File(file("a")) }),
            "01ac02ab0201090301".to_owned() + "0161",
        ),
        (request(Request::Subscribe { number: 3, topic: Topic::Peers }), "01ac02ab0201090302".into()),
        (request(Request::Subscribe { number: 3, topic: files("a*") }), "01ac02ab020109030302612a".into()),
        (request(Request::Unsubscribe { numbers: 8 }), "01ac02ab02010a08".into()),
        (request(Request::Shared { user: user("h"), cursor: None }), "01ac02ab02010b".to_owned() + "016800"),
        (ClientMessage::Logout, "02".into()),
    ]
}

fn source_grant(ticket: Vec<u8>) -> SourceGrant {
    SourceGrant {
        user: user("h"),
        address: "127.0.0.1:258".parse().unwrap(),
        has_free_slot: true,
        file_mask: 1,
        key: [0xcc; 32].into(),
        ticket,
    }
}

fn server_messages() -> Vec<(ServerMessage, String)> {
    let hash = "aa".repeat(32);
    let digest = PublicationsDigest([0xdd; 16]);
    let dd = "dd".repeat(16);
    let own = OwnPublication { name: file("a"), content: content(), restricted: true, age_s: 60 };
    let found = AvailableContent { name: file("a"), content: content(), sources: 2, age_s: 60, users: UsersDigest(3) };
    let grant = source_grant(vec![9]);
    let cc = "cc".repeat(32);
    let state = SubscriptionState { changes: 300, present: 3, absent: 1_000 };
    vec![
        (ServerMessage::HeartbeatAck { number: 128, subscriptions: None }, "00800100".into()),
        (ServerMessage::HeartbeatAck { number: 128, subscriptions: Some(state) }, "00800101ac0203e807".into()),
        (reply(Response::Subscribed(state)), "0105000eac0203e807".into()),
        (ServerMessage::Changed(state), "04ac0203e807".into()),
        (reply(Response::Published { digest }), format!("01050000{dd}")),
        (reply(Response::Unpublished { published_mask: 3, digest }), format!("0105000103{dd}")),
        (reply(Response::AudienceStaged), "01050002".into()),
        (
            reply(Response::OwnPublications { entries: vec![own], next: None }),
            format!("01050003010161{hash}ac0201013c00"),
        ),
        (reply(Response::SearchResults { names: vec![file("a")], next: cursor() }), "0105000401016101020102".into()),
        (reply(Response::Users { users: vec![user("h")], next: None }), "0105000501016800".into()),
        (reply(Response::Contents { entries: vec![found], next: None }), format!("01050006010161{hash}ac0201023c0300")),
        (
            reply(Response::Sources { sources: vec![grant], next: None }),
            format!("01050007010168007f00000182020101{cc}010900"),
        ),
        (reply(Response::Busy { retry_ms: 20 }), "0105000814".into()),
        (reply(Response::UnknownAudience), "01050009".into()),
        (reply(Response::NotPublished), "0105000a".into()),
        (reply(Response::StaleCursor), "0105000b".into()),
        (reply(Response::Rejected), "0105000c".into()),
        (reply(Response::OverQuota { quota: Quota::AudienceMembers, max: 300 }), "0105000d02ac02".into()),
        (
            reply(Response::Peers { peers: vec![ActivePeer { user: user("h"), active_s: 300 }], next: None }),
            "0105000f010168ac0200".into(),
        ),
        (reply(Response::NotActive), "01050010".into()),
        (ServerMessage::LogoutAck, "02".into()),
        (ServerMessage::SessionRevoked, "03".into()),
    ]
}

#[test]
fn client_messages_have_stable_encodings() {
    for (message, golden) in client_messages() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(hex::encode(&bytes), golden, "{message:?}");
        assert_eq!(ClientMessage::decode(&bytes), Ok(message));
    }
}

#[test]
fn server_messages_have_stable_encodings() {
    for (message, golden) in server_messages() {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(hex::encode(&bytes), golden, "{message:?}");
        assert_eq!(ServerMessage::decode(&bytes), Ok(message));
    }
}

#[test]
fn truncated_messages_and_trailing_bytes_are_rejected() {
    let check = |golden: &str, decodes: &dyn Fn(&[u8]) -> Result<(), MessageError>| {
        let mut bytes = hex::decode(golden).unwrap();
        for cut in 0..bytes.len() {
            assert_eq!(decodes(&bytes[..cut]), Err(MessageError::Malformed), "{golden} cut to {cut}");
        }
        bytes.push(0);
        assert_eq!(decodes(&bytes), Err(MessageError::Trailing), "{golden} and one more");
    };
    for (_, golden) in client_messages() {
        check(&golden, &|bytes| ClientMessage::decode(bytes).map(drop));
    }
    for (_, golden) in server_messages() {
        check(&golden, &|bytes| ServerMessage::decode(bytes).map(drop));
    }
}

#[test]
fn lists_beyond_their_limits_are_rejected() {
    let decoded = |message: ClientMessage| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        ClientMessage::decode(&bytes).map(drop)
    };
    let names = |count| request(Request::Unpublish { names: vec![file("a"); count] });
    assert_eq!(decoded(names(BATCH_MAX_FILES)), Ok(()));
    assert_eq!(decoded(names(BATCH_MAX_FILES + 1)), Err(MessageError::OverLimit));
    assert_eq!(decoded(names(0)), Err(MessageError::OverLimit), "an empty list");
    let needle = |bytes| request(Request::Search { query: NameQuery::Substring("x".repeat(bytes)), cursor: None });
    assert_eq!(decoded(needle(NEEDLE_MAX_BYTES)), Ok(()));
    assert_eq!(decoded(needle(NEEDLE_MAX_BYTES + 1)), Err(MessageError::OverLimit));
    let subscribe = |text: String| request(Request::Subscribe { number: 0, topic: files(&text) });
    assert_eq!(decoded(subscribe("x".repeat(PATTERN_MAX_BYTES))), Ok(()));
    assert_eq!(decoded(subscribe("x".repeat(PATTERN_MAX_BYTES + 1))), Err(MessageError::OverLimit));
    assert_eq!(decoded(subscribe("*?".repeat(40))), Err(MessageError::OverLimit), "too many wildcards");
    let pages = |pages| ClientMessage::Request {
        id: RequestId(1),
        lowest_pending: RequestId(1),
        pages,
        request: Request::Peers { cursor: None },
    };
    assert_eq!(decoded(pages(REPLY_PAGES_MAX)), Ok(()));
    assert_eq!(decoded(pages(REPLY_PAGES_MAX + 1)), Err(MessageError::OverLimit));
    assert_eq!(decoded(pages(0)), Err(MessageError::OverLimit));
    let paged = |bytes| request(Request::Peers { cursor: Some(Cursor(vec![0; bytes])) });
    assert_eq!(decoded(paged(CURSOR_MAX_BYTES + 1)), Err(MessageError::OverLimit));
    let inherited = |owners: Vec<UserName>| {
        let files = vec![NamedContent { name: file("a"), content: content() }];
        request(Request::Publish { files, audience: AudienceRef::Inherited { owners } })
    };
    assert_eq!(decoded(inherited(vec![user(&"x".repeat(64)); 7])), Ok(()));
    assert_eq!(decoded(inherited(vec![user(&"x".repeat(64)); 8])), Err(MessageError::OverLimit));
    assert_eq!(decoded(inherited(vec![])), Err(MessageError::OverLimit), "no owner");
    let staged = |users| request(Request::StageAudience { key: 0, part: 0, users: vec![user("a"); users] });
    assert_eq!(decoded(staged(AUDIENCE_PART_MAX_USERS + 1)), Err(MessageError::OverLimit));
    let wanted = ContentRef { name: file("a"), hash: content().hash, size: 0 };
    let avoiding =
        |users: Vec<UserName>| request(Request::Sources { files: vec![wanted.clone()], avoid: users, cursor: None });
    assert_eq!(decoded(avoiding(vec![user("a"); AVOIDED_MAX_USERS])), Ok(()));
    assert_eq!(decoded(avoiding(vec![user("a"); AVOIDED_MAX_USERS + 1])), Err(MessageError::OverLimit));
    assert_eq!(decoded(avoiding(vec![user(&"x".repeat(64)); 7])), Ok(()));
    assert_eq!(decoded(avoiding(vec![user(&"x".repeat(64)); 8])), Err(MessageError::OverLimit));
}

#[test]
fn replies_beyond_their_limits_are_rejected() {
    let decoded = |response: Response| {
        let mut bytes = Vec::new();
        reply(response).encode(&mut bytes);
        ServerMessage::decode(&bytes).map(drop)
    };
    let cursor = |bytes| Some(Cursor(vec![0; bytes]));
    let lists: [fn(Option<Cursor>) -> Response; 6] = [
        |next| Response::OwnPublications { entries: Vec::new(), next },
        |next| Response::SearchResults { names: Vec::new(), next },
        |next| Response::Users { users: Vec::new(), next },
        |next| Response::Peers { peers: Vec::new(), next },
        |next| Response::Contents { entries: Vec::new(), next },
        |next| Response::Sources { sources: Vec::new(), next },
    ];
    for list in lists {
        assert_eq!(decoded(list(cursor(CURSOR_MAX_BYTES))), Ok(()));
        assert_eq!(decoded(list(cursor(CURSOR_MAX_BYTES + 1))), Err(MessageError::OverLimit));
    }
    let granted = |bytes| Response::Sources { sources: vec![source_grant(vec![9; bytes])], next: None };
    assert_eq!(decoded(granted(TICKET_MAX_BYTES)), Ok(()));
    assert_eq!(decoded(granted(TICKET_MAX_BYTES + 1)), Err(MessageError::OverLimit));
}

#[test]
fn a_false_length_allocates_nothing() {
    // A list that claims 2^32 - 1 names and ends.
    let bytes = hex::decode("01010101ffffffff0f").unwrap();
    assert_eq!(ClientMessage::decode(&bytes), Err(MessageError::Malformed));
}

#[test]
fn the_largest_entries_fit_a_page_and_the_largest_requests_a_datagram() {
    let longest = file(&["a".repeat(255), "b".repeat(254), "c".into()].join("/"));
    let content = Content { hash: ContentHash([255; 32]), size: u64::MAX, mtime_ms: i64::MIN };
    let users = UsersDigest(u32::MAX);
    let found = AvailableContent { name: longest.clone(), content, sources: u32::MAX, age_s: u64::MAX, users };
    assert!(encoded_len(&found) <= PAGE_MAX_BYTES);
    let published = NamedContent { name: longest, content };
    let mut bytes = Vec::new();
    let owners = vec![user(&"x".repeat(64)); 7];
    for audience in [AudienceRef::Staged(u32::MAX), AudienceRef::Inherited { owners }] {
        bytes.clear();
        request(Request::Publish { files: vec![published.clone()], audience }).encode(&mut bytes);
        assert!(bytes.len() <= MESSAGE_MAX_BYTES);
    }
    bytes.clear();
    let users = vec![user(&"x".repeat(64)); AUDIENCE_PART_MAX_USERS];
    request(Request::StageAudience { key: u32::MAX, part: u16::MAX, users }).encode(&mut bytes);
    assert!(bytes.len() <= MESSAGE_MAX_BYTES);
}
