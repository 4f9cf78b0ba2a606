use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::client::files::SharedFiles;
use crate::client::transport::{self, RecordReader, RecordWriter};
use crate::client::upload::limits::BUSY_RETRY_MS;
use crate::client::upload::test_support;
use crate::client::upload::test_support::{
    NOW_MS, PSK, TestUploader, all_of, data, message, receive, sealed, send_request, skip_data, ticket, ticket_key,
    wait_until,
};
use crate::common::limits::{GROUP_MIN_BYTES, RECORD_MAX_BYTES};
use crate::common::peer_crypto::{Frame, Initiator};
use crate::common::peer_message::{PeerRequest, PeerResponse};
use crate::common::types::{Audience, ContentRef};
use zeroize::Zeroizing;

fn limits(change: impl FnOnce(&mut UploadLimits)) -> UploadLimits {
    let mut limits = UploadLimits::default();
    change(&mut limits);
    limits
}

/// Reads until the uploader closes the connection.
fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // A reset closes it too.
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "it is not closed");
    }
    bytes
}

/// Completes a request without data: a downloader that gets the reply has a slot.
fn acquire_slot(reader: &mut RecordReader<PeerResponse>, writer: &mut RecordWriter) {
    send_request(writer, &PeerRequest::Cancel);
    assert_eq!(message(reader), PeerResponse::Cancelled);
}

#[test]
fn an_invalid_ticket_gets_no_reply() {
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
        assert!(read_to_close(&mut stream).is_empty());
    }
    assert!(uploader.connect_with(&ticket(&grants), &[8; 32]).is_err(), "a ticket stolen without its key");
    wait_until(|| uploader.service.free_slots() == 64);
    assert!(uploader.connect(&grants).is_ok());
}

#[test]
fn before_a_login_every_ticket_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let service = UploadService::new(SharedFiles::with_cache_dir(dir.path(), None).unwrap(), 2);
    let listener = Listener::start(service, test_support::loopback(0), None).unwrap();
    let connected = transport::connect::<PeerResponse>(test_support::loopback(listener.port()), &ticket(&[]), &PSK);
    assert!(connected.is_err());
}

#[test]
fn a_replayed_preamble_gets_different_keys() {
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
fn unauthenticated_connections_are_closed_without_a_reply() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.handshake = Duration::from_millis(50)));
    for garbage in
        [&b""[..], b"fsh", b"GET / HTTP/1.1\r\n\r\n", b"fshare\0\x01\xff\xff", b"fshare\0\x01\0\x20abc", &[0; 5_000]]
    {
        let mut stream = TcpStream::connect(uploader.address()).unwrap();
        stream.write_all(garbage).unwrap();
        assert!(read_to_close(&mut stream).is_empty(), "{garbage:?}");
    }
}

#[test]
fn the_oldest_unauthenticated_connections_are_evicted() {
    let bounds = |limits: &mut UploadLimits| {
        limits.handshake = Duration::from_secs(3_600);
        limits.pending_max = 6;
        limits.pending_per_prefix_max = 3;
    };
    let uploader = TestUploader::with(4, None, limits(bounds));
    let mut streams: Vec<_> = (0..20).map(|_| TcpStream::connect(uploader.address()).unwrap()).collect();
    for stream in &mut streams[..17] {
        assert!(read_to_close(stream).is_empty(), "the oldest are closed");
    }
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
}

#[test]
fn a_downloader_without_a_free_slot_is_told_to_retry() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.idle_yield = Duration::from_secs(3_600)));
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    acquire_slot(&mut reader, &mut writer);
    assert_eq!(uploader.service.free_slots(), 0);
    for _ in 0..3 {
        let (mut rejected, mut rejected_writer) = uploader.open(&grant).unwrap();
        send_request(&mut rejected_writer, &all_of(0, &grant));
        assert_eq!(message(&mut rejected), PeerResponse::Busy { retry_ms: BUSY_RETRY_MS });
        assert!(rejected.next().is_err());
    }
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes", "the downloader with the slot is served");
    drop((reader, writer));
    wait_until(|| uploader.service.free_slots() == 1);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    acquire_slot(&mut reader, &mut writer);
}

#[test]
fn a_replayed_handshake_takes_no_slot() {
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
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
    for replay in &mut replays {
        replay.write_all(&[&[0, 0, 0, 40][..], &[7; 40]].concat()).unwrap();
        assert!(read_to_close(replay).is_empty(), "it does not even learn that the slot is taken");
    }
}

