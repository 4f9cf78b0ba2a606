use super::*;
use crate::common::peer_message::{GROUP_HASHES_PART_MAX, GroupRange, PeerRequest, PeerResponse, REQUEST_MAX_RANGES};

type Ends = ((RecordSealer, RecordOpener), (RecordSealer, RecordOpener));

const KEY: [u8; 32] = [5; 32];

fn handshake() -> Ends {
    let (initiator, bytes) = Initiator::start(b"ticket", &KEY).unwrap();
    let Preamble::Complete { ticket: b"ticket", prologue, noise } = Preamble::parse(&bytes).unwrap() else {
        panic!("an incomplete preamble");
    };
    let (reply, sealer, opener) = respond(&KEY, prologue, noise).unwrap();
    (initiator.finish(&reply).unwrap(), (sealer, opener))
}

fn data(sealer: &mut RecordSealer, content: u32, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut record = vec![0; data_record_bytes(bytes.len())];
    let filled: Result<(), ()> = sealer.data(content, offset, &mut record, |place| {
        place.copy_from_slice(bytes);
        Ok(())
    });
    filled.unwrap();
    record
}

#[test]
fn messages_and_data_arrive_in_order() {
    let ((mut down, _), (_, mut up)) = handshake();
    let request = PeerRequest::RequestGroups { ranges: vec![GroupRange { content: 1, first: 2, count: 3 }] };
    let mut out = Vec::new();
    down.message(&request, &mut out);
    let first = out.len();
    assert_eq!(first, message_record_bytes(&request), "what a rate limit counts");
    out.extend(data(&mut down, 7, 1 << 40, b"bytes"));
    let length = record_bytes(*out.first_chunk().unwrap()).unwrap();
    assert_eq!(length, first - RECORD_HEAD_BYTES);
    assert_eq!(up.open::<PeerRequest>(&mut out[4..first]), Ok(Frame::Message(request)));
    let frame = up.open::<PeerRequest>(&mut out[first + 4..]);
    assert_eq!(frame, Ok(Frame::Data { content: 7, offset: 1 << 40, bytes: &mut b"bytes".to_vec() }));
}

#[test]
fn the_largest_frames_fit_a_record() {
    let ((mut down, _), (_, mut up)) = handshake();
    let mut record = data(&mut down, 0, 0, &vec![1; RECORD_MAX_BYTES]);
    assert_eq!(record_bytes(*record.first_chunk().unwrap()), Ok(record.len() - 4));
    assert!(up.open::<PeerRequest>(&mut record[4..]).is_ok());
    let mut out = Vec::new();
    let range = GroupRange { content: u32::MAX, first: u32::MAX, count: u32::MAX };
    down.message(&PeerRequest::RequestGroups { ranges: vec![range; REQUEST_MAX_RANGES] }, &mut out);
    let hashes = vec![[255; 32]; GROUP_HASHES_PART_MAX];
    down.message(&PeerResponse::GroupHashes { content: u32::MAX, first: u32::MAX, hashes }, &mut out);
    down.message(&PeerRequest::AddTicket { ticket: vec![255; TICKET_MAX_BYTES] }, &mut out);
}

#[test]
fn frames_that_are_cut_short_or_unknown_are_rejected() {
    for length in 0..=DATA_HEAD_BYTES {
        assert_eq!(
            parse_frame::<PeerRequest>(&mut vec![DATA; length]),
            Err(TransferError::Malformed),
            "{length} bytes"
        );
    }
    assert!(parse_frame::<PeerRequest>(&mut [DATA; DATA_HEAD_BYTES + 1]).is_ok(), "a byte of data");
    assert_eq!(parse_frame::<PeerRequest>(&mut [2; 100]), Err(TransferError::Malformed));
    assert_eq!(parse_frame::<PeerRequest>(&mut [MESSAGE]), Err(TransferError::Malformed));
}

