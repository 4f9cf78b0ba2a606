//! Handshakes: logging in with a password (LOGIN1 to LOGIN4), and resuming a session with a ticket (RESUME, RESUMED)
//! after a server restart, a change of address or a long silence.
//!
//! Defended, login: users who exist and users who do not are served by the same steps in the same order. A fake record is
//! derived for every user and used for those who have none. While records are made from plaintext passwords, every login
//! waits for one, real or not. Every refusal consists of random bytes of the same length. The expensive step is not taken
//! on arrival but queued (see `pending_logins`).
//!
//! Defended, resumption: a ticket works only with the secret sealed in it, while the credential is unchanged, until its
//! client instance has logged out or another has logged in, and until its successor was seen in use; it replaces sessions
//! of its own instance only. A replayed RESUME works only with the cookie it was recorded with, hence not after a restart.
//! All refusals look the same. A resumption involves no guess and no password.

use std::time::{Duration, Instant};

use log::{debug, info};
use rand::RngCore;

use super::Server;
use super::pending_logins::{EndedLogin, LoginId, LoginStage};
use super::sessions::{HandshakeReply, Session};
use super::stats::{LoginStatus, Refusal, SessionEnd};
use crate::common::crypto::{Secret, context, derive};
use crate::common::escape::escape_controls;
use crate::common::handshake_keys::{ClientInfo, LoginFailed, LoginKey, LoginResult, ResumptionKey, SessionParams};
use crate::common::limits::RESUMPTION_LIFETIME;
use crate::common::opaque::{PasswordRecord, ServerLogin};
use crate::common::packet::{CLIENT_INFO_BYTES, Cookie, KE1_BYTES, KE3_BYTES, LOGIN_RESULT_BYTES, Nonce, Packet};
use crate::common::rate::TokenBucket;
use crate::common::session_cipher::{SessionCipher, Side};
use crate::common::ticket::ResumptionTicket;
use crate::common::types::{InstanceId, RequestId, UserName};
use crate::server::auth::accounts::Account;
use crate::server::auth::enrolment::EnrolmentResult;
use crate::server::auth::keys::CredentialVersion;
use crate::server::core::Effects;

/// What a new session is made of, besides its secret.
struct NewSession {
    user: UserName,
    id: LoginId,
    version: CredentialVersion,
    instance: InstanceId,
    generation: u32,
    /// See [`Session::active_since`].
    active_since: Instant,
    client_info: ClientInfo,
}

impl Server {
    /// LOGIN1, from a validated address.
    pub(super) fn on_login1(
        &mut self,
        now: Instant,
        id: LoginId,
        user: &str,
        ke1: &[u8; KE1_BYTES],
        out: &mut Effects,
    ) {
        if let Some(login) = self.pending_logins.find_mut(&id) {
            match &login.stage {
                LoginStage::Login2Sent { login2, .. } => out.send_bytes(id.address, login2),
                LoginStage::AwaitingLogin2 { .. } if self.enrolling => {
                    out.awaited_records.push((id.prefix(), login.user.clone()));
                }
                LoginStage::AwaitingLogin2 { .. } | LoginStage::Answered { .. } | LoginStage::Confirmed => {}
            }
            return;
        }
        let user = UserName::parse(user).expect("the packet's parser has checked it");
        let is_known = self.throttle.is_known(id.prefix());
        match self.throttle.check(now, id.address.ip(), &user) {
            Ok(charge) => {
                if let Some(displaced) = self.pending_logins.insert(now, id, is_known, user.clone(), charge, *ke1) {
                    self.counters.refused.add(Refusal::DisplacedLogin);
                    self.count_ended_login(&displaced);
                }
            }
            Err(retry) => {
                self.counters.logins.add(LoginStatus::Throttled);
                debug!("{}: too many guesses for {}", id.address, escape_controls(user.as_str()));
                let throttled = Packet::Throttled { nonce: id.nonce, retry_after_s: retry.seconds };
                return out.send_packet(id.address, throttled);
            }
        }
        if self.enrolling {
            self.pending_logins.wait_for_record(id);
            out.awaited_records.push((id.prefix(), user));
        } else {
            self.pending_logins.make_ready(id);
        }
    }

