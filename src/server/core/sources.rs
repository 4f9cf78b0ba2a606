//! Sources: the peers that serve the requested contents to this requester, each with a transfer ticket.
//!
//! Defended: a source's address is the one at which the server sees it; only the port is the client's own claim, sent in
//! its session. So no client can direct downloaders to a third party. A peer at a loopback address is a source only for
//! requesters at one. A ticket names the downloader and what it may fetch, and nothing that the index hides from it.
//! Sources cannot crowd others out by what they claim of themselves: of free slots only whether there is one counts, and the
//! number of files that they publish does not; the choice among equals is random. The requester names those that brought it
//! nothing, and gets others.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;

use super::Server;
use super::cursors::{CursorScope, StaleCursor};
use super::queries::{Requester, SOURCES_SCAN_STEPS};
use super::sessions::Session;
use crate::common::crypto::AeadKey;
use crate::common::limits::{PAGE_MAX_BYTES, SOURCES_REQUEST_MAX_BYTES, TICKET_LIFETIME};
use crate::common::message::{Cursor, Response, SourceGrant, encoded_len};
use crate::common::redacted::Redacted;
use crate::common::ticket::TransferTicket;
use crate::common::types::{ContentRef, UserName};
use crate::server::index::OwnerId;

/// Sources offered for one file.
const SOURCES_PER_FILE: u32 = 8;

/// A source and the files that it serves: bit *i* for file *i* of the request.
#[derive(Clone, Copy)]
struct SelectedSource {
    owner: OwnerId,
    file_mask: u64,
}

impl Server {
    /// One page of sources. The pages follow the order of a keyed shuffle, whose key the cursor carries: free slots
    /// change between pages, so an order by them could skip a source. Within a page, sources with a free slot come first.
    pub(super) fn sources(
        &mut self,
        now: Instant,
        requester: &Requester,
        files: &[ContentRef],
        avoid: &[UserName],
        cursor: Option<Cursor>,
    ) -> Result<Response, StaleCursor> {
        if files.iter().map(encoded_len).sum::<usize>() > SOURCES_REQUEST_MAX_BYTES {
            return Ok(Response::Rejected);
        }
        let scope = CursorScope::Sources(files, avoid);
        let (shuffle_key, previous) = match self.cursors.open(&requester.user, &scope, cursor.as_ref())? {
            0 => (self.rng.r#gen::<u32>() | 1, None),
            position => ((position >> 32) as u32, Some(position as u32)),
        };
        let selected = self.select_sources(now, requester, files, avoid, shuffle_key);
        let (mut sources, mut bytes, mut last, mut next) = (Vec::new(), 0, previous, None);
        for (rank, source) in selected.into_iter().filter(|(rank, _)| previous.is_none_or(|before| *rank > before)) {
            let Some(grant) = self.grant(now, requester, files, source) else { continue };
            bytes += encoded_len(&grant);
            if bytes > PAGE_MAX_BYTES {
                next = last.map(|last| u64::from(shuffle_key) << 32 | u64::from(last));
                break;
            }
            sources.push(grant);
            last = Some(rank);
        }
        sources.sort_by_key(|source| Reverse(source.has_free_slot));
        let next = next.map(|position| self.cursors.seal(&mut self.rng, &requester.user, &scope, position));
        Ok(Response::Sources { sources, next })
    }

    /// At most [`SOURCES_PER_FILE`] sources for each file, by their rank in the shuffle: first those with a free slot, by
    /// their rank, then the others. Users to avoid serve only the files that nobody else does.
    fn select_sources(
        &self,
        now: Instant,
        requester: &Requester,
        files: &[ContentRef],
        avoid: &[UserName],
        shuffle_key: u32,
    ) -> BTreeMap<u32, SelectedSource> {
        let mut candidates: BTreeMap<OwnerId, u64> = BTreeMap::new();
        let limit = SOURCES_SCAN_STEPS / files.len().max(1);
        for (at, file) in files.iter().enumerate() {
            for owner in self.index.sources(requester.owner, file, limit, shuffle_key.into()) {
                if self.sessions.live(owner, now).is_some_and(|session| is_reachable(session, requester)) {
                    *candidates.entry(owner).or_default() |= 1 << at;
                }
            }
        }
        // The factor is odd, so ranks are distinct.
        let rank = |owner: OwnerId| (owner.0 ^ shuffle_key).wrapping_mul(0x9e37_79b1);
        let (mut avoided, mut candidates): (Vec<_>, Vec<_>) = candidates
            .into_iter()
            .map(|(owner, file_mask)| SelectedSource { owner, file_mask })
            .partition(|source| avoid.contains(self.index.user(source.owner)));
        let served_by_others = candidates.iter().fold(0, |all, source| all | source.file_mask);
        avoided.iter_mut().for_each(|source| source.file_mask &= !served_by_others);
        candidates.append(&mut avoided);
        candidates.sort_by_cached_key(|source| {
            let has_free_slot = self.sessions.live(source.owner, now).is_some_and(|session| session.free_slots > 0);
            (Reverse(has_free_slot), rank(source.owner))
        });
        let mut offered = vec![0; files.len()];
        candidates.retain(|source| {
            let served = || (0..files.len()).filter(|&at| source.file_mask & 1 << at != 0);
            let is_needed = served().any(|at| offered[at] < SOURCES_PER_FILE);
            if is_needed {
                served().for_each(|at| offered[at] += 1);
            }
            is_needed
        });
        candidates.into_iter().map(|source| (rank(source.owner), source)).collect()
    }

    fn grant(
        &mut self,
        now: Instant,
        requester: &Requester,
        files: &[ContentRef],
        source: SelectedSource,
    ) -> Option<SourceGrant> {
        let expires_ms = self.ticket_clock_ms(now) + u64::try_from(TICKET_LIFETIME.as_millis()).expect("a minute fits");
        let session = self.sessions.live(source.owner, now)?;
        let key = Redacted(self.rng.r#gen());
        let served = (0..files.len()).filter(|&at| source.file_mask & 1 << at != 0);
        let grants = served.map(|at| files[at].clone()).collect();
        let ticket = TransferTicket { downloader: requester.user.clone(), expires_ms, key, grants };
        Some(SourceGrant {
            user: session.user.clone(),
            address: SocketAddr::new(session.address.ip(), session.tcp_port),
            has_free_slot: session.free_slots > 0,
            file_mask: source.file_mask,
            key,
            ticket: ticket.seal(&AeadKey::new(&session.ticket_secret), &mut self.rng),
        })
    }
}

/// Peers at a loopback address can be reached from the same host only.
fn is_reachable(source: &Session, requester: &Requester) -> bool {
    requester.is_local || !source.address.ip().is_loopback()
}
