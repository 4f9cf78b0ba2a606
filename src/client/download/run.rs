//! One set of files under way: what its threads share, and what they do to files.
//!
//! `desk` coordinates on the calling thread; every source has a thread of its own (see `source`). They meet in [`State`],
//! which is locked for moments only: never while a file or a socket is waited for.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::desk::{self, Asking, Book};
use super::discovery::{SourceDiscovery, SourceOffer};
use super::give_up::Hope;
use super::incomplete_file::IncompleteFile;
use super::partial_file::Part;
use super::scheduler::{FileId, Plan, SourceId};
use super::target::{Finalized, TargetDir, TargetState, target_state_in};
use super::{DownloadError, DownloadOptions, DownloadOutcome, DownloadProgress, OnExists, predecessors};
use crate::common::chunk_tree::{GroupHashes, group_count};
use crate::common::types::{Content, FileName, UserName};

/// How long anything waits before it looks again whether the user wants to stop.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Added to the time after which a busy source wants to be asked again.
const BUSY_GRACE: Duration = Duration::from_secs(1);
/// Small files of the same content are written one after the other; different ones seldom meet at the same lock.
const SAME_CONTENT_LOCKS: usize = 64;
/// Another process that downloads the same small file holds its part only while it writes: how often to look again, and
/// how long to wait between.
const SMALL_TRIES: u32 = 100;
const SMALL_PAUSE: Duration = Duration::from_millis(10);

/// A file to be fetched that is not there yet.
pub(super) struct Job {
    /// Its place among the wanted files.
    pub index: usize,
    pub name: FileName,
    pub content: Content,
}

/// What is known of a file beside its plan.
pub(super) struct JobState {
    /// Its outcome is decided.
    pub is_finished: bool,
    outcome: Option<DownloadOutcome>,
    pub arriving: Option<Arc<IncompleteFile>>,
    /// Users who cannot serve this file.
    pub out: HashSet<UserName>,
    /// A source was known at some time.
    pub was_offered: bool,
    pub hope: Hope,
    /// Why the last source failed.
    reason: Option<String>,
    /// Some source served other bytes; some had another trouble.
    lied: bool,
    troubled: bool,
}

impl JobState {
    fn new(now: Instant) -> Self {
        Self {
            is_finished: false,
            outcome: None,
            arriving: None,
            out: HashSet::new(),
            was_offered: false,
            hope: Hope::new(now),
            reason: None,
            lied: false,
            troubled: false,
        }
    }

    /// What to say when no source is left.
    pub fn failure(&self) -> DownloadError {
        if self.lied && !self.troubled {
            return DownloadError::HashMismatch;
        }
        let reason = self.reason.as_deref().unwrap_or("no source is left");
        DownloadError::Transfer(reason.to_owned())
    }
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing is left to ask of it.
    Over,
    /// All its slots are taken; come back after so many milliseconds.
    Busy(u16),
    /// It was lost.
    Lost(String),
    /// It sent what it should not have.
    Liar(String),
}

/// A source with a connection.
pub(super) struct Live {
    pub id: SourceId,
    pub user: UserName,
    pub stream: Option<TcpStream>,
    /// Tickets to be shown on the connection.
    pub grants: Vec<SourceOffer>,
}

/// A connection that has ended, for the coordinator's book.
pub(super) struct Ended {
    pub address: SocketAddr,
    pub user: UserName,
    pub end: End,
    /// Something it sent was verified.
    pub has_delivered: bool,
}

/// What all threads of a run share.
pub(super) struct State {
    pub plan: Plan,
    pub jobs: Vec<JobState>,
    pub unfinished: usize,
    pub is_over: bool,
    /// Counts the changes that others may wait for.
    pub changes: u64,
    /// What abandoned parts turned out to hold.
    pub found_bytes: u64,
    pub live: HashMap<SocketAddr, Live>,
    pub ended: Vec<Ended>,
    /// Unfinished parts to be let go of when all sources have stopped.
    pub given_up: Vec<(FileId, Arc<IncompleteFile>)>,
    /// Outlines that have come, of files whose part must be opened.
    pub outlines: Vec<(FileId, GroupHashes)>,
}

impl State {
    /// Whether the source is not yet asked for this file, which it may serve and is needed.
    pub fn is_new_to(&self, source: SourceId, user: &UserName, file: FileId) -> bool {
        let job = &self.jobs[file];
        !job.is_finished && !job.out.contains(user) && !self.plan.covers(source, file)
    }

    /// The source has offered these, and will be asked for them as soon as it has accepted the tickets.
    pub fn promise(&mut self, source: SourceId, user: &UserName, offers: &[SourceOffer]) {
        for &file in offers.iter().flat_map(|offer| &offer.files) {
            if !self.jobs[file].out.contains(user) {
                self.plan.promise(source, file);
            }
        }
    }