    /// Who stops after LOGIN2 has learned from it whether the password is right: one guess, which no LOGIN3 shows.
    pub(super) fn count_ended_login(&mut self, login: &EndedLogin) {
        if login.is_unfinished {
            self.counters.logins.add(LoginStatus::Unfinished);
            debug!("{}: the login of {} was not finished", login.id.address, escape_controls(login.user.as_str()));
        }
    }

    /// A record was made, or there was no password to make one from. Logins that wait for it continue if it unblocks them.
    pub fn handle_enrolled(&mut self, enrolled: EnrolmentResult) {
        if let Some(record) = enrolled.record
            && let Some(account) = self.accounts.get_mut(&enrolled.user)
            && account.version.is_some()
        {
            account.record = Some(record);
        }
        if enrolled.unblocks {
            self.pending_logins.release(&enrolled.user);
        }
    }

    /// All records are made: no login waits any more.
    pub fn handle_enrolment_done(&mut self) {
        self.enrolling = false;
        self.pending_logins.release_all();
    }

    /// Takes the expensive step, LOGIN2, for the next login in the queue.
    pub(super) fn process_next_login(&mut self, out: &mut Effects) {
        let Some(id) = self.pending_logins.next_ready() else { return };
        let Some(pending) = self.pending_logins.find_mut(&id) else { return };
        let LoginStage::AwaitingLogin2 { ke1 } = pending.stage else { return };
        let fake = PasswordRecord::fake(&self.keys.root, &pending.user);
        let account = self.accounts.get(&pending.user);
        let known = account.and_then(|account| Some((account.version?, account.record.as_ref()?)));
        let (version, record) = known.map_or((None, &fake), |(version, record)| (Some(version), record));
        let (login, ke2) = ServerLogin::start(&mut self.rng, record, &pending.user, &ke1);
        let login2 = Packet::Login2 { nonce: id.nonce, ke2: &ke2 }.to_bytes();
        out.send_bytes(id.address, &login2);
        pending.stage = LoginStage::Login2Sent { login: Box::new(login), version, login2 };
    }

    /// LOGIN3. Its address is validated if the login is known.
    pub(super) fn on_login3(
        &mut self,
        now: Instant,
        id: LoginId,
        ke3: &[u8; KE3_BYTES],
        client_info: &[u8; CLIENT_INFO_BYTES],
        out: &mut Effects,
    ) {
        let Some(pending) = self.pending_logins.find_mut(&id) else {
            return self.counters.refused.add(Refusal::UnknownLogin);
        };
        match &pending.stage {
            LoginStage::Login2Sent { .. } => {}
            LoginStage::Answered { login4 } => return out.send_bytes(id.address, login4),
            LoginStage::AwaitingLogin2 { .. } | LoginStage::Confirmed => return,
        }
        let stage = std::mem::replace(&mut pending.stage, LoginStage::Confirmed);
        let LoginStage::Login2Sent { login, version, .. } = stage else { return };
        let user = pending.user.clone();
        let (address, name) = (id.address, user.as_str());
        info!(event = "received", address:% = address, user = name, verb = "AUTH"; "{address}: Received AUTH from {}", escape_controls(name));
        let verified = login.finish(&user, ke3).and_then(|key| {
            let client_info = key.client_info(&id.nonce).open(client_info)?;
            Ok((key, client_info))
        });
        let charge = pending.charge.take();
        if verified.is_ok() {
            if let Some(charge) = charge {
                self.throttle.refund(now, charge);
            }
            self.throttle.record_success(now, id.address.ip(), &user);
        }
        let decided = verified.and_then(|(key, client_info)| {
            self.authorize(now, id, &user, version, client_info, &key).map(|result| (key, result))
        });
        let (outcome, status) = match &decided {
            Ok((_, LoginResult::Accepted(_))) => ("OK", LoginStatus::Accepted),
            Ok((_, LoginResult::AlreadyActive { .. })) => ("ERR", LoginStatus::AlreadyActive),
            Err(LoginFailed) => ("ERR", LoginStatus::Refused),
        };
        self.counters.logins.add(status);
        let mut sealed = [0; LOGIN_RESULT_BYTES];
        match decided {
            Ok((key, result)) => sealed = key.result(&id.nonce).seal(&result),
            Err(LoginFailed) => self.rng.fill_bytes(&mut sealed),
        }
        let name = user.as_str();
        info!(event = "sent", address:% = address, user = name, verb = "AUTH", result = outcome; "{address}: Sent {outcome} to {}", escape_controls(name));
        let login4 = Packet::Login4 { nonce: id.nonce, result: &sealed }.to_bytes();
        out.send_bytes(id.address, &login4);
        if let Some(pending) = self.pending_logins.find_mut(&id) {
            pending.stage = LoginStage::Answered { login4 };
        }
    }

