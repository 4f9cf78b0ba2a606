//! The invariants of the fuzz targets, checked with generated inputs: random bytes and corrupted valid inputs.

#[path = "../fuzz/invariants.rs"]
mod invariants;

use std::fs;
use std::path::Path;

use fileshare::internals::common::limits::PROTOCOL_VERSION;
use fileshare::internals::common::message::{
    AudienceRef, ClientMessage, NameQuery, Request, ResolvePurpose, Response, ServerMessage,
};
use fileshare::internals::common::opaque::{ClientLogin, KeyStretching, PasswordRecord, ServerLogin};
use fileshare::internals::common::packet::Packet;
use fileshare::internals::common::peer_crypto::Initiator;
use fileshare::internals::common::peer_message::{GroupRange, PeerRequest};
use fileshare::internals::common::types::{
    Content, ContentHash, FileName, NamedContent, PublicationsDigest, RequestId, UserName,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const INPUTS: usize = 40_000;

/// Corrupts a valid input: changes bytes, cuts or truncates it, or inserts part of another.
fn corrupted(rng: &mut StdRng, valid: &[Vec<u8>]) -> Vec<u8> {
    const SPECIAL: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b' ', b'/', b'.', b'"', b'\\'];
    let mut bytes = valid.choose(rng).expect("a valid input").clone();
    for _ in 0..rng.gen_range(0..6) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.gen_range(0..bytes.len());
        match rng.gen_range(0..6) {
            0 => bytes[at] = rng.r#gen(),
            1 => bytes[at] = *SPECIAL.choose(rng).expect("a byte"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..rng.gen_range(at..=bytes.len()))),
            4 => bytes.insert(at, *SPECIAL.choose(rng).expect("a byte")),
            _ => {
                let other = valid.choose(rng).expect("a valid input");
                let from = rng.gen_range(0..=other.len());
                bytes.splice(at..at, other[from..].iter().copied());
            }
        }
    }
    bytes
}

/// Writes the valid inputs as the fuzzer's seeds if `scripts/fuzz.sh` has set the directory.
fn write_seeds(target: &str, valid: &[Vec<u8>]) {
    let Some(corpus) = std::env::var_os("FILESHARE_FUZZ_CORPUS") else { return };
    let directory = Path::new(&corpus).join(target);
    fs::create_dir_all(&directory).expect("a corpus directory");
    for (at, input) in valid.iter().enumerate() {
        fs::write(directory.join(format!("valid-{at}")), input).expect("a seed file");
    }
}

/// Checks the inputs that the fuzzer has found to matter, valid and corrupted ones, and random bytes.
fn check_all(target: &str, seed: u64, valid: &[Vec<u8>], check: impl Fn(&[u8])) {
    write_seeds(target, valid);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for input in fs::read_dir(corpus).expect("a corpus") {
        check(&fs::read(input.expect("an input").path()).expect("an input"));
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
    let mut rng = StdRng::seed_from_u64(seed);
    for at in 0..INPUTS {
        let bytes = match at % 4 {
            0 => (0..rng.gen_range(0..400)).map(|_| rng.r#gen()).collect(),
            _ => corrupted(&mut rng, valid),
        };
        check(&bytes);
    }
    valid.iter().for_each(|input| check(input));
}

fn packets() -> Vec<Vec<u8>> {
    let (nonce, cookie) = ([1; 16], [2; 32]);
    let packets = [
        Packet::Hello { version: PROTOCOL_VERSION, nonce },
        Packet::Retry { nonce, cookie },
        Packet::Login1 { nonce, cookie, user: "hans", ke1: &[3; 96] },
        Packet::Login2 { nonce, ke2: &[4; 320] },
        Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] },
        Packet::Login4 { nonce, result: &[7; 336] },
        Packet::Resume { nonce, cookie, client_info: &[6; 48], ticket: &[9; 100] },
        Packet::Refused { nonce },
    ];
    packets.iter().map(Packet::to_bytes).chain([vec![0x10; 100]]).collect()
}

#[test]
fn datagrams() {
    check_all("packet", 1, &packets(), invariants::packet);
}

#[test]
fn datagrams_of_an_unauthenticated_client() {
    let mut valid = packets();
    valid.push(valid.concat());
    // The first byte says how many datagrams.
    let valid: Vec<_> =
        (1..4).flat_map(|pieces| valid.iter().map(move |bytes| [&[pieces], &bytes[..]].concat())).collect();
    check_all("unauthenticated_client", 2, &valid, invariants::unauthenticated_client);
}

