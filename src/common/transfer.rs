//! What two clients say to each other over TCP: a ticket, a Noise handshake, then sealed records of one frame each.
//!
//! ```text
//! downloader → uploader   "fshare" version 2, ticket length 2, ticket, Noise message 48          in clear but the ticket
//! uploader → downloader   Noise message 48
//! both                    records: length 4 (of what follows), ciphertext, tag 16
//! ```
//!
//! Numbers are big-endian. The handshake is `Noise_NNpsk0_25519_AESGCM_SHA256` with the ticket's key as the pre-shared key
//! and everything before the Noise message as prologue. Its split gives one key a direction; records are AES-256-GCM with
//! a counter as nonce and the length as associated data. A frame starts with a byte: 0 is bulk data (content 4, offset 8,
//! bytes), 1 a postcard message.
//!
//! The ticket in the preamble is as good as a [`ToUploader::Grant`] and is not answered by itself: the downloader asks at
//! once, and gets what it asked for or [`ToDownloader::Busy`]. An empty content has nothing to ask for.
//!
//! Defended: who lacks the ticket's key can neither read, change, repeat nor cut in; a ticket shown twice gives fresh
//! keys each time; no length makes a reader take more than [`RECORD_MAX_BYTES`] and its frame head. An uploader answers a
//! stranger with nothing. Sans-IO: bytes in, bytes out; who moves them is `client::transport`.

use serde::{Deserialize, Serialize};
use snow::{Builder, HandshakeState};

use super::content::GroupHash;
use super::crypto::{AeadKey, TAG_BYTES, context, counter_nonce};
use super::limits::{PROTOCOL_VERSION, RECORD_MAX_BYTES, TICKET_MAX_BYTES};
use super::session_cipher::Side;

const MAGIC: &[u8; 6] = b"fshare";
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// Bytes of either Noise message: an ephemeral key and a tag.
pub const NOISE_BYTES: usize = 48;
/// Magic, version and ticket length.
pub const PREAMBLE_HEAD_BYTES: usize = 6 + 2 + 2;
/// The length in front of every record.
pub const RECORD_HEAD_BYTES: usize = 4;
/// Kind, content and offset in front of bulk data.
pub const DATA_HEAD_BYTES: usize = 1 + 4 + 8;
/// Largest frame, bytes: a full piece of data with its head.
pub const FRAME_MAX_BYTES: usize = DATA_HEAD_BYTES + RECORD_MAX_BYTES;
/// Most group hashes of one [`ToDownloader::Outline`] frame.
pub const OUTLINE_PART_MAX: usize = RECORD_MAX_BYTES / 32 - 1;
/// Most ranges of one [`ToUploader::Want`] frame.
pub const WANT_MAX_RANGES: usize = 1_024;
/// Most ranges an uploader keeps waiting on one connection; a downloader that asks for more is cut off.
pub const WANTS_QUEUED_MAX: usize = 4 * WANT_MAX_RANGES;
/// Most granted contents an uploader keeps on one connection at once.
pub const GRANTS_KEPT_MAX: usize = 4_096;

const DATA: u8 = 0;
const MESSAGE: u8 = 1;

/// From downloader to uploader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToUploader {
    /// Another ticket; its contents are numbered on from the last one's. Answered by [`ToDownloader::Granted`].
    Grant {
        /// Sealed for this uploader, for the same downloader.
        ticket: Vec<u8>,
    },
    /// Contents numbered below this are done with; the uploader forgets them.
    Release {
        /// The first that is still needed.
        below: u32,
    },
    /// The group hashes of a content. Answered by [`ToDownloader::Outline`] parts or [`ToDownloader::Refused`].
    Outline {
        /// Counts the granted contents from 0.
        content: u32,
    },
    /// Chunk groups to send, in this order, after those asked for before.
    Want {
        /// At most [`WANT_MAX_RANGES`].
        ranges: Vec<WantedRange>,
    },
    /// Forget all groups not begun. Answered by [`ToDownloader::Cancelled`] behind the last byte sent.
    Cancel,
    /// Which groups of a content are there: an uploader may still be fetching it itself. Answered by
    /// [`ToDownloader::Available`] or [`ToDownloader::Refused`].
    Have {
        /// Counts the granted contents from 0.
        content: u32,
    },
}

