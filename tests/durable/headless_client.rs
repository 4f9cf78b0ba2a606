//! Clients without a shell: the control thread and the server API, with cheap key stretching.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use fileshare::internals::client::control::ServerApi;
use fileshare::internals::client::control::{ControlHandle, Observer, SessionConfig, SessionControl};
use fileshare::internals::common::crypto::Secret;
use fileshare::internals::common::handshake_keys::SessionParams;
use fileshare::internals::common::opaque::KeyStretching;
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::record_line;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use zeroize::Zeroizing;

/// User `number`; its password is its name.
pub fn user(number: usize) -> UserName {
    UserName::parse(&format!("user{number}")).unwrap()
}

/// A credentials file for this number of users.
pub fn credentials(users: usize) -> String {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let line = |number| {
        let user = user(number);
        record_line(&user, user.as_str().as_bytes(), &mut rng, KeyStretching::Insecure) + "\n"
    };
    (0..users).map(line).collect()
}

/// Counts the events of a session.
#[derive(Default)]
pub struct SessionCounters {
    pub lost: AtomicUsize,
    pub resumed: AtomicUsize,
    pub republished_files: AtomicUsize,
    pub logged_out: AtomicUsize,
}

impl Observer for SessionCounters {
    fn session_started(&self, _: &UserName, _: &SessionParams, _: &Secret, resumed: bool) {
        self.resumed.fetch_add(usize::from(resumed), SeqCst);
    }
    fn connection_lost(&self) {
        self.lost.fetch_add(1, SeqCst);
    }
    fn logged_out(&self) {
        self.logged_out.fetch_add(1, SeqCst);
    }
    fn resynced(&self, files: usize) {
        self.republished_files.fetch_add(files, SeqCst);
    }
    fn free_slots(&self) -> u8 {
        1
    }
}

/// A client that is logged in.
pub struct HeadlessClient {
    pub user: UserName,
    pub control: ControlHandle,
    pub server_api: ServerApi,
    pub counters: Arc<SessionCounters>,
}

impl HeadlessClient {
    pub fn log_in(server: SocketAddr, number: usize) -> Self {
        let (user, counters) = (user(number), Arc::new(SessionCounters::default()));
        let options = SessionConfig { servers: vec![server], tcp_port: 9, stretching: KeyStretching::Insecure };
        let control = ControlHandle::start(options, Arc::clone(&counters) as _).unwrap();
        let password = Zeroizing::new(user.as_str().as_bytes().to_vec());
        control.login(user.clone(), password).unwrap();
        Self { user, server_api: ServerApi::new(control.clone()), control, counters }
    }
}
