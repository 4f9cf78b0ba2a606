//! Events in, effects out, in virtual time.

mod lost;
mod sources;
mod storm;

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::client::control::RequestError;
use crate::client::download::group_set::GroupSet;
use crate::client::download::incomplete_file::IncompleteFile;
use crate::client::download::scheduler::STALL_TIMEOUT;
use crate::common::chunk_tree::GroupHashes;
use crate::common::types::{Content, ContentHash, FileName, NamedContent};

const MIB: u64 = 1 << 20;

fn jobs(sizes: &[u64]) -> Vec<FileJob> {
    let job = |(index, &size): (usize, &u64)| {
        let content = Content { hash: ContentHash([index as u8 + 1; 32]), size, mtime_ms: 0 };
        FileJob { index, item: NamedContent { name: FileName::parse(&format!("file{index}")).unwrap(), content } }
    };
    sizes.iter().enumerate().map(job).collect()
}

/// A coordinator in virtual time.
struct Fixture<'a> {
    now: Instant,
    coordinator: Coordinator<'a>,
    jobs: &'a [FileJob],
    dir: TempDir,
    failures: HashMap<FileId, String>,
}

impl<'a> Fixture<'a> {
    fn new(jobs: &'a [FileJob], history: &'a mut PeerHistory, retry_for: Duration) -> Self {
        let now = Instant::now();
        let coordinator = Coordinator::new(now, jobs, retry_for, history, Some(now));
        Self { now, coordinator, jobs, dir: tempfile::tempdir().unwrap(), failures: HashMap::new() }
    }

    fn feed(&mut self, event: DownloadEvent) -> Vec<Effect> {
        self.coordinator.on_event(self.now, event);
        self.advance()
    }

    fn advance(&mut self) -> Vec<Effect> {
        let effects = self.coordinator.advance(self.now);
        let next = self.coordinator.poll_timeout(self.now).filter(|_| !self.coordinator.is_finished());
        assert!(next.is_none_or(|next| next >= self.now), "timers in the past would be polled for ever");
        for effect in &effects {
            if let Effect::Report(DownloadReport::Finished(file, DownloadOutcome::Failed(error))) = effect {
                self.failures.insert(*file, error.to_string());
            }
        }
        effects
    }

    fn source(&mut self, id: SourceId, event: SourceEvent) -> Vec<Effect> {
        self.feed(DownloadEvent::Source(id, event))
    }

    fn file(&mut self, file: FileId, event: FileEvent) -> Vec<Effect> {
        self.feed(DownloadEvent::File(file, event))
    }

    /// The server's response to the query in flight, about all files: these users serve these.
    fn found(&mut self, requested_at: Instant, users: &[(&str, &[FileId])]) -> Vec<Effect> {
        self.found_of((0..self.jobs.len()).collect(), requested_at, users)
    }

    /// The response to a query about these files. The users' files are indices of them.
    fn found_of(&mut self, files: Vec<FileId>, requested_at: Instant, users: &[(&str, &[FileId])]) -> Vec<Effect> {
        let offers = users.iter().map(|(user, files)| SourceOffer {
            user: UserName::parse(user).unwrap(),
            address: ([127, 0, 0, 1], port(user)).into(),
            key: [0; 32].into(),
            ticket: Vec::new(),
            files: files.to_vec(),
        });
        let offers = Ok(offers.collect());
        self.feed(DownloadEvent::SourcesFound(SourcesFound { requested_at, received_at: self.now, files, offers }))
    }

    /// The response to the query that was in flight at the beginning.
    fn first_found(&mut self, users: &[(&str, &[FileId])]) -> Vec<Effect> {
        self.found(self.now, users)
    }

    /// Source 0 is connected and has delivered the outline of file 0, which is open now; source 1 is being dialled for
    /// file 1, if there is one. Returns the last effects.
    fn connect_and_open(&mut self) -> Vec<Effect> {
        let offers: [(&str, &[FileId]); 2] = [("hans", &[0]), ("vader", &[1])];
        assert_eq!(kinds(&self.first_found(&offers[..self.jobs.len()])), ["dial 0", "dial 1"][..self.jobs.len()]);
        assert_eq!(kinds(&self.source(0, SourceEvent::Connected(vec![0]))), ["outline of 0 from 0"]);
        let outline = self.outline(0);
        assert_eq!(kinds(&self.source(0, SourceEvent::Outline(0, outline))), ["open 0"]);
        self.open()
    }

