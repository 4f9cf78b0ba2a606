//! The datagrams between client and server: one kind byte, then fixed fields, multi-byte numbers big-endian.
//!
//! ```text
//! kind    name       after the kind byte                                                bytes   from
//! 0x01    HELLO      version 2, nonce 16, zeroes to 256                                   256   client
//! 0x02    RETRY      nonce 16, cookie 32                                                   49   server
//! 0x03    VERSION    version 2, nonce 16                                                   19   server
//! 0x04    LOGIN1     nonce 16, cookie 32, user (length 1, 64 with zero padding), KE1 96   210   client
//! 0x05    LOGIN2     nonce 16, KE2 320                                                    337   server
//! 0x06    LOGIN3     nonce 16, KE3 64, sealed ClientInfo                                  129   client
//! 0x07    LOGIN4     nonce 16, sealed LoginResult, or as many random bytes                353   server
//! 0x08    RESUME     nonce 16, cookie 32, sealed ClientInfo 48, ticket             98 to 321   client
//! 0x09    RESUMED    nonce 16, server nonce 16, sealed LoginResult                        369   server
//! 0x0a    REFUSED    nonce 16                                                              17   server
//! 0x0b    THROTTLED  nonce 16, seconds 2                                                   19   server
//! 0x10    SESSION    session id 16, counter 8, sealed message                       42 to 1,200  both
//! 0x11    RESET      session id 16, tag 16, delay 2                                        35   server
//! ```
//!
//! Defended here: no reply is larger than its request until a cookie has validated the client's address (RETRY, VERSION
//! and REFUSED reply to larger packets; RESET is smaller than the smallest SESSION). Parsing borrows, never allocates,
//! and accepts one length per kind; any other length is rejected. Not defended here: whether a field is true.

use super::limits::{DATAGRAM_MAX_BYTES, HELLO_BYTES, SEALED_OVERHEAD_BYTES, USER_NAME_MAX_BYTES};
use super::types::{SessionId, UserName};

/// Identifies the packets of one login or resumption. Random, chosen by the client.
pub type Nonce = [u8; 16];
/// Proves that a client receives packets at its address (address validation as in QUIC).
pub type Cookie = [u8; 32];
/// Authenticates a RESET: the server sends it to the client in the encrypted parameters of the session.
pub type ResetTag = [u8; 16];

/// Bytes of the messages of OPAQUE (Ristretto255, TripleDH).
pub const KE1_BYTES: usize = 96;
pub const KE2_BYTES: usize = 320;
pub const KE3_BYTES: usize = 64;
/// Bytes of a sealed `ClientInfo`: 32 of plaintext and the tag.
pub const CLIENT_INFO_BYTES: usize = 48;
/// Bytes of a sealed `LoginResult`: 320 of plaintext and the tag.
pub const LOGIN_RESULT_BYTES: usize = 336;
/// Largest resumption ticket, bytes.
pub const RESUMPTION_TICKET_MAX_BYTES: usize = 224;

const NONCE_BYTES: usize = 16;
const COOKIE_BYTES: usize = 32;
const LOGIN1_BYTES: usize = 1 + NONCE_BYTES + COOKIE_BYTES + 1 + USER_NAME_MAX_BYTES + KE1_BYTES;
const RESUME_HEAD_BYTES: usize = 1 + NONCE_BYTES + COOKIE_BYTES + CLIENT_INFO_BYTES;
/// Bytes of kind, session id and counter: the cleartext head of a sealed message, and its associated data.
pub const SESSION_HEAD_BYTES: usize = 1 + 16 + 8;
pub const RESET_BYTES: usize = 1 + 16 + 16 + 2;

