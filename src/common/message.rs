//! What client and server say to each other once a session stands: serde types, encoded by postcard, one message a
//! sealed datagram.
//!
//! Owns the vocabulary and its encoding. Must not know about sockets, keys or retransmission. Everything here is bounded
//! by [`limits`](super::limits); whatever a peer sends that is not exactly one message is refused whole.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::limits::{AUDIENCE_PART_MAX_USERS, BATCH_MAX_FILES, CURSOR_MAX_BYTES, NEEDLE_MAX_BYTES, TICKET_MAX_BYTES};
use super::redacted::Redacted;
use super::types::{Content, ContentHash, FileName, PublicationsDigest, RequestId, UserName};

/// From client to server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// "I am alive"; answered by [`ServerMessage::HeartbeatAck`] with the same number.
    Heartbeat(Heartbeat),
    /// Something that wants a reply; repeated with the same id until the reply comes.
    Request {
        /// Strictly rising within a run.
        id: RequestId,
        /// Every id below this one has been answered or given up: the server forgets their replies and refuses them.
        floor: RequestId,
        /// What is asked.
        request: Request,
    },
    /// The user goes; answered by [`ServerMessage::Left`], and by a reset once the session is gone.
    Leave,
}

/// "I am alive, and this is how much I can take."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Rises by one with each new heartbeat; a repeat carries the number of the one it repeats.
    pub number: u32,
    /// Uploads this client could start at once now.
    pub free_slots: u8,
}

/// From server to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// The heartbeat of this number has arrived.
    HeartbeatAck {
        /// [`Heartbeat::number`].
        number: u32,
    },
    /// The answer to the request of this id.
    Reply {
        /// The request's.
        id: RequestId,
        /// What came of it.
        response: Response,
    },
    /// The session has ended as asked.
    Left,
    /// The session has ended because the credentials changed. Sent once, best effort; a reset tells the rest.
    LoggedOut,
}

/// What a client can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `pub`: publish these files, replacing the user's publications of the same names. A mutation.
    Publish {
        /// At most [`BATCH_MAX_FILES`].
        files: Vec<PublishedFile>,
        /// Who may see all of them.
        audience: AudienceRef,
    },
    /// `unp`: withdraw these names. A mutation.
    Unpublish {
        /// At most [`BATCH_MAX_FILES`].
        names: Vec<FileName>,
    },
    /// Part of an audience to be named by [`AudienceRef::Staged`]; soft state of the session. Parts come in order from
    /// 0; part 0 starts the key anew. A session holds one staged audience at a time.
    StageAudience {
        /// Chosen by the client.
        key: u32,
        /// Counts from 0.
        part: u16,
        /// At most [`AUDIENCE_PART_MAX_USERS`].
        users: Vec<UserName>,
    },
    /// `lpf`: the user's own publications.
    Published {
        /// For `lpf` rather than the client's own books; only the server's log cares.
        listing: bool,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
    /// Who may see one of the user's own publications.
    AudienceOf {
        /// The publication.
        name: FileName,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
    /// `lap`: the other active users.
    Peers {
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
    /// `sch`: names of visible files of active peers.
    Search {
        /// Which names.
        query: NameQuery,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
    /// `sch -l` and the first half of `get`: visible contents of active peers.
    Resolve {
        /// Which names.
        query: NameQuery,
        /// For `get` rather than `sch -l`; only the server's log cares.
        fetch: bool,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
    /// The second half of `get`: who serves these contents, best sources first, with a ticket for each. The encoded
    /// files take at most [`SOURCES_REQUEST_MAX_BYTES`](super::limits::SOURCES_REQUEST_MAX_BYTES).
    Sources {
        /// At most [`BATCH_MAX_FILES`].
        files: Vec<WantedFile>,
        /// Where the last page ended.
        cursor: Option<Cursor>,
    },
}

/// One file of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedFile {
    /// Its name in the share.
    pub name: FileName,
    /// Its bytes.
    pub content: Content,
}

/// One file of a SOURCES request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedFile {
    /// Its name in the share.
    pub name: FileName,
    /// Which content of that name.
    pub hash: ContentHash,
    /// With which size: publishers may lie about it, and those who tell another do not serve this content.
    pub size: u64,
}

/// Who may see what a PUBLISH publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudienceRef {
    /// Every user.
    Everyone,
    /// The audience staged under this key in this session.
    Staged(u32),
    /// The same users (and the owner) as a publication of the same name and hash that the asker may see: `get --share`.
    Inherited,
}

/// Which published names are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NameQuery {
    /// This name alone.
    Exact(FileName),
    /// Names that start so; for folders and patterns.
    Prefix(String),
    /// Names that contain this, byte for byte; the empty needle means all.
    Substring(String),
    /// Names that contain this when both are lower-cased (`str::to_lowercase`).
    SubstringIgnoreCase(String),
}