    /// The partial file of file 0 is open and empty.
    fn open(&mut self) -> Vec<Effect> {
        let opened = OpenedFile { incomplete: self.incomplete(0), candidates: Vec::new(), start_group: 0 };
        self.file(0, FileEvent::Opened(opened))
    }

    fn outline(&self, file: FileId) -> GroupHashes {
        let size = self.jobs[file].item.content.size;
        GroupHashes::from_groups(size, vec![[7; 32]; group_count(size) as usize]).unwrap()
    }

    fn incomplete(&self, file: FileId) -> Arc<IncompleteFile> {
        IncompleteFile::with_verified(self.dir.path(), self.outline(file), &[])
    }

    /// The source delivers these groups, and they are verified.
    fn deliver(&mut self, id: SourceId, assignments: &[Assignment]) -> Vec<Effect> {
        let (bytes, completed) = (MIB * assignments.len() as u64, assignments.to_vec());
        self.coordinator.on_event(self.now, DownloadEvent::Source(id, SourceEvent::Received { bytes, completed }));
        let results = assignments.iter().copied().map(StoreResult::Verified).collect();
        self.source(id, SourceEvent::Stored(results))
    }

    /// Advances the time to the next timer.
    fn wait(&mut self) -> Vec<Effect> {
        self.now = self.coordinator.poll_timeout(self.now).expect("a timer is set");
        self.advance()
    }

    fn failure(&self, file: FileId) -> &str {
        &self.failures[&file]
    }
}

/// A port for each user.
fn port(user: &str) -> u16 {
    1_000 + u16::from(user.as_bytes()[0])
}

/// The users who are dialled.
fn dialled<'a>(effects: &'a [Effect]) -> Vec<&'a str> {
    let user = |effect: &'a Effect| match effect {
        Effect::Dial(_, offer) => Some(offer.user.as_str()),
        _ => None,
    };
    effects.iter().filter_map(user).collect()
}

/// Whose data was verified for the first time.
fn owners<'a>(effects: &'a [Effect]) -> Vec<(FileId, &'a str)> {
    let owner = |effect: &'a Effect| match effect {
        Effect::Report(DownloadReport::Delivered(file, user)) => Some((*file, user.as_str())),
        _ => None,
    };
    effects.iter().filter_map(owner).collect()
}

/// The effects in words, without what [`owners`] returns.
fn kinds(effects: &[Effect]) -> Vec<String> {
    let kind = |effect: &Effect| match effect {
        Effect::FindSources { files, .. } => format!("find sources of {files:?}"),
        Effect::Dial(id, _) => format!("dial {id}"),
        Effect::Send(id, SourceCommand::RequestGroups(requests)) => format!("{} groups from {id}", requests.len()),
        Effect::Send(id, SourceCommand::RequestOutline(file)) => format!("outline of {file} from {id}"),
        Effect::Send(id, SourceCommand::QueryAvailability(file)) => format!("availability of {file} from {id}"),
        Effect::Send(id, SourceCommand::Grant(_)) => format!("grant to {id}"),
        Effect::Send(id, SourceCommand::Cancel) => format!("cancel {id}"),
        Effect::Send(id, SourceCommand::Stop) => format!("stop {id}"),
        Effect::Open(file, _) => format!("open {file}"),
        Effect::Finalize(file, _) => format!("finalize {file}"),
        Effect::Close(_) => "close".to_owned(),
        Effect::Report(DownloadReport::Received { index, done, .. }) => format!("received {done} of {index}"),
        Effect::Report(DownloadReport::Started(file, _)) => format!("opened {file}"),
        Effect::Report(DownloadReport::Resumed { index, bytes }) => format!("resumed {bytes} of {index}"),
        Effect::Report(DownloadReport::Delivered(..)) => String::new(),
        Effect::Report(DownloadReport::Note(note)) => note.clone(),
        Effect::Report(DownloadReport::Finished(file, _)) => format!("finished {file}"),
        Effect::Report(DownloadReport::Waiting(user, reason)) => format!("waiting for {user}: {reason:?}"),
        Effect::Report(DownloadReport::SourceDropped { index, user, .. }) => format!("dropped {user} for {index}"),
    };
    effects.iter().map(kind).filter(|kind| !kind.is_empty()).collect()
}

