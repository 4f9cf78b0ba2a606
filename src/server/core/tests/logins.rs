use std::time::Duration;

use crate::common::limits::PROTOCOL_VERSION;
use crate::common::packet::Packet;
use crate::server::auth::credentials::{Credential, Credentials};
use crate::server::auth::enrolment::EnrolmentResult;
use crate::server::core::ServerConfig;
use crate::server::test_support::{LoginOutcome, TestServer, address, credentials, user};

const HERE: &str = "127.0.0.1:4000";

#[test]
fn the_right_password_creates_a_session() {
    let mut test = TestServer::new(&["hans"]);
    let client = test.login(HERE, "hans");
    assert_eq!(client.params.heartbeat_ms, 2_000);
    assert_eq!(client.params.liveness_ms, 3_000);
    assert!(!client.params.local_only);
    assert_eq!(test.server.session_count(), 1);
}

#[test]
fn a_wrong_password_an_unknown_user_and_an_active_user_look_the_same() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let _active = test.login(HERE, "vader");
    let mut shapes = Vec::new();
    for (name, password) in [("hans", "wrong"), ("nobody", "wrong"), ("vader", "wrong"), ("vader", "vader-pw")] {
        let from = address("127.0.0.1:4001");
        let login = test.begin_login(from, name, password).expect("LOGIN2");
        let reply = test.send(from, &login.login3);
        shapes.push((login.login2.len(), reply.len(), reply[0].bytes.len(), reply[0].bytes[0]));
        let outcome = login.outcome(from, &reply[0].bytes);
        assert_eq!(matches!(outcome, Some(LoginOutcome::AlreadyActive { liveness_ms: 3_000 })), password == "vader-pw");
        assert!(!matches!(outcome, Some(LoginOutcome::Accepted(_))));
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]), "{shapes:?}");
    assert_eq!(test.server.session_count(), 1);
}

#[test]
fn no_packet_size_distinguishes_a_known_user_from_an_unknown_one() {
    let mut test = TestServer::new(&["hans", "vader"]);
    let _active = test.login(HERE, "vader");
    let shape = |reply: &[crate::server::core::Datagram]| -> Vec<(u8, usize)> {
        reply.iter().map(|datagram| (datagram.bytes[0], datagram.bytes.len())).collect()
    };
    let mut shapes = Vec::new();
    for (at, name) in ["hans", "vader", "nobody"].into_iter().enumerate() {
        let mut phases = Vec::new();
        for guess in 0..25 {
            let from = address(&format!("127.0.0.2:{}", 1_000 + 100 * at + guess));
            let (nonce, cookie) = test.cookie(from);
            // Every other first message is invalid; it must fail as late as the others.
            let mut ke1 = [0xff; crate::common::packet::KE1_BYTES];
            if guess % 2 == 0 {
                ke1 = crate::common::opaque::ClientLogin::start(&mut test.rng, b"guess").1;
            }
            let login1 = Packet::Login1 { nonce, cookie, user: name, ke1: &ke1 }.to_bytes();
            let login3 = Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] }.to_bytes();
            for step in [&login1, &login1, &login3, &login3, &login1] {
                phases.push(shape(&test.send(from, step)));
            }
        }
        shapes.push(phases);
    }
    assert_eq!(shapes[0], shapes[2], "known and unknown");
    assert_eq!(shapes[1], shapes[2], "active and unknown");
    let throttled = [(0x0b, 19)];
    assert_eq!(shapes[0].iter().filter(|phase| **phase == throttled).count(), 3 * 5, "the last guesses of 25");
}

