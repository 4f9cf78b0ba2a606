//! What goes on in the background of a client, by number: jobs, watches and follows. All contexts of a client share them.
//!
//! Runs nothing, and must not know what a command is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};
use serde::{Deserialize, Serialize};

use crate::client::cancel::Cancelled;
use crate::client::exit_code::ExitCode;
use crate::common::sync::lock;

/// Most that go on at once.
const RUNNING_MAX: usize = 256;
/// Ended jobs whose status is kept for a `wait`; beyond it the oldest are forgotten, first those whose status has been told.
const ENDED_MAX: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// A command, which ends by itself. The client waits for it, and its status can be waited for.
    Job,
    /// A folder that is kept published.
    Watch,
    /// Files that are fetched whenever they change.
    Follow,
}

/// Bytes that are done, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobProgress {
    pub done: u64,
    pub total: u64,
}

/// As many go on as may at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{RUNNING_MAX} jobs, watches and follows go on; no further one can")]
pub struct TooManyJobs;

/// How the wait for the end of a job came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobWait {
    /// With this status.
    Ended(ExitCode),
    TimedOut,
    /// The one who waited is cancelled, not the job.
    Cancelled,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Jobs(Mutex<JobTable>);

#[derive(Debug, Default)]
struct JobTable {
    /// The number given last.
    last: u64,
    /// What goes on, and jobs that have ended.
    jobs: BTreeMap<u64, Arc<Job>>,
    is_closed: bool,
}

/// A job, a watch or a follow.
#[derive(Debug)]
pub struct Job {
    /// Counted from 1.
    pub number: u64,
    pub kind: JobKind,
    /// Its command line, without the `&`.
    pub line: String,
    /// Whether its failure is one of the client as a whole.
    pub counts: bool,
    /// Who has begun it.
    owner: JobOwner,
    /// Its status has been told to its owner, or to others when that has left.
    is_told: AtomicBool,
    /// Dropped by a cancellation.
    alive: Mutex<Option<Sender<Infallible>>>,
    cancelled: Cancelled,
    progress: Mutex<Option<JobProgress>>,
    code: OnceLock<ExitCode>,
    /// Disconnects at its end.
    ended: Receiver<Infallible>,
}

/// Who begins jobs. They go on when it has left.
#[derive(Debug, Clone, Default)]
pub struct JobOwner(Arc<AtomicBool>);

impl JobOwner {
    /// Waits for no job any more.
    pub fn leave(&self) {
        self.0.store(true, SeqCst);
    }

    fn has_left(&self) -> bool {
        self.0.load(SeqCst)
    }
}

/// What runs the job holds it: the job ends when it is dropped.
pub struct RunningJob {
    job: Arc<Job>,
    jobs: Arc<Jobs>,
    _running: Sender<Infallible>,
}

impl Jobs {
    /// Something begins in the background. It is cancelled already if the client is ending.
    pub fn begin(
        self: &Arc<Self>,
        kind: JobKind,
        line: String,
        owner: &JobOwner,
        counts: bool,
    ) -> Result<RunningJob, TooManyJobs> {
        let mut table = lock(&self.0);
        if table.jobs.values().filter(|job| !job.has_ended()).count() >= RUNNING_MAX {
            return Err(TooManyJobs);
        }
        table.last += 1;
        let (alive, cancelled) = bounded(0);
        let (running, ended) = bounded(0);
        let job = Arc::new(Job {
            number: table.last,
            kind,
            line,
            counts,
            owner: owner.clone(),
            is_told: AtomicBool::new(false),
            alive: Mutex::new(Some(alive).filter(|_| !table.is_closed)),
            cancelled,
            progress: Mutex::default(),
            code: OnceLock::new(),
            ended,
        });
        table.jobs.insert(job.number, Arc::clone(&job));
        Ok(RunningJob { job, jobs: Arc::clone(self), _running: running })
    }

    /// What goes on, by number.
    pub fn running(&self) -> Vec<Arc<Job>> {
        lock(&self.0).jobs.values().filter(|job| !job.has_ended()).cloned().collect()
    }

    /// One that goes on, or a job that has ended.
    pub fn find(&self, number: u64) -> Option<Arc<Job>> {
        lock(&self.0).jobs.get(&number).cloned()
    }

