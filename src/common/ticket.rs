//! Tickets: sealed leave to do one thing later, kept by whom it concerns and opened by whom it is for.
//!
//! * A [`ResumptionTicket`] is sealed by the server for itself: it carries a session over a server restart or a change
//!   of address without the password.
//! * A [`TransferTicket`] is sealed by the server for one uploader: it lets one downloader fetch some contents from it.
//!
//! Defended: nobody but the server makes or reads a ticket (AES-256-GCM under keys derived for nothing else, a random
//! nonce of 96 bits a ticket); a stolen transfer ticket is useless without the key told to its downloader under seal; an
//! expired one is refused. Not defended: a ticket shown twice within its life opens two connections, each with fresh
//! keys from the Noise handshake; what may be fetched is the same.

use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::crypto::{AeadKey, NONCE_BYTES, TAG_BYTES};
use super::redacted::Redacted;
use super::types::{ContentHash, FileName, InstanceId, UserName};

/// Why a ticket was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not sealed for the one who reads it, or damaged.
    #[error("the ticket was not made for this use")]
    NotOurs,
    /// Too old.
    #[error("the ticket has expired")]
    Expired,
}

/// What takes a session up again. Times are milliseconds since 1970 by the server's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumptionTicket {
    /// Whose session.
    pub user: UserName,
    /// Changes with the user's credential; a ticket of another version is void.
    pub credential_version: [u8; 16],
    /// Which run of the client.
    pub instance: InstanceId,
    /// Counts the sessions of that run; only a later one supersedes an earlier one.
    pub generation: u32,
    /// What the fresh keys are derived from; the client derives the same from its session.
    pub secret: Redacted<[u8; 32]>,
    /// When the ticket ends.
    pub expires_ms: u64,
}

/// What lets `downloader` fetch `grants` from the one it is sealed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferTicket {
    /// Who may fetch.
    pub downloader: UserName,
    /// When the ticket ends, by the clock of `Welcome::server_time_ms`.
    pub expires_ms: u64,
    /// The pre-shared key of the connection's Noise handshake.
    pub key: Redacted<[u8; 32]>,
    /// What may be fetched; numbered from 0 in this order.
    pub grants: Vec<Grant>,
}

/// One content that may be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The name it is published under.
    pub name: FileName,
    /// Its bytes.
    pub hash: ContentHash,
    /// How many.
    pub size: u64,
}

impl ResumptionTicket {
    /// Seals the ticket under the server's own key.
    pub fn seal(&self, key: &AeadKey, rng: &mut (impl RngCore + CryptoRng)) -> Vec<u8> {
        seal(self, key, rng)
    }

    /// Opens a ticket and checks that it has not expired.
    pub fn open(sealed: &[u8], key: &AeadKey, now_ms: u64) -> Result<Self, TicketError> {
        let ticket: Self = open(sealed, key)?;
        if ticket.expires_ms <= now_ms { Err(TicketError::Expired) } else { Ok(ticket) }
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

fn seal<T: Serialize>(ticket: &T, key: &AeadKey, rng: &mut (impl RngCore + CryptoRng)) -> Vec<u8> {
    let mut nonce = [0; NONCE_BYTES];
    rng.fill_bytes(&mut nonce);
    let mut out = postcard::to_extend(ticket, nonce.to_vec()).expect("our own types always encode");
    let tag = key.seal_in_place(nonce, &[], &mut out[NONCE_BYTES..]);
    out.extend_from_slice(&tag);
    out
}

fn open<T: DeserializeOwned>(sealed: &[u8], key: &AeadKey) -> Result<T, TicketError> {
    let (nonce, sealed) = sealed.split_first_chunk().ok_or(TicketError::NotOurs)?;
    if sealed.len() < TAG_BYTES {
        return Err(TicketError::NotOurs);
    }
    let mut text = Zeroizing::new(sealed.to_vec());
    let text = key.open_in_place(*nonce, &[], &mut text).ok_or(TicketError::NotOurs)?;
    match postcard::take_from_bytes(text) {
        Ok((ticket, [])) => Ok(ticket),
        _ => Err(TicketError::NotOurs),
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
    use crate::common::message::{WantedFile, encoded_len};
    use crate::common::packet::RESUMPTION_TICKET_MAX_BYTES;

    fn transfer(grants: Vec<Grant>) -> TransferTicket {
        let downloader = UserName::parse(&"x".repeat(USER_NAME_MAX_BYTES)).unwrap();
        TransferTicket { downloader, expires_ms: u64::MAX, key: [1; 32].into(), grants }
    }

    fn grant(name: &str) -> Grant {
        Grant { name: FileName::parse(name).unwrap(), hash: ContentHash([2; 32]), size: u64::MAX }
    }

    #[test]
    fn a_ticket_opens_with_its_key_before_it_expires() {
        let (key, other) = (AeadKey::new(&[3; 32]), AeadKey::new(&[4; 32]));
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let ticket = TransferTicket { expires_ms: 1_000, ..transfer(vec![grant("a")]) };
        let sealed = ticket.seal(&key, &mut rng);
        assert_eq!(TransferTicket::open(&sealed, &key, 999), Ok(ticket));
        assert_eq!(TransferTicket::open(&sealed, &key, 1_000), Err(TicketError::Expired));
        assert_eq!(TransferTicket::open(&sealed, &other, 0), Err(TicketError::NotOurs));
        for cut in 0..sealed.len() {
            assert_eq!(TransferTicket::open(&sealed[..cut], &key, 0), Err(TicketError::NotOurs));
        }
    }

    #[test]
    fn the_largest_tickets_fit_their_datagrams() {
        let key = AeadKey::new(&[3; 32]);
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let longest = ["a".repeat(255), "b".repeat(FILE_NAME_MAX_BYTES - 258), "c".into()].join("/");
        for name in [longest.as_str(), "a"] {
            let name_of = |text| FileName::parse(text).unwrap();
            let wanted = WantedFile { name: name_of(name), hash: ContentHash([2; 32]), size: u64::MAX };
            let fit = (SOURCES_REQUEST_MAX_BYTES - 2) / encoded_len(&wanted);
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
        assert_eq!(ResumptionTicket::open(&sealed, &key, 0), Ok(resumption));
    }
}
