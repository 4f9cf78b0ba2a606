//! Says after every step what must hold, from what was reported to the coordinator and what it wanted done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::super::*;
use super::batch::group_bytes;
use super::known::{KnownAddress, KnownConnection, KnownFile};
use super::plan::DownloadStorm;
use crate::client::download::discovery::OFFER_LIFETIME;

/// An answer that is older ends no file.
const ANSWER_FRESH: Duration = Duration::from_secs(1);
/// A busy source is waited for so much longer than it asks for.
const BUSY_GRACE: Duration = Duration::from_secs(1);

pub(super) type Checked = Result<(), TestCaseError>;

/// What the answer of this step says of files.
#[derive(Default)]
struct StepAnswer {
    is_fresh: bool,
    is_error: bool,
    queried: BTreeSet<FileId>,
    named: BTreeSet<FileId>,
}

pub(super) struct DownloadOracle<'a> {
    pub jobs: &'a [FileJob],
    pub retry_for: Duration,
    pub now: Instant,
    pub files: Vec<KnownFile>,
    pub connections: BTreeMap<SourceId, KnownConnection>,
    pub addresses: HashMap<SocketAddr, KnownAddress>,
    /// Every offer of an answer, by its ticket, with the time of the query.
    offers: HashMap<Vec<u8>, (SourceOffer, Instant)>,
    /// Offers that were not used, and not replaced by a later answer for one of their files.
    pub pending: Vec<(SourceOffer, Instant)>,
    pub query: Option<Instant>,
    pub misbehaved: BTreeSet<UserName>,
    /// Users that were busy, or are hashing a file.
    waited_for: BTreeSet<UserName>,
    was_interrupted: bool,
    answer: StepAnswer,
    last_assignment: u32,
}

impl<'a> DownloadOracle<'a> {
    pub fn new(plan: &DownloadStorm, jobs: &'a [FileJob], now: Instant) -> Self {
        let file = |file: &super::plan::PlannedFile| KnownFile { groups: file.groups, ..KnownFile::default() };
        Self {
            jobs,
            retry_for: Duration::from_millis(plan.retry_ms),
            now,
            files: plan.files.iter().map(file).collect(),
            connections: BTreeMap::new(),
            addresses: HashMap::new(),
            offers: HashMap::new(),
            pending: Vec::new(),
            query: Some(now),
            misbehaved: BTreeSet::new(),
            waited_for: BTreeSet::new(),
            was_interrupted: false,
            answer: StepAnswer::default(),
            last_assignment: 0,
        }
    }

    /// Before the events of a step.
    pub fn begin_step(&mut self, now: Instant) {
        (self.now, self.answer) = (now, StepAnswer::default());
        for file in 0..self.files.len() {
            if !self.files[file].is_ended && self.has_usable_source(file) {
                self.files[file].extend(now);
            }
        }
    }

    /// Whether a source of the file is connected or being dialled, or about to be, that may deliver all of it.
    fn has_usable_source(&self, file: FileId) -> bool {
        let state = &self.files[file];
        let is_usable = |connection: &KnownConnection| {
            connection.announced.contains(&file)
                && !connection.is_stopped
                && !connection.partial.contains_key(&file)
                && state.is_viable(&connection.peer, connection.is_connected)
        };
        let is_pending = |(offer, requested_at): &(SourceOffer, Instant)| {
            offer.files.contains(&file)
                && self.now - *requested_at <= OFFER_LIFETIME
                && !state.excluded.contains(&offer.user)
                && !self.is_connected(offer)
                && state.is_viable(&offer.peer(), false)
        };
        self.connections.values().any(is_usable) || self.pending.iter().any(is_pending)
    }

    /// Whether the ticket goes to a source that is connected, or being dialled.
    pub fn is_connected(&self, offer: &SourceOffer) -> bool {
        self.connections.values().any(|connection| !connection.is_stopped && connection.peer == offer.peer())
    }

