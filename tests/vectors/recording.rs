//! Makes the vectors: what the server's core and the clients' sessions send with fixed randomness, and a transfer.

use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::peer_message::{GroupRange, PeerRequest, PeerResponse};
use fileshare::internals::common::types::{Content, ContentHash, ContentRef, NamedContent};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::document::{Document, Section};
use crate::exchange::{Exchange, RecordedClient, USERS};
use crate::messages;
use crate::primitives::{self, Parser, Suite, derive, group_hash, noise, record_keys, seal_record};

const HELLO: u8 = 0x01;
const RETRY: u8 = 0x02;
const LOGIN1: u8 = 0x04;
const LOGIN2: u8 = 0x05;
const LOGIN3: u8 = 0x06;
const LOGIN4: u8 = 0x07;
const RESUME: u8 = 0x08;
const RESUMED: u8 = 0x09;
const SESSION: u8 = 0x10;
const RESET: u8 = 0x11;

/// Name and size of the published content: two chunk groups.
pub const NAME: &str = "two groups.bin";
const SIZE: usize = (1 << 20) + 5;
/// Most bytes of content in one record.
pub const RECORD_BYTES: usize = 65_536;

/// The published content: byte *i* is the low byte of *i* + *i* / 256 + *i* / 65,536.
pub fn content() -> Vec<u8> {
    (0..SIZE).map(|at| (at + at / 256 + at / 65_536) as u8).collect()
}

/// All vectors.
pub fn record() -> Document {
    let mut document = Document::default();
    let mut exchange = Exchange::new();
    let hans = exchange.log_in(0);
    let secret = record_login(&mut document, exchange.client(hans));
    record_requests(&mut document, &mut exchange, hans, &secret);
    let ticket_key = record_resumption(&mut document, &mut exchange, hans, &secret);
    let (key, ticket) = record_sources(&mut document, &mut exchange, &ticket_key);
    document.add("transfer", |section| record_transfer(section, &key, &ticket));
    messages::record(&mut document);
    document
}

/// Records the login of a client and returns the session's secret.
fn record_login(document: &mut Document, client: &mut RecordedClient) -> [u8; 32] {
    let (user, password) = USERS[0];
    let [hello, login1, login3] = [HELLO, LOGIN1, LOGIN3].map(|kind| client.sent(kind));
    let [retry, login2, login4] = [RETRY, LOGIN2, LOGIN4].map(|kind| client.received(kind));
    let nonce = &hello[3..19];
    let state = opaque_state(client.seed, password, &login1[114..]);
    let (session_key, ke3) = primitives::opaque_finish(&state, user, password.as_bytes(), &login2[17..]);
    let [info_key, result_key] = ["login details", "login answer"].map(|purpose| derive(purpose, &session_key));
    let secret = derive("session secret", &session_key);
    document.add("login", |section| {
        section.text("user", user);
        section.text("password", password);
        section.bytes("nonce", nonce);
        section.bytes("hello", &hello);
        section.bytes("retry", &retry);
        section.bytes("opaque_blind", &state[..32]);
        section.bytes("opaque_client_private_keyshare", &state[128..160]);
        section.bytes("opaque_client_nonce", &state[160..]);
        section.bytes("login1", &login1);
        section.bytes("login2", &login2);
        section.bytes("opaque_session_key", &session_key);
        section.bytes("ke3", &ke3);
        section.bytes("client_info_key", &info_key);
        section.bytes("client_info_plaintext", &open_padded(&info_key, nonce, &login3[81..]));
        section.bytes("login3", &login3);
        section.bytes("result_key", &result_key);
        section.bytes("result_plaintext", &open_padded(&result_key, nonce, &login4[17..]));
        section.bytes("login4", &login4);
        add_session_keys(section, &secret);
    });
    secret
}

