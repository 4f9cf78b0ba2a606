//! The server's keys: for session ids, reset tokens, resumption tickets, credential versions and fake records.
//!
//! All are derived from the root secret in the data file and so outlive a restart; with
//! `--ephemeral` the root secret does not. Defended: only this server can make a session id that is answered by a reset, a
//! reset that a client accepts, or a ticket.

use rand::RngCore;
use subtle::ConstantTimeEq;

use crate::common::crypto::{AeadKey, Secret, context, derive};
use crate::common::handshake_keys::ResetToken;
use crate::common::types::SessionId;

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

    /// The key by which the client of this session recognises a genuine RESET.
    pub fn reset_token(&self, id: &SessionId) -> ResetToken {
        let hash = blake3::keyed_hash(&self.resets, &id.0);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    fn id_tag(&self, id: &[u8; 16]) -> [u8; 8] {
        let hash = blake3::keyed_hash(&self.ids, &id[..8]);
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use zeroize::Zeroizing;

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
}
