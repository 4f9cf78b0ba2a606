//! The same transfer between the programs' own code and ends that are made of primitives: the records of the vectors are
//! what the programs send and take.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fileshare::internals::client::control::RequestError;
use fileshare::internals::client::download::{
    Download, DownloadOptions, DownloadOutcome, DownloadReport, Downloader, OnExists, SaveAs, SourceDiscovery,
    SourceOffer,
};
use fileshare::internals::client::files::SharedFiles;
use fileshare::internals::client::upload::{Listener, UploadService};
use fileshare::internals::common::types::{Audience, Content, ContentHash, ContentRef, NamedContent, UserName};
use zeroize::Zeroizing;

use crate::document::Vectors;
use crate::primitives::{Parser, aes_open, noise, open_record, record_keys, seal_record};
use crate::recording;

/// Numbers of requests.
const GET_GROUP_HASHES: u64 = 1;
const REQUEST_GROUPS: u64 = 2;

/// A test that waits longer fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection after its handshake, and the keys and counters of its records.
struct Records {
    stream: TcpStream,
    sending: ([u8; 32], u64),
    receiving: ([u8; 32], u64),
}

impl Records {
    fn send(&mut self, frame: &[u8]) {
        let (key, counter) = &mut self.sending;
        self.stream.write_all(&seal_record(key.as_slice(), *counter, frame)).expect("the other end reads");
        *counter += 1;
    }

    /// The next frame; `None` when the other end has closed the connection.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut record = vec![0; 4];
        self.stream.read_exact(&mut record).ok()?;
        let length = u32::from_be_bytes([record[0], record[1], record[2], record[3]]);
        record.resize(4 + length as usize, 0);
        self.stream.read_exact(&mut record[4..]).expect("a whole record");
        let (key, counter) = &mut self.receiving;
        let frame = open_record(key.as_slice(), *counter, &record);
        *counter += 1;
        Some(frame)
    }
}

/// The key that seals transfer tickets for the uploader.
fn ticket_key(vectors: &Vectors) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(vectors.bytes("ticket", "transfer_ticket_key").try_into().expect("32 bytes"))
}

/// The published file.
fn file() -> NamedContent {
    let (content, name) = (recording::content(), recording::NAME.parse().expect("a name"));
    let hash = ContentHash(*blake3::hash(&content).as_bytes());
    NamedContent { name, content: Content { hash, size: content.len() as u64, mtime_ms: 0 } }
}

fn expect_saved(report: DownloadReport) {
    match report {
        DownloadReport::SourceDropped { user, reason, .. } => panic!("{user}: {reason}"),
        DownloadReport::Finished(_, outcome) => {
            assert!(matches!(outcome, DownloadOutcome::Saved { .. }), "{outcome:?}")
        }
        _ => {}
    }
}
#[test]
fn a_downloader_made_of_primitives_gets_the_recorded_frames_from_a_listener() {
    let vectors = Vectors::read();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = file();
    std::fs::write(dir.path().join(recording::NAME), recording::content()).expect("a new file");
    let files = SharedFiles::open(dir.path()).expect("a directory");
    files.hash(&file.name, &mut |_| std::ops::ControlFlow::Continue(())).expect("a readable file");
    let service = UploadService::new(files, 8);
    let expires_ms = Parser(&vectors.bytes("ticket", "plaintext")[6..]).varint();
    service.set_ticket_key(&ticket_key(&vectors), expires_ms - 60_000);
    service.publications().publish(&file.name, file.content, Audience::Everyone);
    let listener = Listener::start(service, SocketAddr::from(([127, 0, 0, 1], 0)), None).expect("a free port");

    let prologue = recording::preamble(&vectors.bytes("ticket", "ticket"));
    let mut stream = TcpStream::connect(("127.0.0.1", listener.port())).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut noise = noise(&prologue, &vectors.bytes("ticket", "key"), None, true);
    let mut message = [0; 48];
    noise.write_message(&[], &mut message).expect("48 bytes");
    stream.write_all(&[prologue.as_slice(), &message].concat()).expect("it listens");
    stream.read_exact(&mut message).expect("the uploader's Noise message");
    noise.read_message(&message, &mut []).expect("made with the same key");
    let [to_uploader, to_downloader] = record_keys(&mut noise);
    let mut records = Records { stream, sending: (to_uploader, 0), receiving: (to_downloader, 0) };
    for request in 0..2 {
        records.send(&vectors.bytes("transfer", &format!("downloader_frame_{request}")));
    }
    for expected in recording::uploader_frames(&recording::content()) {
        assert!(records.receive() == Some(expected), "the frames of the vectors, in their order");
    }
}

