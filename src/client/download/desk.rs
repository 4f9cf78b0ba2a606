//! The coordinator of one run, on the calling thread: asks for sources, has them dialled but none too often, looks for
//! more while large files arrive, and gives up when nobody has been left for too long.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::discovery::{SourceDiscovery, SourceOffer};
use super::run::{End, Ended, Job, Live, Run, State, TICK};
use super::scheduler::FileId;
use super::{DownloadError, DownloadOutcome, source};
use crate::client::control::RequestError;
use crate::common::types::{ContentRef, UserName};

/// Sources asked for, for each file.
const SOURCES_PER_FILE: usize = 8;
/// Connections open at once: each takes about 3 MiB.
const LIVE_MAX: usize = 10;
/// A ticket is shown within this time or asked for again: less than its life.
const OFFER_FRESH: Duration = Duration::from_secs(40);
/// A file is given up for an answer only if it came within this time.
const ANSWER_NEWS: Duration = Duration::from_secs(1);
/// Wait before sources are asked for again; doubles up to [`ASK_AGAIN_MAX`].
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(100);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(2);
/// While large files arrive, further sources are looked for this often, for so many files.
const ASK_MORE: Duration = Duration::from_secs(1);
const ASK_MORE_FILES: usize = 64;
/// A lost address is not dialled again before this; doubles with every failure up to [`DIAL_AGAIN_MAX`].
const DIAL_AGAIN_FIRST: Duration = Duration::from_millis(100);
const DIAL_AGAIN_MAX: Duration = Duration::from_secs(5);

/// What is remembered of peers over all runs of one fetch, so that none is dialled too often or believed twice.
#[derive(Default)]
pub(super) struct Book {
    addresses: HashMap<SocketAddr, Dialled>,
    liars: HashSet<UserName>,
    /// Whose slots were all taken, and the user knows.
    busy: HashSet<UserName>,
}

struct Dialled {
    not_before: Instant,
    failures: u32,
}

/// An answer under way.
pub(super) struct Asking {
    files: Vec<FileId>,
    since: Instant,
    answer: Receiver<Answer>,
}

struct Answer {
    came: Instant,
    offers: Result<Vec<SourceOffer>, RequestError>,
}

impl Asking {
    /// Asks for sources of these of the jobs, on a thread of its own: a server that is away must not keep the user from
    /// stopping.
    pub fn begin(ask: &Arc<dyn SourceDiscovery>, jobs: &[Job], files: Vec<FileId>) -> Self {
        let wanted = |&file: &FileId| ContentRef {
            name: jobs[file].name.clone(),
            hash: jobs[file].content.hash,
            size: jobs[file].content.size,
        };
        let wanted: Vec<ContentRef> = files.iter().map(wanted).collect();
        let (sender, answer) = mpsc::channel();
        let ask = ask.clone();
        thread::spawn(move || {
            let offers = ask.find_sources(&wanted, SOURCES_PER_FILE);
            let _ = sender.send(Answer { came: Instant::now(), offers });
        });
        Self { files, since: Instant::now(), answer }
    }

    /// Whether its tickets, if any, can still be shown.
    fn is_fresh(&self) -> bool {
        self.since.elapsed() <= OFFER_FRESH
    }
}

/// Which files an answer lists sources for, and which of them there is some hope for.
#[derive(Default)]
struct Listing {
    listed: HashSet<FileId>,
    hopeful: HashSet<FileId>,
}

struct Desk<'r, 'a> {
    run: &'r Run<'a>,
    ask: &'r Arc<dyn SourceDiscovery>,
    book: &'r mut Book,
    asking: Option<Asking>,
    /// One peer's offers each that could not be dialled yet, and when they were made.
    waiting: VecDeque<(Instant, Vec<SourceOffer>)>,
    next_urgent: Instant,
    next_more: Instant,
    pause: Duration,
    last_error: Option<RequestError>,
}

/// Has all files of a run fetched; returns when every one has its outcome. `asking` is what has been asked ahead.
pub(super) fn coordinate<'s>(
    run: &'s Run<'_>,
    scope: &'s Scope<'s, '_>,
    ask: &Arc<dyn SourceDiscovery>,
    book: &mut Book,
    asking: Option<Asking>,
) {
    let now = Instant::now();
    let mut desk = Desk {
        run,
        ask,
        book,
        asking: asking.filter(Asking::is_fresh),
        waiting: VecDeque::new(),
        next_urgent: now,
        next_more: now + ASK_MORE,
        pause: ASK_AGAIN_FIRST,
        last_error: None,
    };
    loop {
        if run.progress.interrupted() {
            desk.fail(|_, _| Some(DownloadError::Interrupted));
        }
        if run.state().unfinished == 0 {
            break;
        }
        let outlines = std::mem::take(&mut run.state().outlines);
        for (file, outline) in outlines {
            scope.spawn(move || run.prepare(file, outline));
        }
        desk.note_ended();
        desk.dial_waiting(|id, offer| drop(scope.spawn(move || source::serve(run, id, offer))));
        desk.ask_if_needed();
        desk.rest();
    }
    let mut state = run.state();
    state.is_over = true;
    for stream in state.live.values().filter_map(|live| live.stream.as_ref()) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    drop(state);
    run.notify();
}

