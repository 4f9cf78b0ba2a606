use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::slice::from_ref;

use crate::client::direct::PassedFiles;
use crate::client::download::IncompleteFile;
use crate::client::transport::TransportError;
use crate::client::upload::limits::UploadLimits;
use crate::client::upload::test_support;
use crate::client::upload::test_support::{
    NOW_MS, TestUploader, all_of, data, message, name, receive, sealed, send_request, skip_data, ticket, ticket_key,
    user,
};
use crate::common::chunk_tree::{GroupHashes, group_count, group_range, hash_group};
use crate::common::limits::GROUP_MIN_BYTES;
use crate::common::peer_crypto::Frame;
use crate::common::peer_message::{
    DirectSocket, GRANTS_MAX, GroupRange, PeerRequest, PeerResponse, REQUEST_MAX_RANGES, RefusalReason,
};
use crate::common::types::{Audience, ContentHash, ContentRef};

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 3 + at / 70_001) as u8).collect()
}

fn outline(content: &[u8]) -> GroupHashes {
    let size = content.len() as u64;
    let groups = (0..group_count(size)).map(|group| {
        let range = group_range(size, group);
        hash_group(size, group, &content[range.start as usize..range.end as usize])
    });
    GroupHashes::from_groups(size, groups.collect()).unwrap()
}

fn request(content: u32, first: u32, count: u32) -> PeerRequest {
    PeerRequest::RequestGroups { ranges: vec![GroupRange { content, first, count }] }
}

fn refused(content: u32, reason: RefusalReason) -> PeerResponse {
    PeerResponse::Refused { content, reason }
}

#[test]
fn contents_of_every_size_are_served_with_their_group_hashes() {
    let uploader = TestUploader::new();
    for (file, size) in [("a", 0), ("b", 1), ("c", GROUP_MIN_BYTES as usize), ("d", 5 * GROUP_MIN_BYTES as usize + 1)] {
        let content = bytes(size);
        let grant = uploader.publish(file, &content, Audience::Everyone);
        let (mut reader, mut writer) = uploader.open(&grant).unwrap();
        send_request(&mut writer, &PeerRequest::GetGroupHashes { content: 0 });
        let PeerResponse::GroupHashes { content: 0, first: 0, hashes } = message(&mut reader) else {
            panic!("group hashes")
        };
        assert!(GroupHashes::verify(grant.hash, grant.size, hashes).is_some());
        send_request(&mut writer, &all_of(0, &grant));
        assert!(receive(&mut reader, 0, grant.size) == content, "{size} bytes");
        send_request(&mut writer, &PeerRequest::QueryAvailability { content: 0 });
        assert_eq!(message(&mut reader), PeerResponse::Availability { content: 0, groups: vec![] });
    }
}

#[test]
fn many_files_and_ranges_are_served_on_one_connection() {
    let uploader = TestUploader::new();
    let grants: Vec<_> =
        (0..40).map(|at| uploader.publish(&format!("file{at}"), &bytes(at * 100 + 1), Audience::Everyone)).collect();
    let (mut reader, mut writer) = uploader.connect(&grants[..10]).unwrap();
    for (at, more) in grants[10..].chunks(10).enumerate() {
        writer.message(&PeerRequest::AddTicket { ticket: ticket(more) }).unwrap();
        writer.flush().unwrap();
        let first = 10 + 10 * u32::try_from(at).unwrap();
        assert_eq!(message(&mut reader), PeerResponse::TicketAccepted { first });
    }
    let ranges = (0..40).map(|content| GroupRange { content, first: 0, count: 1 }).collect();
    send_request(&mut writer, &PeerRequest::RequestGroups { ranges });
    for at in 0..40 {
        let got = receive(&mut reader, at, grants[at as usize].size);
        assert_eq!(got, bytes(at as usize * 100 + 1));
    }
}