#[test]
fn an_authenticated_connection_is_not_evicted_for_unauthenticated_ones() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.pending_max = 3));
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let mut streams: Vec<_> = (0..10).map(|_| TcpStream::connect(uploader.address()).unwrap()).collect();
    for stream in &mut streams[..8] {
        assert!(read_to_close(stream).is_empty(), "they are evicted for each other");
    }
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, 5), b"bytes");
}

#[test]
fn an_idle_downloader_loses_its_slot_to_a_waiting_one() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.idle_yield = Duration::from_millis(300)));
    let (mut idle, mut writer) = uploader.connect(&[]).unwrap();
    acquire_slot(&mut idle, &mut writer);
    let served = || {
        let (mut reader, mut writer) = uploader.connect(&[]).unwrap();
        writer.message(&PeerRequest::Cancel).and_then(|()| writer.flush()).is_ok()
            && matches!(reader.next(), Ok(Frame::Message(PeerResponse::Cancelled)))
    };
    wait_until(served);
    assert!(matches!(message(&mut idle), PeerResponse::Busy { .. }));
    assert!(idle.next().is_err());
}

#[test]
fn a_downloader_without_requests_is_disconnected() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.idle = Duration::from_millis(50)));
    let (mut silent, _writer) = uploader.connect(&[]).unwrap();
    let (mut idle, mut writer) = uploader.connect(&[]).unwrap();
    acquire_slot(&mut idle, &mut writer);
    assert!(silent.next().is_err() && idle.next().is_err());
    wait_until(|| uploader.service.free_slots() == 4);
}

#[test]
fn a_downloader_that_receives_nothing_is_disconnected_and_delays_no_other() {
    let uploader = TestUploader::with(4, None, limits(|limits| limits.stall = Duration::from_millis(300)));
    let (large, small) = (uploader.publish_large("large"), uploader.publish("small", b"bytes", Audience::Everyone));
    let (slow, mut writer) = uploader.open(&large).unwrap();
    send_request(&mut writer, &all_of(0, &large));
    let (mut reader, mut small_writer) = uploader.open(&small).unwrap();
    for _ in 0..100 {
        send_request(&mut small_writer, &all_of(0, &small));
        assert_eq!(receive(&mut reader, 0, small.size), b"bytes");
    }
    wait_until(|| uploader.service.free_slots() == 3);
    send_request(&mut small_writer, &all_of(0, &small));
    assert_eq!(receive(&mut reader, 0, small.size), b"bytes", "only the slow one is disconnected");
    drop(slow);
}

#[test]
fn shutdown_waits_for_no_peer() {
    let uploader = TestUploader::new();
    let large = uploader.publish_large("large");
    let (mut stuck, mut writer) = uploader.open(&large).unwrap();
    send_request(&mut writer, &all_of(0, &large));
    let _idle = uploader.connect(&[]).unwrap();
    let _unauthenticated = TcpStream::connect(uploader.address()).unwrap();
    let address = uploader.address();
    let TestUploader { service, listener, .. } = uploader;
    drop(listener);
    assert_eq!(service.free_slots(), 64, "all threads have ended");
    assert!(TcpStream::connect(address).is_err());
    // Data sent before may still arrive, but not all of it.
    let frames = std::iter::from_fn(|| stuck.next().is_ok().then_some(())).count();
    assert!(frames < 1_536);
}

