//! Maxima and intervals of the protocol, with the relations between them asserted at compile time.

use std::time::Duration;

/// Sent in every HELLO and in the first bytes of every TCP connection.
pub const PROTOCOL_VERSION: u16 = 2;

// Names; README.md lists their rules.

/// Longest user name, bytes.
pub const USER_NAME_MAX_BYTES: usize = 64;
/// Longest password, bytes.
pub const PASSWORD_MAX_BYTES: usize = 256;
/// Longest published name, bytes.
pub const FILE_NAME_MAX_BYTES: usize = 512;
/// Longest component of a published name, bytes: the limit of common file systems.
pub const FILE_COMPONENT_MAX_BYTES: usize = 255;

// Control datagrams.

/// Largest datagram in either direction, bytes of UDP payload: the IPv6 minimum MTU with a margin for tunnels.
pub const DATAGRAM_MAX_BYTES: usize = 1_200;
/// Bytes around a sealed message: kind 1, session id 16 and counter 8 before it, tag 16 after it.
pub const SEALED_OVERHEAD_BYTES: usize = 1 + 16 + 8 + 16;
/// Largest encoded message inside a sealed datagram, bytes.
pub const MESSAGE_MAX_BYTES: usize = DATAGRAM_MAX_BYTES - SEALED_OVERHEAD_BYTES;
/// Bytes of a list page that are reserved for request id, number of the page, variant tags and cursor.
pub const PAGE_HEADROOM_BYTES: usize = 96;
/// Most bytes of encoded entries in one list page.
pub const PAGE_MAX_BYTES: usize = MESSAGE_MAX_BYTES - PAGE_HEADROOM_BYTES;
/// Most files in one PUBLISH, UNPUBLISH or SOURCES request: the response has one bit for each.
pub const BATCH_MAX_FILES: usize = 64;
/// Most bytes of encoded files in one SOURCES request: a ticket repeats them and has to fit into one response.
pub const SOURCES_REQUEST_MAX_BYTES: usize = 600;
/// Most users in the list of a SOURCES request of those to avoid.
pub const AVOIDED_MAX_USERS: usize = 16;
/// Most bytes of these users, encoded.
pub const AVOIDED_MAX_BYTES: usize = 480;
/// Largest ticket, bytes.
pub const TICKET_MAX_BYTES: usize = 910;
/// Most users in an audience.
pub const AUDIENCE_MAX_USERS: usize = 4_096;
/// Most users in one part of a staged audience.
pub const AUDIENCE_PART_MAX_USERS: usize = 15;
/// Most encoded bytes of the owners whose audiences a publication inherits.
pub const INHERITED_OWNERS_MAX_BYTES: usize = 480;
/// Longest text of a search, bytes.
pub const NEEDLE_MAX_BYTES: usize = FILE_NAME_MAX_BYTES;
/// Longest sealed cursor, bytes.
pub const CURSOR_MAX_BYTES: usize = 48;

// Liveness.

/// Default interval of heartbeats.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(2);
/// Default silence after which the server considers a client dead.
pub const LIVENESS_DEFAULT: Duration = Duration::from_secs(3);
/// Transmissions of an unacknowledged heartbeat between the heartbeat interval and the liveness time. At 20 % loss in each
/// direction a transmission fails with probability 0.36, and all twelve with 0.36^12: one heartbeat in 200,000.
pub const HEARTBEAT_TRIES: u32 = 12;

// Requests.

/// First delay before a request is retransmitted; doubles up to [`REQUEST_RETRY_MAX`].
pub const REQUEST_RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest delay before a request is retransmitted.
pub const REQUEST_RETRY_MAX: Duration = Duration::from_millis(800);
/// Most queries of one session in flight.
pub const QUERY_WINDOW: usize = 32;
/// Most pages of a list in reply to one request. They fit into the receive buffer that a system gives a socket by default
/// (Linux: 208 KiB, of which a datagram of full length takes 2.3 KiB).
pub const REPLY_PAGES_MAX: u8 = 32;
/// Most subscriptions of a session: the bits of a [`SubscriptionState`](super::message::SubscriptionState).
pub const SUBSCRIPTIONS_MAX: usize = 32;
/// Longest pattern of a subscription, bytes: every name can be written as one, with each character escaped.
pub const PATTERN_MAX_BYTES: usize = 2 * FILE_NAME_MAX_BYTES;
/// Most `*`, `?` and ranges of characters in one: so matching a name takes at most a tenth of a millisecond.
pub const PATTERN_MAX_WILDCARDS: usize = 64;
/// How long a command waits for a response, also while the client reconnects.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `xit` waits for the server's acknowledgement.
pub const LOGOUT_TIMEOUT: Duration = Duration::from_secs(1);

// Login.