impl Desk<'_, '_> {
    /// Waits for the server's answer if there is nothing else to wait for, or else for any change.
    fn rest(&mut self) {
        let state = self.run.state();
        let is_quiet = state.unfinished > 0 && state.ended.is_empty() && state.outlines.is_empty();
        let wait = if is_quiet && state.live.is_empty() { TICK } else { Duration::ZERO };
        if is_quiet && (wait.is_zero() || self.asking.is_none()) {
            let seen = state.changes;
            self.run.wait(state, seen);
        } else {
            drop(state);
        }
        self.take_answer(wait);
    }

    fn note_ended(&mut self) {
        let now = Instant::now();
        let ended = std::mem::take(&mut self.run.state().ended);
        for Ended { address, user, end, has_delivered } in ended {
            let dialled = self.book.addresses.entry(address).or_insert(Dialled { not_before: now, failures: 0 });
            match end {
                End::Over => dialled.failures = 0,
                End::Busy(retry_ms) => {
                    dialled.not_before = now + Duration::from_millis(retry_ms.max(10).into());
                    (self.pause, self.next_urgent) = (ASK_AGAIN_FIRST, self.next_urgent.min(dialled.not_before));
                    if self.book.busy.insert(user.clone()) {
                        self.run.progress.waiting(&user);
                    }
                }
                End::Lost(_) => {
                    dialled.failures = if has_delivered { 0 } else { dialled.failures + 1 };
                    let pause = DIAL_AGAIN_FIRST * 2u32.pow(dialled.failures.min(6));
                    dialled.not_before = now + pause.min(DIAL_AGAIN_MAX);
                }
                End::Liar(_) => drop(self.book.liars.insert(user)),
            }
            // What it left is looked for at once, unless it never brought anything.
            if has_delivered {
                (self.pause, self.next_urgent) = (ASK_AGAIN_FIRST, now);
            }
        }
    }

