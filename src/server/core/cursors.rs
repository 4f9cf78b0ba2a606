//! Cursors: sealed positions at which a list continues.

use rand::RngCore;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::common::crypto::{AeadKey, NONCE_BYTES, TAG_BYTES};
use crate::common::limits::CURSOR_MAX_BYTES;
use crate::common::message::{Cursor, NameQuery, ResolvePurpose};
use crate::common::types::{ContentRef, FileName, UserName};

const SEALED_CURSOR_BYTES: usize = NONCE_BYTES + 8 + TAG_BYTES;
const _: () = assert!(SEALED_CURSOR_BYTES <= CURSOR_MAX_BYTES);

/// The cursor was made before the server restarted, or for another requester or list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleCursor;

/// The list that a cursor belongs to.
#[derive(Debug, Serialize)]
pub enum CursorScope<'a> {
    OwnPublications,
    Names(&'a NameQuery),
    Contents(&'a NameQuery, ResolvePurpose),
    AudienceOf(&'a FileName),
    Peers,
    Sources(&'a [ContentRef], &'a [UserName]),
    Shared(&'a UserName),
}

/// Seals and opens cursors: positions at which a list continues.
///
/// Defended: a plain name or id would reveal publications that are hidden from the requester, and a cursor of another
/// list or user could start where no cursor may. So the position is encrypted, with the requester and the whole scope as
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

    /// Seals `position` for this requester and this list.
    pub fn seal(&self, rng: &mut ChaCha20Rng, requester: &UserName, scope: &CursorScope<'_>, position: u64) -> Cursor {
        Cursor(self.key.seal(rng, &associated_data(requester, scope), &position.to_be_bytes()))
    }

    /// Opens a cursor of this requester and this list. No cursor is position 0.
    pub fn open(
        &self,
        requester: &UserName,
        scope: &CursorScope<'_>,
        cursor: Option<&Cursor>,
    ) -> Result<u64, StaleCursor> {
        let Some(cursor) = cursor else { return Ok(0) };
        let position = self.key.open(&associated_data(requester, scope), &cursor.0).ok_or(StaleCursor)?;
        Ok(u64::from_be_bytes(position.as_slice().try_into().map_err(|_| StaleCursor)?))
    }
}

fn associated_data(requester: &UserName, scope: &CursorScope<'_>) -> Vec<u8> {
    postcard::to_stdvec(&(requester, scope)).expect("our own types always encode")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_cursor_is_bound_to_requester_list_and_server_run() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (codec, later) = (CursorCodec::new(&mut rng), CursorCodec::new(&mut rng));
        let (hans, vader) = (UserName::parse("hans").unwrap(), UserName::parse("vader").unwrap());
        let (pdf, pd) = ("pdf".to_owned(), "pd".to_owned());
        let (pdf, pd) = (NameQuery::Substring(pdf), NameQuery::Substring(pd));
        let (pdf, pd) = (CursorScope::Names(&pdf), CursorScope::Names(&pd));
        let cursor = codec.seal(&mut rng, &hans, &pdf, 77);
        assert_eq!(codec.open(&hans, &pdf, Some(&cursor)), Ok(77));
        assert_eq!(codec.open(&hans, &pdf, None), Ok(0));
        assert_eq!(codec.open(&vader, &pdf, Some(&cursor)), Err(StaleCursor));
        assert_eq!(codec.open(&hans, &pd, Some(&cursor)), Err(StaleCursor));
        assert_eq!(later.open(&hans, &pdf, Some(&cursor)), Err(StaleCursor));
        for cut in 0..cursor.0.len() {
            assert_eq!(codec.open(&hans, &pdf, Some(&Cursor(cursor.0[..cut].to_vec()))), Err(StaleCursor));
        }
    }
}
