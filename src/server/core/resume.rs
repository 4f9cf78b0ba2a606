//! Taking a session up again by its ticket: after a server restart, a change of address, a silence too long.
//!
//! Defended: a ticket is of use only with the secret sealed in it, while the credential is unchanged, until the run it
//! belongs to has left, and until its successor was seen in use; it replaces a session of its own run alone. A recorded
//! RESUME is of use with the cookie it was recorded with alone, so not after a restart. All refusals look the same. It
//! costs no guess and no password.

use std::time::Instant;

use log::debug;
use rand::RngCore;
use zeroize::Zeroizing;

use super::Server;
use super::login::Entrant;
use crate::common::escape::escape_controls;
use crate::common::handshake_keys::{LoginResult, ResumptionKey};
use crate::common::packet::{CLIENT_INFO_BYTES, Cookie, Nonce, Packet};
use crate::common::ticket::ResumptionTicket;
use crate::server::core::Effects;
use crate::server::core::pending_logins::Key;
use crate::server::core::sessions::Beginning;

/// The ticket is of no use.
struct Useless;

impl Server {
    /// From an address that is proven.
    pub(super) fn on_resume(
        &mut self,
        now: Instant,
        key: Key,
        details: (&Cookie, &[u8; CLIENT_INFO_BYTES]),
        ticket: &[u8],
        out: &mut Effects,
    ) {
        match self.resume(now, key, details, ticket) {
            Ok(resumed) => out.bytes(key.0, &resumed),
            Err(Useless) => out.packet(key.0, Packet::Refused { nonce: key.1 }),
        }
    }

    /// The RESUMED packet.
    fn resume(
        &mut self,
        now: Instant,
        key: Key,
        (cookie, details): (&Cookie, &[u8; CLIENT_INFO_BYTES]),
        ticket: &[u8],
    ) -> Result<Vec<u8>, Useless> {
        let opened = ResumptionTicket::open(ticket, &self.keys.tickets, self.wall_ms(now));
        let ticket = opened.map_err(|error| {
            debug!("{}: a resumption was refused: {error}", key.0);
            Useless
        })?;
        let secret = Zeroizing::new(ticket.secret.0);
        let keys = ResumptionKey::new(secret);
        let details = keys.open_client_info(&key.1, cookie, details).map_err(|_| Useless)?;
        let account = self.accounts.find(&ticket.user).ok_or(Useless)?;
        if account.version != Some(ticket.credential_version) {
            debug!("{}: a resumption of {} under an old credential", key.0, escape_controls(ticket.user.as_str()));
            return Err(Useless);
        }
        let mut generation = ticket.generation;
        if let Some(slot) = self.sessions.of_owner(account.owner) {
            let session = self.sessions.at(slot);
            let again = session.run == ticket.instance && session.address == key.0;
            if let Some(beginning) = session.beginning.as_ref().filter(|beginning| beginning.nonce == key.1)
                && again
                && !beginning.resumed.is_empty()
            {
                return Ok(beginning.resumed.clone());
            }
            let unconfirmed = session.beginning.is_some();
            if session.run != ticket.instance || (session.generation > ticket.generation && !unconfirmed) {
                return Err(Useless);
            }
            generation = generation.max(session.generation);
        }
        if !account.may_resume(ticket.instance, ticket.generation) {
            return Err(Useless);
        }
        if let Some(slot) = self.sessions.of_owner(account.owner) {
            self.end_session(slot);
        }
        self.readmit(now, key, ticket, generation, details, &keys)
    }

    fn readmit(
        &mut self,
        now: Instant,
        key: Key,
        ticket: ResumptionTicket,
        generation: u32,
        details: crate::common::handshake_keys::ClientInfo,
        keys: &ResumptionKey,
    ) -> Result<Vec<u8>, Useless> {
        let mut server_nonce: Nonce = [0; 16];
        self.rng.fill_bytes(&mut server_nonce);
        let account = self.accounts.find_mut(&ticket.user).ok_or(Useless)?;
        account.newest_instance = account.newest_instance.max(ticket.instance);
        let owner = account.owner;
        let entrant = Entrant {
            user: ticket.user,
            address: key.0,
            version: ticket.credential_version,
            run: ticket.instance,
            generation: generation.checked_add(1).ok_or(Useless)?,
            details,
            beginning: Beginning { nonce: key.1, resumed: Vec::new() },
        };
        debug!("{}: {} resumed", key.0, escape_controls(entrant.user.as_str()));
        let welcome = self.admit(now, entrant, keys.session_secret(&key.1, &server_nonce));
        let answer = keys.seal_result(&key.1, &server_nonce, &LoginResult::Accepted(welcome));
        let resumed = Packet::Resumed { nonce: key.1, server_nonce, result: &answer }.to_bytes();
        let slot = self.sessions.of_owner(owner).ok_or(Useless)?;
        if let Some(beginning) = &mut self.sessions.at_mut(slot).beginning {
            beginning.resumed.clone_from(&resumed);
        }
        Ok(resumed)
    }
}