/// A session's secret and the keys that follow from it.
fn add_session_keys(section: &mut Section, secret: &[u8; 32]) {
    section.bytes("session_secret", secret);
    section.bytes("client_to_server_key", &derive("datagrams client to server", secret));
    section.bytes("server_to_client_key", &derive("datagrams server to client", secret));
    section.bytes("transfer_ticket_key", &derive("transfer tickets", secret));
    section.bytes("ticket_secret", &derive("resumption secret", secret));
}

/// Records a heartbeat, a staged audience and a publication.
fn record_requests(document: &mut Document, exchange: &mut Exchange, client: usize, secret: &[u8; 32]) {
    document.add("heartbeat", |section| add_datagrams(section, exchange.client(client), secret));
    let users = vec![USERS[1].0.parse().expect("a name")];
    exchange.request(client, Request::StageAudience { key: 1, part: 0, users });
    document.add("stage_audience", |section| add_datagrams(section, exchange.client(client), secret));
    let hash = ContentHash(*blake3::hash(&content()).as_bytes());
    let content = Content { hash, size: SIZE as u64, mtime_ms: -1 };
    let files = vec![NamedContent { name: NAME.parse().expect("a name"), content }];
    let response = exchange.request(client, Request::Publish { files, audience: AudienceRef::Staged(1) });
    assert!(matches!(response, Response::Published { .. }), "{response:?}");
    document.add("publish", |section| add_datagrams(section, exchange.client(client), secret));
}

/// The only session datagram of each direction since the last call.
fn add_datagrams(section: &mut Section, client: &mut RecordedClient, secret: &[u8; 32]) {
    let (sent, received) = (client.sent(SESSION), client.received(SESSION));
    add_datagram(section, "client", &derive("datagrams client to server", secret), &sent);
    add_datagram(section, "server", &derive("datagrams server to client", secret), &received);
}

fn add_datagram(section: &mut Section, from: &str, key: &[u8], datagram: &[u8]) {
    let (_, message) = primitives::open_session_datagram(key, datagram);
    section.bytes(&format!("{from}_message"), &message);
    section.bytes(&format!("{from}_datagram"), datagram);
}

/// Records how the session of a client ends with the server and is resumed. Returns the new key of transfer tickets.
fn record_resumption(document: &mut Document, exchange: &mut Exchange, client: usize, secret: &[u8; 32]) -> [u8; 32] {
    exchange.restart_server();
    exchange.wait_for_heartbeat();
    let client = exchange.client(client);
    let [hello, resume] = [HELLO, RESUME].map(|kind| client.sent(kind));
    let [reset, retry, resumed] = [RESET, RETRY, RESUMED].map(|kind| client.received(kind));
    let (nonce, cookie) = (&hello[3..19], &retry[17..]);
    let ticket_secret = derive("resumption secret", secret);
    let material = |server_part: &[u8]| [&ticket_secret, nonce, server_part].concat();
    let server_nonce = &resumed[17..33];
    let info_key = derive("resume details", &material(cookie));
    let result_key = derive("resume answer", &material(server_nonce));
    let resumed_secret = derive("resumed session secret", &material(server_nonce));
    let (sent, received) = (client.take_sent(SESSION), client.take_received(SESSION));
    document.add("resumption", |section| {
        section.bytes("reset", &reset);
        section.bytes("nonce", nonce);
        section.bytes("hello", &hello);
        section.bytes("retry", &retry);
        section.bytes("ticket_secret", &ticket_secret);
        section.bytes("client_info_key", &info_key);
        section.bytes("client_info_plaintext", &open_padded(&info_key, nonce, &resume[49..97]));
        section.bytes("resume", &resume);
        section.bytes("result_key", &result_key);
        section.bytes("result_plaintext", &open_padded(&result_key, nonce, &resumed[33..]));
        section.bytes("resumed", &resumed);
        add_session_keys(section, &resumed_secret);
    });
    document.add("heartbeat_after_resumption", |section| {
        // The first one sent was the old session's, which the RESET answered.
        let key = |purpose| derive(purpose, &resumed_secret);
        add_datagram(section, "client", &key("datagrams client to server"), &sent[1]);
        add_datagram(section, "server", &key("datagrams server to client"), &received[0]);
    });
    derive("transfer tickets", &resumed_secret)
}

