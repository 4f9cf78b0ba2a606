//! An independent reader of the vectors: it recomputes everything from what docs/PROTOCOL.md says, with `primitives` alone.

use crate::document::Vectors;
use crate::primitives::{
    Parser, aes_open, counter_nonce, derive, group_hash, noise, opaque_finish, open_record, open_session_datagram,
    record_keys, seal_record,
};

/// What a login result says about the session.
struct SessionParams {
    session: [u8; 16],
    instance: u64,
    server_time_ms: u64,
    reset_token: [u8; 16],
    ticket: Vec<u8>,
    digest: [u8; 16],
    last_writer: u64,
}

/// A client info: the TCP port, the free slots and the instance, padded to 32 bytes.
fn check_client_info(text: &[u8], instance: u64) {
    assert_eq!(text.len(), 32);
    let mut parser = Parser(text);
    assert_eq!((parser.varint(), parser.byte(), parser.varint()), (4_000, 8, instance));
    assert!(parser.0.iter().all(|&byte| byte == 0), "the padding");
}

fn parse_result(text: &[u8]) -> SessionParams {
    assert_eq!(text.len(), 320);
    let mut parser = Parser(text);
    assert_eq!(parser.varint(), 0, "Accepted");
    let (session, instance) = (parser.array(), parser.varint());
    assert_eq!((parser.varint(), parser.varint()), (2_000, 3_000), "heartbeat and liveness");
    let server_time_ms = parser.varint();
    let (reset_token, ticket, digest) = (parser.array(), parser.bytes().to_vec(), parser.array());
    let last_writer = parser.varint();
    assert_eq!(parser.byte(), 0, "the server listens on loopback alone");
    assert!(parser.0.iter().all(|&byte| byte == 0), "the padding");
    SessionParams { session, instance, server_time_ms, reset_token, ticket, digest, last_writer }
}

/// The keys that follow from a session's secret.
fn check_session_keys(vectors: &Vectors, section: &str) {
    let secret = vectors.bytes(section, "session_secret");
    for (field, purpose) in [
        ("client_to_server_key", "datagrams client to server"),
        ("server_to_client_key", "datagrams server to client"),
        ("transfer_ticket_key", "transfer tickets"),
        ("ticket_secret", "resumption secret"),
    ] {
        assert_eq!(vectors.bytes(section, field), derive(purpose, &secret), "{section}.{field}");
    }
}

/// Opens both datagrams of an exchange; their counters, and the messages of client and server.
fn open_exchange(vectors: &Vectors, section: &str, secret: &[u8]) -> [(u64, Vec<u8>); 2] {
    [("client", "datagrams client to server"), ("server", "datagrams server to client")].map(|(from, purpose)| {
        let datagram = vectors.bytes(section, &format!("{from}_datagram"));
        let (counter, message) = open_session_datagram(&derive(purpose, secret), &datagram);
        assert_eq!(message, vectors.bytes(section, &format!("{from}_message")), "{section}, {from}");
        (counter, message)
    })
}