/// Where a list goes on. Sealed by the server: opaque, and void after a server restart (answered by
/// [`Response::StaleCursor`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub Vec<u8>);

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To PUBLISH: durable, and visible from now on.
    Stored {
        /// Of all the user's publications after this change.
        digest: PublicationsDigest,
    },
    /// To UNPUBLISH: bit *i* is set where name *i* was published, and now is not.
    Withdrawn {
        /// One bit a name.
        found: u64,
        /// Of all the user's publications after this change.
        digest: PublicationsDigest,
    },
    /// To STAGE AUDIENCE.
    Staged,
    /// To PUBLISHED.
    Published {
        /// In no particular order.
        entries: Vec<OwnEntry>,
        /// Present when there is more; a page may be empty and still go on.
        next: Option<Cursor>,
    },
    /// To SEARCH.
    Names {
        /// In no particular order.
        names: Vec<FileName>,
        /// Present when there is more; a page may be empty and still go on.
        next: Option<Cursor>,
    },
    /// To PEERS and AUDIENCE OF.
    Users {
        /// In no particular order.
        users: Vec<UserName>,
        /// Present when there is more; a page may be empty and still go on.
        next: Option<Cursor>,
    },
    /// To RESOLVE: one entry for every distinct content of a name.
    Found {
        /// In no particular order.
        entries: Vec<FoundEntry>,
        /// Present when there is more; a page may be empty and still go on.
        next: Option<Cursor>,
    },
    /// To SOURCES.
    Sources {
        /// Best first over all pages.
        sources: Vec<SourceGrant>,
        /// Present when there is more.
        next: Option<Cursor>,
    },
    /// The server's queue is full; nothing was done. Ask again after this many milliseconds.
    Busy {
        /// Milliseconds.
        retry_ms: u16,
    },
    /// The staged audience is not there (a reconnect drops it): stage it again.
    UnknownAudience,
    /// To AUDIENCE OF a name the user does not publish, and to PUBLISH with [`AudienceRef::Inherited`] when no such
    /// publication is visible any more.
    NotPublished,
    /// The cursor was made before the server restarted: start the list again.
    StaleCursor,
    /// The id lies below the floor the client itself announced, or the request breaks a limit: a bug in the client.
    Refused,
}

/// One of the user's own publications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnEntry {
    /// Its name.
    pub name: FileName,
    /// Its bytes.
    pub content: Content,
    /// Whether only some may see it (ask AUDIENCE OF for whom).
    pub restricted: bool,
}

/// One content that can be fetched under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundEntry {
    /// The published name.
    pub name: FileName,
    /// The bytes; the modification time is the newest publication's.
    pub content: Content,
    /// Active peers that publish just this.
    pub sources: u32,
    /// Seconds since the oldest of these publications was made.
    pub age_s: u64,
}

