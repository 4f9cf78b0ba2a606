//! Where the coordinator's sources come from and go: queries to the server, dialling, lost sources, giving up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{ActiveSource, Coordinator, Effect, SourceCommand, SourceEnd, SourcesFound};
use crate::client::backoff::Backoff;
use crate::client::control::RequestError;
use crate::client::download::discovery::{OFFER_LIFETIME, PeerAddress, SOURCES_PER_FILE, SourceOffer};
use crate::client::download::scheduler::{FileId, SourceId};
use crate::client::download::{DownloadError, DownloadReport, WaitReason};
use crate::common::types::UserName;

/// Sources dialled or connected at once: each takes about 3 MiB.
const ACTIVE_SOURCES_MAX: usize = 10;
/// Files fail for want of a source in a response only if it is not older than this.
const RESPONSE_FRESH: Duration = Duration::from_secs(1);
/// Wait before sources are queried again for files that have none.
const QUERY_WAIT_MIN: Duration = Duration::from_millis(100);
const QUERY_WAIT_MAX: Duration = Duration::from_secs(2);
/// While large files are downloaded, further sources are queried this often, for this many files.
const EXTRA_QUERY_INTERVAL: Duration = Duration::from_secs(1);
const EXTRA_QUERY_FILES: usize = 64;
/// Added to the time after which a busy source asks to be dialled again: the query and the dial take time too.
const BUSY_GRACE: Duration = Duration::from_secs(1);

/// Offers of one source that are not used yet.
pub(super) struct PendingDial {
    requested_at: Instant,
    offers: Vec<SourceOffer>,
}

/// When the server is asked for sources.
pub(super) struct QueryTimer {
    /// The query in flight.
    in_flight: Option<Instant>,
    /// Its answer may leave out a source that was busy.
    avoids_busy: bool,
    /// For files without a source.
    next_at: Instant,
    wait: Backoff,
    /// For more sources of large files.
    next_extra_at: Instant,
}

/// For which files a response names sources, and for which of them one that can be used.
#[derive(Default)]
struct OfferSummary {
    offered: HashSet<FileId>,
    usable: HashSet<FileId>,
}

impl QueryTimer {
    /// `in_flight`: a query has been sent at this time.
    pub fn new(now: Instant, in_flight: Option<Instant>) -> Self {
        let is_fresh = |&at: &Instant| now.saturating_duration_since(at) <= OFFER_LIFETIME;
        Self {
            in_flight: in_flight.filter(is_fresh),
            avoids_busy: false,
            next_at: now,
            wait: Backoff::new(QUERY_WAIT_MIN, QUERY_WAIT_MAX),
            next_extra_at: now + EXTRA_QUERY_INTERVAL,
        }
    }

    /// A source is likely to be available at this time.
    fn expedite(&mut self, at: Instant) {
        self.wait.reset();
        self.next_at = self.next_at.min(at);
    }
}