const _: () = assert!(RESET_BYTES < SEALED_OVERHEAD_BYTES, "a RESET is smaller than any SESSION packet");
const _: () = assert!(1 + NONCE_BYTES + COOKIE_BYTES < HELLO_BYTES, "a RETRY is smaller than a HELLO");
const _: () = assert!(1 + NONCE_BYTES + COOKIE_BYTES < LOGIN1_BYTES, "a RETRY is smaller than a LOGIN1");
const _: () = assert!(1 + NONCE_BYTES + COOKIE_BYTES < RESUME_HEAD_BYTES, "a RETRY is smaller than a RESUME");

/// One parsed datagram. Nothing in it has been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Starts a login or a resumption.
    Hello { version: u16, nonce: Nonce },
    /// Validates the client's address: the client repeats the cookie in its next packet. Also sent when a cookie has
    /// expired.
    Retry { nonce: Nonce, cookie: Cookie },
    /// The server has another protocol version.
    Version { version: u16, nonce: Nonce },
    /// User name and the first message of the key exchange.
    Login1 {
        nonce: Nonce,
        cookie: Cookie,
        /// A valid name, perhaps of no user.
        user: &'a str,
        ke1: &'a [u8; KE1_BYTES],
    },
    /// The server's message of the key exchange.
    Login2 { nonce: Nonce, ke2: &'a [u8; KE2_BYTES] },
    /// The client's last message of the key exchange, which authenticates it.
    Login3 {
        nonce: Nonce,
        /// OPAQUE KE3, or random bytes after a wrong password.
        ke3: &'a [u8; KE3_BYTES],
        client_info: &'a [u8; CLIENT_INFO_BYTES],
    },
    /// The result of the login. Without the key, success and failure are indistinguishable.
    Login4 {
        nonce: Nonce,
        /// Sealed `LoginResult`, or random bytes.
        result: &'a [u8; LOGIN_RESULT_BYTES],
    },
    /// Resumes a session.
    Resume {
        nonce: Nonce,
        cookie: Cookie,
        /// Sealed `ClientInfo`, under the ticket's secret.
        client_info: &'a [u8; CLIENT_INFO_BYTES],
        /// A [`ResumptionTicket`](super::ticket::ResumptionTicket) sealed for the server.
        ticket: &'a [u8],
    },
    /// The session is resumed, with fresh keys.
    Resumed {
        nonce: Nonce,
        /// The server's part of the derivation of the fresh keys.
        server_nonce: Nonce,
        result: &'a [u8; LOGIN_RESULT_BYTES],
    },
    /// The ticket is invalid: the client has to log in.
    Refused { nonce: Nonce },
    /// Too many password guesses from this address or for this user.
    Throttled { nonce: Nonce, retry_after_s: u16 },
    /// A sealed message of an established session; [`SessionCipher`](super::session_cipher::SessionCipher) opens it.
    Session { id: SessionId },
    /// The server does not have this session any more.
    Reset {
        id: SessionId,
        /// Authenticates id and delay; see [`reset_tag`](super::handshake_keys::reset_tag).
        tag: ResetTag,
        /// How long the client waits before it resumes. A restarted server spreads its clients by it.
        delay_ms: u16,
    },
}