#[test]
fn a_limited_rate_still_delivers_everything() {
    let uploader = TestUploader::with(4, Some(2_000_000), UploadLimits::default());
    let bytes: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
    let grant = uploader.publish("file", &bytes, Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let start = Instant::now();
    send_request(&mut writer, &all_of(0, &grant));
    send_request(&mut writer, &PeerRequest::Cancel);
    // If the cancel arrives before the group is begun, nothing of it is sent.
    match reader.next().unwrap() {
        Frame::Message(message) => assert_eq!(message, PeerResponse::Cancelled),
        Frame::Data { bytes, .. } => {
            let first = bytes.len() as u64;
            let (rest, last) = skip_data(&mut reader);
            assert_eq!((first + rest, last), (grant.size, PeerResponse::Cancelled));
            assert!(start.elapsed() >= Duration::from_millis(90), "at least 100 ms less a burst of 50");
        }
    }
    send_request(&mut writer, &all_of(0, &grant));
    assert_eq!(receive(&mut reader, 0, grant.size), bytes);
}

/// A ticket of another user than that of `connect`.
fn ticket_of(user: &str, grant: &ContentRef) -> Vec<u8> {
    test_support::sealed(&ticket_key(), user, NOW_MS + 60_000, std::slice::from_ref(grant))
}

fn another_listener(first: &TestUploader, limit_rate: Option<u64>, limits: UploadLimits) -> TestUploader {
    let (service, dir) = (first.service.clone(), tempfile::tempdir().unwrap());
    let listener = Listener::start_with(service.clone(), test_support::loopback(0), limit_rate, limits).unwrap();
    TestUploader { dir, service, listener }
}

#[test]
fn uploads_of_all_listeners_share_the_rate() {
    const RATE: u64 = 1_000_000;
    let first = TestUploader::with(4, Some(RATE), UploadLimits::default());
    let second = another_listener(&first, Some(RATE), UploadLimits::default());
    let grant = first.publish("file", &[7; 100_000], Audience::Everyone);
    let start = Instant::now();
    let uploads = [(&first, "hans"), (&first, "yoda"), (&second, "luke")].map(|(uploader, user)| {
        let (reader, mut writer) = uploader.connect_with(&ticket_of(user, &grant), &PSK).unwrap();
        send_request(&mut writer, &all_of(0, &grant));
        (reader, writer)
    });
    for (mut reader, _writer) in uploads {
        assert_eq!(receive(&mut reader, 0, grant.size).len(), 100_000);
    }
    assert!(start.elapsed() >= Duration::from_millis(240), "at least 300 ms less a burst of 50");
}

/// Whether the user gets the content now; otherwise all slots are taken.
fn is_served(uploader: &TestUploader, user: &str, grant: &ContentRef) -> bool {
    let (mut reader, mut writer) = uploader.connect_with(&ticket_of(user, grant), &PSK).unwrap();
    send_request(&mut writer, &all_of(0, grant));
    match reader.next().unwrap() {
        Frame::Data { .. } => true,
        Frame::Message(message) => {
            assert!(matches!(message, PeerResponse::Busy { .. }), "{message:?}");
            false
        }
    }
}

#[test]
fn a_downloader_that_receives_next_to_nothing_loses_its_slot_to_a_waiting_one() {
    let limits = limits(|limits| {
        (limits.turn, limits.turn_min_rate) = (Duration::ZERO, u64::MAX);
        limits.stall = Duration::from_secs(3_600);
    });
    let first = TestUploader::with(1, None, limits.clone());
    let second = another_listener(&first, None, limits);
    let (large, small) = (first.publish_large("large"), first.publish("small", b"bytes", Audience::Everyone));
    for uploader in [&first, &second] {
        let (mut slow, mut writer) = first.open(&large).unwrap();
        send_request(&mut writer, &all_of(0, &large));
        assert!(matches!(slow.next(), Ok(Frame::Data { .. })), "it has the slot, and reads no more");
        wait_until(|| is_served(uploader, "hans", &small));
        wait_until(|| first.service.free_slots() == 1);
    }
}

#[test]
fn a_turn_ends_with_a_group_while_another_user_waits() {
    let uploader = TestUploader::with(1, None, limits(|limits| limits.turn = Duration::ZERO));
    let (large, small) = (uploader.publish_large("large"), uploader.publish("small", b"bytes", Audience::Everyone));
    let (mut reader, mut writer) = uploader.open(&large).unwrap();
    send_request(&mut writer, &all_of(0, &large));
    data(&mut reader);
    assert!(!is_served(&uploader, "hans", &small));
    let (skipped, last) = skip_data(&mut reader);
    assert!(matches!(last, PeerResponse::Busy { .. }), "{last:?}");
    let received = skipped + RECORD_MAX_BYTES as u64;
    assert!(received < large.size && received.is_multiple_of(GROUP_MIN_BYTES), "whole groups: {received}");
    assert!(is_served(&uploader, "hans", &small), "who has waited is next");
}

#[test]
fn outlines_count_towards_the_rate() {
    let rate = 100_000;
    let uploader = TestUploader::with(4, Some(rate), UploadLimits::default());
    let large = uploader.publish_large("large");
    let (mut reader, mut writer) = uploader.open(&large).unwrap();
    let start = Instant::now();
    let (mut hashes, mut outlines) = (0, 0);
    for _ in 0..10 {
        send_request(&mut writer, &PeerRequest::GetGroupHashes { content: 0 });
        while hashes < (outlines + 1) * 96 {
            match message(&mut reader) {
                PeerResponse::GroupHashes { hashes: part, .. } => hashes += part.len(),
                other => panic!("{other:?}"),
            }
        }
        outlines += 1;
    }
    let sent = Duration::from_secs_f64(hashes as f64 * 32.0 / rate as f64);
    assert!(start.elapsed() >= sent - Duration::from_millis(50), "at least {sent:?} less a burst of 50 ms");
}
