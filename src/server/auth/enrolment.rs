//! Enrolment: makes the records of the users whose lines hold a plaintext password, in memory only, on a thread of its own
//! (41 ms per record).
//!
//! Defended: meanwhile an attacker must not learn which users exist. Every name that a login waits for is unblocked by the
//! same step, after the same amount of work, each time it is requested: the thread makes a known user's record (or, when it
//! is made already, one of the same cost that is thrown away), and one to throw away for an unknown user. The event loop
//! gets records as they are made, but logins continue only when their name is unblocked, or when all records are made.
//!
//! The records have the OPRF seeds that the server's root secret yields, as the fake records of unknown users do.
//!
//! Defended: a flood of names cannot stop the enrolment: the thread alternates between requested names and the rest, so the
//! whole takes at most twice as long. Nor can it stop the logins of others: address prefixes are served round robin, and
//! when too many names are requested, the prefix with the most loses one.
//!
//! Not defended: clients can see that the server has just started, and while dozens of prefixes request names at once, a
//! login may wait until all records are made.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};

use rand::rngs::OsRng;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

use crate::common::crypto::Secret;
use crate::common::net::AddressPrefix;
use crate::common::opaque::{KeyStretching, OprfSeed, PasswordRecord};
use crate::common::sync::lock;
use crate::common::threads;
use crate::common::types::UserName;
use crate::server::BACKGROUND_NICENESS;
use crate::server::fair_queue::FairQueue;

/// Maximum of names that are requested at once, over all address prefixes.
pub const REQUESTED_MAX: usize = 256;

/// The result of one step of the thread.
pub struct EnrolmentResult {
    pub user: UserName,
    /// `None` when there was no plaintext password to make one from: the user is unknown, has a record line, or was
    /// enrolled before.
    pub record: Option<PasswordRecord>,
    /// Whether the name was requested: logins under this name continue.
    pub unblocks: bool,
}

/// What [`Enrolment::poll`] returns.
pub struct EnrolmentProgress {
    /// Results since the previous call.
    pub results: Vec<EnrolmentResult>,
    /// Every password has become a record, and all results have been returned.
    pub is_done: bool,
}

/// Handle of the enrolment thread. Dropping it makes the thread exit after its current step, without waiting for it.
pub struct Enrolment {
    state: Arc<Mutex<EnrolmentState>>,
}

#[derive(Default)]
struct EnrolmentState {
    /// Passwords not yet enrolled.
    passwords: HashMap<UserName, Zeroizing<Vec<u8>>>,
    /// The order in which the passwords are enrolled. Names that were requested meanwhile are skipped.
    background: VecDeque<UserName>,
    /// At most [`REQUESTED_MAX`].
    requested: FairQueue<AddressPrefix, UserName>,
    /// The requested name that the thread works on.
    current: Option<UserName>,
    /// Not yet polled.
    results: Vec<EnrolmentResult>,
    /// The last step was for a requested name.
    priority_served_last: bool,
    is_done: bool,
}

/// One step of the thread.
struct EnrolmentJob {
    user: UserName,
    /// `None`: do the same work and discard the result.
    password: Option<Zeroizing<Vec<u8>>>,
    is_requested: bool,
}

impl Enrolment {
    /// Starts the thread. `root_secret` is the server's. Without users, enrolment is done at once and there is no
    /// thread. The thread calls `wake` when [`poll`](Self::poll) has news.
    pub fn start(
        users: Vec<(UserName, Zeroizing<Vec<u8>>)>,
        root_secret: Secret,
        stretching: KeyStretching,
        wake: Box<dyn Fn() + Send>,
    ) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(EnrolmentState::new(users)));
        if lock(&state).is_done {
            return Ok(Self { state });
        }
        let thread_state = Arc::downgrade(&state);
        threads::spawn("enrolment", move || {
            // Failure to lower the priority is harmless.
            let _ = rustix::process::nice(BACKGROUND_NICENESS);
            let mut rng = ChaCha20Rng::from_rng(OsRng).expect("the system has randomness");
            while let Some(job) = thread_state.upgrade().and_then(|state| lock(&state).next_job()) {
                let record = job.run(&mut rng, &root_secret, stretching);
                let Some(state) = thread_state.upgrade() else { break };
                lock(&state).finish(job, record);
                wake();
            }
        })?;
        Ok(Self { state })
    }

    /// Requests that `user`, known or not, is enrolled soon, for a login from `from`. Never blocks. A request that exceeds
    /// the limit is dropped; the client's retransmission repeats it. Does nothing when enrolment is done.
    pub fn prioritize(&self, from: AddressPrefix, user: UserName) {
        let mut state = lock(&self.state);
        let is_known =
            state.current.as_ref() == Some(&user) || state.requested.iter_key(from).any(|other| *other == user);
        if state.is_done || is_known {
            return;
        }
        if state.requested.len() < REQUESTED_MAX || state.requested.evict_from_longest(from).is_some() {
            state.requested.push(from, user);
        }
    }

    pub fn poll(&self) -> EnrolmentProgress {
        let mut state = lock(&self.state);
        EnrolmentProgress { results: std::mem::take(&mut state.results), is_done: state.is_done }
    }
}

impl EnrolmentState {
    fn new(users: Vec<(UserName, Zeroizing<Vec<u8>>)>) -> Self {
        let background: VecDeque<_> = users.iter().map(|(user, _)| user.clone()).collect();
        let is_done = background.is_empty();
        Self { passwords: users.into_iter().collect(), background, is_done, ..Self::default() }
    }

    /// `None` when all passwords are enrolled.
    fn next_job(&mut self) -> Option<EnrolmentJob> {
        if self.is_done {
            return None;
        }
        let is_requested_due = !std::mem::take(&mut self.priority_served_last);
        if is_requested_due && let Some((_, user)) = self.requested.pop() {
            self.priority_served_last = true;
            self.current = Some(user.clone());
            let password = self.passwords.remove(&user);
            return Some(EnrolmentJob { user, password, is_requested: true });
        }
        loop {
            let user = self.background.pop_front()?;
            if let Some(password) = self.passwords.remove(&user) {
                return Some(EnrolmentJob { user, password: Some(password), is_requested: false });
            }
        }
    }

    fn finish(&mut self, job: EnrolmentJob, record: Option<PasswordRecord>) {
        let EnrolmentJob { user, is_requested, .. } = job;
        self.current = None;
        self.results.push(EnrolmentResult { user, record, unblocks: is_requested });
        self.is_done = self.passwords.is_empty();
    }
}

impl EnrolmentJob {
    fn run(&self, rng: &mut ChaCha20Rng, root_secret: &Secret, stretching: KeyStretching) -> Option<PasswordRecord> {
        let mut random = Zeroizing::new(vec![0; 16]);
        rng.fill_bytes(&mut random);
        let (seed, password) = (OprfSeed::of_user(root_secret, &self.user), self.password.as_ref().unwrap_or(&random));
        let record = PasswordRecord::register_with_seed(rng, &seed, &self.user, password, stretching);
        self.password.is_some().then_some(record)
    }
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
