//! What one list may cost a client: a server that turns bad can send pages without end.

use crate::common::message::encoded_len;

/// Most bytes of a list's entries, encoded: millions of names.
const LIST_MAX_BYTES: usize = 256 << 20;
/// Pages without a new entry in one list. An honest server sends full pages, except the last.
const FRUITLESS_PAGES_MAX: u32 = 256;
/// A list starts again when the server was restarted.
const RESTARTS_MAX: u32 = 16;

/// The server sends more pages than an honest one could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndlessList;

/// What the pages of one list have cost so far.
#[derive(Default)]
pub(crate) struct ListLimits {
    bytes: usize,
    fruitless: u32,
    restarts: u32,
}

impl ListLimits {
    /// A page with these new entries has arrived.
    pub fn on_page<'a, T: serde::Serialize + 'a>(
        &mut self,
        new: impl IntoIterator<Item = &'a T>,
    ) -> Result<(), EndlessList> {
        let bytes = new.into_iter().map(encoded_len).sum::<usize>();
        self.bytes += bytes;
        self.fruitless += u32::from(bytes == 0);
        let is_endless = self.bytes > LIST_MAX_BYTES || self.fruitless > FRUITLESS_PAGES_MAX;
        if is_endless { Err(EndlessList) } else { Ok(()) }
    }

    /// The list starts again.
    pub fn on_restart(&mut self) -> Result<(), EndlessList> {
        self.restarts += 1;
        self.bytes = 0;
        if self.restarts > RESTARTS_MAX { Err(EndlessList) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_new_entries_ends_at_its_bytes_and_one_of_known_entries_at_its_pages() {
        let page = vec![0_u8; 1 << 20];
        let mut limits = ListLimits::default();
        let accepted = (0..1_000).take_while(|_| limits.on_page([&page]).is_ok()).count();
        assert!((250..256).contains(&accepted), "{accepted} pages of a little more than 1 MiB");
        let mut limits = ListLimits::default();
        assert!((0..FRUITLESS_PAGES_MAX).all(|_| limits.on_page([0_u8; 0].iter()).is_ok()));
        assert_eq!(limits.on_page([0_u8; 0].iter()), Err(EndlessList));
    }
}
