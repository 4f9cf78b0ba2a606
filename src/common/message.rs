//! The messages of client and server in an established session: serde types, encoded by postcard, one message per sealed
//! datagram.
//!
//! Every list, text and blob has a maximum in [`limits`](super::limits). A receiver rejects a datagram that is not exactly
//! one message within these maxima. Must not know about sockets, keys or retransmission.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::glob::Pattern;
use super::limits::{
    AUDIENCE_PART_MAX_USERS, AVOIDED_MAX_BYTES, AVOIDED_MAX_USERS, BATCH_MAX_FILES, CURSOR_MAX_BYTES,
    INHERITED_OWNERS_MAX_BYTES, REPLY_PAGES_MAX, SUBSCRIPTIONS_MAX, TICKET_MAX_BYTES,
};
pub use super::name_query::NameQuery;
use super::redacted::Redacted;
use super::types::{Content, ContentRef, FileName, NamedContent, PublicationsDigest, RequestId, UserName, UsersDigest};

/// From client to server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// The reply is [`ServerMessage::HeartbeatAck`] with the same number.
    Heartbeat(Heartbeat),
    /// The reply is [`ServerMessage::Reply`] with the same id. The client repeats the request until the reply arrives.
    Request {
        /// Strictly increasing within a client instance.
        id: RequestId,
        /// The client has received the replies of all lower ids or given them up. The server drops these replies and
        /// rejects requests with lower ids.
        lowest_pending: RequestId,
        /// Pages of a list that the server sends at most, from 1 to [`REPLY_PAGES_MAX`]. Each is a reply of its own. Other
        /// requests have one.
        pages: u8,
        request: Request,
    },
    /// Ends the session. The reply is [`ServerMessage::LogoutAck`]; once the session is gone, a RESET.
    Logout,
}

/// Keeps the session alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Increases by one with each new heartbeat. A retransmission carries the number of the original.
    pub number: u32,
    /// Uploads that this client could start now.
    pub free_slots: u8,
}

/// From server to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerMessage {
    /// Acknowledges the heartbeat of this number.
    HeartbeatAck {
        number: u32,
        /// `None`: the session has no subscriptions.
        subscriptions: Option<SubscriptionState>,
    },
    /// The reply to the request of this id. `page` counts from 0.
    Reply { id: RequestId, page: u8, response: Response },
    /// The session has ended at the client's request.
    LogoutAck,
    /// The session has ended because the user's credentials changed. Sent once; should it be lost, a RESET follows the
    /// client's next datagram.
    SessionRevoked,
    /// The state of a subscription has changed. Sent once; should it be lost, the next [`HeartbeatAck`](Self::HeartbeatAck)
    /// carries the same.
    Changed(SubscriptionState),
}

/// The state of all subscriptions of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionState {
    /// Increases within a session with every change of a state; of two messages, the one with the higher number is the
    /// later.
    pub changes: u64,
    /// Bit *i*: what subscription *i* is about is present.
    pub present: u32,
    /// Bit *i*: it is absent. Neither bit is set while the server does not know: for a while after its start, clients that
    /// were active before may not have resumed yet.
    pub absent: u32,
}

/// What a session can subscribe to: a state, or any change since the SUBSCRIBE. A change is reported once: the subscription
/// is present from then on. To learn of the next one the client subscribes again, and then asks for what is there now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topic {
    /// Present while this user, other than the subscriber, is active.
    Peer(UserName),
    /// Present while another active user publishes a file of this name that the subscriber may see.
    File(FileName),
    /// Present once any other user has come or gone.
    Peers,
    /// Present once another active user has published or withdrawn a file whose name matches, or replaced its content, as
    /// the subscriber may see it; or once any other user has come or gone.
    Files(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// `pub`: publish these files, replacing the user's publications of the same names. A mutation.
    Publish {
        /// At most [`BATCH_MAX_FILES`].
        files: Vec<NamedContent>,
        /// The audience of all of them.
        audience: AudienceRef,
    },
    /// `unp`: unpublish these names. A mutation.
    Unpublish {
        /// At most [`BATCH_MAX_FILES`].
        names: Vec<FileName>,
    },
    /// Part of an audience for [`AudienceRef::Staged`]. The session stores one staged audience at a time, and only until a
    /// reconnect.
    StageAudience {
        /// Chosen by the client.
        key: u32,
        /// The parts of an audience are numbered from 0 and sent in order. Part 0 replaces the staged audience.
        part: u16,
        /// At most [`AUDIENCE_PART_MAX_USERS`].
        users: Vec<UserName>,
    },
    /// `lpf`: the user's own publications.
    OwnPublications {
        /// Whether the user asked by `lpf`, rather than the client for itself. The server logs the former at a higher
        /// level.
        user_initiated: bool,
        cursor: Option<Cursor>,
    },
    /// The audience of one of the user's own publications.
    AudienceOf { name: FileName, cursor: Option<Cursor> },
    /// `lap`: the other active users.
    Peers { cursor: Option<Cursor> },
    /// `sch`: names of visible files of active peers.
    Search { query: NameQuery, cursor: Option<Cursor> },
    /// `sch -l`, and the first half of `get`: visible contents of active peers.
    Resolve { query: NameQuery, purpose: ResolvePurpose, cursor: Option<Cursor> },
    /// The second half of `get`: the peers that serve these contents, with a ticket for each peer. The encoded files take
    /// at most [`SOURCES_REQUEST_MAX_BYTES`](super::limits::SOURCES_REQUEST_MAX_BYTES).
    Sources {
        /// At most [`BATCH_MAX_FILES`].
        files: Vec<ContentRef>,
        /// Sources that brought the requester nothing. For a file that others serve, they are left out. At most
        /// [`AVOIDED_MAX_USERS`], of at most [`AVOIDED_MAX_BYTES`] encoded; the same for every page.
        avoid: Vec<UserName>,
        cursor: Option<Cursor>,
    },
    /// Subscribes to changes of a topic. Belongs to the session: the client subscribes again after a reconnect.
    Subscribe {
        /// Below [`SUBSCRIPTIONS_MAX`], chosen by the client. Replaces the subscription of this number.
        number: u8,
        topic: Topic,
    },
    /// Ends the subscriptions of these numbers, as bits.
    Unsubscribe { numbers: u32 },
    /// `ls`: what this active user publishes, visibly to the requester.
    Shared { user: UserName, cursor: Option<Cursor> },
}

