//! The credentials, at start and whenever they are read again.
//!
//! A user who is gone and one whose credential has changed are logged out, and their resumption tickets are void. What
//! a user who is gone has published stays stored, unseen. Nobody else notices.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::Server;
use super::dispatch::log_out;
use crate::common::types::UserName;
use crate::server::auth::credentials::{Credential, Credentials, VersionedCredential, VersionedCredentials};
use crate::server::core::Effects;

/// A password in clear that is to become a record.
pub type Plaintext = (UserName, Zeroizing<Vec<u8>>);

impl Server {
    /// What [`Credentials::versioned`] is to be keyed by.
    pub fn version_key(&self) -> Zeroizing<[u8; 32]> {
        self.keys.versions.clone()
    }

    /// [`set_credentials`](Self::set_credentials), with the versions computed here.
    pub fn handle_credentials(&mut self, credentials: Credentials, out: &mut Effects) -> Vec<Plaintext> {
        let credentials = credentials.versioned(&self.keys.versions);
        self.set_credentials(credentials, out)
    }

    /// These credentials are in force from now on. Gives the passwords that are to become records: until
    /// [`handle_enrolment_done`](Self::handle_enrolment_done), whoever logs in waits for [`handle_enrolled`](Self::handle_enrolled).
    pub fn set_credentials(&mut self, credentials: VersionedCredentials, out: &mut Effects) -> Vec<Plaintext> {
        let mut plaintexts = Vec::new();
        let mut logged_out = Vec::new();
        let mut listed = HashSet::with_capacity(credentials.users.len());
        for VersionedCredential { user, credential, version } in credentials.users {
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
        for account in self.accounts.iter_mut().filter(|account| !listed.contains(&account.owner)) {
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
            out.awaited_records.extend(self.handshakes.parked());
        } else {
            self.handshakes.release_all();
        }
        plaintexts
    }
}
