//! Login by OPAQUE (RFC 9807): both sides of the exchange, and password records.
//!
//! Defended: neither the password nor anything to test guesses against crosses the wire. Client and server authenticate
//! each other. A recorded login allows no offline guessing: every message is blinded by fresh randomness, and the record
//! never leaves the server. Each guess against a stolen record costs one Argon2id run. Unknown users get a record derived
//! from the server's secret, by the same steps and in the same time, so that they are indistinguishable from known ones.
//! The OPRF key of a name is derived from that secret too, whether there is a user of this name or not (RFC 9807, sections
//! 6.3 and 10.9): the evaluated element, which an attacker sees in every KE2, does not tell when a user is added, enrolled
//! or removed. The seed is one of the name's own, so a stolen record says nothing about other users.
//!
//! Not defended: online guessing; the server limits its rate.
//!
//! The `opaque-ke` crate does the cryptography. This module fixes the cipher suite (Ristretto255, TripleDH, Argon2id at
//! the crate's defaults) and hides the crate's types from the other modules.

use std::cell::RefCell;

use opaque_ke::argon2::{Argon2, Block, Params, RECOMMENDED_SALT_LEN};
use opaque_ke::errors::InternalError;
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::ksf::Ksf;
use opaque_ke::{
    CipherSuite, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters,
    CredentialFinalization, CredentialRequest, CredentialResponse, Identifiers, Ristretto255, ServerLoginParameters,
    ServerRegistration, ServerSetup, TripleDh,
};
use rand::{CryptoRng, Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::Sha512;
use zeroize::Zeroizing;

use super::crypto::{Secret, context, derive};
use super::handshake_keys::{LoginFailed, LoginKey};
use super::packet::{KE1_BYTES, KE2_BYTES, KE3_BYTES};
use super::types::UserName;

/// The suite: Ristretto255 for both the OPRF and the key exchange, TripleDH with SHA-512, Argon2id.
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = KeyStretching;
}

/// Part of the key exchange, so that it fails between different protocols or versions.
const CONTEXT: &[u8] = b"fileshare login v1";

/// Bytes of the registration in a [`PasswordRecord`]: client key 32, masking key 64, envelope nonce 32, envelope tag 64.
const REGISTRATION_BYTES: usize = 192;
/// Bytes of a serialized [`PasswordRecord`]: OPRF seed, private key 32, a public key that the library requires 32, and the
/// registration.
pub const PASSWORD_RECORD_BYTES: usize = OPRF_SEED_BYTES + 32 + 32 + REGISTRATION_BYTES;
const OPRF_SEED_BYTES: usize = 64;

/// The cost of turning a password into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyStretching {
    /// Argon2id at the crate's defaults (19 MiB, two passes): about 41 ms.
    #[default]
    Argon2id,
    /// Argon2 at its lowest cost: for simulations and load generators with synthetic users, never for real passwords.
    Insecure,
}

impl KeyStretching {
    fn argon2(self) -> Argon2<'static> {
        match self {
            Self::Argon2id => Argon2::default(),
            Self::Insecure => {
                let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("the smallest costs are valid");
                Argon2::new(Default::default(), Default::default(), params)
            }
        }
    }
}