/// The assignments that are requested from a source.
fn requested(effects: &[Effect], source: SourceId) -> Vec<Assignment> {
    let requests = effects.iter().filter_map(|effect| match effect {
        Effect::Send(id, SourceCommand::RequestGroups(requests)) if *id == source => Some(requests),
        _ => None,
    });
    requests.flatten().map(|request| request.assignment).collect()
}

fn saved(job: &FileJob) -> DownloadOutcome {
    DownloadOutcome::Saved { name: job.item.name.clone() }
}

#[test]
fn a_large_file_is_outlined_opened_requested_verified_and_finalized() {
    let (jobs, mut history) = (jobs(&[3 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    assert!(kinds(&fixture.coordinator.advance(fixture.now)).is_empty(), "the query is in flight already");
    let effects = fixture.connect_and_open();
    assert_eq!(kinds(&effects), ["opened 0", "2 groups from 0"], "two are in flight");
    let first = requested(&effects, 0);
    let effects = fixture.deliver(0, &first[..1]);
    assert_eq!(kinds(&effects), ["received 1048576 of 0", "1 groups from 0"]);
    let last = requested(&effects, 0);
    let effects = fixture.deliver(0, &[first[1], last[0]]);
    assert_eq!(kinds(&effects), ["received 2097152 of 0", "received 3145728 of 0", "finalize 0"]);
    assert!(!fixture.coordinator.is_finished());
    let effects = fixture.file(0, FileEvent::Finished(saved(&jobs[0])));
    assert!(fixture.coordinator.is_finished());
    assert_eq!(kinds(&effects), ["finished 0"]);
}

#[test]
fn only_who_delivered_something_that_was_verified_owns_a_file() {
    let (jobs, mut history) = (jobs(&[3 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    let requests = fixture.connect_and_open();
    let assignments = requested(&requests, 0);
    let bytes = MIB;
    let received = SourceEvent::Received { bytes, completed: assignments[..1].to_vec() };
    assert!(owners(&fixture.source(0, received)).is_empty(), "what has arrived may be anything");
    let verified = StoreResult::Verified(assignments[0]);
    assert_eq!(owners(&fixture.source(0, SourceEvent::Stored(vec![verified]))), [(0, "hans")]);
    assert!(owners(&fixture.deliver(0, &assignments[1..2])).is_empty(), "once");
}

#[test]
fn small_files_are_requested_at_once_and_the_source_is_stopped_when_nothing_is_left() {
    let (jobs, mut history) = (jobs(&[100, 200, 300]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0, 1]), ("vader", &[2])]);
    let effects = fixture.source(0, SourceEvent::Connected(vec![0, 1]));
    assert_eq!(kinds(&effects), ["2 groups from 0"]);
    let completed = requested(&effects, 0);
    assert!(kinds(&fixture.source(0, SourceEvent::Received { bytes: 300, completed })).is_empty());
    let results = (0..2).map(|file| StoreResult::SmallFile(file, saved(&jobs[file]))).collect();
    let effects = fixture.source(0, SourceEvent::Stored(results));
    assert_eq!(kinds(&effects), ["received 100 of 0", "finished 0", "received 200 of 1", "finished 1", "stop 0"]);
    let again = StoreResult::SmallFile(0, saved(&jobs[0]));
    assert!(kinds(&fixture.source(0, SourceEvent::Stored(vec![again]))).is_empty(), "only the first copy counts");
}

#[test]
fn an_idle_source_gets_the_groups_of_a_stalled_one_as_soon_as_it_counts_as_stalled() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0]), ("vader", &[0])]);
    fixture.source(0, SourceEvent::Connected(vec![0]));
    let outline = fixture.outline(0);
    fixture.source(0, SourceEvent::Outline(0, outline));
    let owed = requested(&fixture.open(), 0);
    let effects = fixture.source(1, SourceEvent::Connected(vec![0]));
    assert_eq!(kinds(&effects), ["1 groups from 1", "cancel 0"], "the longer queue is shared");
    let stolen = requested(&effects, 1);
    fixture.now += Duration::from_millis(10);
    let effects = fixture.deliver(1, &stolen);
    assert_eq!(kinds(&effects), ["received 1048576 of 0"]);
    let begun = fixture.now;
    let effects = loop {
        let effects = fixture.wait();
        if !effects.is_empty() {
            break effects;
        }
    };
    assert_eq!(kinds(&effects), ["1 groups from 1"], "the cancel is still not confirmed");
    assert!(fixture.now - begun <= STALL_TIMEOUT, "exactly when it has stalled");
    let rest = requested(&effects, 1);
    // What the relieved source delivers after all does not count.
    assert!(kinds(&fixture.deliver(0, &owed)).is_empty());
    assert_eq!(kinds(&fixture.deliver(1, &rest)), ["received 2097152 of 0", "finalize 0"]);
}

