//! The encrypted transport between two clients: preamble, Noise handshake, records.
//!
//! ```text
//! downloader → uploader   "fshare", version 2, ticket length 2, ticket, Noise message 48
//! uploader → downloader   Noise message 48
//! both                    records: length 4 (of what follows), ciphertext, tag 16
//! ```
//!
//! Numbers are big-endian; sizes are in bytes. The handshake is `Noise_NNpsk0_25519_AESGCM_SHA256`; its pre-shared key is
//! the ticket's key, its prologue everything before the Noise message. Records are AES-256-GCM under one key for each
//! direction, with a counter as nonce and the length as associated data. A record holds one frame. The first byte of a
//! frame is its kind: 0 for bulk data (content 4, offset 8, bytes), 1 for a message of
//! [`peer_message`](super::peer_message).
//!
//! Defended: an attacker without the ticket's key can neither read, change, repeat nor insert records. Two connections
//! with the same ticket have different keys. No length makes a reader allocate more than [`FRAME_MAX_BYTES`] and a tag.
//! An unauthenticated peer gets no reply at all. Sans-IO: bytes in, bytes out.

use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState};

use super::crypto::{AeadKey, NONCE_BYTES, TAG_BYTES, context, counter_nonce};
use super::limits::{PROTOCOL_VERSION, RECORD_MAX_BYTES, TICKET_MAX_BYTES};

const MAGIC: &[u8; 6] = b"fshare";
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// Bytes of either Noise message: an ephemeral key and a tag.
pub const NOISE_BYTES: usize = 48;
/// Bytes of magic, version and ticket length.
pub const PREAMBLE_HEAD_BYTES: usize = 6 + 2 + 2;
/// Bytes of the length before every record.
pub const RECORD_HEAD_BYTES: usize = 4;
/// Bytes of kind, content and offset before bulk data.
pub const DATA_HEAD_BYTES: usize = 1 + 4 + 8;
/// Largest frame, bytes: full bulk data with its head.
pub const FRAME_MAX_BYTES: usize = DATA_HEAD_BYTES + RECORD_MAX_BYTES;

const DATA: u8 = 0;
const MESSAGE: u8 = 1;

/// One frame, as its receiver sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a, M> {
    Data {
        content: u32,
        /// Offset in the content, bytes.
        offset: u64,
        /// 1 to [`RECORD_MAX_BYTES`].
        bytes: &'a mut [u8],
    },
    Message(M),
}

/// Why a connection to a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("the other side does not speak this protocol version")]
    UnsupportedProtocol,
    #[error("the other side sent an oversized record")]
    TooLong,
    /// The tag of a handshake message or of a record is wrong.
    #[error("the other side could not be authenticated")]
    Forged,
    /// An invalid frame, or a message that is not allowed at this point.
    #[error("the other side broke the protocol")]
    Malformed,
}

/// The downloader's first bytes, as far as the uploader has received them.
#[derive(Debug, PartialEq, Eq)]
pub enum Preamble<'a> {
    /// At least this many bytes in all are needed to continue.
    NeedBytes(usize),
    Complete {
        ticket: &'a [u8],
        /// Everything before the Noise message: the prologue of the handshake.
        prologue: &'a [u8],
        noise: &'a [u8],
    },
}

impl<'a> Preamble<'a> {
    /// Parses what has been received. On an error the uploader closes the connection without a reply.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TransferError> {
        let received = bytes.len().min(MAGIC.len());
        if bytes[..received] != MAGIC[..received] {
            return Err(TransferError::UnsupportedProtocol);
        }
        let Some(head) = bytes.first_chunk::<PREAMBLE_HEAD_BYTES>() else {
            return Ok(Self::NeedBytes(PREAMBLE_HEAD_BYTES));
        };
        if u16::from_be_bytes([head[6], head[7]]) != PROTOCOL_VERSION {
            return Err(TransferError::UnsupportedProtocol);
        }
        let ticket_bytes = usize::from(u16::from_be_bytes([head[8], head[9]]));
        if ticket_bytes > TICKET_MAX_BYTES {
            return Err(TransferError::TooLong);
        }
        let prologue_bytes = PREAMBLE_HEAD_BYTES + ticket_bytes;
        let complete_bytes = prologue_bytes + NOISE_BYTES;
        match bytes.len().cmp(&complete_bytes) {
            std::cmp::Ordering::Less => Ok(Self::NeedBytes(complete_bytes)),
            std::cmp::Ordering::Greater => Err(TransferError::Malformed),
            std::cmp::Ordering::Equal => {
                let (prologue, noise) = bytes.split_at(prologue_bytes);
                Ok(Self::Complete { ticket: &prologue[PREAMBLE_HEAD_BYTES..], prologue, noise })
            }
        }
    }
}

