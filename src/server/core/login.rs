//! Logging in with a password: LOGIN1 to ANSWER.
//!
//! Defended: a user who exists and one who does not are served by the same steps in the same order. A record is faked
//! for everyone and used for whoever has none; while records are being made everyone waits for theirs, real or not;
//! every refusal is as many random bytes. The expensive step is not taken here but lined up (see `handshake`).

use std::net::SocketAddr;
use std::time::Instant;

use log::{debug, info};
use rand::RngCore;
use zeroize::Zeroizing;

use super::Server;
use crate::common::crypto::{Secret, context, derive};
use crate::common::escape::escape_controls;
use crate::common::handshake_keys::{ClientInfo, LoginKey, LoginResult, ResumptionKey, SessionParams};
use crate::common::limits::RESUMPTION_LIFETIME;
use crate::common::net::AddressPrefix;
use crate::common::opaque::{LoginFailed, PasswordRecord, ServerLogin};
use crate::common::packet::{CLIENT_INFO_BYTES, KE1_BYTES, KE3_BYTES, LOGIN_RESULT_BYTES, Packet};
use crate::common::session_cipher::{SessionCipher, Side};
use crate::common::ticket::ResumptionTicket;
use crate::common::types::{InstanceId, RequestId, UserName};
use crate::server::auth::enrolment::EnrolmentResult;
use crate::server::auth::keys::CredentialVersion;
use crate::server::core::Effects;
use crate::server::core::pending_logins::{Key, Stage};
use crate::server::core::sessions::{Beginning, Session};

/// Everything about a session that is about to stand but its keys.
pub(super) struct Entrant {
    pub(super) user: UserName,
    pub(super) address: SocketAddr,
    pub(super) version: CredentialVersion,
    pub(super) run: InstanceId,
    pub(super) generation: u32,
    pub(super) details: ClientInfo,
    pub(super) beginning: Beginning,
}

impl Server {
    /// From an address that is proven.
    pub(super) fn on_login1(&mut self, now: Instant, key: Key, user: &str, ke1: &[u8; KE1_BYTES], out: &mut Effects) {
        if let Some(handshake) = self.handshakes.find_mut(&key) {
            match &handshake.stage {
                Stage::Offered { login2, .. } => out.bytes(key.0, login2),
                Stage::Waiting { .. } if self.enrolling => {
                    out.awaited_records.push((AddressPrefix::of(key.0.ip()), handshake.user.clone()));
                }
                Stage::Waiting { .. } | Stage::Decided { .. } | Stage::Finished => {}
            }
            return;
        }
        let user = UserName::parse(user).expect("the packet's parser has checked it");
        let is_known = self.throttle.is_known(AddressPrefix::of(key.0.ip()));
        match self.throttle.check(now, key.0.ip(), &user) {
            Ok(charge) => self.handshakes.insert(now, key, is_known, user.clone(), charge, *ke1),
            Err(retry) => {
                debug!("{}: too many guesses for {}", key.0, escape_controls(user.as_str()));
                out.packet(key.0, Packet::Throttled { nonce: key.1, retry_after_s: retry.seconds });
                return;
            }
        }
        if self.enrolling {
            self.handshakes.park(key, &user);
            out.awaited_records.push((AddressPrefix::of(key.0.ip()), user));
        } else {
            self.handshakes.make_ready(key);
        }
    }

    /// A record is made, or there was nothing to make it from; who waited for its name goes on if it is released.
    pub fn handle_enrolled(&mut self, enrolled: EnrolmentResult) {
        if let Some(record) = enrolled.record
            && let Some(account) = self.accounts.find_mut(&enrolled.user)
            && account.version.is_some()
        {
            account.record = Some(record);
        }
        if enrolled.unblocks {
            self.handshakes.release(&enrolled.user);
        }
    }

    /// All records are made: nobody waits any more.
    pub fn handle_enrolment_done(&mut self) {
        self.enrolling = false;
        self.handshakes.release_all();
    }

    /// Takes the expensive step for whoever's turn it is.
    pub(super) fn login_step(&mut self, out: &mut Effects) {
        let Some(key) = self.handshakes.next_ready() else { return };
        let Some(handshake) = self.handshakes.find_mut(&key) else { return };
        let Stage::Waiting { ke1 } = handshake.stage else { return };
        let fake = PasswordRecord::fake(&self.keys.root, &handshake.user);
        let account = self.accounts.find(&handshake.user);
        let known = account.and_then(|account| Some((account.version?, account.record.as_ref()?)));
        let (version, record) = known.map_or((None, &fake), |(version, record)| (Some(version), record));
        let (login, ke2) = ServerLogin::start(&mut self.rng, record, &handshake.user, &ke1);
        let login2 = Packet::Login2 { nonce: key.1, ke2: &ke2 }.to_bytes();
        out.bytes(key.0, &login2);
        handshake.stage = Stage::Offered { login: Box::new(login), version, login2 };
    }

