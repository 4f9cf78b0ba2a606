use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::client::files::SharedFiles;
use crate::client::transport::{RecordReader, RecordWriter};
use crate::client::upload::test_support;
use crate::client::upload::test_support::{
    NOW_MS, PSK, TestUploader, all_of, ask, message, receive, sealed, skip_data, ticket, ticket_key, wait_until,
};
use crate::common::peer_crypto::Initiator;
use crate::common::peer_message::{PeerRequest, PeerResponse};
use crate::common::types::Audience;
use zeroize::Zeroizing;

fn limits(change: impl FnOnce(&mut UploadLimits)) -> UploadLimits {
    let mut limits = UploadLimits::default();
    change(&mut limits);
    limits
}

/// Reads until the other side closes.
fn answer_to(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // A reset is an end too.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "it is not closed");
    }
    answer
}

/// Asks for next to nothing: whoever is answered has a slot.
fn ask_and_hear(reader: &mut RecordReader<PeerResponse>, writer: &mut RecordWriter) {
    ask(writer, &PeerRequest::Cancel);
    assert_eq!(message(reader), PeerResponse::Cancelled);
}

#[test]
fn a_ticket_that_is_not_good_gets_silence() {
    let uploader = TestUploader::new();
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let grants = [grant];
    let forged = sealed(&Zeroizing::new([4; 32]), "vader", NOW_MS + 60_000, &grants);
    let expired = sealed(&ticket_key(), "vader", NOW_MS, &grants);
    let mut damaged = ticket(&grants);
    damaged[20] ^= 1;
    for bad in [forged, expired, damaged, vec![], b"nothing".to_vec()] {
        let (_, preamble) = Initiator::start(&bad, &PSK).unwrap();
        let mut stream = TcpStream::connect(uploader.address()).unwrap();
        stream.write_all(&preamble).unwrap();
        assert!(answer_to(&mut stream).is_empty());
    }
    assert!(uploader.connect_with(&ticket(&grants), &[8; 32]).is_err(), "stolen without its key");
    wait_until(|| uploader.service.free_slots() == 64);
    assert!(uploader.connect(&grants).is_ok());
}

#[test]
fn before_a_login_and_after_another_every_ticket_is_a_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let service = UploadService::new(SharedFiles::with_cache_dir(dir.path(), None).unwrap(), 2);
    let listener = Listener::start(service, test_support::loopback(0), None).unwrap();
    let connected = transport::connect::<PeerResponse>(test_support::loopback(listener.port()), &ticket(&[]), &PSK);
    assert!(connected.is_err());
}

#[test]
fn a_replayed_preamble_never_meets_the_same_keys() {
    let uploader = TestUploader::new();
    let (_, preamble) = Initiator::start(&ticket(&[]), &PSK).unwrap();
    let reply = || {
        let mut stream = TcpStream::connect(uploader.address()).unwrap();
        stream.write_all(&preamble).unwrap();
        let mut reply = [0; 48];
        stream.read_exact(&mut reply).unwrap();
        reply
    };
    assert_ne!(reply(), reply());
}

#[test]
fn strangers_are_closed_without_a_word() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.handshake = Duration::from_millis(50)));
    for garbage in
        [&b""[..], b"fsh", b"GET / HTTP/1.1\r\n\r\n", b"fshare\0\x01\xff\xff", b"fshare\0\x01\0\x20abc", &[0; 5_000]]
    {
        let mut stream = TcpStream::connect(uploader.address()).unwrap();
        stream.write_all(garbage).unwrap();
        assert!(answer_to(&mut stream).is_empty(), "{garbage:?}");
    }
}

#[test]
fn silent_strangers_make_place() {
    let bounds = |limits: &mut UploadLimits| {
        limits.handshake = Duration::from_secs(3_600);
        limits.pending_max = 6;
        limits.pending_per_prefix_max = 3;
    };
    let uploader = TestUploader::with(4, None, limits(bounds));
    let mut strangers: Vec<_> = (0..20).map(|_| TcpStream::connect(uploader.address()).unwrap()).collect();
    for stranger in &mut strangers[..17] {
        assert!(answer_to(stranger).is_empty(), "the first ones are closed");
    }
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    ask(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
}

#[test]
fn a_full_house_says_so_to_ticket_holders() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.idle_yield = Duration::from_secs(3_600)));
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    ask_and_hear(&mut reader, &mut writer);
    assert_eq!(uploader.service.free_slots(), 0);
    for _ in 0..3 {
        let (mut turned_away, mut asking) = uploader.open(&grant).unwrap();
        ask(&mut asking, &all_of(0, &grant));
        assert_eq!(message(&mut turned_away), PeerResponse::Busy { retry_ms: BUSY_RETRY_MS });
        assert!(turned_away.next().is_err());
    }
    ask(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes", "the one who has the slot is served");
    drop((reader, writer));
    wait_until(|| uploader.service.free_slots() == 1);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    ask_and_hear(&mut reader, &mut writer);
}

