//! The keys of a login and of a resumption, and the messages sealed with them.
//!
//! Each key seals one message: it is derived for one direction of one exchange, so the AEAD nonce is zero. The exchange's
//! nonce is associated data. Every message is padded to a fixed size, so that its length reveals nothing.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::crypto::{AeadKey, NONCE_BYTES, Secret, TAG_BYTES, context, derive};
use super::packet::{CLIENT_INFO_BYTES, Cookie, LOGIN_RESULT_BYTES, Nonce, ResetTag};
use super::redacted::Redacted;
use super::types::{InstanceId, PublicationsDigest, SessionId};

/// The login or resumption failed: a wrong password, an unknown user, a server without the user's record or a damaged
/// message. These cannot be distinguished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the login failed")]
pub struct LoginFailed;

/// The key that client and server share after a login: OPAQUE's session key.
pub struct LoginKey(Zeroizing<Vec<u8>>);

impl LoginKey {
    pub(super) fn new(opaque_session_key: &[u8]) -> Self {
        Self(Zeroizing::new(opaque_session_key.to_vec()))
    }

    /// The secret of the session that this login starts.
    pub fn session_secret(&self) -> Secret {
        derive(context::SESSION, &self.0)
    }

    /// Of the client info in LOGIN3.
    pub fn client_info(&self, nonce: &Nonce) -> ClientInfoKey {
        MessageKey::new(derive(context::LOGIN_CLIENT_INFO, &self.0), nonce)
    }

    /// Of the result in LOGIN4.
    pub fn result(&self, nonce: &Nonce) -> LoginResultKey {
        MessageKey::new(derive(context::LOGIN_RESULT, &self.0), nonce)
    }
}

/// Known to the server and the client of one session: the key of the tags of its RESETs.
pub type ResetToken = [u8; 16];

/// The tag by which the client of a session recognises a genuine RESET. It covers the delay, which an attacker could
/// otherwise choose.
pub fn reset_tag(token: &ResetToken, delay_ms: u16) -> ResetTag {
    let material = Zeroizing::new([token.as_slice(), &delay_ms.to_be_bytes()].concat());
    *derive(context::RESET_TAG, &material).first_chunk().expect("32 bytes")
}

/// The keys of one attempt to resume a session: derived from the secret in the ticket, and fresh because the nonces of
/// both sides enter the derivation.
pub struct ResumptionKey(Secret);

impl ResumptionKey {
    pub fn new(ticket_secret: Secret) -> Self {
        Self(ticket_secret)
    }

    /// The secret that goes into a session's resumption ticket, derived from the session's secret.
    pub fn secret_for_ticket(session_secret: &Secret) -> Secret {
        derive(context::RESUMPTION_SECRET, session_secret.as_slice())
    }

    /// Of the client info in RESUME. It is valid with this cookie only, so that an attacker cannot replay a recorded
    /// RESUME with a fresh cookie.
    pub fn client_info(&self, nonce: &Nonce, cookie: &Cookie) -> ClientInfoKey {
        MessageKey::new(self.derive(context::RESUME_CLIENT_INFO, nonce, cookie), nonce)
    }

    /// Of the result in RESUMED.
    pub fn result(&self, nonce: &Nonce, server_nonce: &Nonce) -> LoginResultKey {
        MessageKey::new(self.derive(context::RESUME_RESULT, nonce, server_nonce), nonce)
    }

    pub fn session_secret(&self, nonce: &Nonce, server_nonce: &Nonce) -> Secret {
        self.derive(context::RESUMED_SESSION, nonce, server_nonce)
    }

    /// `server_part` is the cookie or the server's nonce.
    fn derive(&self, context: &str, nonce: &Nonce, server_part: &[u8]) -> Secret {
        let material = Zeroizing::new([self.0.as_slice(), nonce, server_part].concat());
        derive(context, &material)
    }
}

pub type ClientInfoKey = MessageKey<ClientInfo, CLIENT_INFO_BYTES>;
pub type LoginResultKey = MessageKey<LoginResult, LOGIN_RESULT_BYTES>;

/// Seals one message of type `T` in `SEALED` bytes.
pub struct MessageKey<T, const SEALED: usize> {
    key: AeadKey,
    nonce: Nonce,
    message: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned, const SEALED: usize> MessageKey<T, SEALED> {
    fn new(key: Secret, nonce: &Nonce) -> Self {
        Self { key: AeadKey::new(&key), nonce: *nonce, message: PhantomData }
    }

    /// Encodes the message, pads it with zeroes and seals it.
    pub fn seal(&self, message: &T) -> [u8; SEALED] {
        let encoded = Zeroizing::new(postcard::to_stdvec(message).expect("our own types always encode"));
        let mut sealed = [0; SEALED];
        let (text, tag) = sealed.split_at_mut(SEALED - TAG_BYTES);
        text[..encoded.len()].copy_from_slice(&encoded);
        tag.copy_from_slice(&self.key.seal_in_place([0; NONCE_BYTES], &self.nonce, text));
        sealed
    }

    pub fn open(&self, sealed: &[u8; SEALED]) -> Result<T, LoginFailed> {
        let mut text = Zeroizing::new(*sealed);
        let text = self.key.open_in_place([0; NONCE_BYTES], &self.nonce, text.as_mut_slice()).ok_or(LoginFailed)?;
        let (message, padding) = postcard::take_from_bytes(text).map_err(|_| LoginFailed)?;
        if padding.iter().all(|&byte| byte == 0) { Ok(message) } else { Err(LoginFailed) }
    }
}

/// What a client reports about itself at login. Sealed in [`CLIENT_INFO_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// The port of its listener for peers.
    pub tcp_port: u16,
    /// Uploads that it could start now.
    pub free_slots: u8,
    /// In LOGIN3, the instance that a client continues when its ticket was refused; 0 for a new one. RESUME ignores it:
    /// the ticket names the instance.
    pub instance: InstanceId,
}

/// The server's reply to a client with the right password or a valid ticket. Sealed in [`LOGIN_RESULT_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginResult {
    Accepted(SessionParams),
    /// The user has a session with another client.
    AlreadyActive {
        /// Silence after which the server considers that client dead, milliseconds.
        liveness_ms: u32,
    },
}

/// The parameters of a new or resumed session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionParams {
    pub session: SessionId,
    /// This instance of the client; the same after a resumption.
    pub instance: InstanceId,
    /// Interval of heartbeats, milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which the server considers the client dead, milliseconds.
    pub liveness_ms: u32,
    /// The server's clock: milliseconds since 1970 when the server started, monotonic since. Transfer tickets expire by
    /// this clock.
    pub server_time_ms: u64,
    /// The token that authenticates a RESET of this session.
    pub reset_token: Redacted<ResetToken>,
    /// A sealed [`ResumptionTicket`](super::ticket::ResumptionTicket).
    pub ticket: Vec<u8>,
    /// The digest of all the user's publications at the server.
    pub digest: PublicationsDigest,
    /// The client instance that made the user's last mutation.
    pub last_writer: InstanceId,
    /// The client's address is a loopback address while the server listens on others too: peers on other hosts cannot
    /// download from this client.
    pub local_only: bool,
}

#[cfg(test)]
#[path = "handshake_keys_tests.rs"]
mod tests;