    /// The ticket goes to a source that is connected, or will be.
    pub fn on_ticket_used(&mut self, offer: &SourceOffer) {
        let excludes = |file: &&FileId| !self.files[**file].excluded.contains(&offer.user);
        let connection = self.connections.values_mut().find(|connection| connection.peer == offer.peer());
        connection.into_iter().for_each(|connection| connection.announced.extend(offer.files.iter().filter(excludes)));
    }

    pub fn on_event(&mut self, event: &DownloadEvent) {
        match event {
            DownloadEvent::SourcesFound(found) => self.on_answer(found),
            DownloadEvent::Source(id, event) => self.on_source_event(*id, event),
            DownloadEvent::File(file, event) => self.on_file_event(*file, event),
            DownloadEvent::Interrupted => self.was_interrupted = true,
        }
    }

    fn on_answer(&mut self, found: &SourcesFound) {
        self.query = None;
        self.answer.is_fresh = self.now - found.received_at <= ANSWER_FRESH;
        self.answer.is_error = found.offers.is_err();
        self.answer.queried = found.files.iter().copied().collect();
        let Ok(offers) = &found.offers else { return };
        self.pending.retain(|(offer, _)| !offer.files.iter().any(|file| found.files.contains(file)));
        for offer in offers {
            let files = offer.files.iter().map(|&at| found.files[at]).collect();
            let offer = SourceOffer { files, ..offer.clone() };
            self.answer.named.extend(&offer.files);
            offer.files.iter().for_each(|&file| self.files[file].was_offered = true);
            self.offers.insert(offer.ticket.clone(), (offer.clone(), found.requested_at));
            self.pending.push((offer, found.requested_at));
        }
        self.drop_needless_offers();
    }