#[test]
fn reordered_repeated_and_reflected_records_are_rejected() {
    let ((mut down, mut down_open), (_, mut up)) = handshake();
    let (first, second) = (data(&mut down, 0, 0, b"a"), data(&mut down, 0, 1, b"b"));
    assert_eq!(down_open.open::<PeerResponse>(&mut first.clone()[4..]), Err(TransferError::Forged));
    assert!(up.open::<PeerRequest>(&mut first.clone()[4..]).is_ok());
    assert_eq!(up.open::<PeerRequest>(&mut first.clone()[4..]), Err(TransferError::Forged));
    let ((mut down, _), (_, mut up)) = handshake();
    data(&mut down, 0, 0, b"lost");
    let mut record = data(&mut down, 0, 1, b"b");
    assert_eq!(up.open::<PeerRequest>(&mut record[4..]), Err(TransferError::Forged));
    drop(second);
}

#[test]
fn two_connections_with_one_ticket_have_different_keys() {
    let ((mut first, _), _) = handshake();
    let ((mut second, _), (_, mut up)) = handshake();
    let (a, b) = (data(&mut first, 0, 0, b"same"), data(&mut second, 0, 0, b"same"));
    assert_ne!(a, b);
    assert_eq!(up.open::<PeerRequest>(&mut a.clone()[4..]), Err(TransferError::Forged));
}

#[test]
fn a_replayed_preamble_or_one_without_the_key_gives_no_shared_key() {
    let (_, bytes) = Initiator::start(b"ticket", &KEY).unwrap();
    let Ok(Preamble::Complete { prologue, noise, .. }) = Preamble::parse(&bytes) else {
        panic!("an incomplete preamble")
    };
    assert!(matches!(respond(&[6; 32], prologue, noise), Err(TransferError::Forged)), "without the ticket's key");
    assert!(matches!(respond(&KEY, b"other", noise), Err(TransferError::Forged)), "with another ticket");
    let (_, mut first, _) = respond(&KEY, prologue, noise).unwrap();
    let (_, mut second, _) = respond(&KEY, prologue, noise).unwrap();
    assert_ne!(data(&mut first, 0, 0, b"same"), data(&mut second, 0, 0, b"same"), "a replay gets new keys");
}

#[test]
fn a_preamble_is_parsed_from_any_prefix_and_rejected_when_invalid() {
    let (_, bytes) = Initiator::start(b"ticket", &KEY).unwrap();
    for cut in 0..bytes.len() {
        assert!(matches!(Preamble::parse(&bytes[..cut]), Ok(Preamble::NeedBytes(more)) if more > cut), "cut to {cut}");
    }
    assert_eq!(Preamble::parse(&[&bytes[..], b"x"].concat()), Err(TransferError::Malformed));
    assert_eq!(Preamble::parse(b"GET / HTTP/1.1"), Err(TransferError::UnsupportedProtocol));
    let mut long = bytes.clone();
    let largest = TICKET_MAX_BYTES as u16;
    long[8..10].copy_from_slice(&largest.to_be_bytes());
    assert!(matches!(Preamble::parse(&long), Ok(Preamble::NeedBytes(_))), "the largest ticket");
    long[8..10].copy_from_slice(&(largest + 1).to_be_bytes());
    assert_eq!(Preamble::parse(&long), Err(TransferError::TooLong));
    long[8..10].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(Preamble::parse(&long), Err(TransferError::TooLong));
    let mut other_version = bytes;
    other_version[7] ^= 1;
    assert_eq!(Preamble::parse(&other_version), Err(TransferError::UnsupportedProtocol));
}

#[test]
fn a_record_length_beyond_the_limit_is_rejected() {
    for length in [0u32, 1, 16] {
        assert_eq!(record_bytes(length.to_be_bytes()), Err(TransferError::Malformed));
    }
    assert_eq!(record_bytes(17u32.to_be_bytes()), Ok(17));
    for length in [u32::MAX, 1 << 31, (FRAME_MAX_BYTES + 17) as u32] {
        assert_eq!(record_bytes(length.to_be_bytes()), Err(TransferError::TooLong));
    }
}

#[test]
fn a_failed_read_uses_no_counter() {
    let ((mut down, _), (_, mut up)) = handshake();
    let mut record = vec![0; data_record_bytes(5)];
    assert_eq!(down.data(0, 0, &mut record, |_| Err("disk")), Err("disk"));
    let mut record = data(&mut down, 0, 0, b"next");
    assert!(up.open::<PeerRequest>(&mut record[4..]).is_ok(), "the next record has the first counter");
}