    /// All jobs that go on or whose status has not been told, by number; no watches and follows.
    pub fn waitable(&self) -> Vec<Arc<Job>> {
        let is_waitable = |job: &&Arc<Job>| job.kind == JobKind::Job && !job.is_told.load(SeqCst);
        lock(&self.0).jobs.values().filter(is_waitable).cloned().collect()
    }

    /// Nobody needs the status of this job.
    pub fn forget(&self, job: &Job) {
        if job.has_ended() {
            lock(&self.0).jobs.remove(&job.number);
        }
    }

    /// The client ends: cancels all, and all that begin later.
    pub fn close(&self) {
        let mut table = lock(&self.0);
        table.is_closed = true;
        table.jobs.values().for_each(|job| _ = job.cancel());
    }
}

impl Job {
    /// Asks it to end, which may take a moment. Returns whether it went on.
    pub fn cancel(&self) -> bool {
        // Once it is asked, it may end at any time.
        let went_on = !self.has_ended();
        *lock(&self.alive) = None;
        went_on
    }

    /// Disconnects when it is cancelled.
    pub fn cancelled(&self) -> Cancelled {
        self.cancelled.clone()
    }

    pub fn has_ended(&self) -> bool {
        self.code.get().is_some()
    }

    /// A `wait` has had its status: no other needs it, unless its owner is there and has not been told.
    pub fn tell(&self, teller: &JobOwner) {
        if Arc::ptr_eq(&self.owner.0, &teller.0) || self.owner.has_left() {
            self.is_told.store(true, SeqCst);
        }
    }

    pub fn progress(&self) -> Option<JobProgress> {
        *lock(&self.progress)
    }

    pub fn set_progress(&self, progress: JobProgress) {
        *lock(&self.progress) = Some(progress);
    }

    /// Waits for its end: without limit if no timeout is given.
    pub fn wait(&self, timeout: Option<Duration>, cancelled: &Cancelled) -> JobWait {
        if let Some(code) = self.code.get() {
            return JobWait::Ended(*code);
        }
        select! {
            recv(self.ended) -> _ => JobWait::Ended(self.code.get().copied().unwrap_or(ExitCode::Internal)),
            recv(timeout.map_or_else(never, after)) -> _ => JobWait::TimedOut,
            recv(cancelled) -> _ => JobWait::Cancelled,
        }
    }
}

impl RunningJob {
    /// For those who show or cancel it.
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// It ends with this status; with an internal error if it is dropped without one.
    pub fn end(self, code: ExitCode) {
        let _ = self.job.code.set(code);
    }
}

impl Deref for RunningJob {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        let mut table = lock(&self.jobs.0);
        let _ = self.job.code.set(ExitCode::Internal);
        if self.job.kind != JobKind::Job {
            table.jobs.remove(&self.job.number);
        }
        let ended = table.jobs.values().filter(|job| job.has_ended());
        let mut ended: Vec<(bool, u64)> = ended.map(|job| (!job.is_told.load(SeqCst), job.number)).collect();
        ended.sort_unstable();
        for (_, number) in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            table.jobs.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cancel::is_cancelled;
    use crate::client::jobs_by_key::JobsByKey;

    fn begin(jobs: &Arc<Jobs>, kind: JobKind) -> RunningJob {
        jobs.begin(kind, "get a".into(), &JobOwner::default(), true).unwrap()
    }

    #[test]
    fn the_status_of_a_job_is_kept_until_it_is_forgotten() {
        let jobs = Arc::<Jobs>::default();
        let (first, second) = (begin(&jobs, JobKind::Job), begin(&jobs, JobKind::Job));
        assert_eq!((first.number, second.number), (1, 2));
        let job = jobs.find(1).unwrap();
        jobs.forget(&job);
        assert_eq!(job.wait(Some(Duration::ZERO), &never()), JobWait::TimedOut, "it goes on, and is not forgotten");
        first.end(ExitCode::NotFound);
        for _ in 0..100 {
            assert_eq!(job.wait(Some(Duration::ZERO), &never()), JobWait::Ended(ExitCode::NotFound));
        }
        assert_eq!(jobs.running().len(), 1);
        assert_eq!(jobs.waitable().len(), 2);
        jobs.forget(&job);
        assert!(jobs.find(1).is_none() && jobs.find(2).is_some() && jobs.find(3).is_none());
        drop(second);
        assert_eq!(jobs.find(2).unwrap().wait(None, &never()), JobWait::Ended(ExitCode::Internal));
    }