    /// The result for a client that has proven the password of the credential `version`, in force at LOGIN2.
    fn authorize(
        &mut self,
        now: Instant,
        id: LoginId,
        user: &UserName,
        version: Option<CredentialVersion>,
        client_info: ClientInfo,
        login_key: &LoginKey,
    ) -> Result<LoginResult, LoginFailed> {
        let wall_us = self.wall_ms(now).saturating_mul(1_000);
        let account = self.accounts.get(user).ok_or(LoginFailed)?;
        let version = version.filter(|_| account.version == version).ok_or(LoginFailed)?;
        if let Some(key) = self.sessions.of_owner(account.owner) {
            // A resumed session that its client has not used may be one that the client abandoned, or a replay within
            // the lifetime of its cookie: it does not keep the user out.
            let reply = self.sessions.get(key).unconfirmed.as_deref();
            if !matches!(reply, Some(HandshakeReply::Resumption { .. })) {
                return Ok(LoginResult::AlreadyActive { liveness_ms: millis(self.config.liveness) });
            }
            self.end_session(key, SessionEnd::Replaced);
        }
        let account = self.accounts.get_mut(user).ok_or(LoginFailed)?;
        let (instance, generation) = account.log_in(client_info.instance, wall_us);
        let user = user.clone();
        let new = NewSession { user, id, version, instance, generation, client_info, active_since: now };
        Ok(LoginResult::Accepted(self.create_session(now, new, login_key.session_secret())))
    }

    /// RESUME, from a validated address. Returns the RESUMED packet; `None` if the ticket is not accepted.
    pub(super) fn resume(
        &mut self,
        now: Instant,
        id: LoginId,
        cookie: &Cookie,
        client_info: &[u8; CLIENT_INFO_BYTES],
        ticket: &[u8],
    ) -> Option<Vec<u8>> {
        let opened = ResumptionTicket::open(ticket, &self.keys.tickets);
        let ticket = opened.inspect_err(|error| debug!("{}: a resumption was refused: {error}", id.address)).ok()?;
        let keys = ResumptionKey::new(ticket.secret.0.into());
        let client_info = keys.client_info(&id.nonce, cookie).open(client_info).ok()?;
        let account = self.accounts.get(&ticket.user)?;
        if account.version != Some(ticket.credential_version) {
            debug!("{}: a resumption of {} under an old credential", id.address, escape_controls(ticket.user.as_str()));
            return None;
        }
        let replaced = self.sessions.of_owner(account.owner);
        let (mut generation, mut active_since) = (ticket.generation, now);
        if let Some(session) = replaced.map(|key| self.sessions.get(key)) {
            if session.instance != ticket.instance {
                return None;
            }
            if session.address == id.address
                && let Some(HandshakeReply::Resumption { nonce, resumed }) = session.unconfirmed.as_deref()
                && *nonce == id.nonce
            {
                return Some(resumed.clone());
            }
            generation = generation.max(session.generation);
            active_since = session.active_since;
        } else if ticket.expires_ms <= self.wall_ms(now) {
            // Not while the session lives: its client may have been logged in for longer than a ticket is valid, and its
            // password is refused as long as the session is active.
            debug!("{}: an expired ticket of {}", id.address, escape_controls(ticket.user.as_str()));
            return None;
        }
        let generation = generation.checked_add(1)?;
        if !account.may_resume(ticket.instance, ticket.generation) {
            return None;
        }
        if let Some(key) = replaced {
            self.remove_session(key, SessionEnd::Replaced);
        }
        // The user has proven the password to get the ticket: a restart does not make the location an unknown one.
        self.throttle.record_success(now, id.address.ip(), &ticket.user);
        let (user, version, instance) = (ticket.user, ticket.credential_version, ticket.instance);
        let new = NewSession { user, id, version, instance, generation, active_since, client_info };
        self.create_resumed_session(now, new, &keys)
    }

