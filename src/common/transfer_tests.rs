use super::*;

type Ends = ((RecordSealer, RecordOpener), (RecordSealer, RecordOpener));

const KEY: [u8; 32] = [5; 32];

fn shake() -> Ends {
    let (opening, bytes) = Opening::start(b"ticket", &KEY).unwrap();
    let Preamble::Whole { ticket: b"ticket", prologue, noise } = Preamble::parse(&bytes).unwrap() else {
        panic!("the preamble is whole");
    };
    let (reply, sealer, opener) = answer(&KEY, prologue, noise).unwrap();
    (opening.finish(&reply).unwrap(), (sealer, opener))
}

fn data(sealer: &mut RecordSealer, content: u32, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let filled: Result<(), ()> = sealer.data(content, offset, bytes.len(), &mut out, |place| {
        place.copy_from_slice(bytes);
        Ok(())
    });
    filled.unwrap();
    out
}

#[test]
fn messages_and_data_arrive_in_order() {
    let ((mut down, _), (_, mut up)) = shake();
    let want = ToUploader::Want { ranges: vec![WantedRange { content: 1, first: 2, count: 3 }] };
    let mut out = Vec::new();
    down.message(&want, &mut out);
    let first = out.len();
    out.extend(data(&mut down, 7, 1 << 40, b"bytes"));
    let length = record_bytes(*out.first_chunk().unwrap()).unwrap();
    assert_eq!(length, first - RECORD_HEAD_BYTES);
    assert_eq!(up.open::<ToUploader>(&mut out[4..first]), Ok(Frame::Message(want)));
    let frame = up.open::<ToUploader>(&mut out[first + 4..]);
    assert_eq!(frame, Ok(Frame::Data { content: 7, offset: 1 << 40, bytes: &mut b"bytes".to_vec() }));
}

#[test]
fn the_largest_frames_fit_a_record() {
    let ((mut down, _), (_, mut up)) = shake();
    let mut record = data(&mut down, 0, 0, &vec![1; RECORD_MAX_BYTES]);
    assert_eq!(record_bytes(*record.first_chunk().unwrap()), Ok(record.len() - 4));
    assert!(up.open::<ToUploader>(&mut record[4..]).is_ok());
    let mut out = Vec::new();
    let range = WantedRange { content: u32::MAX, first: u32::MAX, count: u32::MAX };
    down.message(&ToUploader::Want { ranges: vec![range; WANT_MAX_RANGES] }, &mut out);
    let hashes = vec![[255; 32]; OUTLINE_PART_MAX];
    down.message(&ToDownloader::Outline { content: u32::MAX, first: u32::MAX, hashes }, &mut out);
    down.message(&ToUploader::Grant { ticket: vec![255; TICKET_MAX_BYTES] }, &mut out);
}

#[test]
fn reordered_repeated_and_reflected_records_are_refused() {
    let ((mut down, mut down_open), (_, mut up)) = shake();
    let (first, second) = (data(&mut down, 0, 0, b"a"), data(&mut down, 0, 1, b"b"));
    assert_eq!(down_open.open::<ToDownloader>(&mut first.clone()[4..]), Err(TransferError::Forged));
    assert!(up.open::<ToUploader>(&mut first.clone()[4..]).is_ok());
    assert_eq!(up.open::<ToUploader>(&mut first.clone()[4..]), Err(TransferError::Forged));
    let ((mut down, _), (_, mut up)) = shake();
    data(&mut down, 0, 0, b"lost");
    let mut record = data(&mut down, 0, 1, b"b");
    assert_eq!(up.open::<ToUploader>(&mut record[4..]), Err(TransferError::Forged));
    drop(second);
}

#[test]
fn the_same_ticket_shown_twice_gives_other_keys() {
    let ((mut first, _), _) = shake();
    let ((mut second, _), (_, mut up)) = shake();
    let (a, b) = (data(&mut first, 0, 0, b"same"), data(&mut second, 0, 0, b"same"));
    assert_ne!(a, b);
    assert_eq!(up.open::<ToUploader>(&mut a.clone()[4..]), Err(TransferError::Forged));
}

#[test]
fn a_replayed_or_keyless_opening_leads_nowhere() {
    let (_, bytes) = Opening::start(b"ticket", &KEY).unwrap();
    let Ok(Preamble::Whole { prologue, noise, .. }) = Preamble::parse(&bytes) else { panic!("whole") };
    assert!(matches!(answer(&[6; 32], prologue, noise), Err(TransferError::Forged)), "without the ticket's key");
    assert!(matches!(answer(&KEY, b"other", noise), Err(TransferError::Forged)), "with another ticket");
    let (_, mut first, _) = answer(&KEY, prologue, noise).unwrap();
    let (_, mut second, _) = answer(&KEY, prologue, noise).unwrap();
    assert_ne!(data(&mut first, 0, 0, b"same"), data(&mut second, 0, 0, b"same"), "a replay gets no key twice");
}

#[test]
fn a_preamble_is_read_byte_by_byte_and_strangers_are_found_out() {
    let (_, bytes) = Opening::start(b"ticket", &KEY).unwrap();
    for cut in 0..bytes.len() {
        assert!(matches!(Preamble::parse(&bytes[..cut]), Ok(Preamble::NeedBytes(more)) if more > cut), "cut to {cut}");
    }
    assert_eq!(Preamble::parse(&[&bytes[..], b"x"].concat()), Err(TransferError::Malformed));
    assert_eq!(Preamble::parse(b"GET / HTTP/1.1"), Err(TransferError::NotOurs));
    let mut long = bytes.clone();
    long[8..10].copy_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(Preamble::parse(&long), Err(TransferError::TooLong));
    let mut other_version = bytes;
    other_version[7] ^= 1;
    assert_eq!(Preamble::parse(&other_version), Err(TransferError::NotOurs));
}

#[test]
fn no_length_takes_more_than_a_record() {
    for length in [0u32, 1, 16] {
        assert_eq!(record_bytes(length.to_be_bytes()), Err(TransferError::Malformed));
    }
    assert_eq!(record_bytes(17u32.to_be_bytes()), Ok(17));
    for length in [u32::MAX, 1 << 31, (FRAME_MAX_BYTES + 17) as u32] {
        assert_eq!(record_bytes(length.to_be_bytes()), Err(TransferError::TooLong));
    }
}

#[test]
fn a_failed_read_leaves_nothing_behind() {
    let ((mut down, _), (_, mut up)) = shake();
    let mut out = vec![9];
    assert_eq!(down.data(0, 0, 5, &mut out, |_| Err("disk")), Err("disk"));
    assert_eq!(out, [9]);
    let mut record = data(&mut down, 0, 0, b"next");
    assert!(up.open::<ToUploader>(&mut record[4..]).is_ok(), "no counter was used up");
}