#[test]
fn datagrams_of_a_malicious_server() {
    let (_, _, hello) = invariants::client();
    let Some(Packet::Hello { nonce, .. }) = Packet::parse(&hello) else { panic!("no HELLO: {hello:x?}") };
    let mut rng = StdRng::seed_from_u64(7);
    let user = UserName::parse("hans").expect("a name");
    let record = PasswordRecord::register(&mut rng, &user, b"a guess", KeyStretching::Insecure);
    let (_, ke1) = ClientLogin::start(&mut rng, b"a guess");
    let (_, ke2) = ServerLogin::start(&mut rng, &record, &user, &ke1);
    let packets = [
        Packet::Retry { nonce, cookie: [2; 32] },
        Packet::Login2 { nonce, ke2: &ke2 },
        Packet::Login4 { nonce, result: &[7; 336] },
        Packet::Throttled { nonce, retry_after_s: 9 },
        Packet::Version { version: 9, nonce },
        Packet::Refused { nonce },
        Packet::Resumed { nonce, server_nonce: [1; 16], result: &[7; 336] },
    ];
    let framed = packets.iter().map(Packet::to_bytes);
    let framed: Vec<Vec<u8>> = framed.map(|bytes| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).collect();
    let whole = framed[..3].concat();
    let slow = [&framed[0][..], &framed[1], &[0; 8], &framed[2]].concat();
    let valid: Vec<_> = [whole, slow].into_iter().chain(framed).collect();
    check_all("malicious_server", 7, &valid, invariants::malicious_server);
}

#[test]
fn messages() {
    let name = FileName::parse("folder/a.pdf").expect("a name");
    let content = Content { hash: ContentHash([1; 32]), size: 7, mtime_ms: -1 };
    let file = NamedContent { name: name.clone(), content };
    let requests = [
        Request::Publish { files: vec![file; 3], audience: AudienceRef::Staged(7) },
        Request::Unpublish { names: vec![name.clone(); 3] },
        Request::StageAudience { key: 1, part: 2, users: vec![UserName::parse("hans").expect("a name"); 4] },
        Request::Resolve { query: NameQuery::Exact(name.clone()), purpose: ResolvePurpose::Download, cursor: None },
        Request::Search { query: NameQuery::Substring("a".repeat(300)), cursor: None },
    ];
    let id = RequestId(9);
    let mut valid = Vec::new();
    for request in requests {
        let mut text = Vec::new();
        ClientMessage::Request { id, lowest_pending: id, pages: 1, request }.encode(&mut text);
        valid.push(text);
    }
    for response in [
        Response::SearchResults { names: vec![name; 5], next: None },
        Response::Published { digest: PublicationsDigest([3; 16]) },
        Response::Sources { sources: Vec::new(), next: None },
    ] {
        let mut text = Vec::new();
        ServerMessage::Reply { id, page: 0, response }.encode(&mut text);
        valid.push(text);
    }
    // A subscription to a pattern whose normal form is longer.
    let subscribe = "\u{1}\u{1}\u{1}\u{1}\u{9}\u{1}\u{3}\u{3}*\u{344}".as_bytes().to_vec();
    ClientMessage::decode(&subscribe).expect("a SUBSCRIBE");
    valid.push(subscribe);
    check_all("messages", 3, &valid, invariants::messages);
}

#[test]
fn transfers() {
    let preamble = |ticket: &[u8]| Initiator::start(ticket, &[7; 32]).expect("it fits").1;
    let ranges = vec![GroupRange { content: 0, first: 1, count: u32::MAX }; 5];
    let request = postcard::to_stdvec(&PeerRequest::RequestGroups { ranges }).expect("our own types encode");
    let ticket = postcard::to_stdvec(&PeerRequest::AddTicket { ticket: vec![1; 200] }).expect("our own types encode");
    let valid = [preamble(&[]), preamble(&[9; 300]), request, ticket, vec![0, 1, 0, 0], vec![0xff; 4]];
    check_all("transfer", 4, &valid, invariants::transfer);
}

#[test]
fn credentials() {
    let valid = [
        b"# users\n\nhans falcon*solo\nyoda wise@!man\r\nvader sithlord**\n".to_vec(),
        b"hans two words \nlong ".iter().chain(&[b'p'; 256]).copied().collect(),
        b"hans $fileshare$1$00ff\n".to_vec(),
        b"hans a\nhans b\n".to_vec(),
    ];
    check_all("credentials", 5, &valid, invariants::credentials);
}

#[test]
fn command_lines() {
    let lines: [&[u8]; 8] = [
        b"auth hans falcon*solo",
        b"pub --to vader --to yoda 'a b' \"c\\\"d\" *.pdf ./x/../y",
        b"get name#0123 photos/ a\\ b -- -x",
        b"sch -i -l \"needle with space\"",
        b"unp '*.pdf' [a-z]? ..",
        b"# comment",
        b"-lap",
        "pub \u{202e}gpj.exe \u{1b}[31m ä日本".as_bytes(),
    ];
    check_all("tokenizer", 6, &lines.map(<[u8]>::to_vec), invariants::tokenizer);
}