    /// Creates the resumed session.
    fn create_resumed_session(&mut self, now: Instant, new: NewSession, keys: &ResumptionKey) -> Option<Vec<u8>> {
        let id = new.id;
        let mut server_nonce: Nonce = [0; 16];
        self.rng.fill_bytes(&mut server_nonce);
        if let Some(account) = self.accounts.get_mut(&new.user) {
            account.newest_instance = account.newest_instance.max(new.instance);
        }
        self.counters.logins.add(LoginStatus::Resumed);
        debug!("{}: {} resumed", id.address, escape_controls(new.user.as_str()));
        let params = self.create_session(now, new, keys.session_secret(&id.nonce, &server_nonce));
        let session = self.sessions.find(&params.session)?;
        let result = keys.result(&id.nonce, &server_nonce).seal(&LoginResult::Accepted(params));
        let resumed = Packet::Resumed { nonce: id.nonce, server_nonce, result: &result }.to_bytes();
        let reply = HandshakeReply::Resumption { nonce: id.nonce, resumed: resumed.clone() };
        self.sessions.get_mut(session).unconfirmed = Some(Box::new(reply));
        Some(resumed)
    }

    /// Creates a session. The user must have none.
    fn create_session(&mut self, now: Instant, new: NewSession, secret: Secret) -> SessionParams {
        let NewSession { user, id: LoginId { address, nonce }, version, instance, generation, .. } = new;
        let NewSession { client_info, active_since, .. } = new;
        let owner = self.index.intern_owner(&user);
        let session = self.keys.new_session_id(&mut self.rng);
        let ticket = ResumptionTicket {
            user: user.clone(),
            credential_version: version,
            instance,
            generation,
            secret: (*ResumptionKey::secret_for_ticket(&secret)).into(),
            expires_ms: self.wall_ms(now) + u64::try_from(RESUMPTION_LIFETIME.as_millis()).expect("a week fits"),
        };
        let params = SessionParams {
            session,
            instance,
            heartbeat_ms: millis(self.config.heartbeat),
            liveness_ms: millis(self.config.liveness),
            server_time_ms: self.ticket_clock_ms(now),
            reset_token: self.keys.reset_token(&session).into(),
            ticket: ticket.seal(&self.keys.tickets, &mut self.rng),
            digest: self.index.digest(owner),
            last_writer: self.accounts.get(&user).map_or(InstanceId(0), Account::last_writer),
            local_only: self.config.listens_elsewhere && address.ip().is_loopback(),
        };
        self.set_active(owner, true);
        self.sessions.insert(Session {
            cipher: SessionCipher::new(Side::Server, session, &secret),
            user,
            owner,
            address,
            instance,
            active_since,
            generation,
            tcp_port: client_info.tcp_port,
            free_slots: client_info.free_slots,
            lowest_pending: RequestId(0),
            refused: None,
            highest_logged: RequestId(0),
            ticket_secret: derive(context::TRANSFER_TICKETS, secret.as_slice()),
            deadline: now + self.config.liveness,
            unconfirmed: Some(Box::new(HandshakeReply::Login { nonce })),
            staged: None,
            share: TokenBucket::full(),
            subscriptions: None,
        });
        params
    }

    /// Creates a session without a handshake.
    #[cfg(test)]
    pub fn insert_session(
        &mut self,
        now: Instant,
        user: UserName,
        address: std::net::SocketAddr,
        client_info: ClientInfo,
        secret: Secret,
    ) -> SessionParams {
        let owner = self.index.intern_owner(&user);
        let instance = self.accounts.entry(user.clone()).or_insert_with(|| Account::new(owner)).begin_instance(1);
        let id = LoginId { address, nonce: [0; 16] };
        let version = [0; 16];
        let new = NewSession { user, id, version, instance, generation: 0, client_info, active_since: now };
        self.create_session(now, new, secret)
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