    fn take_answer(&mut self, wait: Duration) {
        let Some(asking) = &self.asking else { return };
        let now = Instant::now();
        let answer = match asking.answer.recv_timeout(wait) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => Answer { came: now, offers: Err(RequestError::Unreachable) },
        };
        let Some(Asking { files, since, .. }) = self.asking.take() else { return };
        // What was asked ahead may have changed since; for want of sources it is asked again.
        let is_news = now.saturating_duration_since(answer.came) <= ANSWER_NEWS;
        match answer.offers {
            Ok(offers) => {
                let listing = self.take_offers(&files, since, offers);
                if is_news {
                    self.give_up_unlisted(&files, &listing);
                }
            }
            Err(error) if is_news => self.take_refusal(error),
            Err(_) => {}
        }
    }

    /// Without a session nothing was ever asked for; later, sources may still be there when the server comes back.
    fn take_refusal(&mut self, error: RequestError) {
        self.last_error = Some(error);
        self.fail(|state, file| (!state.jobs[file].was_offered).then_some(DownloadError::Request(error)));
    }

    /// Sorts offers by peer.
    fn take_offers(&mut self, asked: &[FileId], since: Instant, offers: Vec<SourceOffer>) -> Listing {
        let mut state = self.run.state();
        let mut peers: Vec<Vec<SourceOffer>> = Vec::new();
        let mut at: HashMap<SocketAddr, usize> = HashMap::new();
        let mut listing = Listing::default();
        for mut offer in offers {
            offer.files = offer.files.iter().filter_map(|&file| asked.get(file).copied()).collect();
            for &file in &offer.files {
                state.jobs[file].was_offered = true;
                listing.listed.insert(file);
                if !self.book.liars.contains(&offer.user) && !state.jobs[file].out.contains(&offer.user) {
                    listing.hopeful.insert(file);
                }
            }
            let peer = *at.entry(offer.address).or_insert(peers.len());
            if peer == peers.len() {
                peers.push(Vec::new());
            }
            peers[peer].push(offer);
        }
        drop(state);
        // What waits of earlier answers for the same files is older: these offers replace it.
        self.waiting
            .retain(|(_, offers)| !offers.iter().flat_map(|offer| &offer.files).any(|file| asked.contains(file)));
        self.waiting.extend(peers.into_iter().map(|offers| (since, offers)));
        listing
    }

    /// Gives up files that nobody listed can serve.
    fn give_up_unlisted(&mut self, asked: &[FileId], listing: &Listing) {
        let asked: HashSet<FileId> = asked.iter().copied().collect();
        self.fail(|state, file| {
            if !asked.contains(&file) || listing.hopeful.contains(&file) || state.plan.is_covered(file) {
                return None;
            }
            match (listing.listed.contains(&file), state.jobs[file].was_offered) {
                (true, _) => Some(state.jobs[file].failure()),
                (false, false) => Some(DownloadError::NotFound),
                (false, true) => None, // one may come back
            }
        });
    }

    fn dial_waiting(&mut self, dial: impl Fn(usize, SourceOffer)) {
        let now = Instant::now();
        let mut state = self.run.state();
        let mut later = VecDeque::new();
        for (since, mut offers) in self.waiting.drain(..) {
            let (address, user) = (offers[0].address, offers[0].user.clone());
            offers.retain(|offer| state.needs(offer));
            if offers.is_empty() || self.book.liars.contains(&user) || now.duration_since(since) > OFFER_FRESH {
                continue;
            }
            if let Some(live) = state.live.get(&address) {
                let id = live.id;
                offers.retain(|offer| offer.files.iter().any(|&file| state.is_new_to(id, &user, file)));
                state.promise(id, &user, &offers);
                state.live.get_mut(&address).expect("looked up above").grants.extend(offers);
                continue;
            }
            let is_too_soon = self.book.addresses.get(&address).is_some_and(|dialled| dialled.not_before > now);
            if is_too_soon || state.live.len() >= LIVE_MAX {
                later.push_back((since, offers));
                continue;
            }
            let id = state.plan.add_source(now);
            state.promise(id, &user, &offers);
            let first = offers.remove(0);
            state.live.insert(address, Live { id, user, stream: None, grants: offers });
            dial(id, first);
        }
        drop(state);
        self.waiting = later;
    }

    /// Asks for sources of files that have none, or for more sources of large files; gives up what is over its time.
    fn ask_if_needed(&mut self) {
        let now = Instant::now();
        let lost = self.lost_files(now);
        if self.asking.is_some() {
            return;
        }
        let mut files: Vec<FileId> = lost.iter().copied().collect();
        if !files.is_empty() {
            self.fail(|state, file| {
                let job = &state.jobs[file];
                let is_late = || job.was_offered && job.hope.is_over(now, self.run.options.retry_for);
                (lost.contains(&file) && is_late()).then(|| job.failure())
            });
            if now < self.next_urgent {
                return;
            }
            self.next_urgent = now + self.pause;
            self.pause = (self.pause * 2).min(ASK_AGAIN_MAX);
        } else if now >= self.next_more {
            let state = self.run.state();
            if state.live.len() < SOURCES_PER_FILE {
                self.next_more = now + ASK_MORE;
                let is_large = |&file: &FileId| state.jobs[file].arriving.is_some();
                files = (0..state.jobs.len()).filter(is_large).take(ASK_MORE_FILES).collect();
            }
        }
        if !files.is_empty() {
            self.asking = Some(Asking::begin(self.ask, &self.run.jobs, files));
        }
    }

    /// The files that no source is likely to bring any more; the hope for the others is kept alive.
    fn lost_files(&self, now: Instant) -> BTreeSet<FileId> {
        let mut waiting: HashMap<FileId, Vec<SocketAddr>> = HashMap::new();
        for offer in self.waiting.iter().flat_map(|(_, offers)| offers) {
            offer.files.iter().for_each(|&file| waiting.entry(file).or_default().push(offer.address));
        }
        let mut state = self.run.state();
        let mut lost = BTreeSet::new();
        for file in 0..state.jobs.len() {
            if state.jobs[file].is_finished {
                continue;
            }
            let is_stuck = state.plan.is_stuck(file);
            let hope = &state.jobs[file].hope;
            let brings = |(&address, live): (&SocketAddr, &Live)| {
                state.plan.covers(live.id, file) && hope.rests_on(address, live.stream.is_some())
            };
            let waits = waiting.get(&file).is_some_and(|places| places.iter().any(|&at| hope.rests_on(at, false)));
            if !is_stuck && state.live.iter().any(brings) || waits {
                state.jobs[file].hope.keep(now);
            } else {
                lost.insert(file);
            }
        }
        lost
    }

    /// Fails the unfinished files for which `why` gives a reason.
    fn fail(&self, why: impl Fn(&State, FileId) -> Option<DownloadError>) {
        let state = self.run.state();
        let open = (0..state.jobs.len()).filter(|&file| !state.jobs[file].is_finished);
        let failed: Vec<_> = open.filter_map(|file| Some((file, why(&state, file)?))).collect();
        drop(state);
        for (file, error) in failed {
            self.run.finish(file, DownloadOutcome::Failed(error));
        }
    }
}
