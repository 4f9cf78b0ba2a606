//! Whatever comes from outside: the invariants of the fuzz targets over drawn inputs, noise and truth with mistakes in it.

#[path = "../fuzz/invariants.rs"]
mod invariants;

use fileshare::common::message::{
    AudienceRef, ClientMessage, NameQuery, PublishedFile, Request, Response, ServerMessage,
};
use fileshare::common::packet::Packet;
use fileshare::common::transfer::{Opening, ToUploader, WantedRange};
use fileshare::common::types::{Content, ContentHash, FileName, RequestId, StateDigest, UserName};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const INPUTS: usize = 40_000;

/// Changes some bytes, cuts or repeats a piece, or puts a piece of something else in.
fn spoiled(rng: &mut StdRng, truths: &[Vec<u8>]) -> Vec<u8> {
    const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b' ', b'/', b'.', b'"', b'\\'];
    let mut bytes = truths.choose(rng).expect("some truth").clone();
    for _ in 0..rng.gen_range(0..6) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.gen_range(0..bytes.len());
        match rng.gen_range(0..6) {
            0 => bytes[at] = rng.r#gen(),
            1 => bytes[at] = *TELLING.choose(rng).expect("some"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..rng.gen_range(at..=bytes.len()))),
            4 => bytes.insert(at, *TELLING.choose(rng).expect("some")),
            _ => {
                let other = truths.choose(rng).expect("some truth");
                let from = rng.gen_range(0..=other.len());
                bytes.splice(at..at, other[from..].iter().copied());
            }
        }
    }
    bytes
}

fn try_all(seed: u64, truths: &[Vec<u8>], mut holds: impl FnMut(&mut StdRng, &[u8])) {
    let mut rng = StdRng::seed_from_u64(seed);
    for at in 0..INPUTS {
        let bytes = match at % 4 {
            0 => (0..rng.gen_range(0..400)).map(|_| rng.r#gen()).collect(),
            _ => spoiled(&mut rng, truths),
        };
        holds(&mut rng, &bytes);
    }
    truths.iter().for_each(|truth| holds(&mut rng, truth));
}

fn packets() -> Vec<Vec<u8>> {
    let (nonce, cookie) = ([1; 16], [2; 32]);
    let packets = [
        Packet::Hello { version: 1, nonce },
        Packet::Retry { nonce, cookie },
        Packet::Login1 { nonce, cookie, user: "hans", ke1: &[3; 96] },
        Packet::Login2 { nonce, ke2: &[4; 320] },
        Packet::Login3 { nonce, ke3: &[5; 64], details: &[6; 48] },
        Packet::Answer { nonce, answer: &[7; 336] },
        Packet::Resume { nonce, cookie, details: &[6; 48], ticket: &[9; 100] },
        Packet::Refused { nonce },
    ];
    packets.iter().map(Packet::to_bytes).chain([vec![0x10; 100]]).collect()
}

#[test]
fn datagrams() {
    try_all(1, &packets(), |_, bytes| invariants::packet(bytes));
}

#[test]
fn a_strangers_datagrams() {
    let mut truths = packets();
    truths.push(truths.concat());
    try_all(2, &truths, |rng, bytes| invariants::stranger((rng.gen_range(0..4), bytes)));
}

#[test]
fn messages() {
    let name = FileName::parse("folder/a.pdf").expect("a name");
    let content = Content { hash: ContentHash([1; 32]), size: 7, mtime_ms: -1 };
    let file = PublishedFile { name: name.clone(), content };
    let requests = [
        Request::Publish { files: vec![file; 3], audience: AudienceRef::Staged(7) },
        Request::Unpublish { names: vec![name.clone(); 3] },
        Request::StageAudience { key: 1, part: 2, users: vec![UserName::parse("hans").expect("a name"); 4] },
        Request::Resolve { query: NameQuery::Exact(name.clone()), fetch: true, cursor: None },
        Request::Search { query: NameQuery::Substring("a".repeat(300)), cursor: None },
    ];
    let id = RequestId(9);
    let mut truths = Vec::new();
    for request in requests {
        let mut text = Vec::new();
        ClientMessage::Request { id, floor: id, request }.encode(&mut text);
        truths.push(text);
    }
    for response in [
        Response::Names { names: vec![name; 5], next: None },
        Response::Stored { digest: StateDigest([3; 16]) },
        Response::Sources { sources: Vec::new(), next: None },
    ] {
        let mut text = Vec::new();
        ServerMessage::Reply { id, response }.encode(&mut text);
        truths.push(text);
    }
    try_all(3, &truths, |_, bytes| invariants::messages(bytes));
}

#[test]
fn transfers() {
    let preamble = |ticket: &[u8]| Opening::start(ticket, &[7; 32]).expect("it fits").1;
    let ranges = vec![WantedRange { content: 0, first: 1, count: u32::MAX }; 5];
    let want = postcard::to_stdvec(&ToUploader::Want { ranges }).expect("our own types encode");
    let grant = postcard::to_stdvec(&ToUploader::Grant { ticket: vec![1; 200] }).expect("our own types encode");
    let truths = [preamble(&[]), preamble(&[9; 300]), want, grant, vec![0, 1, 0, 0], vec![0xff; 4]];
    try_all(4, &truths, |_, bytes| invariants::transfer(bytes));
}

#[test]
fn credentials() {
    let truths = [
        b"# users\n\nhans falcon*solo\nyoda wise@!man\r\nvader sithlord**\n".to_vec(),
        b"hans two words \nlong ".iter().chain(&[b'p'; 256]).copied().collect(),
        b"hans $fileshare$1$00ff\n".to_vec(),
        b"hans a\nhans b\n".to_vec(),
    ];
    try_all(5, &truths, |_, bytes| invariants::credentials(bytes));
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
    try_all(6, &lines.map(<[u8]>::to_vec), |_, bytes| invariants::words(bytes));
}