    #[test]
    fn a_status_stays_untold_until_the_owner_has_it_or_has_left() {
        let (jobs, owner, other) = (Arc::<Jobs>::default(), JobOwner::default(), JobOwner::default());
        for _ in 0..2 {
            jobs.begin(JobKind::Job, "get a".into(), &owner, true).unwrap().end(ExitCode::NotFound);
        }
        let [first, second] = [1, 2].map(|number| jobs.find(number).unwrap());
        first.tell(&other);
        assert_eq!(jobs.waitable().len(), 2);
        first.tell(&owner);
        assert_eq!(jobs.waitable().len(), 1);
        owner.leave();
        second.tell(&other);
        assert!(jobs.waitable().is_empty() && jobs.find(1).is_some() && jobs.find(2).is_some());
    }

    #[test]
    fn a_cancellation_is_of_one_job_and_the_end_of_the_client_of_all() {
        let jobs = Arc::<Jobs>::default();
        let (first, second) = (begin(&jobs, JobKind::Job), begin(&jobs, JobKind::Watch));
        jobs.find(1).unwrap().cancel();
        assert!(is_cancelled(&first.cancelled()) && !is_cancelled(&second.cancelled()));
        assert_eq!(second.wait(None, &first.cancelled()), JobWait::Cancelled);
        jobs.close();
        assert!(is_cancelled(&second.cancelled()));
        assert!(is_cancelled(&begin(&jobs, JobKind::Job).cancelled()));
    }

    #[test]
    fn watches_are_not_waited_for_and_leave_no_status() {
        let jobs = Arc::<Jobs>::default();
        let watch = begin(&jobs, JobKind::Watch);
        assert!(jobs.waitable().is_empty() && jobs.running().len() == 1);
        drop(watch);
        assert!(jobs.find(1).is_none());
    }

    #[test]
    fn jobs_and_kept_statuses_are_bounded() {
        let jobs = Arc::<Jobs>::default();
        let all: Vec<RunningJob> = (0..RUNNING_MAX).map(|_| begin(&jobs, JobKind::Job)).collect();
        assert!(jobs.begin(JobKind::Follow, String::new(), &JobOwner::default(), false).is_err());
        drop(all);
        for _ in 0..ENDED_MAX {
            begin(&jobs, JobKind::Job).end(ExitCode::Success);
        }
        assert_eq!(jobs.waitable().len(), ENDED_MAX);
        let (first, second) = (RUNNING_MAX as u64 + 1, RUNNING_MAX as u64 + 2);
        assert!(jobs.find(first - 1).is_none() && jobs.find(first).is_some());
        jobs.find(second).unwrap().tell(&JobOwner::default());
        jobs.find(second).unwrap().is_told.store(true, SeqCst);
        begin(&jobs, JobKind::Job).end(ExitCode::Success);
        assert!(jobs.find(first).is_some() && jobs.find(second).is_none(), "one that was told goes first");
    }

    #[test]
    fn a_job_replaces_the_one_that_is_about_the_same() {
        let (jobs, by_key) = (Arc::<Jobs>::default(), JobsByKey::<(u8, u8)>::default());
        let [first, second, third] = [(); 3].map(|()| begin(&jobs, JobKind::Follow));
        by_key.replace(|other| other.0 == 1, (1, 1), first.job());
        by_key.replace(|other| other.0 == 1, (1, 2), second.job());
        by_key.replace(|other| other.0 == 2, (2, 2), third.job());
        assert!(is_cancelled(&first.cancelled()) && !is_cancelled(&second.cancelled()));
        assert_eq!(by_key.keys(), [(1, 2), (2, 2)]);
        third.end(ExitCode::Success);
        assert_eq!(by_key.stop(|key| key.1 == 2).len(), 1, "the other has ended");
        assert!(is_cancelled(&second.cancelled()) && by_key.keys().is_empty());
    }
}