#[test]
fn a_source_with_wrong_bytes_is_stopped_dropped_and_not_dialled_again() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    let first = requested(&fixture.connect_and_open(), 0);
    let (bytes, completed) = (MIB, first[..1].to_vec());
    fixture.source(0, SourceEvent::Received { bytes, completed });
    let effects = fixture.source(0, SourceEvent::Stored(vec![StoreResult::Corrupt(first[0])]));
    assert_eq!(kinds(&effects), ["stop 0"]);
    let effects = fixture.source(0, SourceEvent::Ended(SourceEnd::Done));
    assert_eq!(kinds(&effects), ["dropped hans for 0", "close", "finished 0"]);
    assert_eq!(fixture.failure(0), "what the sources sent does not match the published hash");
    drop(fixture);
    let mut next_batch = Fixture::new(&jobs, &mut history, Duration::ZERO);
    assert_eq!(kinds(&next_batch.first_found(&[("hans", &[0])])), ["finished 0"]);
}

#[test]
fn files_without_a_source_fail_with_the_reason() {
    let (jobs, mut history) = (jobs(&[100, MIB * 2]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    assert_eq!(kinds(&fixture.first_found(&[])), ["finished 0", "finished 1"]);
    assert_eq!(fixture.failure(0), "no active peer serves it");

    let mut history = PeerHistory::default();
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let (requested_at, offers) = (fixture.now, Err(RequestError::Unreachable));
    let found = SourcesFound { requested_at, received_at: fixture.now, files: vec![0, 1], offers };
    assert_eq!(kinds(&fixture.feed(DownloadEvent::SourcesFound(found))), ["finished 0", "finished 1"]);
    assert_eq!(fixture.failure(0), RequestError::Unreachable.to_string());
}

#[test]
fn a_lost_file_is_queried_again_and_again_and_abandoned_after_the_retry_time() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.connect_and_open();
    fixture.now += Duration::from_secs(60);
    let lost = fixture.now;
    let effects = fixture.source(0, SourceEvent::Ended(SourceEnd::Lost("the connection was cut".to_owned())));
    assert_eq!(kinds(&effects), ["find sources of [0]"]);
    let mut queried_at = vec![fixture.now];
    while !fixture.coordinator.is_finished() {
        let requested_at = *queried_at.last().unwrap();
        let mut effects = fixture.found(requested_at, &[]);
        while effects.is_empty() {
            effects = fixture.wait();
        }
        if kinds(&effects) == ["find sources of [0]"] {
            queried_at.push(fixture.now);
        }
    }
    assert_eq!(fixture.now - lost, Duration::from_secs(10));
    let waits: Vec<u128> = queried_at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000]);
    assert_eq!(fixture.failure(0), "hans: the connection was cut");
}