#[test]
fn repeated_steps_get_the_same_bytes_and_act_once() {
    let mut test = TestServer::new(&["hans"]);
    let from = address(HERE);
    let login = test.begin_login(from, "hans", "hans-pw").expect("LOGIN2");
    let again = test.send(from, &login.login1);
    assert_eq!(again[0].bytes, login.login2);
    let first = test.send(from, &login.login3);
    let second = test.send(from, &login.login3);
    assert_eq!(first, second);
    assert_eq!(test.server.session_count(), 1);
    assert!(test.send(from, &login.login1).is_empty(), "a decided login does not begin again");
    let Some(LoginOutcome::Accepted(mut client)) = login.outcome(from, &first[0].bytes) else { panic!("refused") };
    assert_eq!(test.heartbeat(&mut client).len(), 1);
    assert!(test.send(from, &login.login3).is_empty(), "the client has confirmed; LOGIN4 is not kept any longer");
}

#[test]
fn steps_from_another_address_or_after_expiry_are_ignored() {
    let mut test = TestServer::new(&["hans"]);
    let login = test.begin_login(address(HERE), "hans", "hans-pw").expect("LOGIN2");
    assert!(test.send(address("127.0.0.1:4001"), &login.login3).is_empty());
    test.advance(Duration::from_secs(11));
    assert!(test.send(address(HERE), &login.login3).is_empty());
    assert_eq!(test.server.session_count(), 0);
}

#[test]
fn a_stale_or_stolen_cookie_is_answered_by_a_fresh_one() {
    let mut test = TestServer::new(&["hans"]);
    let login = test.begin_login(address(HERE), "hans", "hans-pw").expect("LOGIN2");
    let elsewhere = test.send(address("127.0.0.2:4000"), &login.login1);
    assert!(matches!(Packet::parse(&elsewhere[0].bytes), Some(Packet::Retry { .. })));
    test.advance(Duration::from_secs(60));
    let stale = test.send(address(HERE), &login.login1);
    let Some(Packet::Retry { nonce, cookie }) = Packet::parse(&stale[0].bytes) else { panic!("no RETRY") };
    assert_eq!(nonce, login.nonce);
    let mut login1 = login.login1.clone();
    login1[17..49].copy_from_slice(&cookie);
    let reply = test.send(address(HERE), &login1);
    assert!(matches!(Packet::parse(&reply[0].bytes), Some(Packet::Login2 { .. })));
}

#[test]
fn another_protocol_version_gets_ours() {
    let mut test = TestServer::new(&["hans"]);
    let hello = Packet::Hello { version: 9, nonce: [3; 16] }.to_bytes();
    let reply = test.send(address(HERE), &hello);
    assert_eq!(Packet::parse(&reply[0].bytes), Some(Packet::Version { version: PROTOCOL_VERSION, nonce: [3; 16] }));
}

#[test]
fn a_loopback_client_of_a_server_for_other_hosts_is_informed() {
    let config = ServerConfig { listens_elsewhere: true, ..ServerConfig::default() };
    let mut test = TestServer::start(&["hans", "vader"], config, crate::server::test_support::origin());
    assert!(test.login(HERE, "hans").params.local_only);
    assert!(!test.login("192.0.2.1:4000", "vader").params.local_only);
}