/// Records how another client asks for sources, and the ticket that it gets. Returns the ticket with its key.
fn record_sources(document: &mut Document, exchange: &mut Exchange, ticket_key: &[u8; 32]) -> ([u8; 32], Vec<u8>) {
    let vader = exchange.log_in(1);
    let (user, password) = USERS[1];
    let client = exchange.client(vader);
    let [login1, login2] = [client.sent(LOGIN1), client.received(LOGIN2)];
    let state = opaque_state(client.seed, password, &login1[114..]);
    let (session_key, _) = primitives::opaque_finish(&state, user, password.as_bytes(), &login2[17..]);
    let secret = derive("session secret", &session_key);
    client.take_sent(SESSION);
    client.take_received(SESSION);
    let hash = ContentHash(*blake3::hash(&content()).as_bytes());
    let files = vec![ContentRef { name: NAME.parse().expect("a name"), hash, size: SIZE as u64 }];
    let response = exchange.request(vader, sources(files));
    let Response::Sources { sources, .. } = response else { panic!("{response:?}") };
    let [source] = &sources[..] else { panic!("hans is the only source") };
    document.add("sources", |section| {
        section.text("user", user);
        section.bytes("session_secret", &secret);
        add_datagrams(section, exchange.client(vader), &secret);
    });
    document.add("ticket", |section| {
        let mut parser = Parser(&source.ticket);
        let (nonce, sealed) = (parser.array(), parser.0);
        section.bytes("ticket", &source.ticket);
        section.bytes("transfer_ticket_key", ticket_key);
        section.bytes("plaintext", &primitives::aes_open(ticket_key, nonce, &[], sealed));
        section.bytes("key", &source.key.0);
    });
    (source.key.0, source.ticket.clone())
}

fn sources(files: Vec<ContentRef>) -> Request {
    Request::Sources { files, avoid: Vec::new(), cursor: None }
}

/// Records a transfer. The ephemeral keys of Noise cannot be chosen from outside the programs, so both ends are made here
/// of primitives; `live.rs` runs the same code against the programs.
fn record_transfer(section: &mut Section, key: &[u8], ticket: &[u8]) {
    let content = content();
    let [downloader_private, uploader_private] = [[0x33; 32], [0x44; 32]];
    let prologue = preamble(ticket);
    let mut downloader = noise(&prologue, key, Some(&downloader_private), true);
    let mut uploader = noise(&prologue, key, Some(&uploader_private), false);
    let (mut first, mut second) = ([0; 48], [0; 48]);
    downloader.write_message(&[], &mut first).expect("48 bytes");
    uploader.read_message(&first, &mut []).expect("the same keys");
    uploader.write_message(&[], &mut second).expect("48 bytes");
    downloader.read_message(&second, &mut []).expect("the same keys");
    let (split, [to_uploader, to_downloader]) = (downloader.dangerously_get_raw_split(), record_keys(&mut downloader));
    section.text("content", "byte i is the low byte of i + floor(i / 256) + floor(i / 65536)");
    section.text("size", content.len());
    section.bytes("hash", blake3::hash(&content).as_bytes());
    section.bytes("group_hash_0", &group_hash(&content, 0));
    section.bytes("group_hash_1", &group_hash(&content, 1));
    section.bytes("downloader_ephemeral_private_key", &downloader_private);
    section.bytes("uploader_ephemeral_private_key", &uploader_private);
    section.bytes("preamble", &[prologue.as_slice(), &first].concat());
    section.bytes("uploader_noise_message", &second);
    section.bytes("noise_split_key_1", &split.0);
    section.bytes("noise_split_key_2", &split.1);
    section.bytes("downloader_record_key", &to_uploader);
    section.bytes("uploader_record_key", &to_downloader);
    for (counter, request) in (0..).zip(requests()) {
        let frame = message_frame(&request);
        section.bytes(&format!("downloader_frame_{counter}"), &frame);
        section.bytes(&format!("downloader_record_{counter}"), &seal_record(&to_uploader, counter, &frame));
    }
    let mut all = blake3::Hasher::new();
    let frames = uploader_frames(&content);
    for (counter, frame) in (0..).zip(&frames) {
        let record = seal_record(&to_downloader, counter, frame);
        all.update(&record);
        // The others are as the second one, with their own counters and offsets.
        if counter == 0 || counter as usize == frames.len() - 1 {
            section.bytes(&format!("uploader_frame_{counter}"), frame);
            section.bytes(&format!("uploader_record_{counter}"), &record);
        } else if counter == 1 {
            section.bytes("uploader_frame_1_first_17_bytes", &frame[..17]);
            section.bytes("uploader_record_1_first_20_bytes", &record[..20]);
            section.bytes("uploader_record_1_tag", &record[record.len() - 16..]);
        }
    }
    section.text("uploader_records", frames.len());
    section.bytes("uploader_records_blake3", all.finalize().as_bytes());
}