    /// Whether the offer has anything that is still needed and its user can serve.
    pub fn needs(&self, offer: &SourceOffer) -> bool {
        let is_needed = |&file: &FileId| !self.jobs[file].is_finished && !self.jobs[file].out.contains(&offer.user);
        offer.files.iter().any(is_needed)
    }
}

/// One set of files and all that is shared by the threads that fetch them.
pub(super) struct Run<'a> {
    pub target_dir: &'a TargetDir,
    pub options: &'a DownloadOptions,
    pub progress: &'a dyn DownloadProgress,
    pub jobs: Vec<Job>,
    state: Mutex<State>,
    changed: Condvar,
    same_content: [Mutex<()>; SAME_CONTENT_LOCKS],
}

impl<'a> Run<'a> {
    /// For jobs that must be fetched.
    pub fn new(
        target_dir: &'a TargetDir,
        options: &'a DownloadOptions,
        progress: &'a dyn DownloadProgress,
        jobs: Vec<Job>,
    ) -> Self {
        let mut plan = Plan::default();
        for (job, before) in jobs.iter().zip(predecessors(&jobs)) {
            // Files of one group are written in one go; only the others need their part file for long.
            plan.add_file(job.content.size, before.filter(|_| group_count(job.content.size) > 1));
        }
        let now = Instant::now();
        let state = State {
            plan,
            jobs: jobs.iter().map(|_| JobState::new(now)).collect(),
            unfinished: jobs.len(),
            is_over: false,
            changes: 0,
            found_bytes: 0,
            live: HashMap::new(),
            ended: Vec::new(),
            given_up: Vec::new(),
            outlines: Vec::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Self { target_dir, options, progress, jobs, state, changed, same_content: [const { Mutex::new(()) }; _] }
    }

    /// Fetches all, with what has been asked ahead; gives the outcomes by the files' places among the wanted ones.
    pub fn fetch(
        self,
        ask: &Arc<dyn SourceDiscovery>,
        book: &mut Book,
        asking: Option<Asking>,
    ) -> Vec<(usize, DownloadOutcome)> {
        for file in 0..self.jobs.len() {
            if self.jobs[file].content.size == 0 {
                self.save_small(file, &[]);
            }
        }
        thread::scope(|scope| desk::coordinate(&self, scope, ask, book, asking));
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.given_up.iter().for_each(|(_, arriving)| arriving.part().unlock());
        // Whoever wants to know whether anything was sent twice.
        let (received, found) = (state.plan.received_bytes, state.found_bytes);
        log::debug!("received {received} bytes, found {found} bytes verified in unfinished parts");
        let outcome = |state: JobState| state.outcome.expect("the coordinator leaves none unfinished");
        self.jobs.iter().map(|job| job.index).zip(state.jobs.into_iter().map(outcome)).collect()
    }

    /// The state, locked.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changes after what `seen` counts, or a while.
    pub fn wait(&self, state: MutexGuard<'_, State>, seen: u64) {
        if !state.is_over && state.changes == seen {
            drop(self.changed.wait_timeout(state, TICK));
        }
    }

    /// Something has changed that others may wait for.
    pub fn notify(&self) {
        self.state().changes += 1;
        self.changed.notify_all();
    }

    /// A file is finished, well or not. Only the first word counts.
    pub fn finish(&self, file: FileId, outcome: DownloadOutcome) {
        let mut state = self.state();
        if std::mem::replace(&mut state.jobs[file].is_finished, true) {
            return;
        }
        let arriving = state.jobs[file].arriving.take();
        if !matches!(outcome, DownloadOutcome::Saved { .. }) {
            // Until its sources have stopped, their last pieces may still be written.
            state.given_up.extend(arriving.map(|arriving| (file, arriving)));
        }
        state.plan.done(file);
        drop(state);
        self.progress.finished(self.jobs[file].index, &outcome);
        let mut state = self.state();
        state.jobs[file].outcome = Some(outcome);
        state.unfinished -= 1;
        let is_awaited = state.unfinished == 0 || group_count(self.jobs[file].content.size) > 1;
        drop(state);
        // Nobody waits for one small file among many.
        if is_awaited {
            self.notify();
        }
    }

    /// Takes a small content whose bytes have arrived: `false` if they are not what was published.
    pub fn save_small(&self, file: FileId, bytes: &[u8]) -> bool {
        let content = &self.jobs[file].content;
        if blake3::hash(bytes).as_bytes() != &content.hash.0 {
            if bytes.is_empty() {
                self.finish(file, DownloadOutcome::Failed(DownloadError::HashMismatch));
            }
            return false;
        }
        let lock = &self.same_content[usize::from(content.hash.0[0]) % SAME_CONTENT_LOCKS];
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.write_small(file, bytes);
        drop(guard);
        if !bytes.is_empty() && matches!(outcome, DownloadOutcome::Saved { .. }) {
            self.progress.received(self.jobs[file].index, content.size, content.size);
        }
        self.finish(file, outcome);
        true
    }

    fn write_small(&self, file: FileId, bytes: &[u8]) -> DownloadOutcome {
        let job = &self.jobs[file];
        let part = self.target_dir.open_parent(&job.name).map_err(Into::into).and_then(|folder| {
            let mut part = Part::open(folder.clone(), &job.content.hash);
            for _ in 1..SMALL_TRIES {
                if !matches!(part, Err(DownloadError::Locked)) || self.progress.interrupted() {
                    break;
                }
                thread::sleep(SMALL_PAUSE);
                part = Part::open(folder.clone(), &job.content.hash);
            }
            part
        });
        match part {
            Ok(part) => match part.fill(bytes) {
                Ok(()) => self.settle(file, &part),
                Err(error) => {
                    part.discard();
                    DownloadOutcome::Failed(error.into())
                }
            },
            Err(error) => DownloadOutcome::Failed(error),
        }
    }

    /// Gives a verified part its name.
    pub fn settle(&self, file: FileId, part: &Part) -> DownloadOutcome {
        let (name, content) = (&self.jobs[file].name, &self.jobs[file].content);
        let policy = self.options.on_exists;
        let settled = part
            .set_mtime(content.mtime_ms)
            .and_then(|()| self.target_dir.finalize(part.folder(), part.name(), name, policy));
        match settled {
            Ok(Finalized::Saved(name)) => DownloadOutcome::Saved { name },
            Ok(Finalized::Exists) => self.taken(file, part),
            Err(error) => DownloadOutcome::Failed(error.into()),
        }
    }

    /// Another has made the target meanwhile.
    fn taken(&self, file: FileId, part: &Part) -> DownloadOutcome {
        let (name, content) = (&self.jobs[file].name, &self.jobs[file].content);
        let leaf = super::target::split_parent(name).1;
        let standing = target_state_in(part.folder(), leaf, content, &|| self.progress.interrupted());
        match (standing, self.options.on_exists) {
            (Ok(TargetState::Identical), _) => {
                part.discard();
                DownloadOutcome::Saved { name: name.clone() }
            }
            (Ok(_), OnExists::Skip) => {
                part.discard();
                DownloadOutcome::Skipped
            }
            // The part is whole: the same command with another policy needs no transfer.
            (Ok(_), _) => DownloadOutcome::Failed(DownloadError::Exists),
            (Err(error), _) => DownloadOutcome::Failed(error.into()),
        }
    }

    /// A source cannot serve a file; whether that is news.
    pub fn cannot_serve(&self, source: SourceId, user: &UserName, file: FileId, why: &str) -> bool {
        let mut state = self.state();
        state.plan.uncover(source, file);
        let job = &mut state.jobs[file];
        let is_news = job.out.insert(user.clone());
        job.reason = Some(format!("{user}: {why}"));
        job.troubled = true;
        drop(state);
        self.notify();
        is_news
    }

    /// A source's connection has ended.
    pub fn source_ended(&self, source: SourceId, address: SocketAddr, end: End, blamed: FileId, has_delivered: bool) {
        let mut state = self.state();
        let Some(Live { user, stream, .. }) = state.live.remove(&address) else { return };
        if !state.is_over {
            let reason = match &end {
                End::Lost(why) => Some(format!("{user}: {why}")),
                End::Liar(why) => Some(format!("{user} was dropped: {why} ({})", self.jobs[blamed].name)),
                End::Busy(_) => Some(format!("{user}: all its upload slots are taken")),
                End::Over => None,
            };
            for file in (0..self.jobs.len()).filter(|_| reason.is_some()) {
                if !state.plan.covers(source, file) {
                    continue;
                }
                let job = &mut state.jobs[file];
                job.reason.clone_from(&reason);
                // Of the other files it may have served nothing at all.
                let is_lie = matches!(end, End::Liar(_)) && file == blamed;
                job.lied |= is_lie;
                job.troubled |= !is_lie;
                match end {
                    // It is there, and our turn will come: that it is asked for again and dialled takes a while too.
                    End::Busy(retry_ms) => {
                        job.hope.keep(Instant::now() + Duration::from_millis(retry_ms.into()) + BUSY_GRACE);
                    }
                    _ if !has_delivered => job.hope.disappoint(address, stream.is_some()),
                    _ => {}
                }
            }
        }
        state.plan.gone(source);
        if let (End::Liar(why), false) = (&end, state.is_over) {
            self.progress.source_dropped(&user, &self.jobs[blamed].name, why);
        }
        state.ended.push(Ended { address, user, end, has_delivered });
        drop(state);
        self.notify();
    }
}
