//! Login by OPAQUE (RFC 9807): both sides of the exchange, records, and what is told under its keys.
//!
//! Defended: the password, or anything to guess it from, never crosses the wire; each side proves itself to the other; a
//! recording allows no offline guessing, since every message is blinded by fresh randomness and the record never leaves
//! the server. A stolen record costs an Argon2id run a guess. Unknown users get a record made from the server's seed, by
//! the same steps and in the same time, so that they look like known ones. Not defended: guessing online, which is
//! `server::throttle`'s job.
//!
//! The library does the cryptography; this file fixes the suite (Ristretto255, TripleDH, Argon2id at the crate's
//! defaults, and the sizes that `packet` relies on) and keeps its types from spreading.

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
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha512;
use zeroize::Zeroizing;

use super::packet::{ANSWER_BYTES, Cookie, DETAILS_BYTES, KE1_BYTES, KE2_BYTES, KE3_BYTES, Nonce, ResetToken};
use super::redacted::Redacted;
use super::seal::{Secret, TAG_BYTES, context, derive, open_once, seal_once};
use super::types::{RunId, SessionId, StateDigest, UserName};

/// The suite: Ristretto255 for both the OPRF and the key exchange, TripleDH with SHA-512, Argon2id.
struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Stretching;
}

/// Both sides must mean the same protocol and version.
const CONTEXT: &[u8] = b"fileshare login v1";

/// Bytes of a serialized [`Record`]: OPRF seed 64, private key 32, a public key the library wants 32, and the
/// registration of 192 (client key 32, masking key 64, envelope nonce 32, envelope tag 64).
pub const RECORD_BYTES: usize = 64 + 32 + 32 + 192;

/// How much work turning a password into a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stretching {
    /// Argon2id at the crate's defaults (19 MiB, two passes): about 41 ms.
    #[default]
    Standard,
    /// Next to none: for simulations and load generators with synthetic users, never for real passwords.
    Minimal,
}

impl Stretching {
    fn argon2(self) -> Argon2<'static> {
        match self {
            Self::Standard => Argon2::default(),
            Self::Minimal => {
                let params = Params::new(Params::MIN_M_COST, 1, 1, None).expect("the smallest costs are valid");
                Argon2::new(Default::default(), Default::default(), params)
            }
        }
    }
}

thread_local! {
    /// Argon2's memory, for the next enrolment of this thread. The allocator does not give back what it is asked for again
    /// and again: a hundred enrolments left a server with 200 MiB.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// As the library does it for Argon2, but for the memory.
impl Ksf for Stretching {
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

/// The other side is not who it should be: a wrong password, an unknown user, a false server or a damaged message. Which
/// of them cannot be told, and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the login failed")]
pub struct LoginFailed;

/// The key that a finished exchange leaves on both sides.
pub struct LoginKey(Zeroizing<Vec<u8>>);

impl LoginKey {
    /// The secret of the session this login starts.
    pub fn session_secret(&self) -> Secret {
        derive(context::SESSION, &self.0)
    }

    /// Seals what the server must know of the client, for LOGIN3.
    pub fn seal_details(&self, nonce: &Nonce, details: &LoginDetails) -> [u8; DETAILS_BYTES] {
        seal_padded(&derive(context::LOGIN_DETAILS, &self.0), nonce, details)
    }

    /// Opens what [`seal_details`](Self::seal_details) sealed.
    pub fn open_details(&self, nonce: &Nonce, sealed: &[u8; DETAILS_BYTES]) -> Result<LoginDetails, LoginFailed> {
        open_padded(&derive(context::LOGIN_DETAILS, &self.0), nonce, sealed)
    }

    /// Seals the server's verdict, for ANSWER.
    pub fn seal_answer(&self, nonce: &Nonce, answer: &LoginAnswer) -> [u8; ANSWER_BYTES] {
        seal_padded(&derive(context::LOGIN_ANSWER, &self.0), nonce, answer)
    }

    /// Opens what [`seal_answer`](Self::seal_answer) sealed.
    pub fn open_answer(&self, nonce: &Nonce, sealed: &[u8; ANSWER_BYTES]) -> Result<LoginAnswer, LoginFailed> {
        open_padded(&derive(context::LOGIN_ANSWER, &self.0), nonce, sealed)
    }
}

/// The keys of one attempt to resume: from the secret that client and ticket share, fresh by both nonces.
pub struct ResumptionKey(Secret);

impl ResumptionKey {
    /// From the secret in the ticket.
    pub fn new(ticket_secret: Secret) -> Self {
        Self(ticket_secret)
    }

    /// What a session's secret leaves for its resumption: the secret that goes into the ticket.
    pub fn secret_for_ticket(session_secret: &Secret) -> Secret {
        derive(context::RESUMPTION_SECRET, session_secret.as_slice())
    }

    /// Seals what the server must know of the client, for RESUME; good with this cookie alone, so that a recorded RESUME
    /// is of no use to whoever gets a fresh cookie for it.
    pub fn seal_details(&self, nonce: &Nonce, cookie: &Cookie, details: &LoginDetails) -> [u8; DETAILS_BYTES] {
        seal_padded(&self.mixed(context::RESUME_DETAILS, nonce, cookie), nonce, details)
    }

    /// Opens what [`seal_details`](Self::seal_details) sealed.
    pub fn open_details(
        &self,
        nonce: &Nonce,
        cookie: &Cookie,
        sealed: &[u8; DETAILS_BYTES],
    ) -> Result<LoginDetails, LoginFailed> {
        open_padded(&self.mixed(context::RESUME_DETAILS, nonce, cookie), nonce, sealed)
    }

    /// The secret of the resumed session.
    pub fn session_secret(&self, nonce: &Nonce, server_nonce: &Nonce) -> Secret {
        self.mixed(context::RESUMED_SESSION, nonce, server_nonce)
    }

    /// Seals the server's verdict, for RESUMED.
    pub fn seal_answer(&self, nonce: &Nonce, server_nonce: &Nonce, answer: &LoginAnswer) -> [u8; ANSWER_BYTES] {
        seal_padded(&self.mixed(context::RESUME_ANSWER, nonce, server_nonce), nonce, answer)
    }

    /// Opens what [`seal_answer`](Self::seal_answer) sealed.
    pub fn open_answer(
        &self,
        nonce: &Nonce,
        server_nonce: &Nonce,
        sealed: &[u8; ANSWER_BYTES],
    ) -> Result<LoginAnswer, LoginFailed> {
        open_padded(&self.mixed(context::RESUME_ANSWER, nonce, server_nonce), nonce, sealed)
    }

    fn mixed(&self, context: &str, nonce: &Nonce, by_server: &[u8]) -> Secret {
        let material = Zeroizing::new([self.0.as_slice(), nonce, by_server].concat());
        derive(context, &material)
    }
}

/// What the server must know of a client that joins. Sealed in a blob of fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginDetails {
    /// Where its listener serves peers.
    pub tcp_port: u16,
    /// Uploads it could start at once.
    pub free_slots: u8,
}

/// The server's verdict on who has proven the password or holds a valid ticket. Sealed in a blob of fixed size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginAnswer {
    /// The session stands.
    Welcome(Welcome),
    /// The user is active elsewhere.
    AlreadyActive {
        /// Silence after which that client is taken for dead, milliseconds.
        liveness_ms: u32,
    },
}