/// Everything before the downloader's Noise message.
pub fn preamble(ticket: &[u8]) -> Vec<u8> {
    let version = fileshare::internals::common::limits::PROTOCOL_VERSION.to_be_bytes();
    let length = u16::try_from(ticket.len()).expect("a short ticket").to_be_bytes();
    [b"fshare", version.as_slice(), &length, ticket].concat()
}

/// What the downloader requests: the group hashes, then both groups.
pub fn requests() -> [PeerRequest; 2] {
    let ranges = vec![GroupRange { content: 0, first: 0, count: 2 }];
    [PeerRequest::GetGroupHashes { content: 0 }, PeerRequest::RequestGroups { ranges }]
}

/// What the uploader sends then.
pub fn uploader_frames(content: &[u8]) -> Vec<Vec<u8>> {
    let hashes = [0, 1].map(|index| group_hash(content, index)).to_vec();
    let mut frames = vec![message_frame(&PeerResponse::GroupHashes { content: 0, first: 0, hashes })];
    // A record ends where its group does.
    for (group, start) in content.chunks(1 << 20).zip((0_u64..).step_by(1 << 20)) {
        for (bytes, offset) in group.chunks(RECORD_BYTES).zip((start..).step_by(RECORD_BYTES)) {
            frames.push([&[0; 5], offset.to_be_bytes().as_slice(), bytes].concat());
        }
    }
    frames
}

fn message_frame(message: &impl serde::Serialize) -> Vec<u8> {
    [vec![1], postcard::to_stdvec(message).expect("it encodes")].concat()
}

/// Opens a client info or a login result, with its padding.
fn open_padded(key: &[u8], nonce: &[u8], sealed: &[u8]) -> Vec<u8> {
    primitives::aes_open(key, [0; 12], nonce, sealed)
}

/// The state of OPAQUE's client after KE1: blind 32, KE1 96, private key share 32, nonce 32. A session draws its randomness
/// from one generator: it is searched for where KE1 begins.
fn opaque_state(seed: [u8; 32], password: &str, ke1: &[u8]) -> Vec<u8> {
    let state_at = |position| {
        let mut rng = ChaCha20Rng::from_seed(seed);
        rng.set_word_pos(position);
        let started = opaque_ke::ClientLogin::<Suite>::start(&mut rng, password.as_bytes()).expect("any password");
        (started.message.serialize().as_slice() == ke1).then(|| started.state.serialize().to_vec())
    };
    (0..256).find_map(state_at).expect("KE1 is made of the session's randomness, by the suite of the document")
}
