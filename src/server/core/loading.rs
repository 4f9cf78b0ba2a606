//! What the journal has stored, on its way into the core: at start, and when users come back to the credentials whose
//! publications were not loaded then.
//!
//! Must not read credentials or files.

use std::collections::HashSet;

use super::Server;
use crate::common::types::UserName;
use crate::server::auth::accounts::{Account, Accounts};
use crate::server::auth::credentials_reload::StoredRows;
use crate::server::index::{Index, OwnerId};
use crate::server::journal::{LastMutation, LoadSink, StoredPublication};

/// The state that the journal had stored: filled by [`Journal::open`](crate::server::journal::Journal::open), then passed to
/// the core.
pub struct LoadedState {
    pub(super) index: Index,
    pub(super) accounts: Accounts,
    /// The users to load; `None`: all.
    listed: Option<HashSet<UserName>>,
    /// The owner of the previous publication; they are ordered by user.
    latest: Option<(UserName, OwnerId)>,
}

impl LoadedState {
    /// For all users.
    #[expect(clippy::new_without_default, reason = "an empty store is a decision, not a default")]
    pub fn new() -> Self {
        let mut index = Index::default();
        index.defer_indexing();
        Self { index, accounts: Accounts::default(), listed: None, latest: None }
    }

    /// For the users in the credentials: what others have published is hidden, and need not be in memory.
    pub fn of_users(listed: impl Iterator<Item = UserName>) -> Self {
        Self { listed: Some(listed.collect()), ..Self::new() }
    }
}

impl LoadSink for LoadedState {
    fn begin(&mut self, publications: u64) {
        self.index.reserve(usize::try_from(publications).unwrap_or(0));
    }

    fn wants(&self, user: &UserName) -> bool {
        self.listed.as_ref().is_none_or(|listed| listed.contains(user))
    }

    fn publication(&mut self, publication: StoredPublication) {
        let StoredPublication { user, file, audience, published_s } = publication;
        let owner = match &self.latest {
            Some((latest, owner)) if *latest == user => *owner,
            _ => {
                let owner = self.index.intern_owner(&user);
                self.latest = Some((user, owner));
                owner
            }
        };
        self.index.publish(owner, &file, &audience, published_s);
    }

    fn last_mutation(&mut self, user: UserName, last: LastMutation) {
        record_mutation(&mut self.index, &mut self.accounts, user, last);
    }
}

impl Server {
    /// The users whose publications are loaded: those who have been in the credentials since the start.
    pub fn loaded_users(&self) -> HashSet<UserName> {
        self.accounts.keys().cloned().collect()
    }

    /// Takes in what other users have stored, before they are in the credentials.
    pub fn load(&mut self, rows: StoredRows) {
        for StoredPublication { user, file, audience, published_s } in rows.publications {
            let owner = self.index.intern_owner(&user);
            self.index.publish(owner, &file, &audience, published_s);
        }
        for (user, last) in rows.last_mutations {
            record_mutation(&mut self.index, &mut self.accounts, user, last);
        }
    }
}

fn record_mutation(index: &mut Index, accounts: &mut Accounts, user: UserName, last: LastMutation) {
    let owner = index.intern_owner(&user);
    accounts.entry(user).or_insert_with(|| Account::new(owner)).record_mutation(last);
}