#[test]
fn a_file_that_waits_for_the_partial_file_of_another_starts_when_that_one_is_abandoned() {
    let (mut jobs, mut history) = (jobs(&[2 * MIB, 2 * MIB]), PeerHistory::default());
    jobs[1].item.content = jobs[0].item.content;
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.connect_and_open();
    assert!(kinds(&fixture.source(1, SourceEvent::Connected(vec![1]))).is_empty());
    let effects = fixture.source(0, SourceEvent::Ended(SourceEnd::Lost("the connection was cut".to_owned())));
    assert_eq!(kinds(&effects), ["close", "finished 0", "outline of 1 from 1"]);
}

#[test]
fn a_busy_source_is_dialled_again_when_it_asks_to_and_reported_once() {
    let (jobs, mut history) = (jobs(&[100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::ZERO);
    fixture.first_found(&[("hans", &[0])]);
    let busy = || SourceEvent::Ended(SourceEnd::Busy { retry_ms: 250 });
    assert_eq!(kinds(&fixture.source(0, busy())), ["waiting for hans: Busy", "find sources of [0]"]);
    let busy_at = fixture.now;
    assert!(kinds(&fixture.found(busy_at, &[("hans", &[0])])).is_empty());
    assert_eq!(kinds(&fixture.wait()), ["dial 0"]);
    assert_eq!(fixture.now - busy_at, Duration::from_millis(250));
    assert_eq!(kinds(&fixture.source(0, busy())), ["find sources of [0]"]);
}

#[test]
fn a_source_that_is_still_downloading_is_asked_for_its_groups_until_it_has_all() {
    let (jobs, mut history) = (jobs(&[2 * MIB]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let owed = requested(&fixture.connect_and_open(), 0);
    let effects = fixture.source(0, SourceEvent::NotAvailable(0, owed));
    assert_eq!(kinds(&effects), ["availability of 0 from 0", "find sources of [0]"]);
    let asked = fixture.now;
    fixture.found(asked, &[("hans", &[0])]);
    let effects = fixture.source(0, SourceEvent::Availability(0, Some(GroupSet::from_bytes(&[0b01]))));
    assert_eq!(kinds(&effects), ["1 groups from 0"]);
    assert_eq!(kinds(&fixture.wait()), ["availability of 0 from 0"]);
    assert_eq!(fixture.now - asked, AVAILABILITY_INTERVAL);
    let effects = fixture.source(0, SourceEvent::Availability(0, None));
    assert_eq!(kinds(&effects), ["1 groups from 0"], "the other one");
}

#[test]
fn a_further_ticket_goes_over_the_open_connection() {
    let (jobs, mut history) = (jobs(&[2 * MIB, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    fixture.connect_and_open();
    let effects = fixture.source(1, SourceEvent::Ended(SourceEnd::Lost("the connection was cut".to_owned())));
    assert_eq!(kinds(&effects), ["find sources of [1]"]);
    let requested_at = fixture.now;
    assert_eq!(kinds(&fixture.found(requested_at, &[("hans", &[1])])), ["grant to 0"]);
    assert_eq!(kinds(&fixture.source(0, SourceEvent::Granted(vec![1]))), Vec::<String>::new(), "two are in flight");
}

#[test]
fn an_interrupt_fails_all_unfinished_files_and_closes_their_partial_files() {
    let (jobs, mut history) = (jobs(&[2 * MIB, 100]), PeerHistory::default());
    let mut fixture = Fixture::new(&jobs, &mut history, Duration::from_secs(10));
    let effects = fixture.connect_and_open();
    let Some(Effect::Report(DownloadReport::Started(0, incomplete))) = effects.first() else { panic!("it is open") };
    assert!(!incomplete.is_closed());
    let effects = fixture.feed(DownloadEvent::Interrupted);
    assert_eq!(kinds(&effects), ["close", "finished 0", "finished 1"]);
    let Some(Effect::Close(closed)) = effects.first() else { panic!("it is closed") };
    assert!(Arc::ptr_eq(closed, incomplete) && fixture.coordinator.is_finished());
    assert_eq!(fixture.failure(1), "interrupted");
}
