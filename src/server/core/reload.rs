//! The credentials, at start and whenever they are read again.
//!
//! A user who is gone and one whose credential has changed are logged out, and their resumption tickets are void. What
//! a user who is gone has published stays stored, unseen. Nobody else notices.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::Server;
use super::requests::log_out;
use crate::common::types::UserName;
use crate::server::credentials::{Credential, Credentials};
use crate::server::outbox::Outbox;

/// A password in clear that is to become a record.
pub type Plaintext = (UserName, Zeroizing<Vec<u8>>);

impl Server {
    /// These credentials are in force from now on. Gives the passwords that are to become records: until
    /// [`handle_all_enrolled`](Self::handle_all_enrolled), whoever logs in waits for [`handle_record`](Self::handle_record).
    pub fn handle_credentials(&mut self, credentials: Credentials, out: &mut Outbox) -> Vec<Plaintext> {
        let mut plaintexts = Vec::new();
        let mut logged_out = Vec::new();
        let listed: BTreeSet<UserName> = credentials.users.keys().cloned().collect();
        let versions: Vec<_> = listed.iter().map(|user| credentials.version(user, &self.keys.versions)).collect();
        for ((user, credential), version) in credentials.users.into_iter().zip(versions) {
            let account = self.accounts.entry(&user, || self.index.owner(&user));
            if account.version != version {
                logged_out.push(account.owner);
                account.version = version;
                account.record = None;
            }
            match credential {
                Credential::Record(record) => account.record = Some(*record),
                Credential::Plaintext(password) if account.record.is_none() => plaintexts.push((user, password)),
                Credential::Plaintext(_) => {}
            }
        }
        for (_, account) in self.accounts.iter_mut().filter(|(user, _)| !listed.contains(*user)) {
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
