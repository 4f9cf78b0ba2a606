//! What an attacker sees of a name's OPRF key (KE2's first 32 bytes, for one KE1) is the same before, while and after the
//! name has a user.

use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use crate::common::opaque::{ClientLogin, KeyStretching, OprfSeed, PasswordRecord};
use crate::common::packet::Packet;
use crate::server::auth::credentials::{Credential, Credentials};
use crate::server::auth::enrolment::{Enrolment, EnrolmentResult};
use crate::server::core::ServerConfig;
use crate::server::core::credentials::Plaintext;
use crate::server::test_support::{TestServer, address, origin, user};

const NAMES: [&str; 2] = ["hans", "nobody"];

fn config() -> ServerConfig {
    ServerConfig { root_secret: [7; 32].into(), ..ServerConfig::default() }
}

fn start(config: ServerConfig, after_s: u64) -> TestServer {
    TestServer::start(&[], config, origin() + std::time::Duration::from_secs(after_s))
}

/// The evaluated elements of [`NAMES`] for one KE1. Logins that wait for a record are unblocked.
fn elements(test: &mut TestServer) -> [Vec<u8>; 2] {
    let (_, ke1) = ClientLogin::start(&mut ChaCha20Rng::seed_from_u64(5), b"a guess");
    NAMES.map(|name| {
        let from = address(&format!("127.0.0.1:{}", 1 + test.recorded.len()));
        let (nonce, cookie) = test.cookie(from);
        let mut sent = test.send(from, &Packet::Login1 { nonce, cookie, user: name, ke1: &ke1 }.to_bytes());
        if sent.is_empty() {
            test.server.handle_enrolled(EnrolmentResult { user: user(name), record: None, unblocks: true });
            sent = test.run_until_idle();
        }
        match Packet::parse(&sent[0].bytes) {
            Some(Packet::Login2 { ke2, .. }) => ke2[..32].to_vec(),
            other => panic!("{other:?}"),
        }
    })
}

fn reload(test: &mut TestServer, text: &str) -> Vec<Plaintext> {
    test.set_credentials(Credentials::parse(text.as_bytes(), "credentials.txt".as_ref()).unwrap())
}

/// Makes the records as the real thread does.
fn enrol(test: &mut TestServer, plaintexts: Vec<Plaintext>) {
    let (sender, news) = std::sync::mpsc::channel();
    let wake = Box::new(move || sender.send(()).unwrap());
    let root = config().root_secret.0.into();
    let enrolment = Enrolment::start(plaintexts, root, KeyStretching::Insecure, wake).unwrap();
    loop {
        let progress = enrolment.poll();
        progress.results.into_iter().for_each(|result| test.server.handle_enrolled(result));
        if progress.is_done {
            return test.server.handle_enrolment_done();
        }
        news.recv().unwrap();
    }
}

#[test]
fn the_evaluated_element_of_a_name_is_always_the_same() {
    let mut test = start(config(), 0);
    let expected = elements(&mut test);
    assert_ne!(expected[0], expected[1]);
    for restart in 1..3 {
        for password in ["hans-pw", "another"] {
            let plaintexts = reload(&mut test, &format!("hans {password}\n"));
            assert_eq!(plaintexts.len(), 1);
            assert_eq!(elements(&mut test), expected, "while records are made");
            enrol(&mut test, plaintexts);
            assert_eq!(elements(&mut test), expected, "when hans has a record");
        }
        assert!(reload(&mut test, "").is_empty());
        assert_eq!(elements(&mut test), expected, "without hans");
        test = start(config(), restart);
        assert_eq!(elements(&mut test), expected, "after a restart");
    }
    let mut other = start(ServerConfig { root_secret: [8; 32].into(), ..ServerConfig::default() }, 0);
    assert!(elements(&mut other).iter().all(|element| !expected.contains(element)), "another server has other keys");
}

#[test]
fn a_record_line_made_with_the_data_file_has_the_same_element_and_another_has_not() {
    let mut test = start(config(), 0);
    let [hans, nobody] = elements(&mut test);
    let (mut rng, user) = (ChaCha20Rng::seed_from_u64(1), user("hans"));
    let seed = OprfSeed::of_user(&config().root_secret.0.into(), &user);
    let ours = PasswordRecord::register_with_seed(&mut rng, &seed, &user, b"hans-pw", KeyStretching::Insecure);
    let other = PasswordRecord::register(&mut rng, &user, b"hans-pw", KeyStretching::Insecure);
    for (record, is_same) in [(ours, true), (other, false)] {
        let users = [(user.clone(), Credential::Record(Box::new(record)))].into();
        test.set_credentials(Credentials { users, warnings: Vec::new() });
        let found = elements(&mut test);
        assert_eq!((found[0] == hans, &found[1]), (is_same, &nobody));
        test.login("127.0.0.2:1", "hans");
        reload(&mut test, "");
        test.run_until_idle();
    }
}