/// The downloader's side of the handshake.
pub struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// Starts a handshake with a sealed ticket and its key. The bytes are the whole preamble.
    pub fn start(ticket: &[u8], key: &[u8; 32]) -> Result<(Self, Vec<u8>), TransferError> {
        let length = u16::try_from(ticket.len()).map_err(|_| TransferError::TooLong)?;
        let mut bytes = Vec::with_capacity(PREAMBLE_HEAD_BYTES + ticket.len() + NOISE_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(ticket);
        let mut noise = builder(key, &bytes).build_initiator().map_err(|_| TransferError::Forged)?;
        let mut message = [0; NOISE_BYTES];
        noise.write_message(&[], &mut message).map_err(|_| TransferError::Forged)?;
        bytes.extend_from_slice(&message);
        Ok((Self(Box::new(noise)), bytes))
    }

    /// Completes the handshake with the uploader's Noise message.
    pub fn finish(mut self, message: &[u8; NOISE_BYTES]) -> Result<(RecordSealer, RecordOpener), TransferError> {
        self.0.read_message(message, &mut []).map_err(|_| TransferError::Forged)?;
        let (to_uploader, to_downloader) = direction_keys(&mut self.0);
        Ok((RecordSealer(to_uploader), RecordOpener(to_downloader)))
    }
}

/// The uploader's side of the handshake: makes the reply to the downloader's Noise message, and both directions.
pub fn respond(
    key: &[u8; 32],
    prologue: &[u8],
    message: &[u8],
) -> Result<([u8; NOISE_BYTES], RecordSealer, RecordOpener), TransferError> {
    let mut noise = builder(key, prologue).build_responder().map_err(|_| TransferError::Forged)?;
    noise.read_message(message, &mut []).map_err(|_| TransferError::Forged)?;
    let mut reply = [0; NOISE_BYTES];
    noise.write_message(&[], &mut reply).map_err(|_| TransferError::Forged)?;
    let (to_uploader, to_downloader) = direction_keys(&mut noise);
    Ok((reply, RecordSealer(to_downloader), RecordOpener(to_uploader)))
}

fn builder<'a>(key: &'a [u8; 32], prologue: &'a [u8]) -> Builder<'a> {
    let builder = Builder::new(PATTERN.parse().expect("the pattern is a valid one"));
    let builder = builder.psk(0, key).and_then(|builder| builder.prologue(prologue));
    builder.expect("key and prologue are set once")
}

/// The key of one direction, and the number of its next record.
struct DirectionKey {
    key: AeadKey,
    counter: u64,
}

impl DirectionKey {
    fn next_nonce(&mut self) -> [u8; NONCE_BYTES] {
        self.counter += 1;
        counter_nonce(self.counter - 1)
    }
}

/// The keys to the uploader and to the downloader.
fn direction_keys(noise: &mut HandshakeState) -> (DirectionKey, DirectionKey) {
    let (to_uploader, to_downloader) = noise.dangerously_get_raw_split();
    let key = |context, secret: &[u8]| DirectionKey { key: AeadKey::derived(context, secret), counter: 0 };
    (key(context::TRANSFER_TO_UPLOADER, &to_uploader), key(context::TRANSFER_TO_DOWNLOADER, &to_downloader))
}

/// Encrypts the records of one direction.
pub struct RecordSealer(DirectionKey);

impl RecordSealer {
    /// Appends one record with a message to `out`.
    pub fn message(&mut self, message: &impl Serialize, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
        out.push(MESSAGE);
        *out = postcard::to_extend(message, std::mem::take(out)).expect("our own types always encode");
        let (length, tag) = self.seal(&mut out[start + RECORD_HEAD_BYTES..]);
        out[start..start + RECORD_HEAD_BYTES].copy_from_slice(&length);
        out.extend_from_slice(&tag);
    }