/// A run of chunk groups of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedRange {
    /// Counts the granted contents from 0.
    pub content: u32,
    /// First group.
    pub first: u32,
    /// How many groups.
    pub count: u32,
}

/// From uploader to downloader, beside bulk data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDownloader {
    /// The ticket is good.
    Granted {
        /// The number of its first content.
        first: u32,
    },
    /// The ticket is not (expired, or sealed for another): ask the server again.
    TicketRefused,
    /// Part of a content's group hashes.
    Outline {
        /// Which content.
        content: u32,
        /// Index of the first hash in this part.
        first: u32,
        /// At most [`OUTLINE_PART_MAX`]; the part that reaches the content's number of groups is the last.
        hashes: Vec<GroupHash>,
    },
    /// This content cannot be served; its waiting ranges are forgotten.
    Refused {
        /// Which content.
        content: u32,
        /// Why.
        reason: RefusalReason,
    },
    /// All upload slots are taken: come back after this many milliseconds, or go elsewhere.
    Busy {
        /// Milliseconds.
        retry_ms: u16,
    },
    /// To [`ToUploader::Cancel`].
    Cancelled,
    /// To [`ToUploader::Have`].
    Available {
        /// Which content.
        content: u32,
        /// Bit `i % 8` (from the lowest) of byte `i / 8` is set if group `i` is there. Empty: all of them are.
        groups: Vec<u8>,
    },
    /// These wanted groups are not there yet and are forgotten; ask again when they are ([`ToUploader::Have`]).
    NotYet {
        /// Which content.
        content: u32,
        /// First group.
        first: u32,
        /// How many groups.
        count: u32,
    },
    /// The uploader is hashing the file to see that it is what was published; the answer comes later. Sent about every
    /// second meanwhile, so that a downloader can tell a busy uploader from a dead one.
    Checking {
        /// Which content.
        content: u32,
    },
}

/// Why an uploader does not serve a content that the ticket grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefusalReason {
    /// It is not published (any more), or not to this downloader.
    #[error("it is no longer published there")]
    NotShared,
    /// The file is not what was published.
    #[error("the file was changed after it was published")]
    Changed,
    /// The file is gone or cannot be read.
    #[error("the file cannot be read there")]
    Unreadable,
}

/// One frame, as its reader sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a, M> {
    /// Bulk data.
    Data {
        /// Which content.
        content: u32,
        /// Where in it.
        offset: u64,
        /// At most [`RECORD_MAX_BYTES`], never empty.
        bytes: &'a mut [u8],
    },
    /// Anything else.
    Message(M),
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The other end speaks something else.
    #[error("the other side does not speak this protocol version")]
    NotOurs,
    /// A length beyond its limit.
    #[error("the other side sent an oversized record")]
    TooLong,
    /// A handshake or a record does not verify.
    #[error("the other side could not be authenticated")]
    Forged,
    /// A frame that means nothing, or nothing here.
    #[error("the other side broke the protocol")]
    Malformed,
}

/// The downloader's first bytes, as far as the uploader has read them.
#[derive(Debug, PartialEq, Eq)]
pub enum Preamble<'a> {
    /// So many bytes in all are needed to know more.
    NeedBytes(usize),
    /// It is all there.
    Whole {
        /// The sealed ticket.
        ticket: &'a [u8],
        /// Everything before the Noise message: the handshake's prologue.
        prologue: &'a [u8],
        /// The Noise message.
        noise: &'a [u8],
    },
}

