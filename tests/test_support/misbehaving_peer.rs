//! A malicious registered user: logs in, publishes a file, and serves other bytes.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use fileshare::internals::client::control::{ControlHandle, Observer, SessionConfig, SessionControl};
use fileshare::internals::client::control::{PublishAudience, ServerApi};
use fileshare::internals::client::transport::{self, TransportError};
use fileshare::internals::common::crypto::{AeadKey, Secret};
use fileshare::internals::common::handshake_keys::SessionParams;
use fileshare::internals::common::limits::RECORD_MAX_BYTES;
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::peer_crypto::{Frame, Preamble};
use fileshare::internals::common::peer_message::{PeerRequest, PeerResponse};
use fileshare::internals::common::ticket::TransferTicket;
use fileshare::internals::common::types::{Audience, Content, ContentHash, FileName, NamedContent, UserName};
use zeroize::Zeroizing;

#[derive(Default)]
struct TicketKey(Mutex<Option<AeadKey>>);

impl Observer for TicketKey {
    fn session_started(&self, _: &UserName, _: &SessionParams, ticket_key: &Secret, _: bool) {
        *self.0.lock().expect("no peer panics") = Some(AeadKey::new(ticket_key));
    }

    fn connection_lost(&self) {}

    fn logged_out(&self) {}

    fn resynced(&self, _: usize) {}

    fn free_slots(&self) -> u8 {
        8
    }
}

/// Active and serving false bytes until the test ends.
pub struct MisbehavingPeer {
    _control: ControlHandle,
}

impl MisbehavingPeer {
    /// Logs in as `user` and publishes `truth`, of at most one chunk group, under `name`; downloaders get other bytes of the
    /// same size.
    pub fn start(server: SocketAddr, user: &str, name: &str, truth: &[u8]) -> Self {
        Self::start_with_size(server, user, name, truth, truth.len() as u64)
    }

    /// Like [`start`](Self::start), but publishes this size.
    pub fn start_with_size(server: SocketAddr, user: &str, name: &str, truth: &[u8], size: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket").port();
        let (peer, key) = Self::publish(server, user, name, Content { hash: hash(truth), size, mtime_ms: 0 }, port);
        let false_bytes: Vec<u8> = truth.iter().map(|byte| !byte).collect();
        // Ends with the process: accepting cannot be interrupted without unsafe code, and the thread owns nothing else.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // The downloader closes the connection when it finds the mismatch.
                let _ = serve(stream, &key, &false_bytes);
            }
        });
        peer
    }

    /// Logs in as `user`, claims that its files are served at `port`, which is another client's, and publishes `truth`.
    pub fn claim(server: SocketAddr, user: &str, name: &str, truth: &[u8], port: u16) -> Self {
        let content = Content { hash: hash(truth), size: truth.len() as u64, mtime_ms: 0 };
        Self::publish(server, user, name, content, port).0
    }

    fn publish(server: SocketAddr, user: &str, name: &str, content: Content, tcp_port: u16) -> (Self, Arc<TicketKey>) {
        let key = Arc::new(TicketKey::default());
        let options = SessionConfig { servers: vec![server], tcp_port, stretching: KeyStretching::Argon2id };
        let control = ControlHandle::start(options, key.clone()).expect("a control thread");
        let password = Zeroizing::new(super::password(user).as_bytes().to_vec());
        control.login(UserName::parse(user).expect("a user name"), password).expect("a good password");
        let published = NamedContent { name: FileName::parse(name).expect("a file name"), content };
        ServerApi::new(control.clone())
            .publish(&[published], &PublishAudience::Audience(Audience::Everyone))
            .expect("an active session");
        (Self { _control: control }, key)
    }
}

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(*blake3::hash(bytes).as_bytes())
}

fn serve(mut stream: TcpStream, key: &TicketKey, false_bytes: &[u8]) -> Result<(), TransportError> {
    let mut bytes = Vec::new();
    while let Preamble::NeedBytes(needed) = Preamble::parse(&bytes)? {
        let filled = bytes.len();
        bytes.resize(needed, 0);
        stream.read_exact(&mut bytes[filled..])?;
    }
    let Preamble::Complete { ticket, prologue, noise } = Preamble::parse(&bytes)? else { unreachable!() };
    let key = key.0.lock().expect("no peer panics").as_ref().and_then(|key| TransferTicket::open(ticket, key, 0).ok());
    let Some(ticket) = key else { return Ok(()) };
    let (mut reader, mut writer) = transport::respond::<PeerRequest>(stream.into(), &ticket.key, prologue, noise)?;
    loop {
        let Frame::Message(message) = reader.next()? else { panic!("a downloader sends no data") };
        match message {
            PeerRequest::RequestGroups { ranges } => {
                for range in ranges {
                    for (number, piece) in false_bytes.chunks(RECORD_MAX_BYTES).enumerate() {
                        let offset = (number * RECORD_MAX_BYTES) as u64;
                        writer.data(range.content, offset, piece.len(), |place| {
                            place.copy_from_slice(piece);
                            Ok::<_, TransportError>(())
                        })?;
                    }
                }
            }
            PeerRequest::QueryAvailability { content } => {
                writer.message(&PeerResponse::Availability { content, groups: Vec::new() })?
            }
            PeerRequest::OpenDirectPath => writer.message(&PeerResponse::DirectPath { socket: None })?,
            PeerRequest::Cancel => writer.message(&PeerResponse::Cancelled)?,
            PeerRequest::AddTicket { .. } | PeerRequest::GetGroupHashes { .. } => {}
        }
        writer.flush()?;
    }
}
