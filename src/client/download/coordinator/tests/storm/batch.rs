//! The world around the coordinator: the server, the peers, the local disk and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::*;
use super::connection::{Outcome, SimulatedConnection, lost};
use super::plan::{AnswerKind, Conduct, DiskFault, DownloadStorm, Ms, NAMED_MAX};
use crate::common::chunk_tree::group_range;

pub(super) const USERS: [&str; 12] =
    ["ann", "bob", "cid", "dan", "eve", "fay", "gil", "hal", "ida", "jim", "kay", "leo"];
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// How old an outdated answer is.
const OUTDATED: Duration = Duration::from_secs(2);
/// Opening a partial file, examining a group in it, giving a file its name.
const DISK_TIME: Duration = Duration::from_millis(2);

/// Connections are numbered: the ids of sources are used again.
type ConnectionNumber = usize;

/// What happens at some time.
enum Happening {
    Answer {
        requested_at: Instant,
        files: Vec<FileId>,
        avoid: Vec<UserName>,
        kind: AnswerKind,
    },
    Dialled(ConnectionNumber, SourceOffer),
    Reply(ConnectionNumber),
    End(ConnectionNumber, SourceEnd),
    Stored {
        connection: ConnectionNumber,
        assignment: Assignment,
        incomplete: Option<Arc<IncompleteFile>>,
        is_right: bool,
    },
    File(FileId, FileEvent),
    Scanned(FileId, Arc<IncompleteFile>, u32),
    Left(usize),
    Interrupt,
}

pub(super) struct SimulatedBatch<'a> {
    plan: &'a DownloadStorm,
    jobs: &'a [FileJob],
    begun: Instant,
    now: Instant,
    /// What happens when, in this order.
    agenda: BTreeMap<(Instant, u64), Happening>,
    scheduled: u64,
    connections: Vec<SimulatedConnection>,
    /// The connection of each source that has not ended.
    current: BTreeMap<SourceId, ConnectionNumber>,
    dials: Vec<usize>,
    answers: usize,
    tickets: u32,
    /// The assignment that may write each group.
    assigned: BTreeMap<(FileId, u32), u32>,
    stored: Vec<u32>,
    saved: BTreeSet<FileId>,
    dir: TempDir,
}