impl<'a> Preamble<'a> {
    /// Reads what is there. An error means a stranger, who gets no answer.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TransferError> {
        let seen = bytes.len().min(MAGIC.len());
        if bytes[..seen] != MAGIC[..seen] {
            return Err(TransferError::NotOurs);
        }
        let Some(head) = bytes.first_chunk::<PREAMBLE_HEAD_BYTES>() else {
            return Ok(Self::NeedBytes(PREAMBLE_HEAD_BYTES));
        };
        if u16::from_be_bytes([head[6], head[7]]) != PROTOCOL_VERSION {
            return Err(TransferError::NotOurs);
        }
        let ticket_bytes = usize::from(u16::from_be_bytes([head[8], head[9]]));
        if ticket_bytes > TICKET_MAX_BYTES {
            return Err(TransferError::TooLong);
        }
        let prologue_bytes = PREAMBLE_HEAD_BYTES + ticket_bytes;
        let whole = prologue_bytes + NOISE_BYTES;
        match bytes.len().cmp(&whole) {
            std::cmp::Ordering::Less => Ok(Self::NeedBytes(whole)),
            std::cmp::Ordering::Greater => Err(TransferError::Malformed),
            std::cmp::Ordering::Equal => {
                let (prologue, noise) = bytes.split_at(prologue_bytes);
                Ok(Self::Whole { ticket: &prologue[PREAMBLE_HEAD_BYTES..], prologue, noise })
            }
        }
    }
}

/// The downloader's side of the handshake.
pub struct Opening {
    noise: Box<HandshakeState>,
}

impl Opening {
    /// Starts it; the bytes are the whole preamble.
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
        Ok((Self { noise: Box::new(noise) }, bytes))
    }

    /// Takes the uploader's message; gives the downloader's two directions.
    pub fn finish(mut self, message: &[u8; NOISE_BYTES]) -> Result<(RecordSealer, RecordOpener), TransferError> {
        self.noise.read_message(message, &mut []).map_err(|_| TransferError::Forged)?;
        Ok(split(&mut self.noise, Side::Client))
    }
}

/// The uploader's side of the handshake: its answer, and its two directions.
pub fn answer(
    key: &[u8; 32],
    prologue: &[u8],
    message: &[u8],
) -> Result<([u8; NOISE_BYTES], RecordSealer, RecordOpener), TransferError> {
    let mut noise = builder(key, prologue).build_responder().map_err(|_| TransferError::Forged)?;
    noise.read_message(message, &mut []).map_err(|_| TransferError::Forged)?;
    let mut reply = [0; NOISE_BYTES];
    noise.write_message(&[], &mut reply).map_err(|_| TransferError::Forged)?;
    let (sealer, opener) = split(&mut noise, Side::Server);
    Ok((reply, sealer, opener))
}

fn builder<'a>(key: &'a [u8; 32], prologue: &'a [u8]) -> Builder<'a> {
    let builder = Builder::new(PATTERN.parse().expect("the pattern is a valid one"));
    let builder = builder.psk(0, key).and_then(|builder| builder.prologue(prologue));
    builder.expect("key and prologue are set once")
}

/// `Side::Client` is the downloader, who opened the connection.
fn split(noise: &mut HandshakeState, side: Side) -> (RecordSealer, RecordOpener) {
    let (to_uploader, to_downloader) = noise.dangerously_get_raw_split();
    let to_uploader = AeadKey::derived(context::TRANSFER_TO_UPLOADER, &to_uploader);
    let to_downloader = AeadKey::derived(context::TRANSFER_TO_DOWNLOADER, &to_downloader);
    let (seal, open) = match side {
        Side::Client => (to_uploader, to_downloader),
        Side::Server => (to_downloader, to_uploader),
    };
    (RecordSealer { key: seal, counter: 0 }, RecordOpener { key: open, counter: 0 })
}

/// Writes records of one direction.
pub struct RecordSealer {
    key: AeadKey,
    counter: u64,
}

impl RecordSealer {
    /// Appends one record with a message to `out`.
    pub fn message(&mut self, message: &impl Serialize, out: &mut Vec<u8>) {
        self.record(out, |out| {
            out.push(MESSAGE);
            let written = postcard::to_extend(message, std::mem::take(out));
            *out = written.expect("our own types always encode");
        });
    }