#[test]
fn groups_are_sent_in_the_order_of_the_requests() {
    let uploader = TestUploader::new();
    let content = bytes(3 * GROUP_MIN_BYTES as usize + 7);
    let grant = uploader.publish("file", &content, Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    for group in [3, 0, 2] {
        writer.message(&request(0, group, 1)).unwrap();
    }
    writer.flush().unwrap();
    for group in [3u32, 0, 2] {
        let range = crate::common::chunk_tree::group_range(grant.size, group);
        let mut got = Vec::new();
        while (got.len() as u64) < range.end - range.start {
            let (offset, bytes) = data(&mut reader);
            assert_eq!(offset, range.start + got.len() as u64);
            got.extend(bytes);
        }
        assert!(got == content[range.start as usize..range.end as usize]);
        assert_ne!(hash_group(grant.size, group, &got), [0; 32]);
    }
}

#[test]
fn a_valid_ticket_for_unpublished_content_is_refused() {
    let uploader = TestUploader::new();
    fs::write(uploader.dir.path().join("private"), "private").unwrap();
    let hash = ContentHash(*blake3::hash(b"private").as_bytes());
    let private = ContentRef { name: name("private"), hash, size: 7 };
    let withdrawn = uploader.publish("withdrawn", b"withdrawn", Audience::Everyone);
    uploader.service.publications().unpublish(&withdrawn.name);
    let others = uploader.publish("others", b"others", Audience::only(vec![user("yoda")]));
    let outside = ContentRef { name: name("link/passwd"), ..private.clone() };
    std::os::unix::fs::symlink("/etc", uploader.dir.path().join("link")).unwrap();
    let (mut reader, mut writer) = uploader.connect(&[private, withdrawn, others.clone(), outside]).unwrap();
    for content in 0..4 {
        for request in [
            request(content, 0, 1),
            PeerRequest::GetGroupHashes { content },
            PeerRequest::QueryAvailability { content },
        ] {
            send_request(&mut writer, &request);
            assert_eq!(message(&mut reader), refused(content, RefusalReason::NotShared));
        }
    }
    let yodas = sealed(&ticket_key(), "yoda", NOW_MS + 60_000, from_ref(&others));
    send_request(&mut writer, &PeerRequest::AddTicket { ticket: yodas.clone() });
    assert_eq!(message(&mut reader), PeerResponse::TicketRefused, "another downloader's ticket");
    send_request(
        &mut writer,
        &PeerRequest::AddTicket { ticket: sealed(&ticket_key(), "vader", NOW_MS, from_ref(&others)) },
    );
    assert_eq!(message(&mut reader), PeerResponse::TicketRefused, "an expired ticket");
    let (mut reader, mut writer) = uploader.connect_with(&yodas, &test_support::PSK).unwrap();
    send_request(&mut writer, &all_of(0, &others));
    assert_eq!(receive(&mut reader, 0, others.size), b"others", "a downloader of the audience is served");
}

#[test]
fn a_change_or_an_unpublish_takes_effect_in_the_middle_of_a_transfer() {
    let uploader = TestUploader::new();
    let grant = uploader.publish_large("large");
    let other = uploader.publish("other", b"other", Audience::Everyone);
    for reason in [RefusalReason::Changed, RefusalReason::NotShared] {
        let (mut reader, mut writer) = uploader.connect(&[grant.clone(), other.clone()]).unwrap();
        send_request(&mut writer, &all_of(0, &grant));
        send_request(&mut writer, &request(1, 0, 1));
        data(&mut reader);
        let file = fs::OpenOptions::new().write(true).open(uploader.dir.path().join("large")).unwrap();
        match reason {
            RefusalReason::NotShared => drop(uploader.service.publications().unpublish(&grant.name)),
            _ => file.set_len(50 << 20).unwrap(),
        }
        let (skipped, message) = skip_data(&mut reader);
        assert!(skipped < grant.size && message == refused(0, reason), "{message:?} after {skipped} bytes");
        assert_eq!(receive(&mut reader, 1, other.size), b"other", "other requested contents are still served");
        file.set_len(grant.size).unwrap();
    }
}

#[test]
fn a_file_that_changes_in_the_middle_of_a_group_is_refused_before_its_end() {
    let uploader = TestUploader::new();
    let grant = uploader.publish_large("large");
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    send_request(&mut writer, &all_of(0, &grant));
    let (_, mut got) = data(&mut reader);
    // The buffers are full, so the uploader waits within some group. The last byte of every group is changed now.
    let file = fs::OpenOptions::new().write(true).open(uploader.dir.path().join("large")).unwrap();
    for end in (GROUP_MIN_BYTES..=grant.size).step_by(GROUP_MIN_BYTES as usize) {
        file.write_all_at(&[1], end - 1).unwrap();
    }
    let reply = loop {
        match reader.next().unwrap() {
            Frame::Data { bytes, .. } => got.extend_from_slice(bytes),
            Frame::Message(PeerResponse::Hashing { .. }) => {}
            Frame::Message(reply) => break reply,
        }
    };
    assert_eq!(reply, refused(0, RefusalReason::Changed));
    let groups = got.chunks_exact(GROUP_MIN_BYTES as usize);
    assert!(groups.into_iter().all(|group| group.iter().all(|&byte| byte == 0)), "no complete group has changed bytes");
}

#[test]
fn a_cancel_drops_the_groups_that_were_not_begun() {
    let uploader = TestUploader::new();
    let grant = uploader.publish_large("large");
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    send_request(&mut writer, &all_of(0, &grant));
    data(&mut reader);
    send_request(&mut writer, &PeerRequest::Cancel);
    let (skipped, message) = skip_data(&mut reader);
    assert!(skipped + 100_000 < grant.size && message == PeerResponse::Cancelled);
    send_request(&mut writer, &request(0, 5, 1));
    let (offset, _) = data(&mut reader);
    assert_eq!(offset, 5 * GROUP_MIN_BYTES);
}

#[test]
fn an_incomplete_file_is_served_as_far_as_it_is_verified() {
    let uploader = TestUploader::new();
    let content = bytes(10 * GROUP_MIN_BYTES as usize);
    let grant = uploader.publish("file", &content, Audience::Everyone);
    let incomplete = IncompleteFile::with_verified(uploader.dir.path(), outline(&content), &[0, 1, 9]);
    incomplete.file().write_all_at(&content, 0).unwrap();
    uploader.service.serve_incomplete(&grant.name, &incomplete);
    fs::remove_file(uploader.dir.path().join("file")).unwrap();
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    send_request(&mut writer, &PeerRequest::QueryAvailability { content: 0 });
    assert_eq!(message(&mut reader), PeerResponse::Availability { content: 0, groups: vec![0b11, 0b10] });
    send_request(&mut writer, &all_of(0, &grant));
    receive(&mut reader, 0, 2 * GROUP_MIN_BYTES);
    assert_eq!(message(&mut reader), PeerResponse::NotAvailable { content: 0, first: 2, count: 7 });
    let (offset, _) = data(&mut reader);
    assert_eq!(offset, 9 * GROUP_MIN_BYTES);
    incomplete.set_verified(2, Some(&user("hans")));
    send_request(&mut writer, &request(0, 2, 1));
    while !matches!(reader.next().unwrap(), Frame::Data { offset, .. } if offset == 2 * GROUP_MIN_BYTES) {}
}

#[test]
fn a_downloader_that_violates_the_protocol_is_disconnected() {
    let uploader = TestUploader::new();
    let grant = uploader.publish("file", b"bytes", Audience::Everyone);
    let range = GroupRange { content: 0, first: 0, count: 1 };
    let too_many = PeerRequest::RequestGroups { ranges: vec![range; REQUEST_MAX_RANGES + 1] };
    let violations = [
        request(1, 0, 1),
        request(0, 1, 1),
        request(0, 0, u32::MAX),
        request(0, u32::MAX, u32::MAX),
        request(u32::MAX, 0, 0),
        PeerRequest::GetGroupHashes { content: 7 },
        PeerRequest::QueryAvailability { content: u32::MAX },
        too_many,
    ];
    for violation in violations {
        let (mut reader, mut writer) = uploader.open(&grant).unwrap();
        send_request(&mut writer, &violation);
        assert!(reader.next().is_err(), "{violation:?}");
    }
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let sent = writer.data(0, 0, 10, |_| Ok::<_, TransportError>(()));
    assert!(sent.is_ok() && writer.flush().is_ok() && reader.next().is_err(), "an uploader accepts no data");
    let (mut reader, mut writer) = uploader.connect(&[]).unwrap();
    let ten = ticket(&vec![grant; 10]);
    for at in 0..GRANTS_MAX / 10 {
        send_request(&mut writer, &PeerRequest::AddTicket { ticket: ten.clone() });
        assert_eq!(message(&mut reader), PeerResponse::TicketAccepted { first: 10 * at as u32 });
    }
    send_request(&mut writer, &PeerRequest::AddTicket { ticket: ten });
    assert!(reader.next().is_err(), "too many grants");
    assert_eq!(group_count(0), 1);
}

#[test]
fn a_new_mode_in_the_middle_of_a_group_does_not_end_the_transfer() {
    let uploader = TestUploader::new();
    let content = bytes(3 * GROUP_MIN_BYTES as usize);
    let grant = uploader.publish("file", &content, Audience::Everyone);
    let (mut reader, mut writer) = uploader.open(&grant).unwrap();
    let path = uploader.dir.path().join("file");
    send_request(&mut writer, &request(0, 0, 3));
    let mut received = Vec::new();
    while received.len() < content.len() {
        match reader.next().unwrap() {
            Frame::Data { bytes, .. } => {
                // Once in each group: the uploader looks at the content of a group again only a few times.
                if (received.len() as u64).is_multiple_of(GROUP_MIN_BYTES) {
                    let mode = fs::metadata(&path).unwrap().permissions().mode() ^ 0o044;
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
                received.extend_from_slice(bytes);
            }
            Frame::Message(message) => assert_eq!(message, PeerResponse::Hashing { content: 0 }),
        }
    }
    assert_eq!(received, content);
}

/// Takes up the offer of the direct path on a connection.
fn open_direct_path(uploader: &TestUploader, (reader, writer): &mut test_support::Ends) -> PassedFiles {
    send_request(writer, &PeerRequest::OpenDirectPath);
    let PeerResponse::DirectPath { socket: Some(DirectSocket { folder, name, token }) } = message(reader) else {
        panic!("a socket")
    };
    assert_eq!((&*folder, &*name), (&b"/run"[..], "a.sock"));
    let (end, other) = UnixStream::pair().unwrap();
    assert!(!uploader.service.accept_direct(&[0; 16], other.try_clone().unwrap()), "a guessed token");
    assert!(uploader.service.accept_direct(&token, other.try_clone().unwrap()));
    assert!(!uploader.service.accept_direct(&token, other), "a token is for one use");
    PassedFiles::new(end)
}

#[test]
fn files_are_passed_in_place_of_their_bytes_until_the_downloader_takes_none() {
    let uploader = TestUploader::new();
    uploader.service.set_direct_socket(Some(("/run".into(), "a.sock".into())));
    let (large, other) = (bytes(3 * GROUP_MIN_BYTES as usize + 1), bytes(GROUP_MIN_BYTES as usize / 2));
    let [a, b, small] = [("a", &large[..]), ("b", &other), ("small", b"small")]
        .map(|(file, content)| uploader.publish(file, content, Audience::Everyone));
    let mut ends = uploader.connect(&[a.clone(), b.clone(), small.clone()]).unwrap();
    let passed = open_direct_path(&uploader, &mut ends);
    let (mut reader, mut writer) = ends;
    let range = |content, first, count| GroupRange { content, first, count };
    let request = PeerRequest::RequestGroups { ranges: vec![range(0, 2, 2), range(1, 0, 1), range(0, 0, 1)] };
    send_request(&mut writer, &request);
    // Together, unless a file was changed so lately that it is hashed first: what is open does not wait for that.
    let (mut all, mut files) = (Vec::new(), Vec::new());
    while all.len() < 3 {
        let PeerResponse::GroupsPassed { ranges } = message(&mut reader) else { panic!("files") };
        all.extend(ranges);
        files.extend(passed.receive().unwrap());
    }
    assert_eq!(all, [range(0, 2, 2), range(1, 0, 1), range(0, 0, 1)]);
    for (file, content) in files.iter().zip([&large[..], &other, &large]) {
        let mut copy = vec![0; content.len()];
        file.read_exact_at(&mut copy, 0).unwrap();
        assert!(copy == content && file.write_at(b"x", 0).is_err(), "it is readable alone");
    }
    assert_eq!(files.len(), 3);
    send_request(&mut writer, &all_of(2, &small));
    assert_eq!(receive(&mut reader, 2, small.size), b"small", "small files are sent");

    uploader.service.publications().unpublish(&name("b"));
    fs::write(uploader.dir.path().join("a"), b"other").unwrap();
    send_request(&mut writer, &request);
    assert_eq!(message(&mut reader), refused(0, RefusalReason::Changed));
    assert_eq!(message(&mut reader), refused(1, RefusalReason::NotShared));

    let c = uploader.publish("c", &large, Audience::Everyone);
    send_request(&mut writer, &PeerRequest::AddTicket { ticket: ticket(from_ref(&c)) });
    assert_eq!(message(&mut reader), PeerResponse::TicketAccepted { first: 3 });
    passed.close();
    send_request(&mut writer, &all_of(3, &c));
    assert!(receive(&mut reader, 3, c.size) == large);
}

#[test]
fn what_is_not_complete_or_has_a_rate_is_not_passed() {
    let uploader = TestUploader::new();
    uploader.service.set_direct_socket(Some(("/run".into(), "a.sock".into())));
    let content = bytes(GROUP_MIN_BYTES as usize + 1);
    let grant = uploader.publish("a", &content, Audience::Everyone);
    let incomplete = IncompleteFile::with_verified(uploader.dir.path(), outline(&content), &[1]);
    incomplete.file().write_all_at(&content, 0).unwrap();
    uploader.service.serve_incomplete(&grant.name, &incomplete);
    let mut ends = uploader.open(&grant).unwrap();
    let _passed = open_direct_path(&uploader, &mut ends);
    let (mut reader, mut writer) = ends;
    send_request(&mut writer, &request(0, 1, 1));
    let (_, bytes) = data(&mut reader);
    assert!(bytes == content[GROUP_MIN_BYTES as usize..]);

    let no_path = PeerResponse::DirectPath { socket: None };
    let limited = TestUploader::with(8, Some(1 << 30), UploadLimits::default());
    limited.service.set_direct_socket(Some(("/run".into(), "a.sock".into())));
    for uploader in [limited, TestUploader::new()] {
        let grant = uploader.publish("a", b"a", Audience::Everyone);
        let (mut reader, mut writer) = uploader.open(&grant).unwrap();
        send_request(&mut writer, &PeerRequest::OpenDirectPath);
        assert_eq!(message(&mut reader), no_path);
    }
}
