//! Puts credentials in force, at start and whenever the file is read again.
//!
//! Users who were removed and users whose credential has changed are logged out, and their resumption tickets become
//! void. The publications of a removed user stay stored but are not visible. Other users are not affected.

use std::collections::HashSet;

use zeroize::Zeroizing;

use super::Server;
use crate::common::types::UserName;
use crate::server::auth::accounts::Account;
use crate::server::auth::credentials::{Credential, VersionedCredential, VersionedCredentials};
use crate::server::core::Effects;

/// A plaintext password from which a record is to be made.
pub type Plaintext = (UserName, Zeroizing<Vec<u8>>);

impl Server {
    /// The key for [`Credentials::versioned`](crate::server::auth::credentials::Credentials::versioned).
    pub fn version_key(&self) -> Zeroizing<[u8; 32]> {
        self.keys.versions.clone()
    }

    /// Puts credentials in force. Returns the passwords from which records are to be made: until
    /// [`handle_enrolment_done`](Self::handle_enrolment_done), logins wait for [`handle_enrolled`](Self::handle_enrolled).
    pub fn set_credentials(&mut self, credentials: VersionedCredentials, out: &mut Effects) -> Vec<Plaintext> {
        let mut plaintexts = Vec::new();
        let mut logged_out = Vec::new();
        let mut listed = HashSet::with_capacity(credentials.users.len());
        for VersionedCredential { user, credential, version } in credentials.users {
            let account = self.accounts.entry(user.clone());
            let account = account.or_insert_with(|| Account::new(self.index.intern_owner(&user)));
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
        for account in self.accounts.values_mut().filter(|account| !listed.contains(&account.owner)) {
            logged_out.push(account.owner);
            account.version = None;
            account.record = None;
        }
        logged_out.sort();
        for owner in logged_out {
            if let Some(key) = self.sessions.of_owner(owner) {
                self.terminate_session(key, out);
            }
        }
        self.enrolling = !plaintexts.is_empty();
        if self.enrolling {
            out.awaited_records.extend(self.pending_logins.awaited_records());
        } else {
            self.pending_logins.release_all();
        }
        plaintexts
    }
}