    /// Appends one record with bulk data to `out`. `fill` gets the place for `length` bytes (at most
    /// [`RECORD_MAX_BYTES`]) and reads the content straight into it; when it fails nothing is appended.
    pub fn data<E>(
        &mut self,
        content: u32,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = out.len();
        out.resize(start + data_record_bytes(length), 0);
        let filled = self.data_in_place(content, offset, &mut out[start..], fill);
        if filled.is_err() {
            out.truncate(start);
        }
        filled
    }

    /// Like [`data`](Self::data) into a place of [`data_record_bytes`], whatever stood there before. When `fill` fails
    /// nothing is sealed, and the next record can take the place.
    pub fn data_in_place<E>(
        &mut self,
        content: u32,
        offset: u64,
        place: &mut [u8],
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let frame_bytes = place.len() - RECORD_HEAD_BYTES - TAG_BYTES;
        let (head, rest) = place.split_at_mut(RECORD_HEAD_BYTES);
        let (frame, tag) = rest.split_at_mut(frame_bytes);
        fill(&mut frame[DATA_HEAD_BYTES..])?;
        frame[0] = DATA;
        frame[1..5].copy_from_slice(&content.to_be_bytes());
        frame[5..DATA_HEAD_BYTES].copy_from_slice(&offset.to_be_bytes());
        let (length, sealed) = self.seal(frame);
        head.copy_from_slice(&length);
        tag.copy_from_slice(&sealed);
        Ok(())
    }

    fn record(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
        write(out);
        self.close(out, start);
    }

    /// Seals the frame that stands behind the head at `start`.
    fn close(&mut self, out: &mut Vec<u8>, start: usize) {
        let (length, tag) = self.seal(&mut out[start + RECORD_HEAD_BYTES..]);
        out[start..start + RECORD_HEAD_BYTES].copy_from_slice(&length);
        out.extend_from_slice(&tag);
    }

    /// Seals a frame where it stands: what comes before it, and what comes behind.
    fn seal(&mut self, frame: &mut [u8]) -> ([u8; RECORD_HEAD_BYTES], [u8; TAG_BYTES]) {
        assert!((1..=FRAME_MAX_BYTES).contains(&frame.len()), "a frame outgrew its record");
        let length = u32::try_from(frame.len() + TAG_BYTES).expect("bounded above").to_be_bytes();
        let nonce = counter_nonce(self.counter);
        self.counter += 1;
        let tag = self.key.seal_in_place(nonce, &length, frame);
        (length, tag)
    }
}

/// Bytes of a whole record with `length` bytes of bulk data.
pub fn data_record_bytes(length: usize) -> usize {
    RECORD_HEAD_BYTES + DATA_HEAD_BYTES + length + TAG_BYTES
}

/// How many bytes follow a record's head. Never more than a full frame and its tag.
pub fn record_bytes(head: [u8; RECORD_HEAD_BYTES]) -> Result<usize, TransferError> {
    let length = u32::from_be_bytes(head) as usize;
    match length {
        0..=TAG_BYTES => Err(TransferError::Malformed),
        _ if length > FRAME_MAX_BYTES + TAG_BYTES => Err(TransferError::TooLong),
        _ => Ok(length),
    }
}

/// Reads records of one direction.
pub struct RecordOpener {
    key: AeadKey,
    counter: u64,
}

impl RecordOpener {
    /// Opens one record where it stands; `sealed` is what follows its head.
    pub fn open<'a, M: Deserialize<'a>>(&mut self, sealed: &'a mut [u8]) -> Result<Frame<'a, M>, TransferError> {
        let length = u32::try_from(sealed.len()).map_err(|_| TransferError::TooLong)?.to_be_bytes();
        let nonce = counter_nonce(self.counter);
        self.counter += 1;
        let frame = self.key.open_in_place(nonce, &length, sealed).ok_or(TransferError::Forged)?;
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
#[path = "transfer_tests.rs"]
mod tests;
