//! Sources: which peers serve the wanted contents to this asker, best first, with a ticket for each.
//!
//! Defended: a source's address is the one the server sees it at, and only its port is its own word, told under seal, so
//! nobody can be made to dial a third party. A peer seen at a loopback address is a source only for askers at one. A
//! ticket names the downloader and what it may fetch, and nothing that the index does not show to the asker.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;

use super::Server;
use super::lists::Asker;
use crate::common::crypto::AeadKey;
use crate::common::limits::{PAGE_MAX_BYTES, SOURCES_REQUEST_MAX_BYTES, TICKET_LIFETIME};
use crate::common::message::{Cursor, Response, SourceGrant, encoded_len};
use crate::common::redacted::Redacted;
use crate::common::ticket::TransferTicket;
use crate::common::types::ContentRef;
use crate::server::auth::keys::StaleCursor;
use crate::server::core::sessions::Session;
use crate::server::index::OwnerId;

/// Sources offered for one file.
const PER_FILE: u32 = 8;
/// Publications looked at for one request, shared among its files.
pub(super) const LOOKED_AT: usize = 512;

/// A peer that serves some of the wanted files.
#[derive(Default)]
struct Candidate {
    /// Bit *i*: it serves file *i*.
    covers: u64,
}

impl Server {
    /// The pages follow an order that only the lot decides, which the cursor carries: by free slots, which fill and empty
    /// from one page to the next, a source could be passed over. Each page has its idlest first.
    pub(super) fn sources(
        &mut self,
        now: Instant,
        asker: &Asker,
        files: &[ContentRef],
        cursor: Option<Cursor>,
    ) -> Result<Response, StaleCursor> {
        if files.iter().map(encoded_len).sum::<usize>() > SOURCES_REQUEST_MAX_BYTES {
            return Ok(Response::Rejected);
        }
        let query = ("sources", files);
        let (spread, mut last) = match self.cursors.open(&asker.user, &query, cursor.as_ref())? {
            0 => (self.rng.r#gen::<u32>() | 1, None),
            at => ((at >> 32) as u32, Some(at as u32)),
        };
        let chosen = self.chosen(now, asker, files, spread);
        let (mut sources, mut bytes, mut next) = (Vec::new(), 0, None);
        let before = last;
        for (lot, (owner, candidate)) in chosen.into_iter().filter(|(lot, _)| before.is_none_or(|before| *lot > before))
        {
            let Some(grant) = self.grant(now, asker, files, owner, &candidate) else { continue };
            bytes += encoded_len(&grant);
            if bytes > PAGE_MAX_BYTES {
                next = last.map(|last| u64::from(spread) << 32 | u64::from(last));
                break;
            }
            sources.push(grant);
            last = Some(lot);
        }
        sources.sort_by_key(|source| Reverse(source.free_slots));
        let next = next.map(|at| self.cursors.seal(&mut self.rng, &asker.user, &query, at));
        Ok(Response::Sources { sources, next })
    }

    /// The best for each file, by lot: those with more free slots are taken first, then those that serve more of the files.
    fn chosen(
        &self,
        now: Instant,
        asker: &Asker,
        files: &[ContentRef],
        spread: u32,
    ) -> BTreeMap<u32, (OwnerId, Candidate)> {
        let mut candidates: BTreeMap<OwnerId, Candidate> = BTreeMap::new();
        let most = LOOKED_AT / files.len().max(1);
        for (at, file) in files.iter().enumerate() {
            for owner in self.index.sources(asker.owner, file, most, spread.into()) {
                if self.sessions.live(owner, now).is_some_and(|session| is_reachable(session, asker)) {
                    candidates.entry(owner).or_default().covers |= 1 << at;
                }
            }
        }
        // No two owners draw the same: the factor is odd.
        let lot = |owner: OwnerId| (owner.0 ^ spread).wrapping_mul(0x9e37_79b1);
        let mut ranked: Vec<_> = candidates.into_iter().collect();
        ranked.sort_by_cached_key(|(owner, candidate)| {
            let free_slots = self.sessions.live(*owner, now).map_or(0, |session| session.free_slots);
            (Reverse(free_slots), Reverse(candidate.covers.count_ones()), lot(*owner))
        });
        let mut offered = vec![0; files.len()];
        ranked.retain(|(_, candidate)| {
            let covered = || (0..files.len()).filter(|&at| candidate.covers & 1 << at != 0);
            let is_needed = covered().any(|at| offered[at] < PER_FILE);
            if is_needed {
                covered().for_each(|at| offered[at] += 1);
            }
            is_needed
        });
        ranked.into_iter().map(|(owner, candidate)| (lot(owner), (owner, candidate))).collect()
    }

    fn grant(
        &mut self,
        now: Instant,
        asker: &Asker,
        files: &[ContentRef],
        owner: OwnerId,
        candidate: &Candidate,
    ) -> Option<SourceGrant> {
        let expires_ms = self.clock_ms(now) + u64::try_from(TICKET_LIFETIME.as_millis()).expect("a minute fits");
        let session = self.sessions.live(owner, now)?;
        let key = Redacted(self.rng.r#gen());
        let covered = (0..files.len()).filter(|&at| candidate.covers & 1 << at != 0).map(|at| files[at].clone());
        let grants = covered.map(|ContentRef { name, hash, size }| ContentRef { name, hash, size }).collect();
        let ticket = TransferTicket { downloader: asker.user.clone(), expires_ms, key, grants };
        Some(SourceGrant {
            user: session.user.clone(),
            address: SocketAddr::new(session.address.ip(), session.tcp_port),
            free_slots: session.free_slots,
            file_mask: candidate.covers,
            key,
            ticket: ticket.seal(&AeadKey::new(&session.ticket_secret), &mut self.rng),
        })
    }
}

/// Peers at a loopback address can be reached from this host alone.
fn is_reachable(source: &Session, asker: &Asker) -> bool {
    asker.is_local || !source.address.ip().is_loopback()
}