    /// Only an address that is proven has a login under way.
    pub(super) fn on_login3(
        &mut self,
        now: Instant,
        key: Key,
        ke3: &[u8; KE3_BYTES],
        details: &[u8; CLIENT_INFO_BYTES],
        out: &mut Effects,
    ) {
        let Some(handshake) = self.handshakes.find_mut(&key) else { return };
        let (login, version) = match std::mem::replace(&mut handshake.stage, Stage::Decided { answer: Vec::new() }) {
            Stage::Offered { login, version, .. } => (login, version),
            earlier => {
                if let Stage::Decided { answer } = &earlier {
                    out.bytes(key.0, answer);
                }
                handshake.stage = earlier;
                return;
            }
        };
        let (user, charge) = (handshake.user.clone(), handshake.charge.take());
        info!("{}: Received AUTH from {}", key.0, escape_controls(user.as_str()));
        let proven = login.finish(&user, ke3).and_then(|login_key| {
            let details = login_key.open_client_info(&key.1, details)?;
            Ok((login_key, details))
        });
        if proven.is_ok() {
            if let Some(charge) = charge {
                self.throttle.refund(now, charge);
            }
            self.throttle.record_success(now, key.0.ip(), &user);
        }
        let answer = proven.and_then(|(login_key, details)| {
            self.judge(now, key, &user, version, details, &login_key).map(|answer| (login_key, answer))
        });
        let verdict = if let Ok((_, LoginResult::Accepted(_))) = &answer { "OK" } else { "ERR" };
        let mut sealed = [0; LOGIN_RESULT_BYTES];
        match answer {
            Ok((login_key, answer)) => sealed = login_key.seal_result(&key.1, &answer),
            Err(LoginFailed) => self.rng.fill_bytes(&mut sealed),
        }
        info!("{}: Sent {verdict} to {}", key.0, escape_controls(user.as_str()));
        let answer = Packet::Login4 { nonce: key.1, result: &sealed }.to_bytes();
        out.bytes(key.0, &answer);
        if let Some(handshake) = self.handshakes.find_mut(&key) {
            handshake.stage = Stage::Decided { answer };
        }
    }

    /// Decides about someone who has proven the password that was in force at LOGIN2.
    fn judge(
        &mut self,
        now: Instant,
        key: Key,
        user: &UserName,
        version: Option<CredentialVersion>,
        details: ClientInfo,
        login_key: &LoginKey,
    ) -> Result<LoginResult, LoginFailed> {
        let wall_us = self.wall_ms(now).saturating_mul(1_000);
        let account = self.accounts.find(user).ok_or(LoginFailed)?;
        let version = version.filter(|_| account.version == version).ok_or(LoginFailed)?;
        if let Some(slot) = self.sessions.of_owner(account.owner) {
            // A resumption that nobody has spoken under may be one that its client gave up, or a recorded one whose cookie
            // still lasts: it does not keep the password's owner out.
            let is_unproven = self.sessions.at(slot).beginning.as_ref().is_some_and(|begun| !begun.resumed.is_empty());
            if !is_unproven {
                return Ok(LoginResult::AlreadyActive { liveness_ms: millis(self.config.liveness) });
            }
            self.end_session(slot);
        }
        let run = self.accounts.find_mut(user).ok_or(LoginFailed)?.begin_instance(wall_us);
        let beginning = Beginning { nonce: key.1, resumed: Vec::new() };
        let entrant = Entrant { user: user.clone(), address: key.0, version, run, generation: 0, details, beginning };
        Ok(LoginResult::Accepted(self.admit(now, entrant, login_key.session_secret())))
    }

    /// Makes the session. The user must have none.
    pub(super) fn admit(&mut self, now: Instant, entrant: Entrant, secret: Secret) -> SessionParams {
        let Entrant { user, address, version, run, generation, details, beginning } = entrant;
        let owner = self.index.intern_owner(&user);
        let id = self.keys.new_session_id(&mut self.rng);
        let ticket_secret: Zeroizing<[u8; 32]> = ResumptionKey::secret_for_ticket(&secret);
        let ticket = ResumptionTicket {
            user: user.clone(),
            credential_version: version,
            instance: run,
            generation,
            secret: (*ticket_secret).into(),
            expires_ms: self.wall_ms(now) + u64::try_from(RESUMPTION_LIFETIME.as_millis()).expect("a week fits"),
        };
        let welcome = SessionParams {
            session: id,
            instance: run,
            heartbeat_ms: millis(self.config.heartbeat),
            liveness_ms: millis(self.config.liveness),
            server_time_ms: self.clock_ms(now),
            reset_token: self.keys.reset_token(&id).into(),
            ticket: ticket.seal(&self.keys.tickets, &mut self.rng),
            digest: self.index.digest(owner),
            last_writer: self.last_writer(&user),
            local_only: self.config.listens_elsewhere && address.ip().is_loopback(),
        };
        self.sessions.insert(Session {
            channel: SessionCipher::new(Side::Server, id, &secret),
            user,
            owner,
            address,
            run,
            generation,
            tcp_port: details.tcp_port,
            free_slots: details.free_slots,
            floor: RequestId(0),
            logged: RequestId(0),
            ticket_secret: derive(context::TRANSFER_TICKETS, secret.as_slice()),
            deadline: now + self.config.liveness,
            beginning: Some(Box::new(beginning)),
            staged: None,
        });
        self.index.set_active(owner, true);
        welcome
    }
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
