//! Enrolment: the passwords that stand in clear in the credentials file become records, in memory alone, on a thread of
//! their own (41 ms each).
//!
//! Defended: while this goes on, known and unknown users must not be told apart. So every name that somebody waits for
//! is released by the same step, after the same amount of work, each time it is asked for: a known user's record is made
//! (or, if it has been made already, one of the same cost is made and thrown away), and for an unknown one too. Records
//! are handed over as they are made, but logins go on only when their name is released, until all are made; then nobody
//! need wait any more.
//!
//! A flood of names must not keep the rest from being made: the thread takes waiting names and background ones in turn,
//! so the whole takes at most twice as long. Nor must it keep others waiting: networks take turns, and when too many names
//! wait, the network that has most of them loses one. Not defended: that the server has just started can be seen, and
//! while dozens of networks ask for names at once, a login may have to wait until all are made.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::OsRng;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use crate::common::net::AddressPrefix;
use crate::common::opaque::{KeyStretching, PasswordRecord};
use crate::common::types::UserName;
use crate::server::BACKGROUND_NICENESS;
use crate::server::auth::fair_queue::FairQueue;

/// Most names that wait at once, over all networks.
pub const WAITING_MAX: usize = 256;

/// A step of the thread's work.
pub struct EnrolmentResult {
    /// Whose.
    pub user: UserName,
    /// `None`: there was no password in clear left to make one from (the name may be unknown, have a record line, or
    /// have been given its record before).
    pub record: Option<PasswordRecord>,
    /// Whether it was asked for: logins under this name need wait no more.
    pub unblocks: bool,
}

/// The loop's end of the thread. Dropping it stops the thread after what it is at, without waiting.
pub struct Enrolment {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Passwords still to be enrolled.
    passwords: HashMap<UserName, Zeroizing<Vec<u8>>>,
    /// The order in which the background takes them; names that were asked for meanwhile are skipped.
    background: VecDeque<UserName>,
    /// Asked for; at most [`WAITING_MAX`].
    waiting: FairQueue<AddressPrefix, UserName>,
    /// Asked for and being worked on.
    current: Option<UserName>,
    /// Not yet polled.
    enrolled: Vec<EnrolmentResult>,
    priority_served_last: bool,
    done: bool,
    stop: bool,
}

/// What the thread does next.
struct Job {
    user: UserName,
    /// `None`: do as much work for nothing.
    password: Option<Zeroizing<Vec<u8>>>,
    asked: bool,
}

impl Enrolment {
    /// Starts the thread; with nobody to enrol, everything is done at once and no thread is needed. `wake` is called on
    /// the thread whenever [`poll`](Self::poll) or [`all_done`](Self::all_done) has news.
    pub fn start(
        users: Vec<(UserName, Zeroizing<Vec<u8>>)>,
        stretching: KeyStretching,
        wake: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        let background: VecDeque<_> = users.iter().map(|(user, _)| user.clone()).collect();
        let done = background.is_empty();
        let state = State { passwords: users.into_iter().collect(), background, done, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        if !done {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("enrolment".into()).spawn(move || {
                // A thread that may not be nice works all the same.
                let _ = rustix::process::nice(BACKGROUND_NICENESS);
                let mut rng = ChaCha20Rng::from_rng(OsRng).expect("the system has randomness");
                while let Some(job) = shared.next_job() {
                    let record = job.run(&mut rng, stretching);
                    shared.finish(job, record, &wake);
                }
            })?;
        }
        Ok(Self { shared })
    }

    /// Somebody there waits for this name, known or not; never blocks. What does not fit is not remembered, and is to be
    /// asked for again. Once [`all_done`](Self::all_done), nothing happens: nobody need wait.
    pub fn prioritize(&self, from: AddressPrefix, user: UserName) {
        let mut state = self.shared.lock();
        let is_known =
            state.current.as_ref() == Some(&user) || state.waiting.iter_key(from).any(|other| *other == user);
        if state.done || is_known {
            return;
        }
        if state.waiting.len() < WAITING_MAX || state.waiting.evict_from_longest(from).is_some() {
            state.waiting.push(from, user);
        }
    }

    /// What was done since the last call.
    pub fn poll(&self) -> Vec<EnrolmentResult> {
        std::mem::take(&mut self.shared.lock().enrolled)
    }

    /// Every password has become a record, and [`poll`](Self::poll) has given or will give it. Ask this before `poll`,
    /// and nothing is missed.
    pub fn all_done(&self) -> bool {
        self.shared.lock().done
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
    }
}

impl Job {
    fn run(&self, rng: &mut ChaCha20Rng, stretching: KeyStretching) -> Option<PasswordRecord> {
        let mut nobody = Zeroizing::new(vec![0; 16]);
        rng.fill_bytes(&mut nobody);
        let record = PasswordRecord::register(rng, &self.user, self.password.as_ref().unwrap_or(&nobody), stretching);
        self.password.is_some().then_some(record)
    }
}

impl Shared {
    /// `None`: all is done, or nobody wants it any more.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.lock();
        if state.done || state.stop {
            return None;
        }
        let turn = !state.priority_served_last;
        state.priority_served_last = false;
        if turn && let Some((_, user)) = state.waiting.pop() {
            state.priority_served_last = true;
            state.current = Some(user.clone());
            let password = state.passwords.remove(&user);
            return Some(Job { user, password, asked: true });
        }
        loop {
            let user = state.background.pop_front()?;
            if let Some(password) = state.passwords.remove(&user) {
                return Some(Job { user, password: Some(password), asked: false });
            }
        }
    }

    fn finish(&self, job: Job, record: Option<PasswordRecord>, wake: &dyn Fn()) {
        let mut state = self.lock();
        let Job { user, asked, .. } = job;
        state.current = None;
        state.enrolled.push(EnrolmentResult { user, record, unblocks: asked });
        state.done = state.passwords.is_empty();
        let is_wanted = !state.stop;
        drop(state);
        if is_wanted {
            wake();
        }
    }

    /// The state is consistent after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
