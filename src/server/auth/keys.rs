//! The server's keys: for session ids, reset tokens, resumption tickets, credential versions, fake records, and cursors.
//!
//! All but the key of the cursors are derived from the root secret in the data file and so outlive a restart; with
//! `--ephemeral` the root secret does not. Defended: only this server can make a session id that is answered by a reset, a
//! reset that a client accepts, or a ticket.

use rand::RngCore;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::common::crypto::{AeadKey, NONCE_BYTES, Secret, TAG_BYTES, context, derive};
use crate::common::limits::CURSOR_MAX_BYTES;
use crate::common::message::Cursor;
use crate::common::packet::ResetToken;
use crate::common::types::{SessionId, UserName};

/// Changes when a user's credential does; sealed into resumption tickets, never stored.
pub type CredentialVersion = [u8; 16];

pub struct Keys {
    /// Fake records are derived from it.
    pub root: Secret,
    pub tickets: AeadKey,
    /// Keys the hash of the credential versions.
    pub versions: Secret,
    ids: Secret,
    resets: Secret,
}

impl Keys {
    pub fn new(root: Secret) -> Self {
        Self {
            tickets: AeadKey::derived(context::RESUMPTION_TICKETS, root.as_slice()),
            ids: derive(context::SESSION_IDS, root.as_slice()),
            resets: derive(context::RESET_TOKENS, root.as_slice()),
            versions: derive(context::CREDENTIAL_VERSIONS, root.as_slice()),
            root,
        }
    }

    /// A new session id: 8 random bytes and 8 bytes of their MAC.
    pub fn new_session_id(&self, rng: &mut impl RngCore) -> SessionId {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id[..8]);
        let tag = self.id_tag(&id);
        id[8..].copy_from_slice(&tag);
        SessionId(id)
    }

    /// Whether a server with this root secret issued the id.
    pub fn is_own_session_id(&self, id: &SessionId) -> bool {
        id.0[8..].ct_eq(&self.id_tag(&id.0)).into()
    }

    /// The token by which the client of this session recognises a genuine RESET.
    pub fn reset_token(&self, id: &SessionId) -> ResetToken {
        let hash = blake3::keyed_hash(&self.resets, &id.0);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    fn id_tag(&self, id: &[u8; 16]) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.ids, &id[..8]);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

const SEALED_CURSOR_BYTES: usize = NONCE_BYTES + 8 + TAG_BYTES;
const _: () = assert!(SEALED_CURSOR_BYTES <= CURSOR_MAX_BYTES);

/// The cursor was made before the server restarted, or for another requester or query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleCursor;

/// Seals and opens cursors: positions at which a list continues.
///
/// Defended: a plain name or id would reveal publications that are hidden from the requester, and a cursor of another
/// list or user could start where no cursor may. So the position is encrypted, with the requester and the whole query as
/// associated data, under a key that lives as long as the server process.
pub struct CursorCodec {
    key: AeadKey,
}

impl CursorCodec {
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self { key: AeadKey::new(&key) }
    }

    /// Seals `position` for this requester and this query; the query must not contain a cursor itself.
    pub fn seal(&self, rng: &mut ChaCha20Rng, requester: &UserName, query: &impl Serialize, position: u64) -> Cursor {
        Cursor(self.key.seal(rng, &associated_data(requester, query), &position.to_be_bytes()))
    }

    /// Opens a cursor of this requester and this query. No cursor is position 0.
    pub fn open(
        &self,
        requester: &UserName,
        query: &impl Serialize,
        cursor: Option<&Cursor>,
    ) -> Result<u64, StaleCursor> {
        let Some(cursor) = cursor else { return Ok(0) };
        let position = self.key.open(&associated_data(requester, query), &cursor.0).ok_or(StaleCursor)?;
        Ok(u64::from_be_bytes(position.as_slice().try_into().map_err(|_| StaleCursor)?))
    }
}

fn associated_data(requester: &UserName, query: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(&(requester, query)).expect("our own types always encode")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn only_session_ids_of_this_root_secret_are_own() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (ours, theirs) = (Keys::new(Zeroizing::new([1; 32])), Keys::new(Zeroizing::new([2; 32])));
        let id = ours.new_session_id(&mut rng);
        assert!(ours.is_own_session_id(&id) && Keys::new(Zeroizing::new([1; 32])).is_own_session_id(&id));
        assert!(!theirs.is_own_session_id(&id));
        for at in 0..16 {
            let mut forged = id;
            forged.0[at] ^= 1;
            assert!(!ours.is_own_session_id(&forged), "byte {at}");
        }
        for _ in 0..10_000 {
            let mut random = SessionId([0; 16]);
            rng.fill_bytes(&mut random.0);
            assert!(!ours.is_own_session_id(&random));
        }
        assert_ne!(ours.reset_token(&id), theirs.reset_token(&id));
    }

    #[test]
    fn a_cursor_is_bound_to_requester_query_and_server_run() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (codec, later) = (CursorCodec::new(&mut rng), CursorCodec::new(&mut rng));
        let (hans, vader) = (UserName::parse("hans").unwrap(), UserName::parse("vader").unwrap());
        let cursor = codec.seal(&mut rng, &hans, &"pdf", 77);
        assert_eq!(codec.open(&hans, &"pdf", Some(&cursor)), Ok(77));
        assert_eq!(codec.open(&hans, &"pdf", None), Ok(0));
        assert_eq!(codec.open(&vader, &"pdf", Some(&cursor)), Err(StaleCursor));
        assert_eq!(codec.open(&hans, &"pd", Some(&cursor)), Err(StaleCursor));
        assert_eq!(later.open(&hans, &"pdf", Some(&cursor)), Err(StaleCursor));
        for cut in 0..cursor.0.len() {
            assert_eq!(codec.open(&hans, &"pdf", Some(&Cursor(cursor.0[..cut].to_vec()))), Err(StaleCursor));
        }
    }
}
