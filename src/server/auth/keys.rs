//! The server's own keys, all derived from the root secret in the data file: session ids, reset tokens, resumption
//! tickets, credential versions, fake records.
//!
//! Defended: nobody else makes a session id that draws a reset, a reset that a client believes, or a ticket. All of them
//! outlive a restart because the root secret does; under `--ephemeral` it does not, and neither do they.

use rand::RngCore;
use subtle::ConstantTimeEq;

use crate::common::crypto::{AeadKey, Secret, context, derive};
use crate::common::packet::ResetToken;
use crate::common::types::SessionId;

/// Changes when a user's credential does; sealed into resumption tickets, never written anywhere.
pub type CredentialVersion = [u8; 16];

/// See the module.
pub struct Keys {
    /// What fake records are made from.
    pub root: Secret,
    /// Seals resumption tickets.
    pub tickets: AeadKey,
    /// Keys the credential versions.
    pub versions: Secret,
    ids: Secret,
    resets: Secret,
}

impl Keys {
    /// Derives them all.
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
    pub fn mint_id(&self, rng: &mut impl RngCore) -> SessionId {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id[..8]);
        let tag = self.id_tag(&id);
        id[8..].copy_from_slice(&tag);
        SessionId(id)
    }

    /// Whether a server with this root secret issued the id.
    pub fn issued(&self, id: &SessionId) -> bool {
        id.0[8..].ct_eq(&self.id_tag(&id.0)).into()
    }

    /// What a true RESET of this session carries.
    pub fn reset_token(&self, id: &SessionId) -> ResetToken {
        first_half(&blake3::keyed_hash(&self.resets, &id.0))
    }

    fn id_tag(&self, id: &[u8; 16]) -> [u8; 8] {
        let tag = blake3::keyed_hash(&self.ids, &id[..8]);
        *tag.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }
}

fn first_half(hash: &blake3::Hash) -> [u8; 16] {
    *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn only_ids_of_this_root_secret_are_ours() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (ours, theirs) = (Keys::new(Zeroizing::new([1; 32])), Keys::new(Zeroizing::new([2; 32])));
        let id = ours.mint_id(&mut rng);
        assert!(ours.issued(&id) && Keys::new(Zeroizing::new([1; 32])).issued(&id));
        assert!(!theirs.issued(&id));
        for at in 0..16 {
            let mut forged = id;
            forged.0[at] ^= 1;
            assert!(!ours.issued(&forged), "byte {at}");
        }
        for _ in 0..10_000 {
            let mut random = SessionId([0; 16]);
            rng.fill_bytes(&mut random.0);
            assert!(!ours.issued(&random));
        }
        assert_ne!(ours.reset_token(&id), theirs.reset_token(&id));
    }
}
