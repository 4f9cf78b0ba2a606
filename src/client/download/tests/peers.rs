//! Test peers that serve correctly or not over real connections, and the discovery that finds them.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::direct_path::{FilePassing, PassedContent};
use crate::client::control::RequestError;
use crate::client::download::{SourceDiscovery, SourceOffer};
use crate::client::transport::tests::accept;
use crate::client::transport::{RecordReader, RecordWriter, TransportError};
use crate::common::chunk_tree::{group_count, group_range, hash_group};
use crate::common::limits::RECORD_MAX_BYTES;
use crate::common::peer_crypto::Frame;
use crate::common::peer_message::{PeerRequest, PeerResponse, RefusalReason};
use crate::common::types::{ContentHash, ContentRef, UserName};

/// How a peer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerBehaviour {
    Honest,
    /// Flips a bit in the group of this number and in all small files.
    CorruptsGroup(u32),
    /// Sends other group hashes.
    FalseHashes,
    /// Closes the connection after this many bytes, and refuses new ones.
    Dies(u64),
    /// Closes every connection after this many bytes.
    Flaps(u64),
    /// Closes every connection at once.
    HangsUp,
    /// Stops sending after this many bytes without closing.
    Stalls(u64),
    /// Waits this long before every chunk.
    Slow(Duration),
    Refuses(RefusalReason),
    /// Rejects this many connections first.
    Busy(usize),
    /// Sends the second chunk before the first.
    OutOfOrder,
    /// Sends a chunk twice.
    Repeats,
    /// Sends unrequested data.
    Unrequested,
    /// Numbers the parts of an outline from one on.
    NumbersOutlineFromOne,
    /// Sends an outline without hashes.
    EmptyOutline,
    /// Acknowledges a cancellation that nobody asked for.
    AcknowledgesNothing,
    /// Has only the groups below this number at first, and one more after every time it is requested.
    Incomplete(u32),
    /// Passes files while the downloader takes them.
    Passes(PassedContent),
}

/// What peers may serve, by hash.
pub type Contents = HashMap<ContentHash, Arc<Vec<u8>>>;

/// One peer, listening until dropped.
pub struct TestPeer {
    pub user: UserName,
    pub address: SocketAddr,
    pub dialled: Arc<AtomicUsize>,
    /// Groups it was asked for.
    pub requested: Arc<AtomicUsize>,
    /// Groups of which it passed a file.
    pub passed: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl TestPeer {
    pub fn start(name: &str, contents: &Arc<Contents>, behaviour: PeerBehaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self {
            user: UserName::parse(name).unwrap(),
            address: listener.local_addr().unwrap(),
            dialled: Arc::default(),
            requested: Arc::default(),
            passed: Arc::default(),
            gone: Arc::default(),
        };
        let (dialled, requested, passed) = (peer.dialled.clone(), peer.requested.clone(), peer.passed.clone());
        let (gone, contents, user) = (peer.gone.clone(), contents.clone(), peer.user.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if gone.load(Ordering::SeqCst) {
                    break;
                }
                let number = dialled.fetch_add(1, Ordering::SeqCst);
                let (requested, passed) = (requested.clone(), passed.clone());
                let (gone, contents) = (gone.clone(), contents.clone());
                // A peer that relays the offer of another user names that socket.
                let is_relayed = matches!(behaviour, PeerBehaviour::Passes(PassedContent::Relayed));
                let greets = if is_relayed { UserName::parse("other").unwrap() } else { user.clone() };
                thread::spawn(move || {
                    let upload = Upload {
                        contents: &contents,
                        behaviour,
                        requested: &requested,
                        passing: FilePassing::new(&passed, greets),
                        number,
                        sent: 0,
                        has: 0,
                    };
                    if upload.serve(stream.unwrap()).is_none() {
                        gone.store(true, Ordering::SeqCst);
                    }
                });
            }
        });
        peer
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

struct Upload<'a> {
    contents: &'a Contents,
    behaviour: PeerBehaviour,
    requested: &'a AtomicUsize,
    passing: FilePassing<'a>,
    number: usize,
    sent: u64,
    has: u32,
}

type Ended = Result<(), TransportError>;