/// All that a client needs to live in its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Names the session on the wire.
    pub session: SessionId,
    /// Names this run of the client; the same after a resumption.
    pub run: RunId,
    /// How often to report, milliseconds.
    pub heartbeat_ms: u32,
    /// Silence after which the server takes the client for dead, milliseconds.
    pub liveness_ms: u32,
    /// The server's clock, milliseconds since 1970 when the server started and never set since: transfer tickets expire
    /// by it.
    pub server_time_ms: u64,
    /// What a true RESET of this session carries.
    pub reset_token: Redacted<ResetToken>,
    /// A sealed [`ResumptionTicket`](super::ticket::ResumptionTicket).
    pub ticket: Vec<u8>,
    /// Of all the user's publications as the server has them now.
    pub digest: StateDigest,
    /// The run whose mutation was the user's last.
    pub last_writer: RunId,
    /// The client was seen at a loopback address while the server listens elsewhere too: peers on other hosts cannot
    /// fetch from it.
    pub local_only: bool,
}

/// What the server keeps of one password: self-contained, and worth an Argon2id run a guess to a thief.
#[derive(Clone)]
pub struct Record {
    setup: ServerSetup<Suite>,
    registration: ServerRegistration<Suite>,
}

impl Record {
    /// Makes a record of a password; runs the stretching (41 ms at the standard cost).
    pub fn enrol(
        rng: &mut (impl RngCore + CryptoRng),
        user: &UserName,
        password: &[u8],
        stretching: Stretching,
    ) -> Self {
        let setup = ServerSetup::<Suite>::new(rng);
        let start = ClientRegistration::<Suite>::start(rng, password).expect("any password can be blinded");
        let reply = ServerRegistration::<Suite>::start(&setup, start.message, user.as_str().as_bytes());
        let reply = reply.expect("our own request").message;
        let params = ClientRegistrationFinishParameters::new(identifiers(user), Some(&stretching));
        let upload = start.state.finish(rng, password, reply, params).expect("our own reply").message;
        Self { setup, registration: ServerRegistration::finish(upload) }
    }

    /// A record that no password opens, always the same for the same seed and name: what an unknown user meets.
    pub fn fake(seed: &Secret, user: &UserName) -> Self {
        let material = Zeroizing::new([seed.as_slice(), user.as_str().as_bytes()].concat());
        let mut rng = ChaCha20Rng::from_seed(*derive(context::FAKE_RECORDS, &material));
        let setup = ServerSetup::<Suite>::new(&mut rng);
        let mut bytes = ServerSetup::<Suite>::new(&mut rng).keypair().public().serialize().to_vec();
        bytes.resize_with(192, || rng.r#gen());
        let registration = ServerRegistration::deserialize(&bytes).expect("a valid key and random bytes");
        Self { setup, registration }
    }

    /// [`RECORD_BYTES`] bytes.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.setup.serialize().as_slice(), self.registration.serialize().as_slice()].concat())
    }