#[test]
fn while_records_are_made_every_login_waits_for_one() {
    let mut test = TestServer::new(&[]);
    let plain = Credential::Plaintext(zeroize::Zeroizing::new(b"hans-pw".to_vec()));
    let users = [(user("hans"), plain)].into();
    let plaintexts = test.set_credentials(Credentials { users, warnings: Vec::new() });
    assert_eq!(plaintexts.len(), 1);
    let made = credentials(&["hans"]).users.remove(&user("hans"));
    let Some(Credential::Record(record)) = made else { panic!("a record") };
    let enrolled = |name, record, unblocks| EnrolmentResult { user: user(name), record, unblocks };
    let mut record = Some(*record);
    // In the second round, the record of hans exists already; his login waits like any other.
    for round in 0..2 {
        let names = ["hans", "nobody"];
        for (at, name) in names.iter().enumerate() {
            let from = address(&format!("127.0.0.1:{}", 10 * round + at + 1));
            assert!(test.begin_login(from, name, "hans-pw").err().expect("no LOGIN2").is_empty());
        }
        test.server.handle_enrolled(enrolled("hans", record.take(), false));
        assert!(test.run_until_idle().is_empty(), "made, but not unblocked");
        for name in names {
            test.server.handle_enrolled(enrolled(name, None, true));
            assert_eq!(test.run_until_idle().len(), 1, "LOGIN2 for {name}");
        }
    }
    test.out.awaited_records.clear();
    assert!(test.begin_login(address("127.0.0.1:3"), "hans", "hans-pw").is_err(), "until all are made");
    let (from, login1) = test.recorded.last().unwrap().clone();
    test.send(from, &login1);
    assert_eq!(test.out.awaited_records.len(), 2, "asked for again with each repeat");
    test.server.handle_enrolment_done();
    assert_eq!(test.run_until_idle().len(), 1);
    test.login("127.0.0.1:5", "hans");
}

#[test]
fn the_versions_of_credentials_depend_on_the_secret_of_the_data_file() {
    let version_key = |secret: u8| {
        let config = ServerConfig { root_secret: [secret; 32].into(), ..ServerConfig::default() };
        TestServer::start(&[], config, crate::server::test_support::origin()).server.version_key()
    };
    assert_eq!(version_key(1), version_key(1), "tickets survive a restart");
    assert_ne!(version_key(1), version_key(2));
}

#[test]
fn records_survive_a_reload() {
    let mut test = TestServer::new(&[]);
    let file = |hans: &str| {
        let text = format!("hans {hans}\nvader vader-pw\nyoda yoda-pw\n");
        Credentials::parse(text.as_bytes(), std::path::Path::new("credentials.txt")).unwrap()
    };
    let reload = |test: &mut TestServer, hans: &str| -> Vec<String> {
        let plaintexts = test.set_credentials(file(hans));
        plaintexts.into_iter().map(|(user, _)| user.to_string()).collect()
    };
    assert_eq!(reload(&mut test, "hans-pw"), ["hans", "vader", "yoda"]);
    for (name, credential) in credentials(&["hans", "vader"]).users {
        let Credential::Record(record) = credential else { panic!("a record") };
        test.server.handle_enrolled(EnrolmentResult { user: name, record: Some(*record), unblocks: false });
    }
    assert_eq!(reload(&mut test, "hans-pw"), ["yoda"], "records of unchanged lines are kept");
    assert_eq!(reload(&mut test, "other"), ["hans", "yoda"], "unless the line has changed");
    test.server.handle_enrolment_done();
    test.login(HERE, "vader");
}

#[test]
fn changed_credentials_log_out_the_affected_users() {
    let mut test = TestServer::new(&["hans", "vader", "yoda"]);
    let (mut hans, mut vader, mut yoda) =
        (test.login("127.0.0.1:1", "hans"), test.login("127.0.0.1:2", "vader"), test.login("127.0.0.1:3", "yoda"));
    let mut new = credentials(&["hans", "vader", "yoda"]);
    new.users.remove(&user("hans"));
    let other = credentials(&["vader"]).users.remove(&user("vader")).unwrap();
    new.users.insert(user("vader"), other);
    test.set_credentials(new);
    let sent = test.run_until_idle();
    assert_eq!(hans.receive(sent.clone()), [crate::common::message::ServerMessage::SessionRevoked]);
    assert_eq!(vader.receive(sent.clone()), [crate::common::message::ServerMessage::SessionRevoked]);
    assert!(yoda.receive(sent).is_empty() && test.heartbeat(&mut yoda).len() == 1);
    assert!(test.resume(&hans, hans.address).is_none(), "the ticket is void");
    assert!(test.resume(&vader, vader.address).is_none(), "the ticket is void");
    assert!(test.try_login(address("127.0.0.1:1"), "hans", "hans-pw").is_none());
}