impl<'a> Packet<'a> {
    /// Parses a datagram. `None` unless it is exactly one packet.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() > DATAGRAM_MAX_BYTES {
            return None;
        }
        let (&kind, mut rest) = datagram.split_first()?;
        let input = &mut rest;
        let packet = match kind {
            0x01 => parse_hello(input)?,
            0x02 => Self::Retry { nonce: *take(input)?, cookie: *take(input)? },
            0x03 => Self::Version { version: take_u16(input)?, nonce: *take(input)? },
            0x04 => {
                let (nonce, cookie) = (*take(input)?, *take(input)?);
                Self::Login1 { nonce, cookie, user: take_user(input)?, ke1: take(input)? }
            }
            0x05 => Self::Login2 { nonce: *take(input)?, ke2: take(input)? },
            0x06 => Self::Login3 { nonce: *take(input)?, ke3: take(input)?, client_info: take(input)? },
            0x07 => Self::Login4 { nonce: *take(input)?, result: take(input)? },
            0x08 => parse_resume(input)?,
            0x09 => Self::Resumed { nonce: *take(input)?, server_nonce: *take(input)?, result: take(input)? },
            0x0a => Self::Refused { nonce: *take(input)? },
            0x0b => Self::Throttled { nonce: *take(input)?, retry_after_s: take_u16(input)? },
            0x10 if datagram.len() > SEALED_OVERHEAD_BYTES => {
                let id = SessionId(*take(input)?);
                return Some(Self::Session { id });
            }
            0x11 => Self::Reset { id: SessionId(*take(input)?), tag: *take(input)?, delay_ms: take_u16(input)? },
            _ => return None,
        };
        input.is_empty().then_some(packet)
    }

    /// Encodes the datagram. Panics for [`Packet::Session`], which only
    /// [`SessionCipher`](super::session_cipher::SessionCipher) writes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LOGIN_RESULT_BYTES + 64);
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Hello { version, nonce } => {
                push(out, 0x01, &[&version.to_be_bytes(), &nonce]);
                out.resize(HELLO_BYTES, 0);
            }
            Self::Retry { nonce, cookie } => push(out, 0x02, &[&nonce, &cookie]),
            Self::Version { version, nonce } => push(out, 0x03, &[&version.to_be_bytes(), &nonce]),
            Self::Login1 { nonce, cookie, user, ke1 } => {
                let mut padded = [0; USER_NAME_MAX_BYTES];
                padded[..user.len()].copy_from_slice(user.as_bytes());
                push(out, 0x04, &[&nonce, &cookie, &[user.len() as u8], &padded, ke1]);
            }
            Self::Login2 { nonce, ke2 } => push(out, 0x05, &[&nonce, ke2]),
            Self::Login3 { nonce, ke3, client_info } => push(out, 0x06, &[&nonce, ke3, client_info]),
            Self::Login4 { nonce, result } => push(out, 0x07, &[&nonce, result]),
            Self::Resume { nonce, cookie, client_info, ticket } => {
                push(out, 0x08, &[&nonce, &cookie, client_info, ticket])
            }
            Self::Resumed { nonce, server_nonce, result } => push(out, 0x09, &[&nonce, &server_nonce, result]),
            Self::Refused { nonce } => push(out, 0x0a, &[&nonce]),
            Self::Throttled { nonce, retry_after_s } => push(out, 0x0b, &[&nonce, &retry_after_s.to_be_bytes()]),
            Self::Session { .. } => unreachable!("SessionCipher writes session datagrams"),
            Self::Reset { id, tag, delay_ms } => push(out, 0x11, &[&id.0, &tag, &delay_ms.to_be_bytes()]),
        }
    }
}

/// The first byte of a sealed datagram.
pub(super) const SESSION_KIND: u8 = 0x10;

fn push(out: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    out.push(kind);
    fields.iter().for_each(|field| out.extend_from_slice(field));
}

/// A HELLO of a later version may have other fields after the nonce; it still gets a VERSION in reply.
fn parse_hello<'a>(input: &mut &'a [u8]) -> Option<Packet<'a>> {
    let hello = Packet::Hello { version: take_u16(input)?, nonce: *take(input)? };
    let padding = std::mem::take(input);
    (1 + 2 + NONCE_BYTES + padding.len() == HELLO_BYTES).then_some(hello)
}

fn parse_resume<'a>(input: &mut &'a [u8]) -> Option<Packet<'a>> {
    let (nonce, cookie, client_info) = (*take(input)?, *take(input)?, take(input)?);
    let ticket = std::mem::take(input);
    let fits = (1..=RESUMPTION_TICKET_MAX_BYTES).contains(&ticket.len());
    fits.then_some(Packet::Resume { nonce, cookie, client_info, ticket })
}

fn take<'a, const N: usize>(input: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = input.split_first_chunk()?;
    *input = tail;
    Some(head)
}

fn take_u16(input: &mut &[u8]) -> Option<u16> {
    take(input).map(|bytes| u16::from_be_bytes(*bytes))
}