/// Why a client resolves names. The server also logs by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResolvePurpose {
    /// For `sch -l`: names that the requester publishes are left out, as they are by SEARCH.
    List,
    /// For `get`: what other users publish under the requester's own names is included.
    Download,
}

/// The audience of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AudienceRef {
    Everyone,
    /// The audience staged under this key in this session.
    Staged(u32),
    /// `get --share`: the users who may see the publication of the same name and content of each of these owners, from
    /// whom the requester has downloaded it.
    Inherited {
        /// At least one; at most [`INHERITED_OWNERS_MAX_BYTES`] encoded.
        owners: Vec<UserName>,
    },
}

/// The position at which the next page of a list starts; a request for the first page has none. Opaque to clients: the
/// server encrypts it, and rejects it after a restart with [`Response::StaleCursor`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub Vec<u8>);

/// The result of a request. The entries of every page are in no particular order, and a page may be empty and yet have a
/// cursor for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To PUBLISH: the files are durably published and visible.
    Published {
        /// Of all the user's publications after this change.
        digest: PublicationsDigest,
    },
    /// To UNPUBLISH.
    Unpublished {
        /// Bit *i* is set if name *i* was published before.
        published_mask: u64,
        /// Of all the user's publications after this change.
        digest: PublicationsDigest,
    },
    /// To STAGE AUDIENCE.
    AudienceStaged,
    /// To OWN PUBLICATIONS.
    OwnPublications { entries: Vec<OwnPublication>, next: Option<Cursor> },
    /// To SEARCH.
    SearchResults { names: Vec<FileName>, next: Option<Cursor> },
    /// To AUDIENCE OF.
    Users { users: Vec<UserName>, next: Option<Cursor> },
    /// To RESOLVE: one entry for every distinct content of a name. To SHARED, where the user is the only source.
    Contents { entries: Vec<AvailableContent>, next: Option<Cursor> },
    /// To SOURCES. The pages are in random order; within a page, sources with a free slot come first.
    Sources { sources: Vec<SourceGrant>, next: Option<Cursor> },
    /// The server's queue is full; nothing was changed. The client repeats the request after the delay.
    Busy { retry_ms: u16 },
    /// The session has no audience staged under this key, perhaps because of a reconnect. The client stages it again.
    UnknownAudience,
    /// To AUDIENCE OF a name that the user does not publish, and to PUBLISH with [`AudienceRef::Inherited`] when one of these
    /// publications is not visible any more, or nobody may see them all.
    NotPublished,
    /// The cursor is from before the server's restart. The client starts the list again.
    StaleCursor,
    /// The id is below the client's own `lowest_pending`, or the request exceeds a limit: an error in the client.
    Rejected,
    /// To PUBLISH: the user would exceed a quota. No part of the batch was published.
    OverQuota {
        quota: Quota,
        /// What the server allows each user.
        max: u64,
    },
    /// To SUBSCRIBE and UNSUBSCRIBE.
    Subscribed(SubscriptionState),
    /// To PEERS.
    Peers { peers: Vec<ActivePeer>, next: Option<Cursor> },
    /// To SHARED of a user who is not active, or does not exist, or is the requester.
    NotActive,
}