/// A peer that serves some of the wanted files, and leave to ask it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGrant {
    /// Who; to be named when it misbehaves.
    pub user: UserName,
    /// The IP address the server sees it at, and the TCP port it told under seal.
    pub address: SocketAddr,
    /// From its last heartbeat.
    pub free_slots: u8,
    /// Bit *i* is set where it serves wanted file *i*.
    pub covers: u64,
    /// The key this ticket's connection is opened with.
    pub key: Redacted<[u8; 32]>,
    /// A [`TransferTicket`](super::ticket::TransferTicket) sealed for that peer.
    pub ticket: Vec<u8>,
}

/// A message that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not an encoding of any message.
    #[error("not a message of this protocol version")]
    Malformed,
    /// A whole message, and then more bytes.
    #[error("bytes left over after the message")]
    Trailing,
    /// A list, text or blob longer than its limit.
    #[error("a part of the message is longer than its limit")]
    OverLimit,
}

impl ClientMessage {
    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Takes exactly one message and checks its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: Self = decode(bytes)?;
        match &message {
            Self::Request { request, .. } if !request.is_within_limits() => Err(MessageError::OverLimit),
            _ => Ok(message),
        }
    }
}

impl ServerMessage {
    /// Appends the encoding to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Takes exactly one message and checks its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: Self = decode(bytes)?;
        match &message {
            Self::Reply { response, .. } if !response.is_within_limits() => Err(MessageError::OverLimit),
            _ => Ok(message),
        }
    }
}

impl Request {
    /// Whether a repeat must not act twice.
    pub fn is_mutation(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Unpublish { .. })
    }

    fn is_within_limits(&self) -> bool {
        match self {
            Self::Publish { files, .. } => within(files, BATCH_MAX_FILES),
            Self::Unpublish { names } => within(names, BATCH_MAX_FILES),
            Self::StageAudience { users, .. } => within(users, AUDIENCE_PART_MAX_USERS),
            Self::Published { cursor, .. } | Self::AudienceOf { cursor, .. } | Self::Peers { cursor } => {
                cursor_fits(cursor)
            }
            Self::Search { query, cursor } | Self::Resolve { query, cursor, .. } => query.fits() && cursor_fits(cursor),
            Self::Sources { files, cursor } => within(files, BATCH_MAX_FILES) && cursor_fits(cursor),
        }
    }
}

impl Response {
    fn is_within_limits(&self) -> bool {
        match self {
            Self::Published { next, .. }
            | Self::Names { next, .. }
            | Self::Users { next, .. }
            | Self::Found { next, .. } => cursor_fits(next),
            Self::Sources { sources, next } => {
                cursor_fits(next) && sources.iter().all(|source| source.ticket.len() <= TICKET_MAX_BYTES)
            }
            _ => true,
        }
    }
}

impl NameQuery {
    /// Whether the question is about this name: how a client knows an answer that is not to what it asked.
    pub fn admits(&self, name: &FileName) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(text) => name.as_str().starts_with(text),
            Self::Substring(text) => name.as_str().contains(text),
            Self::SubstringIgnoreCase(text) => name.as_str().to_lowercase().contains(&text.to_lowercase()),
        }
    }

    fn fits(&self) -> bool {
        match self {
            Self::Exact(_) => true,
            Self::Prefix(text) | Self::Substring(text) | Self::SubstringIgnoreCase(text) => {
                text.len() <= NEEDLE_MAX_BYTES
            }
        }
    }
}

/// Encoded size of any message part, bytes.
pub fn encoded_len<T: Serialize>(part: &T) -> usize {
    postcard::experimental::serialized_size(part).expect("our own types always encode")
}

fn within<T>(list: &[T], max: usize) -> bool {
    (1..=max).contains(&list.len())
}

fn cursor_fits(cursor: &Option<Cursor>) -> bool {
    cursor.as_ref().is_none_or(|cursor| cursor.0.len() <= CURSOR_MAX_BYTES)
}

fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) {
    let written = postcard::to_extend(message, std::mem::take(out));
    *out = written.expect("our own types always encode");
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, MessageError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| MessageError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(MessageError::Trailing) }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