fn take_user<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let [length] = *take::<1>(input)?;
    let padded = take::<USER_NAME_MAX_BYTES>(input)?;
    let (name, padding) = padded.split_at_checked(length.into())?;
    let name = std::str::from_utf8(name).ok()?;
    (UserName::parse(name).is_ok() && padding.iter().all(|&byte| byte == 0)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::limits::PROTOCOL_VERSION;

    fn samples() -> Vec<Vec<u8>> {
        let (nonce, cookie, ticket) = ([1; 16], [2; 32], [9; 100]);
        let packets = [
            Packet::Hello { version: PROTOCOL_VERSION, nonce },
            Packet::Retry { nonce, cookie },
            Packet::Version { version: 7, nonce },
            Packet::Login1 { nonce, cookie, user: "hans", ke1: &[3; KE1_BYTES] },
            Packet::Login2 { nonce, ke2: &[4; KE2_BYTES] },
            Packet::Login3 { nonce, ke3: &[5; KE3_BYTES], client_info: &[6; CLIENT_INFO_BYTES] },
            Packet::Login4 { nonce, result: &[7; LOGIN_RESULT_BYTES] },
            Packet::Resume { nonce, cookie, client_info: &[6; CLIENT_INFO_BYTES], ticket: &ticket },
            Packet::Resumed { nonce, server_nonce: [8; 16], result: &[7; LOGIN_RESULT_BYTES] },
            Packet::Refused { nonce },
            Packet::Throttled { nonce, retry_after_s: 300 },
            Packet::Reset { id: SessionId([1; 16]), tag: [2; 16], delay_ms: 700 },
        ];
        packets.iter().map(Packet::to_bytes).collect()
    }

    #[test]
    fn every_packet_parses_to_itself() {
        for bytes in samples() {
            let packet = Packet::parse(&bytes).expect("our own packet");
            assert_eq!(packet.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_packet_with_a_byte_too_few_or_too_many_is_rejected() {
        for bytes in samples() {
            let is_resume = bytes[0] == 0x08;
            for cut in 0..bytes.len() {
                let still_resume = is_resume && cut > RESUME_HEAD_BYTES;
                assert_eq!(Packet::parse(&bytes[..cut]).is_some(), still_resume, "{:#x} cut to {cut}", bytes[0]);
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert_eq!(Packet::parse(&longer).is_some(), is_resume, "{:#x} with one more", bytes[0]);
        }
    }

    #[test]
    fn sizes_are_as_documented() {
        let sizes: Vec<usize> = samples().iter().map(Vec::len).collect();
        assert_eq!(sizes, [256, 49, 19, LOGIN1_BYTES, 337, 129, 353, 197, 369, 17, 19, RESET_BYTES]);
        assert_eq!(LOGIN1_BYTES, 210);
    }

    #[test]
    fn unknown_kinds_and_oversized_datagrams_are_rejected() {
        for kind in (0x0c..=0x0f).chain(0x12..=0xff).chain([0]) {
            assert_eq!(Packet::parse(&[kind; 100]), None);
        }
        assert_eq!(Packet::parse(&[]), None);
        assert!(Packet::parse(&[0x10; DATAGRAM_MAX_BYTES]).is_some(), "the largest");
        assert_eq!(Packet::parse(&[0x10; DATAGRAM_MAX_BYTES + 1]), None);
        assert_eq!(Packet::parse(&[0x10; SEALED_OVERHEAD_BYTES]), None);
        assert!(Packet::parse(&[0x10; SEALED_OVERHEAD_BYTES + 1]).is_some());
    }

    #[test]
    fn a_login_with_an_invalid_name_is_rejected() {
        let good = samples().swap_remove(3);
        for (at, byte) in [(49, 0), (49, 65), (49, 3), (50, b' '), (50, 0x1b), (50, 0xff), (60, b'x')] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Packet::parse(&bad), None, "byte {at} = {byte}");
        }
    }
}