/// What the server limits for each user, by its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quota {
    /// The number of publications.
    Files,
    /// The bytes of their names.
    NameBytes,
    /// The members of their distinct audiences, summed.
    AudienceMembers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnPublication {
    pub name: FileName,
    pub content: Content,
    /// Whether the audience is restricted; AUDIENCE OF lists it.
    pub restricted: bool,
    /// Seconds since it was published with this content.
    pub age_s: u64,
}

/// Another user who is active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivePeer {
    pub user: UserName,
    /// Seconds since the user was last not active, as far as the server knows: it does not remember the time before its own
    /// start.
    pub active_s: u64,
}

/// One content that active peers publish under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AvailableContent {
    pub name: FileName,
    /// With the modification time of the oldest publication.
    pub content: Content,
    /// Number of active peers that publish this name with this content.
    pub sources: u32,
    /// Seconds since the oldest of these publications.
    pub age_s: u64,
    /// Who these peers are.
    pub users: UsersDigest,
}

/// A peer that serves some of the requested contents, with the ticket to download them from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceGrant {
    pub user: UserName,
    /// The IP address that the server sees, with the TCP port that the peer reported.
    pub address: SocketAddr,
    /// Whether the peer could start an upload, by its last heartbeat.
    pub has_free_slot: bool,
    /// Bit *i* is set if the peer serves content *i* of the request.
    pub file_mask: u64,
    /// The key of the ticket.
    pub key: Redacted<[u8; 32]>,
    /// A [`TransferTicket`](super::ticket::TransferTicket), sealed for the peer.
    pub ticket: Vec<u8>,
}

/// Why a message was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("not a message of this protocol version")]
    Malformed,
    #[error("bytes left over after the message")]
    Trailing,
    /// A list, text or blob beyond its maximum, or an empty list.
    #[error("a part of the message is longer than its limit")]
    OverLimit,
}

impl ClientMessage {
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Decodes exactly one message and checks its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: Self = decode(bytes)?;
        match &message {
            Self::Request { pages, request, .. }
                if !(1..=REPLY_PAGES_MAX).contains(pages) || !request.is_within_limits() =>
            {
                Err(MessageError::OverLimit)
            }
            _ => Ok(message),
        }
    }
}

impl ServerMessage {
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode(self, out);
    }

    /// Decodes exactly one message and checks its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: Self = decode(bytes)?;
        match &message {
            Self::Reply { response, .. } if !response.is_within_limits() => Err(MessageError::OverLimit),
            _ => Ok(message),
        }
    }
}

impl Request {
    /// Whether the server must not execute a retransmission again.
    pub fn is_mutation(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Unpublish { .. })
    }

    fn is_within_limits(&self) -> bool {
        match self {
            Self::Publish { files, audience } => within(files, BATCH_MAX_FILES) && audience.fits(),
            Self::Unpublish { names } => within(names, BATCH_MAX_FILES),
            Self::StageAudience { users, .. } => within(users, AUDIENCE_PART_MAX_USERS),
            Self::OwnPublications { cursor, .. }
            | Self::AudienceOf { cursor, .. }
            | Self::Peers { cursor }
            | Self::Shared { cursor, .. } => cursor_fits(cursor),
            Self::Search { query, cursor } | Self::Resolve { query, cursor, .. } => query.fits() && cursor_fits(cursor),
            Self::Sources { files, avoid, cursor } => {
                within(files, BATCH_MAX_FILES)
                    && avoid.len() <= AVOIDED_MAX_USERS
                    && encoded_len(avoid) <= AVOIDED_MAX_BYTES
                    && cursor_fits(cursor)
            }
            Self::Subscribe { number, topic } => usize::from(*number) < SUBSCRIPTIONS_MAX && topic.is_within_limits(),
            Self::Unsubscribe { .. } => true,
        }
    }
}

impl Response {
    fn is_within_limits(&self) -> bool {
        match self {
            Self::OwnPublications { next, .. }
            | Self::SearchResults { next, .. }
            | Self::Users { next, .. }
            | Self::Peers { next, .. }
            | Self::Contents { next, .. } => cursor_fits(next),
            Self::Sources { sources, next } => {
                cursor_fits(next) && sources.iter().all(|source| source.ticket.len() <= TICKET_MAX_BYTES)
            }
            _ => true,
        }
    }
}

impl AudienceRef {
    fn fits(&self) -> bool {
        match self {
            Self::Everyone | Self::Staged(_) => true,
            Self::Inherited { owners } => !owners.is_empty() && encoded_len(owners) <= INHERITED_OWNERS_MAX_BYTES,
        }
    }
}

impl Topic {
    fn is_within_limits(&self) -> bool {
        match self {
            Self::Peer(_) | Self::File(_) | Self::Peers => true,
            Self::Files(pattern) => pattern.is_within_limits(),
        }
    }
}

/// Bytes of the encoding of a message or of a part of one.
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