thread_local! {
    /// Argon2's memory, reused by the next run on this thread. Without it, a hundred registrations left a server with
    /// 200 MiB that the allocator did not return.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// As `opaque-ke` implements it for `Argon2`, but with reused memory.
impl Ksf for KeyStretching {
    fn hash<L: ArrayLength<u8>>(&self, input: GenericArray<u8, L>) -> Result<GenericArray<u8, L>, InternalError> {
        let argon2 = self.argon2();
        let mut memory = MEMORY.take();
        memory.resize(argon2.params().block_count(), Block::default());
        let mut output = GenericArray::default();
        let done = argon2.hash_password_into_with_memory(
            &input,
            &[0; RECOMMENDED_SALT_LEN],
            &mut output,
            memory.as_mut_slice(),
        );
        MEMORY.set(memory);
        done.map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

/// The seed of the OPRF key of one user name.
pub struct OprfSeed(Zeroizing<[u8; OPRF_SEED_BYTES]>);

impl OprfSeed {
    /// The seed of this name at the server with this root secret.
    pub fn of_user(root: &Secret, user: &UserName) -> Self {
        let mut seed = Self(Zeroizing::new([0; OPRF_SEED_BYTES]));
        let mut hasher = blake3::Hasher::new_derive_key(context::OPRF_SEEDS);
        hasher.update(root.as_slice()).update(user.as_str().as_bytes()).finalize_xof().fill(seed.0.as_mut_slice());
        seed
    }

    fn random(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut seed = Self(Zeroizing::new([0; OPRF_SEED_BYTES]));
        rng.fill_bytes(seed.0.as_mut_slice());
        seed
    }

    /// With a random server key.
    fn server_setup(&self, rng: &mut (impl RngCore + CryptoRng)) -> ServerSetup<Suite> {
        let mut bytes = Zeroizing::new(ServerSetup::<Suite>::new(rng).serialize());
        bytes[..OPRF_SEED_BYTES].copy_from_slice(self.0.as_slice());
        ServerSetup::deserialize(&bytes).expect("a serialized setup with another seed")
    }
}

/// What the server stores of one password. Self-contained: each record has an OPRF seed and a server key of its own.
#[derive(Clone)]
pub struct PasswordRecord {
    setup: ServerSetup<Suite>,
    registration: ServerRegistration<Suite>,
}

impl PasswordRecord {
    /// Makes the record of a password, with a seed that no server has for the name. Runs the key stretching (41 ms with
    /// Argon2id).
    pub fn register(
        rng: &mut (impl RngCore + CryptoRng),
        user: &UserName,
        password: &[u8],
        stretching: KeyStretching,
    ) -> Self {
        let seed = OprfSeed::random(rng);
        Self::register_with_seed(rng, &seed, user, password, stretching)
    }

    /// [`register`](Self::register) with this seed.
    pub fn register_with_seed(
        rng: &mut (impl RngCore + CryptoRng),
        seed: &OprfSeed,
        user: &UserName,
        password: &[u8],
        stretching: KeyStretching,
    ) -> Self {
        let setup = seed.server_setup(rng);
        let start = ClientRegistration::<Suite>::start(rng, password).expect("any password can be blinded");
        let reply = ServerRegistration::<Suite>::start(&setup, start.message, user.as_str().as_bytes());
        let reply = reply.expect("our own request").message;
        let params = ClientRegistrationFinishParameters::new(identifiers(user), Some(&stretching));
        let upload = start.state.finish(rng, password, reply, params).expect("our own reply").message;
        Self { setup, registration: ServerRegistration::finish(upload) }
    }

    /// A record that matches no password, for an unknown user, with the name's OPRF seed. The same root secret and name give
    /// the same record.
    pub fn fake(root: &Secret, user: &UserName) -> Self {
        let material = Zeroizing::new([root.as_slice(), user.as_str().as_bytes()].concat());
        let mut rng = ChaCha20Rng::from_seed(*derive(context::FAKE_RECORDS, &material));
        let setup = OprfSeed::of_user(root, user).server_setup(&mut rng);
        let mut bytes = ServerSetup::<Suite>::new(&mut rng).keypair().public().serialize().to_vec();
        bytes.resize_with(REGISTRATION_BYTES, || rng.r#gen());
        let registration = ServerRegistration::deserialize(&bytes).expect("a valid key and random bytes");
        Self { setup, registration }
    }

    /// Serializes the record into [`PASSWORD_RECORD_BYTES`] bytes.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.setup.serialize().as_slice(), self.registration.serialize().as_slice()].concat())
    }

    /// Reads a serialized record. `None` unless `bytes` is a valid one of [`PASSWORD_RECORD_BYTES`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != PASSWORD_RECORD_BYTES {
            return None;
        }
        let (setup, registration) = bytes.split_at(PASSWORD_RECORD_BYTES - REGISTRATION_BYTES);
        let setup = ServerSetup::deserialize(setup).ok()?;
        let registration = ServerRegistration::deserialize(registration).ok()?;
        Some(Self { setup, registration })
    }
}

/// The server's state between LOGIN1 and LOGIN3.
pub struct ServerLogin(opaque_ke::ServerLogin<Suite>);

impl ServerLogin {
    /// Makes KE2 from KE1 (about 0.2 ms). An invalid KE1 is replaced by a random one, so that the login fails at the same
    /// step and looks the same as with a wrong password.
    pub fn start(
        rng: &mut (impl RngCore + CryptoRng),
        record: &PasswordRecord,
        user: &UserName,
        ke1: &[u8; KE1_BYTES],
    ) -> (Self, [u8; KE2_BYTES]) {
        let fallback = opaque_ke::ClientLogin::<Suite>::start(rng, &[0]).expect("any password can be blinded").message;
        let request = CredentialRequest::deserialize(ke1).unwrap_or(fallback);
        let started = opaque_ke::ServerLogin::start(
            rng,
            &record.setup,
            Some(record.registration.clone()),
            request,
            user.as_str().as_bytes(),
            server_parameters(user),
        );
        let started = started.expect("a valid request and a valid record");
        let ke2 = started.message.serialize().as_slice().try_into().expect("a KE2 has its size");
        (Self(started.state), ke2)
    }

    /// Verifies KE3 (a MAC comparison).
    pub fn finish(self, user: &UserName, ke3: &[u8; KE3_BYTES]) -> Result<LoginKey, LoginFailed> {
        let ke3 = CredentialFinalization::deserialize(ke3).map_err(|_| LoginFailed)?;
        let finished = self.0.finish(ke3, server_parameters(user)).map_err(|_| LoginFailed)?;
        Ok(LoginKey::new(&finished.session_key))
    }
}

/// The client's state between LOGIN1 and LOGIN3.
pub struct ClientLogin(opaque_ke::ClientLogin<Suite>);

impl ClientLogin {
    /// Makes KE1, the blinded password.
    pub fn start(rng: &mut (impl RngCore + CryptoRng), password: &[u8]) -> (Self, [u8; KE1_BYTES]) {
        let started = opaque_ke::ClientLogin::start(rng, password).expect("any password can be blinded");
        let ke1 = started.message.serialize().as_slice().try_into().expect("a KE1 has its size");
        (Self(started.state), ke1)
    }

    /// Verifies KE2 with the password and makes KE3. Runs the key stretching. Fails alike for a wrong password and for a
    /// server without the password's record; after a failure another KE2 can be tried.
    pub fn finish(
        &self,
        rng: &mut (impl RngCore + CryptoRng),
        user: &UserName,
        password: &[u8],
        ke2: &[u8; KE2_BYTES],
        stretching: KeyStretching,
    ) -> Result<(LoginKey, [u8; KE3_BYTES]), LoginFailed> {
        let ke2 = CredentialResponse::deserialize(ke2).map_err(|_| LoginFailed)?;
        let params = ClientLoginFinishParameters::new(Some(CONTEXT), identifiers(user), Some(&stretching));
        let finished = self.0.clone().finish(rng, password, ke2, params);
        // A client logs in rarely: release Argon2's memory.
        drop(MEMORY.take());
        let finished = finished.map_err(|_| LoginFailed)?;
        let ke3 = finished.message.serialize().as_slice().try_into().expect("a KE3 has its size");
        Ok((LoginKey::new(&finished.session_key), ke3))
    }
}

fn identifiers(user: &UserName) -> Identifiers<'_> {
    Identifiers { client: Some(user.as_str().as_bytes()), server: None }
}

fn server_parameters(user: &UserName) -> ServerLoginParameters<'static, '_> {
    ServerLoginParameters { context: Some(CONTEXT), identifiers: identifiers(user) }
}

#[cfg(test)]
#[path = "opaque_tests.rs"]
mod tests;