fn read_login(vectors: &Vectors) -> SessionParams {
    let bytes = |field| vectors.bytes("login", field);
    let (hello, retry, login1, login2) = (bytes("hello"), bytes("retry"), bytes("login1"), bytes("login2"));
    let (login3, login4, nonce) = (bytes("login3"), bytes("login4"), bytes("nonce"));
    let user = vectors.text("login", "user");
    let mut expected = [&[1, 0, 2], nonce.as_slice()].concat();
    expected.resize(256, 0);
    assert_eq!(hello, expected);
    assert_eq!((retry.len(), &retry[..17]), (49, [&[2], nonce.as_slice()].concat().as_slice()));
    let mut parser = Parser(&login1);
    assert_eq!((parser.byte(), parser.take(16), parser.take(32)), (4, nonce.as_slice(), &retry[17..]));
    assert_eq!(usize::from(parser.byte()), user.len());
    assert_eq!(parser.take(64), [user.as_bytes(), &[0; 64]].concat()[..64].to_vec());
    let ke1 = parser.take(96);
    parser.end();
    assert_eq!((login2.len(), login2[0], &login2[1..17]), (337, 5, nonce.as_slice()));
    let state = [bytes("opaque_blind"), ke1.to_vec(), bytes("opaque_client_private_keyshare")].concat();
    let state = [state, bytes("opaque_client_nonce")].concat();
    let password = vectors.text("login", "password").as_bytes();
    let (session_key, ke3) = opaque_finish(&state, user, password, &login2[17..]);
    assert_eq!((session_key, ke3), (bytes("opaque_session_key"), bytes("ke3")));
    assert_eq!((login3.len(), login3[0], &login3[1..17]), (129, 6, nonce.as_slice()));
    assert_eq!(login3[17..81], bytes("ke3"));
    let session_key = bytes("opaque_session_key");
    let client_info = aes_open(&derive("login details", &session_key), [0; 12], &nonce, &login3[81..]);
    assert_eq!(client_info, bytes("client_info_plaintext"));
    check_client_info(&client_info, 0);
    assert_eq!((login4.len(), login4[0], &login4[1..17]), (353, 7, nonce.as_slice()));
    let result = aes_open(&derive("login answer", &session_key), [0; 12], &nonce, &login4[17..]);
    assert_eq!(result, bytes("result_plaintext"));
    assert_eq!(bytes("session_secret"), derive("session secret", &session_key));
    check_session_keys(vectors, "login");
    parse_result(&result)
}

#[test]
fn a_login_is_read() {
    let vectors = Vectors::read();
    let params = read_login(&vectors);
    assert_eq!((params.digest, params.last_writer), ([0; 16], 0), "nothing is published");
    let secret = vectors.bytes("login", "session_secret");
    let [(client_counter, heartbeat), (server_counter, ack)] = open_exchange(&vectors, "heartbeat", &secret);
    assert_eq!((client_counter, server_counter), (0, 0));
    assert_eq!((heartbeat, ack), (vec![0, 1, 8], vec![0, 1, 0]), "number 1, 8 free slots, no subscriptions");
    assert_eq!(vectors.bytes("heartbeat", "client_datagram")[1..17], params.session);
}

#[test]
fn a_publication_is_read_and_its_digest_computed() {
    let vectors = Vectors::read();
    let secret = vectors.bytes("login", "session_secret");
    let [(counter, staged), (_, reply)] = open_exchange(&vectors, "stage_audience", &secret);
    // Request, id 1, lowest pending 1, one page; StageAudience, key 1, part 0, one user.
    assert_eq!((counter, staged), (1, [&[1, 1, 1, 1, 2, 1, 0, 1, 5], b"vader".as_slice()].concat()));
    assert_eq!(reply, [1, 1, 0, 2], "AudienceStaged");
    let [(counter, request), (_, reply)] = open_exchange(&vectors, "publish", &secret);
    let mut parser = Parser(&request);
    assert_eq!((counter, parser.take(6)), (2, [1, 2, 2, 1, 0, 1].as_slice()), "id 2: Publish, one file");
    let (name, hash, size, mtime_ms) = (parser.text(), parser.take(32), parser.varint(), parser.zigzag());
    assert_eq!((name, mtime_ms), ("two groups.bin", -1));
    assert_eq!((size, hash), (vectors.number("transfer", "size"), vectors.bytes("transfer", "hash").as_slice()));
    assert_eq!((parser.varint(), parser.varint()), (1, 1), "Staged, key 1");
    parser.end();
    let audience = blake3::hash(b"onlyvader\n");
    let mut publication = [(name.len() as u64).to_be_bytes().as_slice(), name.as_bytes(), hash].concat();
    publication.extend(size.to_be_bytes());
    publication.extend(mtime_ms.to_be_bytes());
    publication.extend(audience.as_bytes());
    let hash = blake3::hash(&publication);
    assert_eq!(reply, [&[1, 2, 0, 0], &hash.as_bytes()[..16]].concat(), "Published: the sum over one publication");
}