impl Upload<'_> {
    /// `None`: the peer dies of it.
    fn serve(mut self, stream: TcpStream) -> Option<()> {
        if matches!(self.behaviour, PeerBehaviour::HangsUp) {
            return Some(());
        }
        // In these tests a ticket is the hashes it grants.
        let admit = |ticket: &[u8]| Some(([7; 32], hashes(ticket)));
        let (mut granted, mut reader, mut writer) = accept::<_, PeerRequest>(stream, admit).ok()?;
        reader.stream().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if matches!(self.behaviour, PeerBehaviour::Busy(times) if self.number < times) {
            let _ = writer.message(&PeerResponse::Busy { retry_ms: 20 });
            let _ = writer.flush();
            return Some(());
        }
        if let PeerBehaviour::Incomplete(groups) = self.behaviour {
            self.has = groups;
        }
        loop {
            match self.answer(&mut granted, &mut reader, &mut writer) {
                Ok(()) => {}
                Err(_) if matches!(self.behaviour, PeerBehaviour::Dies(after) if self.sent >= after) => return None,
                Err(_) => return Some(()),
            }
        }
    }

    fn answer(
        &mut self,
        granted: &mut Vec<ContentHash>,
        reader: &mut RecordReader<PeerRequest>,
        writer: &mut RecordWriter,
    ) -> Ended {
        let Frame::Message(message) = reader.next()? else { panic!("a downloader sends no data") };
        let wanted = |content: u32| granted[content as usize];
        match message {
            PeerRequest::AddTicket { ticket } => {
                writer.message(&PeerResponse::TicketAccepted { first: granted.len() as u32 })?;
                granted.extend(hashes(&ticket));
            }
            PeerRequest::GetGroupHashes { content } => {
                if let PeerBehaviour::Refuses(reason) = self.behaviour {
                    writer.message(&PeerResponse::Refused { content, reason })?;
                } else {
                    let first = u32::from(self.behaviour == PeerBehaviour::NumbersOutlineFromOne);
                    let hashes = self.outline(&wanted(content));
                    writer.message(&PeerResponse::GroupHashes { content, first, hashes })?;
                }
            }
            PeerRequest::RequestGroups { ranges } => {
                self.requested.fetch_add(ranges.len(), Ordering::SeqCst);
                let contents: Vec<_> =
                    ranges.iter().map(|range| self.contents[&wanted(range.content)].clone()).collect();
                if self.behaviour == PeerBehaviour::Passes(PassedContent::LastMissing)
                    && self.passing.pass_without_last(&contents)
                {
                    writer.message(&PeerResponse::GroupsPassed { ranges })?;
                    return writer.flush();
                }
                for (range, bytes) in ranges.into_iter().zip(contents) {
                    assert_eq!(range.count, 1, "one range a group");
                    if let PeerBehaviour::Passes(passed) = self.behaviour {
                        if let Some(response) = passed.interruption(self.number, range.content, self.passing.count()) {
                            let is_end = matches!(response, PeerResponse::Busy { .. });
                            writer.message(&response)?;
                            writer.flush()?;
                            return if is_end { Err(TransportError::Closed) } else { Ok(()) };
                        }
                        if self.passing.pass(passed, &bytes) {
                            writer.message(&PeerResponse::GroupsPassed { ranges: vec![range] })?;
                            continue;
                        }
                    }
                    self.send(writer, range.content, range.first, &bytes)?;
                }
            }
            PeerRequest::OpenDirectPath => {
                let passes = matches!(self.behaviour, PeerBehaviour::Passes(_));
                let socket = passes.then(|| self.passing.listen());
                writer.message(&PeerResponse::DirectPath { socket })?;
            }
            PeerRequest::Cancel => writer.message(&PeerResponse::Cancelled)?,
            PeerRequest::QueryAvailability { content } => {
                let count = group_count(self.contents[&wanted(content)].len() as u64);
                let mut groups = vec![0u8; count.div_ceil(8) as usize];
                (0..self.has.min(count)).for_each(|group| groups[group as usize / 8] |= 1 << (group % 8));
                self.has += 1;
                let groups = if self.has > count { Vec::new() } else { groups };
                writer.message(&PeerResponse::Availability { content, groups })?;
            }
        }
        writer.flush()
    }

    fn outline(&self, hash: &ContentHash) -> Vec<[u8; 32]> {
        let bytes = &self.contents[hash];
        let mut hashes = outline(bytes);
        match self.behaviour {
            PeerBehaviour::FalseHashes => hashes[0][0] ^= 1,
            PeerBehaviour::EmptyOutline => hashes.clear(),
            _ => {}
        }
        hashes
    }

    fn send(&mut self, writer: &mut RecordWriter, content: u32, group: u32, bytes: &[u8]) -> Ended {
        if let PeerBehaviour::Refuses(reason) = self.behaviour {
            return writer.message(&PeerResponse::Refused { content, reason });
        }
        if matches!(self.behaviour, PeerBehaviour::Incomplete(_)) && group >= self.has {
            return writer.message(&PeerResponse::NotAvailable { content, first: group, count: 1 });
        }
        if self.behaviour == PeerBehaviour::AcknowledgesNothing {
            writer.message(&PeerResponse::Cancelled)?;
        }
        let range = group_range(bytes.len() as u64, group);
        let mut pieces: Vec<u64> = range.clone().step_by(RECORD_MAX_BYTES).collect();
        match self.behaviour {
            PeerBehaviour::OutOfOrder if pieces.len() > 1 => pieces.swap(0, 1),
            PeerBehaviour::Repeats if pieces.len() > 1 => pieces[1] = pieces[0],
            PeerBehaviour::Unrequested => pieces[0] += 1,
            _ => {}
        }
        for start in pieces {
            let end = (start + RECORD_MAX_BYTES as u64).min(range.end);
            let length = (end - start) as usize;
            match self.behaviour {
                PeerBehaviour::Dies(after) | PeerBehaviour::Flaps(after) if self.sent >= after => {
                    return Err(TransportError::Closed);
                }
                PeerBehaviour::Stalls(after) if self.sent >= after => {
                    writer.flush()?;
                    thread::sleep(Duration::from_secs(20));
                    return Err(TransportError::Closed);
                }
                PeerBehaviour::Slow(pause) => {
                    writer.flush()?;
                    thread::sleep(pause);
                }
                _ => {}
            }
            let corrupts =
                matches!(self.behaviour, PeerBehaviour::CorruptsGroup(bad) if bad == group || bytes.len() <= 1 << 20);
            writer.data(content, start, length, |place| {
                place.copy_from_slice(&bytes[start as usize..end as usize]);
                place[length / 2] ^= u8::from(corrupts);
                Ok::<_, TransportError>(())
            })?;
            self.sent += length as u64;
        }
        Ok(())
    }
}