impl<'a> SimulatedBatch<'a> {
    /// The first query is in flight.
    pub fn new(plan: &'a DownloadStorm, jobs: &'a [FileJob], begun: Instant) -> Self {
        let mut batch = Self {
            plan,
            jobs,
            begun,
            now: begun,
            agenda: BTreeMap::new(),
            scheduled: 0,
            connections: Vec::new(),
            current: BTreeMap::new(),
            dials: vec![0; plan.peers.len()],
            answers: 0,
            tickets: 0,
            assigned: BTreeMap::new(),
            stored: vec![0; jobs.len()],
            saved: BTreeSet::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        batch.query(begun, (0..jobs.len()).collect(), Vec::new());
        for (peer, away) in plan.peers.iter().enumerate().filter_map(|(peer, plan)| Some((peer, plan.away?))) {
            batch.schedule_at(begun + Duration::from_millis(away.from_ms), Happening::Left(peer));
        }
        if let Some(ms) = plan.interrupt_ms {
            batch.schedule_at(begun + Duration::from_millis(ms), Happening::Interrupt);
        }
        batch
    }

    pub fn elapsed(&self, now: Instant) -> Duration {
        now - self.begun
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.agenda.keys().next().map(|&(at, _)| at)
    }

    /// Whether something is under way that the coordinator waits for.
    pub fn is_busy(&self) -> bool {
        self.agenda.values().any(|happening| !matches!(happening, Happening::Left(_) | Happening::Interrupt))
    }

    /// What the threads report at this time; of several events one, unless the plan takes them in together.
    pub fn events_at(&mut self, now: Instant) -> Vec<DownloadEvent> {
        self.now = now;
        let mut events = Vec::new();
        while self.next_at().is_some_and(|at| at <= now) && (self.plan.is_batched || events.is_empty()) {
            let (_, happening) = self.agenda.pop_first().expect("it is due");
            events.extend(self.happen(happening));
        }
        events
    }

    pub fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::FindSources { requested_at, files, avoid } => self.query(requested_at, files, avoid),
            Effect::Dial(source, offer) => self.dial(source, offer),
            Effect::Send(source, command) => self.send(source, command),
            Effect::Open(file, outline) => self.open(file, outline),
            Effect::Finalize(file, incomplete) => {
                let outcome = match self.plan.files[file].disk {
                    DiskFault::Finalize => DownloadOutcome::Failed(DownloadError::Exists),
                    _ => saved(&self.jobs[file]),
                };
                incomplete.partial().unlock();
                self.schedule(DISK_TIME, Happening::File(file, FileEvent::Finished(outcome)));
            }
            Effect::Close(incomplete) => incomplete.close(),
            Effect::Report(_) => {}
        }
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.schedule_at(self.now + after, happening);
    }

    fn schedule_at(&mut self, at: Instant, happening: Happening) {
        self.scheduled += 1;
        self.agenda.insert((at, self.scheduled), happening);
    }

    fn ms(&self) -> Ms {
        (self.now - self.begun).as_millis() as Ms
    }

    fn happen(&mut self, happening: Happening) -> Vec<DownloadEvent> {
        match happening {
            Happening::Answer { requested_at, files, avoid, kind } => {
                let offers = match kind {
                    AnswerKind::Error => Err(RequestError::Unreachable),
                    AnswerKind::Empty => Ok(Vec::new()),
                    AnswerKind::Right | AnswerKind::Outdated => Ok(self.offers(&files, &avoid)),
                };
                let received_at = if kind == AnswerKind::Outdated { self.now - OUTDATED } else { self.now };
                vec![DownloadEvent::SourcesFound(SourcesFound { requested_at, received_at, files, offers })]
            }
            Happening::Dialled(number, offer) => self.on_dialled(number, offer),
            Happening::Reply(number) => self.on_reply(number),
            Happening::End(number, end) => self.event_of(number, SourceEvent::Ended(end)),
            Happening::Stored { connection, assignment, incomplete, is_right } => {
                let result = self.store(connection, assignment, incomplete, is_right);
                self.event_of(connection, SourceEvent::Stored(vec![result]))
            }
            Happening::File(file, event) => vec![DownloadEvent::File(file, event)],
            Happening::Scanned(_, incomplete, _) if incomplete.is_closed() => Vec::new(),
            Happening::Scanned(file, _, group) => {
                let is_present = self.plan.files[file].present & 1 << group != 0;
                let event = if is_present { FileEvent::GroupPresent(group) } else { FileEvent::GroupMissing(group) };
                vec![DownloadEvent::File(file, event)]
            }
            Happening::Left(peer) => {
                let left = |(_, connection): &(usize, &SimulatedConnection)| connection.peer == peer;
                let numbers: Vec<_> = self.connections.iter().enumerate().filter(left).map(|(at, _)| at).collect();
                numbers.into_iter().for_each(|number| self.end(number, lost("it has left"), Duration::ZERO));
                Vec::new()
            }
            Happening::Interrupt => vec![DownloadEvent::Interrupted],
        }
    }

    /// An event of a connection that the coordinator has not seen the end of.
    fn event_of(&mut self, number: ConnectionNumber, event: SourceEvent) -> Vec<DownloadEvent> {
        let source = self.connections[number].source;
        if matches!(event, SourceEvent::Ended(_)) {
            self.current.remove(&source);
        }
        vec![DownloadEvent::Source(source, event)]
    }

    fn query(&mut self, requested_at: Instant, files: Vec<FileId>, avoid: Vec<UserName>) {
        let planned = self.plan.answers.get(self.answers);
        let (delay_ms, kind) = planned.map_or((1, AnswerKind::Right), |answer| (answer.delay_ms, answer.kind));
        self.answers += 1;
        self.schedule(Duration::from_millis(delay_ms), Happening::Answer { requested_at, files, avoid, kind });
    }

    /// Whether the peer has the file, as of a time.
    fn has_file(&self, peer: usize, file: FileId, ms: Ms) -> bool {
        let planned = &self.plan.peers[peer];
        planned.files & 1 << file != 0 && !planned.forgets.is_some_and(|(forgotten, at)| forgotten == file && at <= ms)
    }

    fn is_there(&self, peer: usize, ms: Ms) -> bool {
        let away = self.plan.peers[peer].away;
        !away.is_some_and(|away| away.from_ms <= ms && away.until_ms.is_none_or(|until| ms < until))
    }

    fn address(&self, peer: usize, ms: Ms) -> SocketAddr {
        let planned = &self.plan.peers[peer];
        if planned.is_liar && peer > 0 {
            return self.address(peer - 1, ms);
        }
        let is_moved = planned.away.is_some_and(|away| away.is_moved && away.until_ms.is_some_and(|until| until <= ms));
        ([127, 0, 0, 1], 1_000 + peer as u16 + if is_moved { 1_000 } else { 0 }).into()
    }

    /// What the server answers: who had the files a while ago.
    fn offers(&mut self, files: &[FileId], avoid: &[UserName]) -> Vec<SourceOffer> {
        let ms = self.ms().saturating_sub(self.plan.lag_ms);
        let users: Vec<UserName> = USERS.iter().map(|user| UserName::parse(user).unwrap()).collect();
        let mut granted = vec![Vec::new(); self.plan.peers.len()];
        for (at, &file) in files.iter().enumerate() {
            let has = |&peer: &usize| self.is_there(peer, ms) && self.has_file(peer, file, ms);
            let all: Vec<usize> = (0..self.plan.peers.len()).filter(has).collect();
            let helpful: Vec<usize> = all.iter().copied().filter(|&peer| !avoid.contains(&users[peer])).collect();
            let mut named = if helpful.is_empty() { all } else { helpful };
            let first = self.answers % named.len().max(1);
            named.rotate_left(first);
            named.into_iter().take(NAMED_MAX).for_each(|peer| granted[peer].push(at));
        }
        let mut offers = Vec::new();
        for (peer, files) in granted.into_iter().enumerate().filter(|(_, files)| !files.is_empty()) {
            self.tickets += 1;
            let (user, address) = (users[peer].clone(), self.address(peer, ms));
            let ticket = self.tickets.to_be_bytes().to_vec();
            offers.push(SourceOffer { user, address, key: [0; 32].into(), ticket, files });
        }
        offers
    }

    fn dial(&mut self, source: SourceId, offer: SourceOffer) {
        let peer = USERS.iter().position(|user| *user == offer.user.as_str()).expect("a peer");
        let (number, planned) = (self.connections.len(), &self.plan.peers[peer]);
        let is_reached =
            self.is_there(peer, self.ms()) && !planned.is_liar && self.address(peer, self.ms()) == offer.address;
        let conduct = match is_reached {
            true => planned.conducts.get(self.dials[peer]).copied().unwrap_or(Conduct::Honest),
            false => Conduct::Refuses,
        };
        self.dials[peer] += usize::from(is_reached);
        let delay = match conduct {
            Conduct::Ignores => DIAL_TIMEOUT,
            _ => Duration::from_millis(planned.delay_ms),
        };
        self.connections.push(SimulatedConnection::new(source, peer, conduct, self.now));
        self.current.insert(source, number);
        self.schedule(delay, Happening::Dialled(number, offer));
    }

    fn on_dialled(&mut self, number: ConnectionNumber, offer: SourceOffer) -> Vec<DownloadEvent> {
        if self.connections[number].is_ended {
            return Vec::new();
        }
        let end = match self.connections[number].conduct {
            Conduct::Busy { after: 0, retry_ms } => SourceEnd::Busy { retry_ms },
            Conduct::NoResources => SourceEnd::NoResources("no descriptor is left".to_owned()),
            Conduct::Refuses | Conduct::Ignores => lost("it cannot be reached"),
            _ => {
                let connection = &mut self.connections[number];
                connection.is_connected = true;
                connection.granted.extend(&offer.files);
                return self.event_of(number, SourceEvent::Connected(offer.files));
            }
        };
        self.end(number, end, Duration::ZERO);
        Vec::new()
    }

    fn send(&mut self, source: SourceId, command: SourceCommand) {
        let Some(&number) = self.current.get(&source) else {
            // Its end was reported together with what made the coordinator stop it; the oracle judges other commands.
            return;
        };
        if matches!(command, SourceCommand::Stop) {
            return self.end(number, SourceEnd::Done, Duration::ZERO);
        }
        if let SourceCommand::RequestGroups(requests) = &command {
            for GroupRequest { assignment: Assignment { file, group, id }, .. } in requests {
                let assigned = self.assigned.entry((*file, *group)).or_insert(0);
                *assigned = (*assigned).max(*id);
            }
        }
        let planned = &self.plan.peers[self.connections[number].peer];
        self.connections[number].follow(command, planned.group_ms);
        self.schedule_reply(number, planned.delay_ms);
    }

    fn schedule_reply(&mut self, number: ConnectionNumber, delay_ms: Ms) {
        let connection = &mut self.connections[number];
        if !connection.is_sending && !connection.queue.is_empty() && !connection.is_ended {
            connection.is_sending = true;
            let after = Duration::from_millis(delay_ms + connection.part_ms());
            self.schedule(after, Happening::Reply(number));
        }
    }

    fn on_reply(&mut self, number: ConnectionNumber) -> Vec<DownloadEvent> {
        self.connections[number].is_sending = false;
        if self.connections[number].is_ended {
            return Vec::new();
        }
        let (peer, ms, jobs) = (self.connections[number].peer, self.ms(), self.jobs);
        let planned = &self.plan.peers[peer];
        let bytes = |Assignment { file, group, .. }| group_bytes(jobs, file, group);
        let has = |file: FileId, group: u32| {
            let count = self.plan.files[file].groups;
            let grown = planned.grow_ms.is_none_or(|grow| Ms::from(group + 1) * grow <= ms);
            grown || group >= count || count == 1
        };
        let forgotten: Vec<FileId> = (0..jobs.len()).filter(|&file| !self.has_file(peer, file, ms)).collect();
        let outcome = self.connections[number].send(planned.group_ms, bytes, has, |file| forgotten.contains(&file));
        let events = match outcome {
            Outcome::Events(events) => events,
            Outcome::Outline(file) => vec![SourceEvent::Outline(file, outline(jobs, file))],
            Outcome::Group { assignment, incomplete, bytes, is_right } => {
                let connection = &mut self.connections[number];
                connection.stored_at = connection.stored_at.max(self.now) + Duration::from_millis(self.plan.store_ms);
                let at = connection.stored_at;
                self.schedule_at(at, Happening::Stored { connection: number, assignment, incomplete, is_right });
                vec![SourceEvent::Received { bytes, completed: vec![assignment] }]
            }
            Outcome::End(end) => {
                self.end(number, end, Duration::ZERO);
                return Vec::new();
            }
            Outcome::Silence => {
                // Another request does not make it speak.
                self.connections[number].is_sending = true;
                self.schedule(SILENCE_TIMEOUT, Happening::Reply(number));
                match std::mem::replace(&mut self.connections[number].conduct, Conduct::Cuts { after: 0 }) {
                    Conduct::Stalls { .. } => return Vec::new(),
                    other => unreachable!("{other:?} is not silent"),
                }
            }
        };
        self.schedule_reply(number, 0);
        events.into_iter().flat_map(|event| self.event_of(number, event)).collect()
    }

    /// Ends the connection, once what has arrived is stored.
    fn end(&mut self, number: ConnectionNumber, end: SourceEnd, after: Duration) {
        let now = self.now;
        let connection = &mut self.connections[number];
        if !std::mem::replace(&mut connection.is_ended, true) {
            let after = after.max(connection.ends_after(now));
            self.schedule(after, Happening::End(number, end));
        }
    }

    fn store(
        &mut self,
        number: ConnectionNumber,
        assignment: Assignment,
        incomplete: Option<Arc<IncompleteFile>>,
        is_right: bool,
    ) -> StoreResult {
        let Assignment { file, group, id } = assignment;
        let is_stale = match &incomplete {
            Some(incomplete) => self.assigned[&(file, group)] != id || incomplete.is_closed(),
            None => self.saved.contains(&file),
        };
        if is_stale || self.connections[number].is_corrupt {
            return StoreResult::Discarded(assignment);
        }
        if !is_right {
            self.connections[number].is_corrupt = true;
            return StoreResult::Corrupt(assignment);
        }
        self.stored[file] += 1;
        let is_full = matches!(self.plan.files[file].disk, DiskFault::Write(after) if self.stored[file] > after);
        match (incomplete, is_full) {
            (Some(_), false) => StoreResult::Verified(assignment),
            (Some(_), true) => StoreResult::WriteFailed(file, DownloadError::DiskFull),
            (None, _) => {
                self.saved.insert(file);
                let full = DownloadOutcome::Failed(DownloadError::DiskFull);
                StoreResult::SmallFile(file, if is_full { full } else { saved(&self.jobs[file]) })
            }
        }
    }

    fn open(&mut self, file: FileId, outline: GroupHashes) {
        if self.plan.files[file].disk == DiskFault::Open {
            let full = DownloadOutcome::Failed(DownloadError::DiskFull);
            return self.schedule(DISK_TIME, Happening::File(file, FileEvent::Finished(full)));
        }
        let incomplete = IncompleteFile::with_verified(self.dir.path(), outline, &[]);
        let is_candidate = |group: &u32| self.plan.files[file].candidates & 1 << group != 0;
        let candidates: Vec<u32> = (0..self.plan.files[file].groups).filter(is_candidate).collect();
        let (opened, start_group) = (incomplete.clone(), self.plan.files[file].groups / 2);
        let event = FileEvent::Opened(OpenedFile { incomplete: opened, candidates: candidates.clone(), start_group });
        self.schedule(DISK_TIME, Happening::File(file, event));
        for (at, group) in candidates.into_iter().enumerate() {
            let after = DISK_TIME * (at as u32 + 2);
            self.schedule(after, Happening::Scanned(file, incomplete.clone(), group));
        }
    }
}

/// The outline of a file: different contents have different ones.
fn outline(jobs: &[FileJob], file: FileId) -> GroupHashes {
    let content = jobs[file].item.content;
    GroupHashes::from_groups(content.size, vec![content.hash.0; group_count(content.size) as usize]).unwrap()
}

pub(super) fn group_bytes(jobs: &[FileJob], file: FileId, group: u32) -> u64 {
    let range = group_range(jobs[file].item.content.size, group);
    range.end - range.start
}
