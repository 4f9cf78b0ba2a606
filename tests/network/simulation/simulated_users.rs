//! The users of a simulated network: their names, addresses and passwords.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;

use fileshare::internals::common::opaque::{KeyStretching, PasswordRecord};
use fileshare::internals::common::types::UserName;
use fileshare::internals::server::auth::credentials::{Credential, Credentials};
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

/// Users with a password record.
const USERS_MAX: usize = 128;

pub fn address(client: usize, port: u16) -> SocketAddr {
    (Ipv4Addr::new(10, 0, 1, client as u8), port).into()
}

pub fn user(number: usize) -> UserName {
    UserName::parse(&format!("user{number:03}")).expect("a valid name")
}

/// The password records of all users. A user's password is the user name.
pub fn credentials() -> Credentials {
    static RECORDS: OnceLock<Vec<(UserName, PasswordRecord)>> = OnceLock::new();
    let records = RECORDS.get_or_init(|| {
        let mut rng = ChaCha20Rng::seed_from_u64(0);
        let mut register = |user: UserName| {
            let record = PasswordRecord::register(&mut rng, &user, user.as_str().as_bytes(), KeyStretching::Insecure);
            (user, record)
        };
        (0..USERS_MAX).map(|number| register(user(number))).collect()
    });
    let credential =
        |(user, record): &(UserName, PasswordRecord)| (user.clone(), Credential::Record(Box::new(record.clone())));
    Credentials { users: records.iter().map(credential).collect(), warnings: Vec::new() }
}