/// The group hashes of a content.
pub fn outline(bytes: &[u8]) -> Vec<[u8; 32]> {
    let size = bytes.len() as u64;
    let group = |index| {
        let range = group_range(size, index);
        hash_group(size, index, &bytes[range.start as usize..range.end as usize])
    };
    (0..group_count(size)).map(group).collect()
}

fn hashes(ticket: &[u8]) -> Vec<ContentHash> {
    ticket.as_chunks::<32>().0.iter().map(|hash| ContentHash(*hash)).collect()
}

/// Finds these peers for all files, with tickets of a few files each.
#[derive(Default)]
pub struct TestDiscovery {
    pub peers: Mutex<Vec<(UserName, SocketAddr)>>,
    pub requested: AtomicUsize,
    pub files_a_ticket: usize,
    /// Files that only this peer serves.
    pub alone: Mutex<HashMap<String, String>>,
    pub error: Mutex<Option<RequestError>>,
}

impl TestDiscovery {
    pub fn of(peers: &[&TestPeer]) -> Arc<Self> {
        let peers = peers.iter().map(|peer| (peer.user.clone(), peer.address)).collect();
        Arc::new(Self { peers: Mutex::new(peers), files_a_ticket: 11, ..Self::default() })
    }
}

impl SourceDiscovery for TestDiscovery {
    fn find_sources(&self, files: &[ContentRef], _: &[UserName], _: usize) -> Result<Vec<SourceOffer>, RequestError> {
        self.requested.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = *self.error.lock().unwrap() {
            return Err(error);
        }
        let mut offers = Vec::new();
        let indices: Vec<usize> = (0..files.len()).collect();
        for batch in indices.chunks(self.files_a_ticket) {
            for (user, address) in &*self.peers.lock().unwrap() {
                let alone = self.alone.lock().unwrap();
                let batch: Vec<usize> = batch
                    .iter()
                    .copied()
                    .filter(|&file| alone.get(files[file].name.as_str()).is_none_or(|only| only == user.as_str()))
                    .collect();
                if batch.is_empty() {
                    continue;
                }
                let ticket: Vec<u8> = batch.iter().flat_map(|&file| files[file].hash.0).collect();
                offers.push(SourceOffer {
                    user: user.clone(),
                    address: *address,
                    key: [7; 32].into(),
                    ticket,
                    files: batch,
                });
            }
        }
        Ok(offers)
    }
}