    /// Fills `record`, of [`data_record_bytes`], with one record of bulk data. `fill` reads the content straight into its
    /// place. When `fill` fails, no counter is used and the place can hold another record.
    pub fn data<E>(
        &mut self,
        content: u32,
        offset: u64,
        record: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let frame_bytes = record.len() - RECORD_HEAD_BYTES - TAG_BYTES;
        let (head, rest) = record.split_at_mut(RECORD_HEAD_BYTES);
        let (frame, tag) = rest.split_at_mut(frame_bytes);
        fill(&mut frame[DATA_HEAD_BYTES..])?;
        frame[0] = DATA;
        frame[1..5].copy_from_slice(&content.to_be_bytes());
        frame[5..DATA_HEAD_BYTES].copy_from_slice(&offset.to_be_bytes());
        let (length, sealed_tag) = self.seal(frame);
        head.copy_from_slice(&length);
        tag.copy_from_slice(&sealed_tag);
        Ok(())
    }

    /// Encrypts a frame in place and returns the record's length field and tag.
    fn seal(&mut self, frame: &mut [u8]) -> ([u8; RECORD_HEAD_BYTES], [u8; TAG_BYTES]) {
        assert!((1..=FRAME_MAX_BYTES).contains(&frame.len()), "the frame is too long for a record");
        let length = u32::try_from(frame.len() + TAG_BYTES).expect("bounded above").to_be_bytes();
        let nonce = self.0.next_nonce();
        let tag = self.0.key.seal_in_place(nonce, &length, frame);
        (length, tag)
    }
}

/// Bytes of a whole record with a message.
pub fn message_record_bytes(message: &impl Serialize) -> usize {
    let frame = 1 + postcard::experimental::serialized_size(message).expect("our own types always encode");
    RECORD_HEAD_BYTES + frame + TAG_BYTES
}

/// Bytes of a whole record with `length` bytes of bulk data.
pub fn data_record_bytes(length: usize) -> usize {
    RECORD_HEAD_BYTES + DATA_HEAD_BYTES + length + TAG_BYTES
}

/// The number of bytes that follow a record's head: at most a full frame and its tag.
pub fn record_bytes(head: [u8; RECORD_HEAD_BYTES]) -> Result<usize, TransferError> {
    let length = u32::from_be_bytes(head) as usize;
    match length {
        0..=TAG_BYTES => Err(TransferError::Malformed),
        _ if length > FRAME_MAX_BYTES + TAG_BYTES => Err(TransferError::TooLong),
        _ => Ok(length),
    }
}

/// Decrypts the records of one direction.
pub struct RecordOpener(DirectionKey);

impl RecordOpener {
    /// Decrypts one record in place. `sealed` is the record without its head.
    pub fn open<'a, M: Deserialize<'a>>(&mut self, sealed: &'a mut [u8]) -> Result<Frame<'a, M>, TransferError> {
        let length = u32::try_from(sealed.len()).map_err(|_| TransferError::TooLong)?.to_be_bytes();
        let nonce = self.0.next_nonce();
        let frame = self.0.key.open_in_place(nonce, &length, sealed).ok_or(TransferError::Forged)?;
        parse_frame(frame)
    }
}

fn parse_frame<'a, M: Deserialize<'a>>(frame: &'a mut [u8]) -> Result<Frame<'a, M>, TransferError> {
    match *frame.first().ok_or(TransferError::Malformed)? {
        DATA if frame.len() > DATA_HEAD_BYTES => {
            let (head, bytes) = frame.split_at_mut(DATA_HEAD_BYTES);
            let content = u32::from_be_bytes(head[1..5].try_into().expect("four bytes"));
            let offset = u64::from_be_bytes(head[5..13].try_into().expect("eight bytes"));
            Ok(Frame::Data { content, offset, bytes })
        }
        MESSAGE => match postcard::take_from_bytes(&frame[1..]) {
            Ok((message, [])) => Ok(Frame::Message(message)),
            _ => Err(TransferError::Malformed),
        },
        _ => Err(TransferError::Malformed),
    }
}

#[cfg(test)]
#[path = "peer_crypto_tests.rs"]
mod tests;