#[test]
fn a_resumption_is_read() {
    let vectors = Vectors::read();
    let before = read_login(&vectors);
    let bytes = |field| vectors.bytes("resumption", field);
    let (reset, hello, retry) = (bytes("reset"), bytes("hello"), bytes("retry"));
    let tag = &derive("reset tag", &[before.reset_token.as_slice(), &[0, 0]].concat())[..16];
    assert_eq!(reset, [&[0x11], before.session.as_slice(), tag, &[0, 0]].concat());
    let nonce = hello[3..19].to_vec();
    let mut resume = bytes("resume");
    let ticket = resume.split_off(97);
    let sealed_info = resume.split_off(49);
    assert_eq!(resume, [&[8], nonce.as_slice(), &retry[17..]].concat());
    assert_eq!(ticket, before.ticket);
    let ticket_secret = derive("resumption secret", &vectors.bytes("login", "session_secret"));
    let material = |server_part: &[u8]| [&ticket_secret, nonce.as_slice(), server_part].concat();
    let info_key = derive("resume details", &material(&retry[17..]));
    check_client_info(&aes_open(&info_key, [0; 12], &nonce, &sealed_info), before.instance);
    let resumed = bytes("resumed");
    assert_eq!((resumed.len(), resumed[0], &resumed[1..17]), (369, 9, nonce.as_slice()));
    let server_nonce = &resumed[17..33];
    let result_key = derive("resume answer", &material(server_nonce));
    let after = parse_result(&aes_open(&result_key, [0; 12], &nonce, &resumed[33..]));
    assert_eq!(after.instance, before.instance, "a resumption keeps the instance");
    assert_eq!(after.last_writer, before.instance);
    assert_eq!(after.digest, vectors.bytes("publish", "server_message")[4..]);
    assert!(after.session != before.session && after.server_time_ms > before.server_time_ms);
    let secret = derive("resumed session secret", &material(server_nonce));
    assert_eq!(bytes("session_secret"), secret);
    check_session_keys(&vectors, "resumption");
    let [(counter, heartbeat), _] = open_exchange(&vectors, "heartbeat_after_resumption", &secret);
    assert_eq!((counter, heartbeat), (0, vec![0, 1, 8]), "counters and heartbeats start anew");
}

#[test]
fn a_ticket_is_read_from_its_source_grant_and_by_its_uploader() {
    let vectors = Vectors::read();
    let [_, (_, reply)] = open_exchange(&vectors, "sources", &vectors.bytes("sources", "session_secret"));
    let mut parser = Parser(&reply);
    assert_eq!(parser.take(5), [1, 1, 0, 7, 1], "Reply to request 1: Sources, one");
    assert_eq!(parser.text(), "hans");
    assert_eq!((parser.varint(), parser.array(), parser.varint()), (0, [127, 0, 0, 1], 4_000), "the address");
    assert_eq!((parser.byte(), parser.varint()), (1, 1), "it has a free slot, mask of files");
    let (key, ticket) = (parser.take(32), parser.bytes());
    assert_eq!(parser.byte(), 0, "no further page");
    parser.end();
    assert_eq!(ticket, vectors.bytes("ticket", "ticket"));
    let ticket_key = vectors.bytes("resumption", "transfer_ticket_key");
    let mut sealed = Parser(ticket);
    let text = aes_open(&ticket_key, sealed.array(), &[], sealed.0);
    let mut parser = Parser(&text);
    assert_eq!(parser.text(), "vader");
    let expires_ms = parser.varint();
    let server_time_ms = parse_result(&vectors.bytes("resumption", "result_plaintext")).server_time_ms;
    assert_eq!(expires_ms - server_time_ms, 60_000);
    assert_eq!(parser.take(32), key);
    assert_eq!((parser.varint(), parser.text()), (1, "two groups.bin"));
    assert_eq!(parser.take(32), vectors.bytes("transfer", "hash"));
    assert_eq!(parser.varint(), vectors.number("transfer", "size"));
    parser.end();
}

