//! The messages between two clients, in the records of [`peer_crypto`](super::peer_crypto).
//!
//! The downloader asks, the uploader replies. Both number the contents that tickets grant on a connection, from 0 in the
//! order of the tickets and of the grants in each; every `content` field is such a number. The ticket in the preamble
//! counts as the first [`PeerRequest::AddTicket`], without a reply of its own: the downloader sends its first request at
//! once, and receives what it requested or [`PeerResponse::Busy`]. A content of 0 bytes needs no request.
//!
//! Must not know about keys, records or sockets.

use serde::{Deserialize, Serialize};

use super::chunk_tree::GroupHash;
use super::limits::RECORD_MAX_BYTES;

/// Most group hashes of one [`PeerResponse::GroupHashes`].
pub const GROUP_HASHES_PART_MAX: usize = RECORD_MAX_BYTES / 32 - 1;
/// Most ranges of one [`PeerRequest::RequestGroups`].
pub const REQUEST_MAX_RANGES: usize = 1_024;
/// Most ranges that an uploader queues for one connection. It closes the connection of a downloader that requests more.
pub const QUEUED_RANGES_MAX: usize = 4 * REQUEST_MAX_RANGES;
/// Most open files that are passed together. Linux passes up to 253.
pub const DESCRIPTORS_MAX: usize = 250;
/// Most granted contents on one connection.
pub const GRANTS_MAX: usize = 4_096;

/// From downloader to uploader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Grants more contents. The reply is [`PeerResponse::TicketAccepted`] or [`PeerResponse::TicketRefused`].
    AddTicket {
        /// A [`TransferTicket`](super::ticket::TransferTicket) for this uploader and the same downloader.
        ticket: Vec<u8>,
    },
    /// The reply is [`PeerResponse::GroupHashes`], in parts, or [`PeerResponse::Refused`].
    GetGroupHashes { content: u32 },
    /// Chunk groups to send, in this order, after those requested before.
    RequestGroups {
        /// At most [`REQUEST_MAX_RANGES`].
        ranges: Vec<GroupRange>,
    },
    /// Drops all requested groups that the uploader has not begun to send. The reply, [`PeerResponse::Cancelled`], follows
    /// the last byte sent.
    Cancel,
    /// Which groups of a content the uploader has: it may still be downloading the content itself. The reply is
    /// [`PeerResponse::Availability`] or [`PeerResponse::Refused`].
    QueryAvailability { content: u32 },
    /// Asks a peer on the same host for open files in place of their bytes, once in a connection. The reply is
    /// [`PeerResponse::DirectPath`].
    OpenDirectPath,
}

/// Consecutive chunk groups of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRange {
    pub content: u32,
    /// Index of the first group.
    pub first: u32,
    /// Number of groups.
    pub count: u32,
}

/// From uploader to downloader, beside bulk data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerResponse {
    /// The ticket of an [`PeerRequest::AddTicket`] is valid.
    TicketAccepted {
        /// The number of its first content.
        first: u32,
    },
    /// The ticket has expired or was sealed for another uploader: the downloader needs a new one from the server.
    TicketRefused,
    /// Part of a content's group hashes.
    GroupHashes {
        content: u32,
        /// Index of the first hash in this part.
        first: u32,
        /// At most [`GROUP_HASHES_PART_MAX`]. The part that reaches the content's number of groups is the last.
        hashes: Vec<GroupHash>,
    },
    /// The uploader cannot serve this content. It drops the content's queued ranges.
    Refused { content: u32, reason: RefusalReason },
    /// All upload slots are taken. The downloader may retry after the delay, or use another source.
    Busy { retry_ms: u16 },
    /// The reply to [`PeerRequest::Cancel`].
    Cancelled,
    /// The reply to [`PeerRequest::QueryAvailability`].
    Availability {
        content: u32,
        /// Bit `i % 8` (from the lowest) of byte `i / 8` is set if the uploader has group `i`. Empty: it has all.
        groups: Vec<u8>,
    },
    /// The uploader does not have these requested groups yet and drops them from its queue. The downloader may request
    /// them again once [`PeerRequest::QueryAvailability`] lists them.
    NotAvailable { content: u32, first: u32, count: u32 },
    /// The uploader is hashing the file to verify that it still is what was published, or is loading its list of own
    /// publications; the reply follows. Sent about every second meanwhile, so that the downloader does not consider the
    /// uploader dead.
    Hashing { content: u32 },
    /// Where the uploader passes open files to this downloader; `None`: it does not.
    DirectPath { socket: Option<DirectSocket> },
    /// The next requested groups can be copied from files that were passed together before: one for each range, in this
    /// order. At most [`DESCRIPTORS_MAX`], none of them empty.
    GroupsPassed { ranges: Vec<GroupRange> },
}

/// A control socket of the uploader, to which the downloader presents the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectSocket {
    /// The folder that the socket is in: an absolute path, as the system has it.
    pub folder: Vec<u8>,
    /// Its name in that folder.
    pub name: String,
    /// Random, for one use.
    pub token: [u8; 16],
}

/// Why an uploader does not serve a content that the ticket grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalReason {
    /// Unpublished, or not published to this downloader.
    #[error("it is no longer published there")]
    NotShared,
    #[error("the file was changed after it was published")]
    Changed,
    /// The file does not exist or cannot be read.
    #[error("the file cannot be read there")]
    Unreadable,
}
