//! Every maximum and interval of the protocol, with the relations between them asserted at compile time.
//!
//! A number that two rooms must agree on stands here and nowhere else.

use std::time::Duration;

/// Spoken in every HELLO and in the first bytes of every TCP connection.
pub const PROTOCOL_VERSION: u16 = 1;

// Names (the contract's section 3).

/// Longest user name, bytes.
pub const USER_NAME_MAX_BYTES: usize = 64;
/// Longest password, bytes.
pub const PASSWORD_MAX_BYTES: usize = 256;
/// Longest published name, bytes.
pub const FILE_NAME_MAX_BYTES: usize = 512;
/// Longest component of a published name, bytes: what file systems take.
pub const FILE_COMPONENT_MAX_BYTES: usize = 255;

// Control datagrams.

/// Largest control datagram either way, bytes of UDP payload: fits the IPv6 minimum MTU with room for tunnels.
pub const DATAGRAM_MAX_BYTES: usize = 1_200;
/// kind 1, session id 16, counter 8 in front; tag 16 behind.
pub const SEALED_OVERHEAD_BYTES: usize = 1 + 16 + 8 + 16;
/// Largest encoded message inside a sealed datagram, bytes.
pub const MESSAGE_MAX_BYTES: usize = DATAGRAM_MAX_BYTES - SEALED_OVERHEAD_BYTES;
/// Room a list page leaves for request id, variant tags and cursor, bytes.
pub const PAGE_HEADROOM_BYTES: usize = 96;
/// Encoded entries of one list page, bytes.
pub const PAGE_MAX_BYTES: usize = MESSAGE_MAX_BYTES - PAGE_HEADROOM_BYTES;
/// Most files one PUBLISH, UNPUBLISH or SOURCES request names: they are answered by a bit each.
pub const BATCH_MAX_FILES: usize = 64;
/// Encoded files of one SOURCES request, bytes: a ticket repeats them and must still fit into one reply.
pub const SOURCES_REQUEST_MAX_BYTES: usize = 600;
/// Largest ticket, bytes.
pub const TICKET_MAX_BYTES: usize = 910;
/// Most users an audience has; it travels in as many parts as it needs.
pub const AUDIENCE_MAX_USERS: usize = 4_096;
/// Most users one AUDIENCE part or one inline audience names.
pub const AUDIENCE_PART_MAX_USERS: usize = 15;
/// Longest needle of a search, bytes.
pub const NEEDLE_MAX_BYTES: usize = FILE_NAME_MAX_BYTES;
/// Longest sealed cursor, bytes.
pub const CURSOR_MAX_BYTES: usize = 48;

// Liveness.

/// How often clients report unless the server says otherwise.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(2);
/// Silence after which a client is no longer active unless the server says otherwise.
pub const LIVENESS_DEFAULT: Duration = Duration::from_secs(3);
/// An unanswered heartbeat is repeated this many times between the heartbeat interval and the liveness time: at 20 %
/// loss each way a try fails with probability 0.36, and all twelve with 0.36^12: for one heartbeat in 200,000.
pub const HEARTBEAT_TRIES: u32 = 12;

// Requests.

/// First wait before a request is repeated; doubles up to [`REQUEST_RETRY_MAX`].
pub const REQUEST_RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a request is repeated.
pub const REQUEST_RETRY_MAX: Duration = Duration::from_millis(800);
/// Queries of one session that may be under way at once.
pub const QUERY_WINDOW: usize = 32;
/// How long a command waits in mid-session while the client reconnects.
pub const COMMAND_PATIENCE: Duration = Duration::from_secs(30);
/// How long `xit` waits for a dead server.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

// Login.

/// HELLO is padded to this size so that no answer to it can amplify, bytes.
pub const HELLO_BYTES: usize = 256;
/// Nobody answers at login for this long: the server is unreachable.
pub const LOGIN_PATIENCE: Duration = Duration::from_secs(5);
/// First wait before a login step is repeated; doubles up to [`LOGIN_RETRY_MAX`].
pub const LOGIN_RETRY_FIRST: Duration = Duration::from_millis(250);
/// Longest wait before a login step is repeated.
pub const LOGIN_RETRY_MAX: Duration = Duration::from_millis(1_000);
/// A cookie is good for the time bucket it was made in and the one after.
pub const COOKIE_BUCKET: Duration = Duration::from_secs(5);
/// A login is forgotten after this long, finished or not: no earlier than the cookie it began with, lest a recorded one
/// begin again.
pub const HANDSHAKE_LIFETIME: Duration = Duration::from_secs(10);
/// Logins kept at once over all addresses.
pub const HANDSHAKES_MAX: usize = 8_192;
/// Of these, for addresses from where somebody has logged in before.
pub const HANDSHAKES_KNOWN_MAX: usize = 2_048;
/// Logins kept at once for one network (/32 or /48).
pub const HANDSHAKES_PER_NETWORK_MAX: usize = 1_024;
/// How long a resumption ticket is good after it was issued.
pub const RESUMPTION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);

// Transfers.

/// A ticket must be shown to the uploader within this time.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);
/// Ticket keys of a replaced session stay valid this long.
pub const TICKET_KEY_GRACE: Duration = Duration::from_secs(60);
/// Smallest chunk group, bytes. Sizes above [`GROUPS_MAX`] groups use larger ones.
pub const GROUP_MIN_BYTES: u64 = 1 << 20;
/// Most chunk groups a content has; group sizes double until it fits.
pub const GROUPS_MAX: u64 = 1 << 16;
/// Plaintext bytes of one full record on a TCP connection.
pub const RECORD_MAX_BYTES: usize = 64 << 10;

const _: () = assert!(SEALED_OVERHEAD_BYTES + MESSAGE_MAX_BYTES == DATAGRAM_MAX_BYTES);
const _: () = assert!(HELLO_BYTES <= DATAGRAM_MAX_BYTES);
const _: () = assert!(HANDSHAKE_LIFETIME.as_millis() >= 2 * COOKIE_BUCKET.as_millis());
const _: () = assert!(HANDSHAKES_PER_NETWORK_MAX < HANDSHAKES_KNOWN_MAX && HANDSHAKES_KNOWN_MAX < HANDSHAKES_MAX);
const _: () = assert!(PAGE_MAX_BYTES > FILE_NAME_MAX_BYTES + 128, "a page holds at least one of the largest entries");
/// A [`SourceGrant`](super::message::SourceGrant) but for its ticket: user, address, slots, bits, key, lengths.
const GRANT_REST_BYTES: usize = (USER_NAME_MAX_BYTES + 1) + 22 + 1 + 10 + 32 + 2;
const _: () = assert!(TICKET_MAX_BYTES + GRANT_REST_BYTES <= PAGE_MAX_BYTES - 10, "a reply holds one largest ticket");
const _: () = assert!(SOURCES_REQUEST_MAX_BYTES > FILE_NAME_MAX_BYTES + 64, "a request holds the largest name");
const _: () = assert!(AUDIENCE_PART_MAX_USERS * (USER_NAME_MAX_BYTES + 1) <= PAGE_MAX_BYTES);
const _: () = assert!(HEARTBEAT_DEFAULT.as_millis() < LIVENESS_DEFAULT.as_millis());
const _: () = assert!(GROUP_MIN_BYTES.is_power_of_two() && GROUPS_MAX.is_power_of_two());