#[test]
fn a_recorded_opening_played_again_takes_no_slot() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.idle_yield = Duration::from_secs(3_600)));
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (_, preamble) = Initiator::start(&ticket(std::slice::from_ref(&grant)), &PSK).unwrap();
    let mut replays: Vec<_> = (0..5).map(|_| TcpStream::connect(uploader.address()).unwrap()).collect();
    for replay in &mut replays {
        replay.write_all(&preamble).unwrap();
        replay.read_exact(&mut [0; 48]).unwrap();
    }
    assert_eq!(uploader.service.free_slots(), 1);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    ask(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
    for replay in &mut replays {
        replay.write_all(&[&[0, 0, 0, 40][..], &[7; 40]].concat()).unwrap();
        assert!(answer_to(replay).is_empty(), "it learns nothing, not even that the slot is taken");
    }
}

#[test]
fn who_has_shown_a_ticket_does_not_make_place_for_strangers() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.pending_max = 3));
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let mut strangers: Vec<_> = (0..10).map(|_| TcpStream::connect(uploader.address()).unwrap()).collect();
    for stranger in &mut strangers[..8] {
        assert!(answer_to(stranger).is_empty(), "they make place for each other");
    }
    ask(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
}

#[test]
fn an_idle_downloader_loses_its_slot_to_one_that_waits() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.idle_yield = Duration::from_millis(300)));
    let (mut idle, mut writer) = uploader.connect(&[]).unwrap();
    ask_and_hear(&mut idle, &mut writer);
    let served = || {
        let (mut reader, mut writer) = uploader.connect(&[]).unwrap();
        writer.message(&PeerRequest::Cancel).and_then(|()| writer.flush()).is_ok()
            && matches!(reader.next(), Ok(crate::common::peer_crypto::Frame::Message(PeerResponse::Cancelled)))
    };
    wait_until(served);
    assert!(matches!(message(&mut idle), PeerResponse::Busy { .. }));
    assert!(idle.next().is_err());
}

#[test]
fn who_asks_for_nothing_is_dropped() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.idle = Duration::from_millis(50)));
    let (mut silent, _writer) = uploader.connect(&[]).unwrap();
    let (mut idle, mut writer) = uploader.connect(&[]).unwrap();
    ask_and_hear(&mut idle, &mut writer);
    assert!(silent.next().is_err() && idle.next().is_err());
    wait_until(|| uploader.service.free_slots() == 4);
}

#[test]
fn who_takes_nothing_is_dropped_and_hinders_nobody() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.stall = Duration::from_millis(300)));
    let (large, small) = (uploader.publish_large("large"), uploader.publish("small", b"bytes", Audience::Everyone));
    let (slow, mut writer) = uploader.open(&large).unwrap();
    ask(&mut writer, &all_of(0, &large));
    let (mut reader, mut honest) = uploader.open(&small).unwrap();
    for _ in 0..100 {
        ask(&mut honest, &all_of(0, &small));
        assert_eq!(receive(&mut reader, 0, small.size), b"bytes");
    }
    wait_until(|| uploader.service.free_slots() == 3);
    ask(&mut honest, &all_of(0, &small));
    assert_eq!(receive(&mut reader, 0, small.size), b"bytes", "the slow one is gone, this one is not");
    drop(slow);
}

#[test]
fn leaving_waits_for_nobody() {
    let uploader = TestUploader::new();
    let large = uploader.publish_large("large");
    let (mut stuck, mut writer) = uploader.open(&large).unwrap();
    ask(&mut writer, &all_of(0, &large));
    let _idle = uploader.connect(&[]).unwrap();
    let _stranger = TcpStream::connect(uploader.address()).unwrap();
    let address = uploader.address();
    let TestUploader { service, listener, .. } = uploader;
    drop(listener);
    assert_eq!(service.free_slots(), 64, "all threads have ended");
    assert!(TcpStream::connect(address).is_err());
    // What was sent before may still come, but not all of it.
    let cut = std::iter::from_fn(|| stuck.next().is_ok().then_some(())).count();
    assert!(cut < 1_536);
}

#[test]
fn a_limited_rate_still_brings_everything() {
    let uploader = TestUploader::with(4, Some(2_000_000), UploadLimits::default());
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
    let grant = uploader.publish("file", &bytes, Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let start = Instant::now();
    ask(&mut writer, &all_of(0, &grant));
    ask(&mut writer, &PeerRequest::Cancel);
    // A cancel that comes before the group is begun means that nothing of it is sent.
    match reader.next().unwrap() {
        crate::common::peer_crypto::Frame::Message(message) => assert_eq!(message, PeerResponse::Cancelled),
        crate::common::peer_crypto::Frame::Data { bytes, .. } => {
            let first = bytes.len() as u64;
            let (rest, last) = skip_data(&mut reader);
            assert_eq!((first + rest, last), (grant.size, PeerResponse::Cancelled));
            assert!(start.elapsed() >= Duration::from_millis(90), "100 ms less a burst of 50 is the least");
        }
    }
    ask(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, grant.size), bytes);
}
