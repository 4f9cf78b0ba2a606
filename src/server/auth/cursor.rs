//! Cursors: where a list goes on, sealed so that it means nothing to the client.
//!
//! Defended: a name or an id as cursor would tell what the asker may not see; a cursor moved to another list or another
//! user would walk where it was not made for. So the position is sealed under a key that lives as long as the server,
//! with the asker and the whole query as associated data.

use rand::RngCore;
use rand_chacha::ChaCha20Rng;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::common::crypto::{AeadKey, NONCE_BYTES, TAG_BYTES};
use crate::common::limits::CURSOR_MAX_BYTES;
use crate::common::message::Cursor;
use crate::common::types::UserName;

const SEALED_BYTES: usize = NONCE_BYTES + 8 + TAG_BYTES;
const _: () = assert!(SEALED_BYTES <= CURSOR_MAX_BYTES);

/// The cursor was made before the server restarted, or for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// Makes and reads cursors.
pub struct Cursors {
    key: AeadKey,
}

impl Cursors {
    /// With a key of its own.
    pub fn new(rng: &mut ChaCha20Rng) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self { key: AeadKey::new(&key) }
    }

    /// Seals `position` for this asker and this query (whose own cursor must be left out).
    pub fn seal(&self, rng: &mut ChaCha20Rng, asker: &UserName, query: &impl Serialize, position: u64) -> Cursor {
        let mut nonce = [0; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let mut position = position.to_be_bytes();
        let tag = self.key.seal_in_place(nonce, &binding(asker, query), &mut position);
        Cursor([nonce.as_slice(), &position, &tag].concat())
    }

    /// Reads a cursor of this asker and this query; 0 where there is none.
    pub fn open(&self, asker: &UserName, query: &impl Serialize, cursor: Option<&Cursor>) -> Result<u64, Stale> {
        let Some(cursor) = cursor else { return Ok(0) };
        let (nonce, sealed) = cursor.0.split_first_chunk().ok_or(Stale)?;
        let mut sealed = sealed.to_vec();
        if sealed.len() != 8 + TAG_BYTES {
            return Err(Stale);
        }
        let text = self.key.open_in_place(*nonce, &binding(asker, query), &mut sealed).ok_or(Stale)?;
        Ok(u64::from_be_bytes((&*text).try_into().map_err(|_| Stale)?))
    }
}

fn binding(asker: &UserName, query: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(&(asker, query)).expect("our own types always encode")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_cursor_serves_its_asker_and_its_list_alone() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (cursors, later) = (Cursors::new(&mut rng), Cursors::new(&mut rng));
        let (hans, vader) = (UserName::parse("hans").unwrap(), UserName::parse("vader").unwrap());
        let cursor = cursors.seal(&mut rng, &hans, &"pdf", 77);
        assert_eq!(cursors.open(&hans, &"pdf", Some(&cursor)), Ok(77));
        assert_eq!(cursors.open(&hans, &"pdf", None), Ok(0));
        assert_eq!(cursors.open(&vader, &"pdf", Some(&cursor)), Err(Stale));
        assert_eq!(cursors.open(&hans, &"pd", Some(&cursor)), Err(Stale));
        assert_eq!(later.open(&hans, &"pdf", Some(&cursor)), Err(Stale));
        for cut in 0..cursor.0.len() {
            assert_eq!(cursors.open(&hans, &"pdf", Some(&Cursor(cursor.0[..cut].to_vec()))), Err(Stale));
        }
    }
}
