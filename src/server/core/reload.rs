//! The credentials, at start and whenever they are read again.
//!
//! A user who is gone and one whose credential has changed are logged out, and their resumption tickets are void. What
//! a user who is gone has published stays stored, unseen. Nobody else notices.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::Server;
use super::requests::log_out;
use crate::common::types::UserName;
use crate::server::auth::credentials::{Credential, Credentials, VersionedCredentials};
use crate::server::outbox::Outbox;

/// A password in clear that is to become a record.
pub type Plaintext = (UserName, Zeroizing<Vec<u8>>);

impl Server {
    /// What [`Credentials::versioned`] is to be keyed by.
    pub fn version_key(&self) -> Zeroizing<[u8; 32]> {
        self.keys.versions.clone()
    }

    /// [`handle_versioned`](Self::handle_versioned), with the versions computed here.
    pub fn handle_credentials(&mut self, credentials: Credentials, out: &mut Outbox) -> Vec<Plaintext> {
        let credentials = credentials.versioned(&self.keys.versions);
        self.handle_versioned(credentials, out)
    }

    /// These credentials are in force from now on. Gives the passwords that are to become records: until
    /// [`handle_all_enrolled`](Self::handle_all_enrolled), whoever logs in waits for [`handle_record`](Self::handle_record).
    pub fn handle_versioned(&mut self, credentials: VersionedCredentials, out: &mut Outbox) -> Vec<Plaintext> {
        let mut plaintexts = Vec::new();
        let mut logged_out = Vec::new();
        let mut listed = HashSet::with_capacity(credentials.users.len());
        for (user, credential, version) in credentials.users {
            let account = self.accounts.entry(&user, || self.index.intern_owner(&user));
            listed.insert(account.owner);
            if account.version != Some(version) {
                logged_out.push(account.owner);
                account.version = Some(version);
                account.record = None;
            }
            match credential {
                _ if account.record.is_some() => {}
                Credential::Record(record) => account.record = Some(*record),
                Credential::Plaintext(password) => plaintexts.push((user, password)),
            }
        }
        for (_, account) in self.accounts.iter_mut().filter(|(_, account)| !listed.contains(&account.owner)) {
            logged_out.push(account.owner);
            account.version = None;
            account.record = None;
        }
        logged_out.sort();
        for slot in logged_out.into_iter().filter_map(|owner| self.sessions.of_owner(owner)).collect::<Vec<_>>() {
            log_out(self, slot, out);
        }
        self.enrolling = !plaintexts.is_empty();
        if self.enrolling {
            out.wanted.extend(self.handshakes.parked());
        } else {
            self.handshakes.release_all();
        }
        plaintexts
    }
}