/// Bytes of a HELLO: padded so that no reply to it amplifies.
pub const HELLO_BYTES: usize = 256;
/// Silence at login after which the server is unreachable.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// First delay before a login step is retransmitted; doubles up to [`LOGIN_RETRY_MAX`].
pub const LOGIN_RETRY_FIRST: Duration = Duration::from_millis(250);
/// Longest delay before a login step is retransmitted.
pub const LOGIN_RETRY_MAX: Duration = Duration::from_millis(1_000);
/// Longest wait of a client after THROTTLED, whatever it says: it is not authenticated, so an attacker who sees a login can
/// forge it.
pub const THROTTLED_RETRY_MAX: Duration = Duration::from_secs(5);
/// A cookie is valid in the time bucket of its creation and in the next.
pub const COOKIE_BUCKET: Duration = Duration::from_secs(5);
/// How long the server stores a login, finished or not. At least as long as its cookie is valid, so that a replayed LOGIN1
/// cannot start it again.
pub const PENDING_LOGIN_LIFETIME: Duration = Duration::from_secs(10);
/// Most logins that the server stores.
pub const PENDING_LOGINS_MAX: usize = 8_192;
/// Of these, reserved for address prefixes with a previous successful login.
pub const PENDING_LOGINS_KNOWN_MAX: usize = 2_048;
/// Most logins that the server stores for one network (an address prefix, /32 or /48).
pub const PENDING_LOGINS_PER_NETWORK_MAX: usize = 1_024;
/// Longest delay in a RESET, and the longest that a client waits for one. A restarted server resumes 10,000 clients in 4 s
/// (one every 0.4 ms) if they come one after the other, and a command waits 30 s, so a user notices nothing.
pub const RESET_DELAY_MAX: Duration = Duration::from_secs(5);
/// Validity of a resumption ticket.
pub const RESUMPTION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);

// Transfers.

/// Validity of a transfer ticket: the downloader presents it to the uploader within this time.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(60);
/// How long the transfer ticket key of a replaced session stays valid.
pub const TICKET_KEY_GRACE: Duration = Duration::from_secs(60);
/// Smallest chunk group, bytes. A content of more than [`GROUPS_MAX`] such groups has larger ones.
pub const GROUP_MIN_BYTES: u64 = 1 << 20;
/// Most chunk groups of a content.
pub const GROUPS_MAX: u64 = 1 << 16;
/// Most bytes of bulk data in one record of a TCP connection.
pub const RECORD_MAX_BYTES: usize = 64 << 10;

const _: () = assert!(SEALED_OVERHEAD_BYTES + MESSAGE_MAX_BYTES == DATAGRAM_MAX_BYTES);
const _: () = assert!(HELLO_BYTES <= DATAGRAM_MAX_BYTES);
const _: () = assert!(PENDING_LOGIN_LIFETIME.as_millis() >= 2 * COOKIE_BUCKET.as_millis());
const _: () =
    assert!(PENDING_LOGINS_PER_NETWORK_MAX < PENDING_LOGINS_KNOWN_MAX && PENDING_LOGINS_KNOWN_MAX < PENDING_LOGINS_MAX);
const _: () = assert!(PAGE_MAX_BYTES > FILE_NAME_MAX_BYTES + 128, "a page holds the largest entry");
/// A [`SourceGrant`](super::message::SourceGrant) without its ticket: user, address, slots, mask, key, lengths.
const GRANT_HEAD_BYTES: usize = (USER_NAME_MAX_BYTES + 1) + 22 + 1 + 10 + 32 + 2;
const _: () =
    assert!(TICKET_MAX_BYTES + GRANT_HEAD_BYTES <= PAGE_MAX_BYTES - 10, "a response holds the largest ticket");
const _: () = assert!(SOURCES_REQUEST_MAX_BYTES > FILE_NAME_MAX_BYTES + 64, "a request holds the largest name");
const _: () = assert!(
    SOURCES_REQUEST_MAX_BYTES + AVOIDED_MAX_BYTES + CURSOR_MAX_BYTES + 29 <= MESSAGE_MAX_BYTES,
    "a request holds the most files, users to avoid and the longest cursor"
);
const _: () = assert!(
    INHERITED_OWNERS_MAX_BYTES + FILE_NAME_MAX_BYTES + 64 + PAGE_HEADROOM_BYTES <= MESSAGE_MAX_BYTES,
    "a PUBLISH holds the largest name and the most owners"
);
const _: () = assert!(PATTERN_MAX_BYTES + 32 <= MESSAGE_MAX_BYTES, "a request holds the longest pattern");
const _: () = assert!(AUDIENCE_PART_MAX_USERS * (USER_NAME_MAX_BYTES + 1) <= PAGE_MAX_BYTES);
const _: () = assert!(HEARTBEAT_DEFAULT.as_millis() < LIVENESS_DEFAULT.as_millis());
const _: () = assert!(GROUP_MIN_BYTES.is_power_of_two() && GROUPS_MAX.is_power_of_two());

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