    /// Drops offers of nothing that is needed, and of users that cannot help.
    pub fn drop_needless_offers(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|(offer, requested_at)| {
            !self.misbehaved.contains(&offer.user)
                && offer.files.iter().any(|&file| self.is_needed(file, &offer.user))
                && self.now - *requested_at <= OFFER_LIFETIME
        });
        self.pending = pending;
    }

    fn is_needed(&self, file: FileId, user: &UserName) -> bool {
        !self.files[file].is_ended && !self.files[file].excluded.contains(user)
    }

    fn on_file_event(&mut self, file: FileId, event: &FileEvent) {
        let state = &mut self.files[file];
        match event {
            FileEvent::Finished(outcome) => state.outcomes.push(format!("{outcome:?}")),
            FileEvent::Opened(opened) => {
                state.unchecked = opened.candidates.iter().copied().collect();
                state.opened = Some(opened.incomplete.clone());
            }
            FileEvent::GroupPresent(group) => {
                state.unchecked.remove(group);
                state.here.insert(*group);
            }
            FileEvent::GroupMissing(group) => _ = state.unchecked.remove(group),
        }
    }

    fn on_source_event(&mut self, id: SourceId, event: &SourceEvent) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match event {
            SourceEvent::Connected(files) => {
                connection.is_connected = true;
                connection.granted.extend(files.iter().filter(|file| connection.announced.contains(file)));
            }
            SourceEvent::Granted(files) => {
                connection.pending_tickets -= 1;
                connection.granted.extend(files.iter().filter(|file| connection.announced.contains(file)));
            }
            SourceEvent::GrantRefused(_) => connection.pending_tickets -= 1,
            SourceEvent::Received { completed, .. } => {
                for assignment in completed {
                    if connection.owed.contains(assignment) {
                        self.files[assignment.file].checking.insert(assignment.id);
                    }
                }
                connection.owed.retain(|assignment| !completed.contains(assignment));
            }
            SourceEvent::Refused(file, _) => {
                connection.lose(*file);
                self.files[*file].excluded.insert(connection.peer.user.clone());
            }
            SourceEvent::Availability(file, groups) if connection.announced.contains(file) => match groups {
                Some(groups) => {
                    let all = (0..self.files[*file].groups).filter(|&group| groups.contains(group)).collect();
                    connection.partial.insert(*file, all);
                }
                None => _ = connection.partial.remove(file),
            },
            SourceEvent::NotAvailable(file, assignments) => {
                connection.broken_promises += 1;
                connection.owed.retain(|assignment| !assignments.contains(assignment));
                let groups = connection.partial.entry(*file).or_default();
                assignments.iter().for_each(|assignment| _ = groups.remove(&assignment.group));
            }
            SourceEvent::Cancelled => {
                connection.is_cancelling = false;
                connection.owed.clear();
            }
            SourceEvent::Stored(results) => results.iter().for_each(|result| self.on_stored(id, result)),
            SourceEvent::Ended(end) => self.on_ended(id, end),
            SourceEvent::Hashing => _ = self.waited_for.insert(connection.peer.user.clone()),
            SourceEvent::Outline(..) | SourceEvent::Availability(..) => {}
        }
    }

    fn on_stored(&mut self, id: SourceId, result: &StoreResult) {
        let connection = self.connections.get_mut(&id).expect("it has not ended");
        match result {
            StoreResult::Verified(assignment) => {
                let state = &mut self.files[assignment.file];
                if state.checking.remove(&assignment.id) && !state.is_ended {
                    connection.has_delivered = true;
                    state.here.insert(assignment.group);
                    state.owners.insert(connection.peer.user.clone());
                    state.extend(self.now);
                    (state.empty, state.unreached) = (HashMap::new(), HashMap::new());
                }
            }
            StoreResult::Discarded(assignment) => _ = self.files[assignment.file].checking.remove(&assignment.id),
            StoreResult::Corrupt(assignment) => {
                self.files[assignment.file].checking.remove(&assignment.id);
                connection.sent_wrong_bytes = true;
            }
            StoreResult::SmallFile(file, outcome) => {
                connection.has_delivered = true;
                self.files[*file].owners.insert(connection.peer.user.clone());
                self.files[*file].outcomes.push(format!("{outcome:?}"));
            }
            StoreResult::WriteFailed(file, error) => {
                let outcome = format!("Failed({error:?})");
                self.files[*file].outcomes.push(outcome);
            }
        }
    }

    fn on_ended(&mut self, id: SourceId, end: &SourceEnd) {
        let connection = self.connections.remove(&id).expect("it has not ended");
        let KnownConnection { peer, has_delivered, is_connected, announced, .. } = connection;
        let address = self.addresses.entry(peer.address).or_insert_with(|| KnownAddress::new(self.now));
        let is_misbehaved = connection.sent_wrong_bytes || matches!(end, SourceEnd::Misbehaved { .. });
        match end {
            _ if is_misbehaved => _ = self.misbehaved.insert(peer.user.clone()),
            SourceEnd::Done => address.record_success(),
            SourceEnd::Busy { retry_ms } => {
                let retry_at = self.now + Duration::from_millis((*retry_ms).into());
                address.record_busy(retry_at.max(self.now + Duration::from_millis(10)));
                self.waited_for.insert(peer.user.clone());
                for &file in &announced {
                    self.files[file].extend(retry_at + BUSY_GRACE);
                }
            }
            _ => address.record_loss(self.now, &peer.user, !has_delivered),
        }
        if !has_delivered && !matches!(end, SourceEnd::Busy { .. }) {
            for &file in &announced {
                let counts = &mut self.files[file];
                let counts = if is_connected { &mut counts.empty } else { &mut counts.unreached };
                *counts.entry(peer.clone()).or_default() += 1;
            }
        }
        self.drop_needless_offers();
    }

    pub fn on_effect(&mut self, effect: &Effect) -> Checked {
        match effect {
            Effect::FindSources { requested_at, files, .. } => {
                prop_assert!(self.query.is_none(), "one query at a time");
                prop_assert!(!files.is_empty() && files.iter().all(|&file| !self.files[file].is_ended));
                self.query = Some(*requested_at);
            }
            Effect::Dial(id, offer) => self.on_dial(*id, offer)?,
            Effect::Send(id, command) => self.on_command(*id, command)?,
            Effect::Open(file, _) => {
                let state = &mut self.files[*file];
                prop_assert!(!state.is_ended && !std::mem::replace(&mut state.is_open_asked, true), "opened once");
            }
            Effect::Finalize(file, _) => {
                let state = &mut self.files[*file];
                prop_assert!(!state.is_ended && !std::mem::replace(&mut state.is_finalizing, true), "saved once");
                prop_assert_eq!(state.here.len(), state.groups as usize, "only a complete file gets its name");
            }
            Effect::Close(_) => {}
            Effect::Report(report) => self.on_report(report)?,
        }
        Ok(())
    }

    fn on_dial(&mut self, id: SourceId, offer: &SourceOffer) -> Checked {
        let user = &offer.user;
        let Some((known, requested_at)) = self.offers.get(&offer.ticket) else {
            prop_assert!(false, "{user} is dialled, and no answer has named it");
            return Ok(());
        };
        prop_assert!(known == offer, "the offer was changed");
        prop_assert!(self.now - *requested_at <= OFFER_LIFETIME, "the ticket of {user} is too old");
        prop_assert!(!self.misbehaved.contains(user), "{user} has misbehaved");
        prop_assert!(offer.files.iter().any(|&file| self.is_needed(file, user)), "nothing is needed of {user}");
        prop_assert!(!self.connections.contains_key(&id), "an id of its own");
        for other in self.connections.values() {
            prop_assert!(other.peer != offer.peer(), "{user} is connected already");
            prop_assert!(other.is_connected || other.peer.address != offer.address, "two dials to one address");
        }
        let earliest = self.addresses.get(&offer.address).map_or(self.now, |address| address.earliest);
        prop_assert!(self.now >= earliest, "{user} is dialled {:?} too early", earliest - self.now);
        let mut connection = KnownConnection::new(offer.peer());
        connection.announced = offer.files.iter().copied().filter(|&file| !self.excludes(file, user)).collect();
        self.connections.insert(id, connection);
        Ok(())
    }

    fn excludes(&self, file: FileId, user: &UserName) -> bool {
        self.files[file].excluded.contains(user)
    }

    fn on_command(&mut self, id: SourceId, command: &SourceCommand) -> Checked {
        let Some(connection) = self.connections.get_mut(&id) else {
            // Its end may have been reported together with what made the coordinator stop it.
            prop_assert!(matches!(command, SourceCommand::Stop), "source {id} has ended");
            return Ok(());
        };
        let user = &connection.peer.user;
        prop_assert!(!connection.is_stopped, "{user} is sent something after a stop");
        let is_stop = matches!(command, SourceCommand::Stop);
        prop_assert!(connection.is_connected || is_stop, "{user} is sent something before it is connected");
        let may_ask = |file: FileId| connection.granted.contains(&file) && !self.files[file].is_ended;
        match command {
            SourceCommand::RequestGroups(requests) => {
                for request in requests {
                    self.on_group_request(id, request)?;
                }
            }
            SourceCommand::RequestOutline(file) => {
                prop_assert!(may_ask(*file) && !self.files[*file].is_open_asked, "{user} is asked for an outline");
            }
            SourceCommand::QueryAvailability(file) => {
                prop_assert!(may_ask(*file), "{user} is asked which groups of {file} it has");
            }
            SourceCommand::Grant(offer) => {
                prop_assert!(offer.peer() == connection.peer, "a ticket of {} is sent to {user}", offer.user);
                connection.pending_tickets += 1;
                let excludes = |file: &&FileId| self.files[**file].excluded.contains(user);
                connection.announced.extend(offer.files.iter().filter(|file| !excludes(file)));
            }
            SourceCommand::Cancel => {
                prop_assert!(!connection.is_cancelling, "{user} is told to cancel twice");
                connection.is_cancelling = true;
            }
            SourceCommand::Stop => connection.is_stopped = true,
        }
        Ok(())
    }

    fn on_group_request(&mut self, id: SourceId, request: &GroupRequest) -> Checked {
        let Assignment { file, group, id: number } = request.assignment;
        let connection = self.connections.get_mut(&id).expect("checked by the caller");
        let (state, user) = (&mut self.files[file], &connection.peer.user);
        prop_assert!(!connection.is_cancelling, "{user} is asked while a cancel is not confirmed");
        prop_assert!(number > self.last_assignment, "an assignment of its own");
        prop_assert!(state.is_open() && group < state.groups, "group {group} of {file} cannot be requested");
        prop_assert!(connection.has(file, group), "{user} does not have group {group} of {file}");
        prop_assert!(!state.here.contains(&group), "group {group} of {file} is requested, and is here");
        prop_assert!(!state.unchecked.contains(&group), "group {group} of {file} may be here");
        prop_assert_eq!(request.incomplete.is_some(), state.is_large());
        state.assigned.insert(group, number);
        connection.owed.push(request.assignment);
        self.last_assignment = number;
        Ok(())
    }

    fn on_report(&mut self, report: &DownloadReport) -> Checked {
        match report {
            DownloadReport::Finished(file, outcome) => self.on_finished(*file, outcome)?,
            DownloadReport::Received { index, done, .. } => {
                let state = &mut self.files[*index];
                let here: u64 = state.here.iter().map(|&group| group_bytes(self.jobs, *index, group)).sum();
                prop_assert!(!state.is_ended && *done > state.done, "{done} bytes of {index} after {}", state.done);
                prop_assert!(*done <= here || !state.is_large(), "{done} bytes of {index} reported, {here} are here");
                state.done = *done;
            }
            DownloadReport::Delivered(file, user) => {
                prop_assert!(self.files[*file].owners.contains(user), "{user} has delivered nothing of {file}");
            }
            DownloadReport::Waiting(user, _) => {
                prop_assert!(self.waited_for.contains(user), "{user} is not busy");
            }
            DownloadReport::SourceDropped { index, user, .. } => self.on_dropped(*index, user)?,
            DownloadReport::Started(..) | DownloadReport::Resumed { .. } | DownloadReport::Note(_) => {}
        }
        Ok(())
    }

    fn on_dropped(&mut self, file: FileId, user: &UserName) -> Checked {
        let of_user = |connection: &&mut KnownConnection| connection.peer.user == *user;
        let is_misbehaved = self.misbehaved.contains(user) || self.files[file].excluded.contains(user);
        let mut connections: Vec<_> = self.connections.values_mut().filter(of_user).collect();
        let has_broken = connections.iter().any(|connection| connection.broken_promises > BROKEN_PROMISES_MAX);
        prop_assert!(is_misbehaved || has_broken, "{user} is dropped for nothing");
        if has_broken {
            connections.iter_mut().for_each(|connection| connection.lose(file));
            self.files[file].excluded.insert(user.clone());
        }
        Ok(())
    }

    fn on_finished(&mut self, file: FileId, outcome: &DownloadOutcome) -> Checked {
        let has_source = self.has_usable_source(file);
        let state = &mut self.files[file];
        prop_assert!(!std::mem::replace(&mut state.is_ended, true), "file {file} ends twice");
        state.is_saved = matches!(outcome, DownloadOutcome::Saved { .. });
        if state.outcomes.contains(&format!("{outcome:?}")) {
            return Ok(());
        }
        let answer = &self.answer;
        let is_answered = answer.is_fresh && answer.queried.contains(&file);
        let waited_until = state.usable_until.map(|until| until + self.retry_for);
        let is_over = waited_until.is_none_or(|until| until <= self.now);
        // All that the server names have been found unable to serve it, and no busy source is waited for.
        let is_rejected =
            is_answered && answer.named.contains(&file) && state.usable_until.is_none_or(|until| until <= self.now);
        let is_explained = match outcome {
            DownloadOutcome::Failed(DownloadError::Interrupted) => self.was_interrupted,
            DownloadOutcome::Failed(DownloadError::NotFound) => {
                is_answered && !answer.is_error && !state.was_offered && !has_source
            }
            DownloadOutcome::Failed(DownloadError::Request(_)) => {
                answer.is_fresh && answer.is_error && !state.was_offered
            }
            DownloadOutcome::Failed(_) => !has_source && state.was_offered && (is_over || is_rejected),
            _ => false,
        };
        prop_assert!(is_explained, "file {file} ends with {outcome:?}, and nothing explains it");
        Ok(())
    }
}