#[test]
fn a_transfer_is_read() {
    let vectors = Vectors::read();
    let bytes = |field: &str| vectors.bytes("transfer", field);
    let size = vectors.number("transfer", "size");
    let content: Vec<u8> = (0..size).map(|at| (at + at / 256 + at / 65_536) as u8).collect();
    assert_eq!(bytes("hash"), blake3::hash(&content).as_bytes());
    let hashes = [group_hash(&content, 0), group_hash(&content, 1)];
    let root = blake3::hazmat::merge_subtrees_root(&hashes[0], &hashes[1], blake3::hazmat::Mode::Hash);
    assert_eq!(bytes("hash"), root.as_bytes());
    let [to_uploader, to_downloader] = read_handshake(&vectors);
    let requests = [vec![1, 1, 0], vec![1, 2, 1, 0, 0, 2]];
    for (counter, request) in (0..).zip(requests) {
        let record = bytes(&format!("downloader_record_{counter}"));
        assert_eq!(open_record(&to_uploader, counter, &record), request, "GetGroupHashes, RequestGroups");
    }
    let frame = open_record(&to_downloader, 0, &bytes("uploader_record_0"));
    assert_eq!(frame, [&[1, 2, 0, 0, 2], hashes.concat().as_slice()].concat(), "GroupHashes");
    let data_frame = |start: usize, end: usize| {
        [&[0, 0, 0, 0, 0], (start as u64).to_be_bytes().as_slice(), &content[start..end]].concat()
    };
    let mut records = seal_record(&to_downloader, 0, &frame);
    for at in 0..16 {
        let record = seal_record(&to_downloader, 1 + at, &data_frame((at as usize) << 16, (at as usize + 1) << 16));
        if at == 0 {
            assert_eq!(record[..20], bytes("uploader_record_1_first_20_bytes"));
            assert_eq!(record[record.len() - 16..], bytes("uploader_record_1_tag"));
        }
        records.extend(record);
    }
    assert_eq!(open_record(&to_downloader, 17, &bytes("uploader_record_17")), data_frame(1 << 20, content.len()));
    records.extend(bytes("uploader_record_17"));
    assert_eq!(bytes("uploader_records_blake3"), blake3::hash(&records).as_bytes());
}

/// Checks the handshake of the transfer from both ends; the keys of the records.
fn read_handshake(vectors: &Vectors) -> [[u8; 32]; 2] {
    let bytes = |field| vectors.bytes("transfer", field);
    let (mut preamble, ticket, key) =
        (bytes("preamble"), vectors.bytes("ticket", "ticket"), vectors.bytes("ticket", "key"));
    let first = preamble.split_off(10 + ticket.len());
    assert_eq!(preamble[..6], *b"fshare");
    assert_eq!(preamble[6..8], vectors.bytes("login", "hello")[1..3], "the version");
    assert_eq!(preamble[8..], [(ticket.len() as u16).to_be_bytes().as_slice(), &ticket].concat());
    let mut downloader = noise(&preamble, &key, Some(&bytes("downloader_ephemeral_private_key")), true);
    let mut uploader = noise(&preamble, &key, Some(&bytes("uploader_ephemeral_private_key")), false);
    let mut message = [0; 48];
    downloader.write_message(&[], &mut message).expect("48 bytes");
    assert_eq!(first, message);
    uploader.read_message(&first, &mut []).expect("made with the same key");
    uploader.write_message(&[], &mut message).expect("48 bytes");
    assert_eq!(bytes("uploader_noise_message"), message);
    downloader.read_message(&message, &mut []).expect("made with the same key");
    let split = downloader.dangerously_get_raw_split();
    assert_eq!((bytes("noise_split_key_1"), bytes("noise_split_key_2")), (split.0.to_vec(), split.1.to_vec()));
    let keys = record_keys(&mut uploader);
    assert_eq!(bytes("downloader_record_key"), keys[0]);
    assert_eq!(bytes("uploader_record_key"), keys[1]);
    assert_eq!(counter_nonce(258), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    keys
}