/// Takes the place of the server: hans is the only source, with the ticket of the vectors.
struct OnlySource {
    address: SocketAddr,
    key: [u8; 32],
    ticket: Vec<u8>,
}

impl SourceDiscovery for OnlySource {
    fn find_sources(&self, _: &[ContentRef], _: &[UserName], _: usize) -> Result<Vec<SourceOffer>, RequestError> {
        let (user, key, ticket) = ("hans".parse().expect("a name"), self.key.into(), self.ticket.clone());
        Ok(vec![SourceOffer { user, address: self.address, key, ticket, files: vec![0] }])
    }
}

#[test]
fn a_downloader_gets_a_file_from_an_uploader_made_of_primitives() {
    let vectors = Vectors::read();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let ticket_key = ticket_key(&vectors);
    let uploader = thread::spawn(move || upload(&listener.accept().expect("a downloader").0, &*ticket_key));
    let key = vectors.bytes("ticket", "key").try_into().expect("32 bytes");
    let source = OnlySource { address, key, ticket: vectors.bytes("ticket", "ticket") };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let downloader = Downloader::with_discovery(dir.path(), Arc::new(source)).expect("a directory");
    let options = DownloadOptions { on_exists: OnExists::Error, retry_for: Duration::ZERO, save_as: SaveAs::OwnName };
    downloader.fetch(&[file()], &options, &crossbeam_channel::never(), &expect_saved);
    assert!(std::fs::read(dir.path().join(recording::NAME)).expect("it was saved") == recording::content());
    drop(downloader);
    uploader.join().expect("the uploader gets requests that the document describes");
}

/// Serves the published file to one downloader until it closes the connection.
fn upload(mut stream: &TcpStream, ticket_key: &[u8]) {
    let mut head = [0; 10];
    stream.read_exact(&mut head).expect("magic, version, length of the ticket");
    assert_eq!(head[..6], *b"fshare");
    let mut ticket = vec![0; usize::from(u16::from_be_bytes([head[8], head[9]]))];
    stream.read_exact(&mut ticket).expect("a ticket");
    let mut sealed = Parser(&ticket);
    let text = aes_open(ticket_key, sealed.array(), &[], sealed.0);
    let mut parser = Parser(&text);
    let (_downloader, _expires_ms, key) = (parser.text(), parser.varint(), parser.take(32));
    let mut noise = noise(&[head.as_slice(), &ticket].concat(), key, None, false);
    let mut message = [0; 48];
    stream.read_exact(&mut message).expect("a Noise message");
    noise.read_message(&message, &mut []).expect("made with the same key");
    noise.write_message(&[], &mut message).expect("48 bytes");
    stream.write_all(&message).expect("the downloader reads");
    let [to_uploader, to_downloader] = record_keys(&mut noise);
    let stream = stream.try_clone().expect("a descriptor");
    let mut records = Records { stream, sending: (to_downloader, 0), receiving: (to_uploader, 0) };
    let content = recording::content();
    // Group hashes; group 0 in 16 frames; group 1 in one.
    let frames = recording::uploader_frames(&content);
    while let Some(frame) = records.receive() {
        let mut parser = Parser(&frame);
        assert_eq!(parser.byte(), 1, "a downloader sends messages only");
        match parser.varint() {
            GET_GROUP_HASHES => {
                assert_eq!(parser.varint(), 0, "the only content");
                records.send(&frames[0]);
            }
            REQUEST_GROUPS => {
                for _ in 0..parser.varint() {
                    let (content, first, count) = (parser.varint(), parser.varint(), parser.varint());
                    assert_eq!(content, 0, "the only content");
                    for group in first..first + count {
                        let frames = if group == 0 { &frames[1..17] } else { &frames[17..] };
                        frames.iter().for_each(|frame| records.send(frame));
                    }
                }
            }
            other => panic!("request {other} is not expected here"),
        }
        parser.end();
    }
}
