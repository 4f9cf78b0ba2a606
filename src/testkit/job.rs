//! A command of a test client that runs in the background.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::never;

use super::CommandError;
use super::outcome::{Collector, results_of};
use crate::client::ExitCode;
use crate::client::jobs::{Job, JobWait, Jobs};
use crate::client::ui::message::{CommandResult, ListedJob, Message, MessageBody, TIMED_OUT};
use crate::common::sync::lock;

/// A `get`, a `pub` or a `wait` in the background. It goes on when this is dropped, and ends with its client.
pub struct TestJob {
    jobs: Arc<Jobs>,
    job: Arc<Job>,
    /// The first says that it has begun.
    messages: Arc<Collector>,
}

impl TestJob {
    /// The job that has begun with these messages.
    pub(super) fn of(jobs: &Arc<Jobs>, line: &str, messages: Arc<Collector>) -> Result<Self, CommandError> {
        let first = lock(&messages.0).first().cloned();
        let job = match first.map(|message| message.body) {
            Some(MessageBody::Result(CommandResult::Job(started))) => jobs.find(started.number),
            _ => None,
        };
        if let Some(job) = job {
            return Ok(Self { jobs: Arc::clone(jobs), job, messages });
        }
        let command = line.split_whitespace().next().unwrap_or_default();
        results_of(command, std::mem::take(&mut *lock(&messages.0)))?;
        let reason = "only get, pub and wait run in the background".into();
        Err(CommandError { command: command.into(), reason, code: ExitCode::Usage })
    }

    /// Counted from 1, of all jobs, watches and follows of the client.
    pub fn number(&self) -> u64 {
        self.job.number
    }

    /// Its command line, with the bytes that are done, and those of all files, if any are known.
    pub fn status(&self) -> ListedJob {
        ListedJob::from(&*self.job)
    }

    pub fn has_ended(&self) -> bool {
        self.job.has_ended()
    }

    /// What it has told until now: the last message of a job that has ended is its end.
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.messages.0)[1..].to_vec()
    }

    /// `wait NUMBER`: its results, when it has ended with the exit status 0. Without an end within this time, the error has
    /// [`ExitCode::TimedOut`], and the job goes on.
    pub fn wait(&self, timeout: Duration) -> Result<Vec<CommandResult>, CommandError> {
        let command = self.job.line.split_whitespace().next().unwrap_or_default();
        match self.job.wait(Some(timeout), &never()) {
            JobWait::Ended(_) => {
                self.jobs.forget(&self.job);
                results_of(command, self.messages())
            }
            JobWait::TimedOut | JobWait::Cancelled => {
                Err(CommandError { command: command.into(), reason: TIMED_OUT.into(), code: ExitCode::TimedOut })
            }
        }
    }

    /// `cancel`: it ends with [`ExitCode::Interrupted`], unless it has ended. What a download has verified is kept for the
    /// next one.
    pub fn cancel(&self) {
        self.job.cancel();
    }
}