impl Coordinator<'_> {
    pub(super) fn on_sources_found(&mut self, now: Instant, found: SourcesFound) {
        if self.queries.in_flight != Some(found.requested_at) {
            return;
        }
        self.queries.in_flight = None;
        self.is_supply_changed = true;
        // A query that was sent ahead may be outdated; then it is repeated for the files without a source.
        let is_fresh = now.saturating_duration_since(found.received_at) <= RESPONSE_FRESH;
        match found.offers {
            Ok(offers) => {
                let summary = self.add_offers(&found.files, found.requested_at, offers);
                if is_fresh {
                    self.fail_unavailable(now, &found.files, &summary);
                }
            }
            Err(error) if is_fresh => self.fail_never_offered(error),
            Err(_) => {}
        }
    }

    /// Without a session no source was ever known; otherwise sources may still be there when the server is back.
    fn fail_never_offered(&mut self, error: RequestError) {
        self.fail_files(|this, file| (!this.files[file].was_offered).then_some(DownloadError::Request(error)));
    }

    /// Groups the offers by source.
    fn add_offers(&mut self, queried: &[FileId], requested_at: Instant, offers: Vec<SourceOffer>) -> OfferSummary {
        let mut peers: Vec<PendingDial> = Vec::new();
        let mut index: HashMap<PeerAddress, usize> = HashMap::new();
        let mut summary = OfferSummary::default();
        for mut offer in offers {
            offer.files = offer.files.iter().filter_map(|&file| queried.get(file).copied()).collect();
            for &file in &offer.files {
                self.files[file].was_offered = true;
                summary.offered.insert(file);
                let is_excluded = self.files[file].excluded_users.contains(&offer.user);
                if !is_excluded && !self.history.misbehaved.contains(&offer.user) {
                    summary.usable.insert(file);
                }
            }
            let peer = *index.entry(offer.peer()).or_insert(peers.len());
            if peer == peers.len() {
                peers.push(PendingDial { requested_at, offers: Vec::new() });
            }
            peers[peer].offers.push(offer);
        }
        // These offers replace the pending ones for the same files.
        let queried: HashSet<FileId> = queried.iter().copied().collect();
        let is_replaced = |pending: &PendingDial| {
            pending.offers.iter().flat_map(|offer| &offer.files).any(|file| queried.contains(file))
        };
        self.pending_dials.retain(|pending| !is_replaced(pending));
        self.pending_dials.extend(peers);
        summary
    }

    /// Fails files for which no offered source can be used.
    fn fail_unavailable(&mut self, now: Instant, queried: &[FileId], summary: &OfferSummary) {
        let queried: HashSet<FileId> = queried.iter().copied().collect();
        self.fail_files(|this, file| {
            if !queried.contains(&file) || summary.usable.contains(&file) || this.scheduler.has_source(file) {
                return None;
            }
            match (summary.offered.contains(&file), this.files[file].was_offered) {
                (true, _) if this.queries.avoids_busy || this.files[file].give_up.is_extended(now) => None,
                (true, _) => Some(this.files[file].failure_of_all()),
                (false, false) => Some(DownloadError::NotFound),
                (false, true) => None, // a source may come back
            }
        });
    }

    /// Whether the offer has a file that is unfinished and that its user can serve.
    fn is_needed(&self, offer: &SourceOffer) -> bool {
        let is_needed =
            |&file: &FileId| !self.files[file].is_finished && !self.files[file].excluded_users.contains(&offer.user);
        offer.files.iter().any(is_needed)
    }

    /// Uses pending offers: presents their tickets to connected sources, and dials others.
    pub(super) fn dial_pending(&mut self, now: Instant) {
        let mut dialled = Vec::from(std::mem::take(&mut self.pending_dials));
        // Several users at one address are dialled in turn.
        let turn = |offer: &SourceOffer| self.history.turn(&offer.peer());
        dialled.sort_by_cached_key(|pending| pending.offers.first().map(turn));
        for mut pending in dialled {
            pending.offers.retain(|offer| self.is_needed(offer));
            let is_stale = now.saturating_duration_since(pending.requested_at) > OFFER_LIFETIME;
            let Some(peer) = pending.offers.first().map(SourceOffer::peer) else { continue };
            if is_stale || self.history.misbehaved.contains(&peer.user) {
                self.is_supply_changed = true;
                continue;
            }
            match self.sources.iter().find(|(_, source)| source.peer == peer) {
                Some((_, source)) if source.is_stopping => self.pending_dials.push_back(pending),
                Some((&id, _)) => self.grant(id, pending.offers),
                None => {
                    let is_too_soon = self.history.not_before(&peer.address).is_some_and(|at| at > now);
                    match is_too_soon || self.is_dialling(peer.address) || self.sources.len() >= ACTIVE_SOURCES_MAX {
                        true => self.pending_dials.push_back(pending),
                        false => self.dial(now, pending.offers),
                    }
                }
            }
        }
    }

    /// Whether the address is being dialled: one connection at a time, also of different users.
    fn is_dialling(&self, address: SocketAddr) -> bool {
        self.sources.values().any(|source| source.peer.address == address && !source.is_connected)
    }

    /// Presents further tickets to a source.
    fn grant(&mut self, id: SourceId, mut offers: Vec<SourceOffer>) {
        let is_new = |this: &Self, file: FileId, user: &UserName| {
            let state = &this.files[file];
            !state.is_finished && !state.excluded_users.contains(user) && !this.scheduler.serves(id, file)
        };
        offers.retain(|offer| offer.files.iter().any(|&file| is_new(self, file, &offer.user)));
        self.announce(id, &offers);
        let source = self.sources.get_mut(&id).expect("found by the caller");
        source.queued_grants.extend(offers);
        if source.is_connected {
            self.send_grants(id);
        }
    }

    fn send_grants(&mut self, id: SourceId) {
        let source = self.sources.get_mut(&id).expect("it is connected");
        let grants = std::mem::take(&mut source.queued_grants);
        source.pending_grants += grants.len();
        grants.into_iter().for_each(|offer| self.send(id, SourceCommand::Grant(offer)));
    }

    fn dial(&mut self, now: Instant, mut offers: Vec<SourceOffer>) {
        let id = self.scheduler.add_source(now);
        self.announce(id, &offers);
        let first = offers.remove(0);
        let source = ActiveSource {
            peer: first.peer(),
            is_connected: false,
            queued_grants: offers,
            pending_grants: 0,
            is_cancelling: false,
            is_stopping: false,
            has_delivered: false,
            corrupt_file: None,
            availability_due: HashMap::new(),
            promises: HashMap::new(),
        };
        self.sources.insert(id, source);
        self.effects.push(Effect::Dial(id, first));
    }

    /// The source will serve what it has offered, once its tickets are accepted.
    fn announce(&mut self, id: SourceId, offers: &[SourceOffer]) {
        for offer in offers {
            for &file in &offer.files {
                if !self.files[file].excluded_users.contains(&offer.user) {
                    self.scheduler.announce_source(id, file);
                }
            }
        }
    }

    pub(super) fn on_connected(&mut self, id: SourceId, files: &[FileId]) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.is_connected = true;
        }
        files.iter().for_each(|&file| self.scheduler.confirm_source(id, file));
        self.send_grants(id);
    }

    pub(super) fn on_source_ended(&mut self, now: Instant, id: SourceId, end: SourceEnd) {
        let Some(source) = self.sources.remove(&id) else { return };
        let end = match source.corrupt_file {
            Some(file) => {
                SourceEnd::Misbehaved { file, reason: "it sent bytes that do not match the published hash".to_owned() }
            }
            None => end,
        };
        self.record_failure(now, id, &source, &end);
        self.scheduler.remove_source(id);
        let PeerAddress { user, address } = &source.peer;
        match end {
            _ if source.has_delivered => self.history.record_help(user),
            SourceEnd::Done | SourceEnd::NoResources(_) => {}
            _ => self.history.record_no_help(user, matches!(end, SourceEnd::Busy { .. })),
        }
        let dial = self.history.address(now, *address);
        match end {
            SourceEnd::Done => dial.backoff.reset(),
            SourceEnd::Busy { retry_ms } => {
                dial.wait_until(now + Duration::from_millis(retry_ms.max(10).into()));
                self.queries.expedite(dial.not_before);
                self.report_waiting(user.clone(), WaitReason::Busy);
            }
            SourceEnd::Lost(_) | SourceEnd::NoResources(_) => {
                if source.has_delivered {
                    dial.record_success(user);
                } else {
                    dial.record_failure(user);
                }
                dial.wait_until(now + dial.backoff.wait());
            }
            SourceEnd::Misbehaved { file, reason } => {
                self.history.misbehaved.insert(user.clone());
                self.report(DownloadReport::SourceDropped { index: self.jobs[file].index, user: user.clone(), reason });
            }
        }
        // What it has left is queried at once, unless it never delivered anything.
        if source.has_delivered {
            self.queries.expedite(now);
        }
    }

    pub(super) fn report_waiting(&mut self, user: UserName, reason: WaitReason) {
        if self.history.reported_waiting.insert((user.clone(), reason)) {
            self.report(DownloadReport::Waiting(user, reason));
        }
    }

    /// Records at the files of a source that has ended why it did.
    fn record_failure(&mut self, now: Instant, id: SourceId, source: &ActiveSource, end: &SourceEnd) {
        let user = &source.peer.user;
        let reason = match end {
            SourceEnd::Done => return,
            SourceEnd::Lost(reason) => format!("{user}: {reason}"),
            SourceEnd::NoResources(reason) => reason.clone(),
            SourceEnd::Busy { .. } => format!("{user}: all its upload slots are taken"),
            SourceEnd::Misbehaved { file, reason } => {
                format!("{user} was dropped: {reason} ({})", self.jobs[*file].item.name)
            }
        };
        for file in (0..self.jobs.len()).filter(|&file| self.scheduler.serves(id, file)) {
            let state = &mut self.files[file];
            state.last_failure = Some(reason.clone());
            // The other files it may not even have begun to send.
            let is_blamed = matches!(end, SourceEnd::Misbehaved { file: blamed, .. } if *blamed == file);
            state.hash_mismatch |= is_blamed;
            state.other_failure |= !is_blamed;
            state.was_lost = true;
            state.has_no_resources = matches!(end, SourceEnd::NoResources(_));
            match end {
                SourceEnd::Busy { retry_ms } => {
                    state.give_up.extend(now + Duration::from_millis((*retry_ms).into()) + BUSY_GRACE);
                }
                _ if !source.has_delivered => state.give_up.record_failure(source.peer.clone(), source.is_connected),
                _ => {}
            }
        }
    }

    /// Abandons files that have been without a source for too long, and queries for sources.
    pub(super) fn query_if_needed(&mut self, now: Instant) {
        self.update_without_source(now);
        if self.queries.in_flight.is_some() {
            return;
        }
        if !self.without_source.is_empty() {
            self.fail_files(|this, file| {
                let state = &this.files[file];
                let is_abandoned = this.without_source.contains(&file)
                    && state.was_offered
                    && state.give_up.has_expired(now, this.retry_for);
                is_abandoned.then(|| state.failure())
            });
            if now >= self.queries.next_at && !self.without_source.is_empty() {
                self.queries.next_at = now + self.queries.wait.next_wait();
                self.query(now, self.without_source.iter().copied().collect());
            }
        } else if now >= self.queries.next_extra_at && self.sources.len() < SOURCES_PER_FILE {
            self.queries.next_extra_at = now + EXTRA_QUERY_INTERVAL;
            let large = self.large_files().take(EXTRA_QUERY_FILES).collect();
            self.query(now, large);
        }
    }

    fn query(&mut self, now: Instant, files: Vec<FileId>) {
        if !files.is_empty() {
            self.queries.in_flight = Some(now);
            self.queries.avoids_busy = self.history.avoids_busy();
            let avoid = self.history.avoided();
            self.effects.push(Effect::FindSources { requested_at: now, files, avoid });
        }
    }

    fn large_files(&self) -> impl Iterator<Item = FileId> {
        (0..self.jobs.len()).filter(|&file| self.files[file].incomplete.is_some())
    }

    pub(super) fn next_query_at(&self) -> Option<Instant> {
        if self.queries.in_flight.is_some() {
            return None;
        }
        if self.without_source.is_empty() {
            let is_useful = self.sources.len() < SOURCES_PER_FILE && self.large_files().next().is_some();
            return is_useful.then_some(self.queries.next_extra_at);
        }
        let offered = self.without_source.iter().filter(|&&file| self.files[file].was_offered);
        let abandoned = offered.filter_map(|&file| self.files[file].give_up.expires_at(self.retry_for));
        abandoned.chain([self.queries.next_at]).min()
    }

    pub(super) fn next_dial_at(&self) -> Option<Instant> {
        let next_at = |pending: &PendingDial| {
            let peer = pending.offers.first()?.peer();
            let is_active = self.sources.values().any(|source| source.peer == peer);
            let is_free = !is_active && !self.is_dialling(peer.address);
            let is_waiting = self.sources.len() < ACTIVE_SOURCES_MAX && is_free;
            let allowed = self.history.not_before(&peer.address).filter(|_| is_waiting);
            let stale = pending.requested_at + OFFER_LIFETIME + Duration::from_nanos(1);
            Some(allowed.map_or(stale, |allowed| allowed.min(stale)))
        };
        self.pending_dials.iter().filter_map(next_at).min()
    }

    /// Finds the files that no source is likely to deliver, if that may have changed.
    fn update_without_source(&mut self, now: Instant) {
        if !std::mem::take(&mut self.is_supply_changed) {
            return;
        }
        let mut pending: HashMap<FileId, Vec<PeerAddress>> = HashMap::new();
        for offer in self.pending_dials.iter().flat_map(|pending| &pending.offers) {
            offer.files.iter().for_each(|&file| pending.entry(file).or_default().push(offer.peer()));
        }
        let unfinished = (0..self.files.len()).filter(|&file| !self.files[file].is_finished);
        let without: BTreeSet<FileId> = unfinished.filter(|&file| !self.has_viable_source(file, &pending)).collect();
        // Up to now, the others had one.
        for (file, state) in self.files.iter_mut().enumerate() {
            if !state.is_finished && !self.without_source.contains(&file) {
                state.give_up.extend(now);
            }
        }
        self.without_source = without;
    }

    /// Whether a source may still deliver the file, be it one that is not dialled yet.
    fn has_viable_source(&self, file: FileId, pending: &HashMap<FileId, Vec<PeerAddress>>) -> bool {
        let give_up = &self.files[file].give_up;
        let delivers = |(&id, source): (&SourceId, &ActiveSource)| {
            self.scheduler.serves(id, file) && give_up.is_viable(&source.peer, source.is_connected)
        };
        let is_pending = |peers: &Vec<PeerAddress>| peers.iter().any(|peer| give_up.is_viable(peer, false));
        self.sources.iter().any(delivers) && !self.scheduler.is_stuck(file)
            || pending.get(&file).is_some_and(is_pending)
    }
}
