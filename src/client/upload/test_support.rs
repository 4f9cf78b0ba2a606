//! Shared by the tests of this module: an uploader that serves a folder on loopback, and tickets for it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use super::limits::UploadLimits;
use super::*;
use crate::client::files::SharedFiles;
use crate::client::transport::{self, RecordReader, RecordWriter, TransportError};
use crate::common::chunk_tree::group_count;
use crate::common::crypto::{AeadKey, Secret};
use crate::common::peer_crypto::Frame;
use crate::common::peer_message::{GroupRange, PeerRequest, PeerResponse};
use crate::common::ticket::TransferTicket;
use crate::common::types::{Audience, Content, ContentRef, FileName, UserName};

/// The server's clock at the start of every test.
pub(super) const NOW_MS: u64 = 1_000_000;
/// The pre-shared key of every ticket.
pub(super) const PSK: [u8; 32] = [9; 32];
/// A test that waits longer fails.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) type Ends = (RecordReader<PeerResponse>, RecordWriter);

pub(super) struct TestUploader {
    pub(super) dir: tempfile::TempDir,
    pub(super) service: Arc<UploadService>,
    pub(super) listener: Listener,
}

pub(super) fn name(text: &str) -> FileName {
    FileName::parse(text).unwrap()
}

pub(super) fn user(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

pub(super) fn ticket_key() -> Secret {
    Zeroizing::new([3; 32])
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Waits for a condition that must become true.
pub(super) fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < WAIT_TIMEOUT, "the condition never became true");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn sealed(key: &Secret, downloader: &str, expires_ms: u64, grants: &[ContentRef]) -> Vec<u8> {
    let ticket = TransferTicket { downloader: user(downloader), expires_ms, key: PSK.into(), grants: grants.to_vec() };
    ticket.seal(&AeadKey::new(key), &mut ChaCha20Rng::seed_from_u64(1))
}

/// vader's ticket as the server would make it now.
pub(super) fn ticket(grants: &[ContentRef]) -> Vec<u8> {
    sealed(&ticket_key(), "vader", NOW_MS + 60_000, grants)
}

impl TestUploader {
    /// With more slots than any test needs, so that slots of closed connections do not matter.
    pub(super) fn new() -> Self {
        Self::with(64, None, UploadLimits::default())
    }

    pub(super) fn with(slots: u8, limit_rate: Option<u64>, limits: UploadLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = UploadService::new(SharedFiles::with_cache_dir(dir.path(), None).unwrap(), slots);
        let listener = Listener::start_with(service.clone(), loopback(0), limit_rate, limits).unwrap();
        service.set_ticket_key(&ticket_key(), NOW_MS);
        Self { dir, service, listener }
    }

    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.listener.port())
    }

    /// Writes and publishes a file.
    pub(super) fn publish(&self, file: &str, bytes: &[u8], audience: Audience) -> ContentRef {
        fs::write(self.dir.path().join(file), bytes).unwrap();
        let hashed = self.service.files.hash(&name(file), &mut |_| ControlFlow::Continue(())).unwrap();
        let Content { hash, size, .. } = hashed.content;
        self.service.publications().publish(&hashed.name, hashed.content, audience);
        ContentRef { name: hashed.name, hash, size }
    }

    /// A file too large for all buffers between the two ends, published.
    pub(super) fn publish_large(&self, file: &str) -> ContentRef {
        fs::File::create(self.dir.path().join(file)).unwrap().set_len(96 << 20).unwrap();
        let hashed = self.service.files.hash(&name(file), &mut |_| ControlFlow::Continue(())).unwrap();
        self.service.publications().publish(&hashed.name, hashed.content, Audience::Everyone);
        ContentRef { name: hashed.name, hash: hashed.content.hash, size: hashed.content.size }
    }

    pub(super) fn connect(&self, grants: &[ContentRef]) -> Result<Ends, TransportError> {
        self.connect_with(&ticket(grants), &PSK)
    }

    /// Connects for one content alone.
    pub(super) fn open(&self, grant: &ContentRef) -> Result<Ends, TransportError> {
        self.connect(std::slice::from_ref(grant))
    }

    pub(super) fn connect_with(&self, ticket: &[u8], key: &[u8; 32]) -> Result<Ends, TransportError> {
        transport::connect(self.address(), ticket, key)
    }
}

/// Sends a request at once.
pub(super) fn send_request(writer: &mut RecordWriter, request: &PeerRequest) {
    writer.message(request).unwrap();
    writer.flush().unwrap();
}

/// Everything of one content.
pub(super) fn all_of(content: u32, grant: &ContentRef) -> PeerRequest {
    PeerRequest::RequestGroups { ranges: vec![GroupRange { content, first: 0, count: group_count(grant.size) }] }
}

/// The next frame, which must be a message. As all readers here, it skips [`PeerResponse::Hashing`], which an uploader sends
/// whenever hashing takes it long.
pub(super) fn message(reader: &mut RecordReader<PeerResponse>) -> PeerResponse {
    loop {
        match reader.next().unwrap() {
            Frame::Message(PeerResponse::Hashing { .. }) => {}
            Frame::Message(message) => return message,
            Frame::Data { content, offset, .. } => panic!("data of {content} at {offset}"),
        }
    }
}

/// Reads data of the first content: its offset and its bytes.
pub(super) fn data(reader: &mut RecordReader<PeerResponse>) -> (u64, Vec<u8>) {
    loop {
        match reader.next().unwrap() {
            Frame::Message(PeerResponse::Hashing { .. }) => {}
            Frame::Message(message) => panic!("{message:?} in place of data"),
            Frame::Data { content: 0, offset, bytes } => return (offset, bytes.to_vec()),
            Frame::Data { content, .. } => panic!("data of {content}"),
        }
    }
}

/// Reads data of `content` in order until `bytes` of it are there.
pub(super) fn receive(reader: &mut RecordReader<PeerResponse>, content: u32, bytes: u64) -> Vec<u8> {
    let mut got = Vec::new();
    while (got.len() as u64) < bytes {
        match reader.next().unwrap() {
            Frame::Data { content: of, offset, bytes } => {
                assert_eq!((of, offset), (content, got.len() as u64));
                got.extend_from_slice(bytes);
            }
            Frame::Message(PeerResponse::Hashing { .. }) => {}
            Frame::Message(other) => panic!("{other:?} after {} bytes", got.len()),
        }
    }
    assert_eq!(got.len() as u64, bytes);
    got
}

/// Skips data to the next message.
pub(super) fn skip_data(reader: &mut RecordReader<PeerResponse>) -> (u64, PeerResponse) {
    let mut skipped = 0;
    loop {
        match reader.next().unwrap() {
            Frame::Data { bytes, .. } => skipped += bytes.len() as u64,
            Frame::Message(PeerResponse::Hashing { .. }) => {}
            Frame::Message(message) => return (skipped, message),
        }
    }
}