    /// Reads [`RECORD_BYTES`] bytes; `None` if they are no record.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != RECORD_BYTES {
            return None;
        }
        let (setup, registration) = bytes.split_at(RECORD_BYTES - 192);
        let setup = ServerSetup::deserialize(setup).ok()?;
        let registration = ServerRegistration::deserialize(registration).ok()?;
        Some(Self { setup, registration })
    }
}

/// The server's side between LOGIN1 and LOGIN3.
pub struct ServerLogin(opaque_ke::ServerLogin<Suite>);

impl ServerLogin {
    /// Answers KE1 (about 0.2 ms). A KE1 that is no valid encoding is answered from a random one, so that it fails as
    /// late and looks as any other.
    pub fn start(
        rng: &mut (impl RngCore + CryptoRng),
        record: &Record,
        user: &UserName,
        ke1: &[u8; KE1_BYTES],
    ) -> (Self, [u8; KE2_BYTES]) {
        let stand_in = opaque_ke::ClientLogin::<Suite>::start(rng, &[0]).expect("any password can be blinded").message;
        let request = CredentialRequest::deserialize(ke1).unwrap_or(stand_in);
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

    /// Checks KE3 (a MAC comparison).
    pub fn finish(self, user: &UserName, ke3: &[u8; KE3_BYTES]) -> Result<LoginKey, LoginFailed> {
        let ke3 = CredentialFinalization::deserialize(ke3).map_err(|_| LoginFailed)?;
        let finished = self.0.finish(ke3, server_parameters(user)).map_err(|_| LoginFailed)?;
        Ok(LoginKey(Zeroizing::new(finished.session_key.to_vec())))
    }
}

/// The client's side between LOGIN1 and LOGIN3.
pub struct ClientLogin(opaque_ke::ClientLogin<Suite>);

impl ClientLogin {
    /// Blinds the password.
    pub fn start(rng: &mut (impl RngCore + CryptoRng), password: &[u8]) -> (Self, [u8; KE1_BYTES]) {
        let started = opaque_ke::ClientLogin::start(rng, password).expect("any password can be blinded");
        let ke1 = started.message.serialize().as_slice().try_into().expect("a KE1 has its size");
        (Self(started.state), ke1)
    }

    /// Opens KE2 with the password and proves it; runs the stretching. Fails for a wrong password and for a server that
    /// does not hold the password's record alike; then another KE2 can be tried.
    pub fn finish(
        &self,
        rng: &mut (impl RngCore + CryptoRng),
        user: &UserName,
        password: &[u8],
        ke2: &[u8; KE2_BYTES],
        stretching: Stretching,
    ) -> Result<(LoginKey, [u8; KE3_BYTES]), LoginFailed> {
        let ke2 = CredentialResponse::deserialize(ke2).map_err(|_| LoginFailed)?;
        let params = ClientLoginFinishParameters::new(Some(CONTEXT), identifiers(user), Some(&stretching));
        let finished = self.0.clone().finish(rng, password, ke2, params);
        // A client logs in once in a while.
        drop(MEMORY.take());
        let finished = finished.map_err(|_| LoginFailed)?;
        let ke3 = finished.message.serialize().as_slice().try_into().expect("a KE3 has its size");
        Ok((LoginKey(Zeroizing::new(finished.session_key.to_vec())), ke3))
    }
}

fn identifiers(user: &UserName) -> Identifiers<'_> {
    Identifiers { client: Some(user.as_str().as_bytes()), server: None }
}

fn server_parameters(user: &UserName) -> ServerLoginParameters<'static, '_> {
    ServerLoginParameters { context: Some(CONTEXT), identifiers: identifiers(user) }
}

fn seal_padded<const SEALED: usize>(key: &Secret, nonce: &Nonce, value: &impl Serialize) -> [u8; SEALED] {
    let mut text = Zeroizing::new(postcard::to_stdvec(value).expect("our own types always encode"));
    assert!(text.len() + TAG_BYTES <= SEALED, "a login message outgrew its fixed size");
    text.resize(SEALED - TAG_BYTES, 0);
    seal_once(key, nonce, &text)
}

fn open_padded<T: DeserializeOwned>(key: &Secret, nonce: &Nonce, sealed: &[u8]) -> Result<T, LoginFailed> {
    let text = open_once(key, nonce, sealed).ok_or(LoginFailed)?;
    let (value, padding) = postcard::take_from_bytes(&text).map_err(|_| LoginFailed)?;
    if padding.iter().all(|&byte| byte == 0) { Ok(value) } else { Err(LoginFailed) }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
