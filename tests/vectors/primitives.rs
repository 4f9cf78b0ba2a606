//! What another implementation would use: BLAKE3, two ciphers, Noise and OPAQUE from their packages, and byte parsing by
//! hand. Nothing here uses the crate under test.

use opaque_ke::argon2::Argon2;
use opaque_ke::{CipherSuite, ClientLoginFinishParameters, CredentialResponse, Identifiers, Ristretto255, TripleDh};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha512;

/// Bytes of a tag of either cipher.
pub const TAG: usize = 16;

/// The key for one purpose: the last part of a context string.
pub fn derive(purpose: &str, material: &[u8]) -> [u8; 32] {
    blake3::derive_key(&format!("fileshare 2026 v1 {purpose}"), material)
}

/// Four zero bytes and the counter.
pub fn counter_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

pub fn aes_open(key: &[u8], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    open(&AES_256_GCM, key, nonce, aad, sealed)
}

pub fn aes_seal(key: &[u8], nonce: [u8; 12], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sealed = text.to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("32 bytes"));
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed).expect("short");
    sealed
}

/// The plaintext of a SESSION datagram under the key of its direction, and its counter.
pub fn open_session_datagram(key: &[u8], datagram: &[u8]) -> (u64, Vec<u8>) {
    let (head, sealed) = datagram.split_at(25);
    assert_eq!(head[0], 0x10, "a SESSION datagram");
    let counter = u64::from_be_bytes(head[17..].try_into().expect("8 bytes"));
    (counter, open(&CHACHA20_POLY1305, key, counter_nonce(counter), head, sealed))
}

fn open(cipher: &'static Algorithm, key: &[u8], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(cipher, key).expect("32 bytes"));
    let mut text = sealed.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text);
    let length = opened.expect("the tag verifies").len();
    text.truncate(length);
    text
}

/// The OPAQUE suite as docs/PROTOCOL.md names it.
pub struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Argon2<'static>;
}

/// The client's end of OPAQUE: session key and KE3, from the state after KE1.
pub fn opaque_finish(state: &[u8], user: &str, password: &[u8], ke2: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let login = opaque_ke::ClientLogin::<Suite>::deserialize(state).expect("a state");
    let identifiers = Identifiers { client: Some(user.as_bytes()), server: None };
    let parameters = ClientLoginFinishParameters::new(Some(b"fileshare login v1"), identifiers, None);
    let ke2 = CredentialResponse::deserialize(ke2).expect("a KE2");
    let finished = login.finish(&mut opaque_ke::rand::rngs::OsRng, password, ke2, parameters);
    let finished = finished.expect("the password is right");
    (finished.session_key.to_vec(), finished.message.serialize().to_vec())
}

/// Bytes that are parsed from the front.
pub struct Parser<'a>(pub &'a [u8]);

impl<'a> Parser<'a> {
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        head
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().expect("as many as asked for")
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// Postcard's unsigned integers beyond one byte, and the numbers of variants.
    pub fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        unreachable!("the loop has no end")
    }

    /// Postcard's signed integers.
    pub fn zigzag(&mut self) -> i64 {
        let value = self.varint();
        (value >> 1) as i64 ^ -((value & 1) as i64)
    }

    /// A varint length and as many bytes.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = self.varint() as usize;
        self.take(length)
    }

    pub fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.bytes()).expect("UTF-8")
    }

    /// Everything has been parsed.
    pub fn end(self) {
        assert!(self.0.is_empty(), "{} bytes left over", self.0.len());
    }
}

/// The pattern of the connections between clients.
pub fn noise(prologue: &[u8], key: &[u8], ephemeral: Option<&[u8]>, is_initiator: bool) -> snow::HandshakeState {
    let builder = snow::Builder::new("Noise_NNpsk0_25519_AESGCM_SHA256".parse().expect("a pattern"));
    let key: &[u8; 32] = key.try_into().expect("32 bytes");
    let builder = builder.prologue(prologue).and_then(|builder| builder.psk(0, key)).expect("set once");
    let builder = match ephemeral {
        Some(ephemeral) => builder.fixed_ephemeral_key_for_testing_only(ephemeral),
        None => builder,
    };
    let built = if is_initiator { builder.build_initiator() } else { builder.build_responder() };
    built.expect("a complete description")
}

/// The record keys of both directions: to the uploader, to the downloader.
pub fn record_keys(noise: &mut snow::HandshakeState) -> [[u8; 32]; 2] {
    let (first, second) = noise.dangerously_get_raw_split();
    [derive("transfer downloader to uploader", &first), derive("transfer uploader to downloader", &second)]
}

/// One record with this frame.
pub fn seal_record(key: &[u8], counter: u64, frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len() + TAG).expect("a short frame").to_be_bytes();
    [length.to_vec(), aes_seal(key, counter_nonce(counter), &length, frame)].concat()
}

/// The frame of one record.
pub fn open_record(key: &[u8], counter: u64, record: &[u8]) -> Vec<u8> {
    let (length, sealed) = record.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize, sealed.len());
    aes_open(key, counter_nonce(counter), length, sealed)
}

/// The hash of group `index` of a content of two groups.
pub fn group_hash(content: &[u8], index: usize) -> [u8; 32] {
    use blake3::hazmat::HasherExt;
    let start = index << 20;
    let end = content.len().min(start + (1 << 20));
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start as u64).update(&content[start..end]);
    hasher.finalize_non_root()
}
