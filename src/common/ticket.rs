//! Tickets: encrypted capabilities. The holder stores one and presents it later; only its intended reader can decrypt it.
//!
//! * A [`ResumptionTicket`] is sealed by the server for itself. It lets a client resume its session without the password,
//!   after a restart of the server or a change of the client's address.
//! * A [`TransferTicket`] is sealed by the server for one uploader. It lets one downloader download some contents.
//!
//! Defended: only the server can make a ticket, and only its reader can read it: AES-256-GCM under keys with no other
//! use, and a random nonce of 96 bits for each ticket. A stolen transfer ticket is useless without its key, which the
//! server sends to the downloader in an encrypted session. An expired ticket is rejected.
//!
//! Not defended: a ticket presented twice within its lifetime opens two connections, each with fresh keys from the Noise
//! handshake, that grant the same contents.

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::crypto::AeadKey;
use super::redacted::Redacted;
use super::types::{ContentRef, InstanceId, UserName};

/// Why a ticket was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Sealed under another key, or damaged.
    #[error("the ticket was not made for this use")]
    Invalid,
    #[error("the ticket has expired")]
    Expired,
}

/// Resumes a session. Times are milliseconds since 1970 by the server's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumptionTicket {
    pub user: UserName,
    /// Changes with the user's credential. The server rejects a ticket of another version.
    pub credential_version: [u8; 16],
    /// The client instance of the session.
    pub instance: InstanceId,
    /// Counts the sessions of the instance. A session is superseded only by one of a higher generation.
    pub generation: u32,
    /// The secret from which the resumed session's keys are derived. The client derives it from its session.
    pub secret: Redacted<[u8; 32]>,
    /// From when on the ticket resumes only a session that the server still has.
    pub expires_ms: u64,
}

/// Lets `downloader` download `grants` from the uploader that the ticket is sealed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferTicket {
    pub downloader: UserName,
    /// When the ticket expires, by the clock of `SessionParams::server_time_ms`.
    pub expires_ms: u64,
    /// The pre-shared key of the connection's Noise handshake.
    pub key: Redacted<[u8; 32]>,
    /// The granted contents. Peer messages number them from 0 in this order.
    pub grants: Vec<ContentRef>,
}

impl ResumptionTicket {
    /// Seals the ticket under the server's own key.
    pub fn seal(&self, key: &AeadKey, rng: &mut (impl RngCore + CryptoRng)) -> Vec<u8> {
        seal(self, key, rng)
    }

    /// Opens a ticket, which may have expired.
    pub fn open(sealed: &[u8], key: &AeadKey) -> Result<Self, TicketError> {
        open(sealed, key)
    }
}

impl TransferTicket {
    /// Seals the ticket under the uploader's ticket key.
    pub fn seal(&self, key: &AeadKey, rng: &mut (impl RngCore + CryptoRng)) -> Vec<u8> {
        seal(self, key, rng)
    }

    /// Opens a ticket and checks that it has not expired.
    pub fn open(sealed: &[u8], key: &AeadKey, now_ms: u64) -> Result<Self, TicketError> {
        let ticket: Self = open(sealed, key)?;
        if ticket.expires_ms <= now_ms { Err(TicketError::Expired) } else { Ok(ticket) }
    }
}

fn seal(ticket: &impl Serialize, key: &AeadKey, rng: &mut (impl RngCore + CryptoRng)) -> Vec<u8> {
    let encoded = Zeroizing::new(postcard::to_stdvec(ticket).expect("our own types always encode"));
    key.seal(rng, &[], &encoded)
}

fn open<T: DeserializeOwned>(sealed: &[u8], key: &AeadKey) -> Result<T, TicketError> {
    let encoded = key.open(&[], sealed).ok_or(TicketError::Invalid)?;
    match postcard::take_from_bytes(&encoded) {
        Ok((ticket, [])) => Ok(ticket),
        _ => Err(TicketError::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::common::limits::{
        FILE_NAME_MAX_BYTES, SOURCES_REQUEST_MAX_BYTES, TICKET_MAX_BYTES, USER_NAME_MAX_BYTES,
    };
    use crate::common::message::encoded_len;
    use crate::common::packet::RESUMPTION_TICKET_MAX_BYTES;
    use crate::common::types::{ContentHash, FileName};

    fn transfer(grants: Vec<ContentRef>) -> TransferTicket {
        let downloader = UserName::parse(&"x".repeat(USER_NAME_MAX_BYTES)).unwrap();
        TransferTicket { downloader, expires_ms: u64::MAX, key: [1; 32].into(), grants }
    }

    fn grant(name: &str) -> ContentRef {
        ContentRef { name: FileName::parse(name).unwrap(), hash: ContentHash([2; 32]), size: u64::MAX }
    }

    #[test]
    fn a_ticket_opens_with_its_key_before_it_expires() {
        let (key, other) = (AeadKey::new(&[3; 32]), AeadKey::new(&[4; 32]));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let ticket = TransferTicket { expires_ms: 1_000, ..transfer(vec![grant("a")]) };
        let sealed = ticket.seal(&key, &mut rng);
        assert_eq!(TransferTicket::open(&sealed, &key, 999), Ok(ticket));
        assert_eq!(TransferTicket::open(&sealed, &key, 1_000), Err(TicketError::Expired));
        assert_eq!(TransferTicket::open(&sealed, &other, 0), Err(TicketError::Invalid));
        for cut in 0..sealed.len() {
            assert_eq!(TransferTicket::open(&sealed[..cut], &key, 0), Err(TicketError::Invalid));
        }
    }

    #[test]
    fn the_largest_tickets_fit_their_datagrams() {
        let key = AeadKey::new(&[3; 32]);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let longest = ["a".repeat(255), "b".repeat(FILE_NAME_MAX_BYTES - 258), "c".into()].join("/");
        for name in [longest.as_str(), "a"] {
            let fit = (SOURCES_REQUEST_MAX_BYTES - 2) / encoded_len(&grant(name));
            let sealed = transfer(vec![grant(name); fit]).seal(&key, &mut rng);
            assert!(fit >= 1 && sealed.len() <= TICKET_MAX_BYTES, "{fit} files take {} bytes", sealed.len());
        }
        let resumption = ResumptionTicket {
            user: UserName::parse(&"x".repeat(USER_NAME_MAX_BYTES)).unwrap(),
            credential_version: [1; 16],
            instance: InstanceId(u64::MAX),
            generation: u32::MAX,
            secret: [2; 32].into(),
            expires_ms: u64::MAX,
        };
        let sealed = resumption.seal(&key, &mut rng);
        assert!(sealed.len() <= RESUMPTION_TICKET_MAX_BYTES, "{}", sealed.len());
        assert_eq!(ResumptionTicket::open(&sealed, &key), Ok(resumption));
    }
}
