use std::time::Duration;

use crate::common::packet::Packet;
use crate::server::auth::credentials::{Credential, Credentials};
use crate::server::auth::enrolment::EnrolmentResult;
use crate::server::core::ServerConfig;
use crate::server::test_support::{LoginOutcome, World, address, credentials, user};

const HERE: &str = "127.0.0.1:4000";

#[test]
fn the_right_password_makes_a_session() {
    let mut world = World::new(&["hans"]);
    let client = world.login(HERE, "hans");
    assert_eq!(client.welcome.heartbeat_ms, 2_000);
    assert_eq!(client.welcome.liveness_ms, 3_000);
    assert!(!client.welcome.local_only);
    assert_eq!(world.server.session_count(), 1);
}

#[test]
fn a_wrong_password_an_unknown_user_and_an_active_one_look_the_same() {
    let mut world = World::new(&["hans", "vader"]);
    let _active = world.login(HERE, "vader");
    let mut shapes = Vec::new();
    for (name, password) in [("hans", "wrong"), ("nobody", "wrong"), ("vader", "wrong"), ("vader", "vader-pw")] {
        let from = address("127.0.0.1:4001");
        let login = world.begin_login(from, name, password).expect("LOGIN2");
        let answer = world.send(from, &login.login3);
        shapes.push((login.login2.len(), answer.len(), answer[0].bytes.len(), answer[0].bytes[0]));
        let outcome = login.outcome(from, &answer[0].bytes);
        assert_eq!(matches!(outcome, Some(LoginOutcome::AlreadyActive { liveness_ms: 3_000 })), password == "vader-pw");
        assert!(!matches!(outcome, Some(LoginOutcome::Welcome(_))));
    }
    assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]), "{shapes:?}");
    assert_eq!(world.server.session_count(), 1);
}

#[test]
fn no_size_in_any_phase_tells_a_known_user_from_an_unknown_one() {
    let mut world = World::new(&["hans", "vader"]);
    let _active = world.login(HERE, "vader");
    let shape = |answer: &[crate::server::core::Datagram]| -> Vec<(u8, usize)> {
        answer.iter().map(|datagram| (datagram.bytes[0], datagram.bytes.len())).collect()
    };
    let mut shapes = Vec::new();
    for (at, name) in ["hans", "vader", "nobody"].into_iter().enumerate() {
        let mut phases = Vec::new();
        for guess in 0..25 {
            let from = address(&format!("127.0.0.2:{}", 1_000 + 100 * at + guess));
            let (nonce, cookie) = world.cookie(from);
            // A senseless first message now and then: it must fail as late as the others.
            let mut ke1 = [0xff; crate::common::packet::KE1_BYTES];
            if guess % 2 == 0 {
                ke1 = crate::common::opaque::ClientLogin::start(&mut world.rng, b"guess").1;
            }
            let login1 = Packet::Login1 { nonce, cookie, user: name, ke1: &ke1 }.to_bytes();
            let login3 = Packet::Login3 { nonce, ke3: &[5; 64], client_info: &[6; 48] }.to_bytes();
            for step in [&login1, &login1, &login3, &login3, &login1] {
                phases.push(shape(&world.send(from, step)));
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
fn repeated_steps_draw_the_same_bytes_and_act_once() {
    let mut world = World::new(&["hans"]);
    let from = address(HERE);
    let login = world.begin_login(from, "hans", "hans-pw").expect("LOGIN2");
    let again = world.send(from, &login.login1);
    assert_eq!(again[0].bytes, login.login2);
    let first = world.send(from, &login.login3);
    let second = world.send(from, &login.login3);
    assert_eq!(first, second);
    assert_eq!(world.server.session_count(), 1);
    assert!(world.send(from, &login.login1).is_empty(), "what is decided does not begin again");
    let Some(LoginOutcome::Welcome(mut client)) = login.outcome(from, &first[0].bytes) else { panic!("refused") };
    assert_eq!(world.heartbeat(&mut client).len(), 1);
    assert!(world.send(from, &login.login3).is_empty(), "the client knows; the answer is kept no longer");
}

#[test]
fn steps_from_another_address_or_too_late_are_nobodys() {
    let mut world = World::new(&["hans"]);
    let login = world.begin_login(address(HERE), "hans", "hans-pw").expect("LOGIN2");
    assert!(world.send(address("127.0.0.1:4001"), &login.login3).is_empty());
    world.advance(Duration::from_secs(11));
    assert!(world.send(address(HERE), &login.login3).is_empty());
    assert_eq!(world.server.session_count(), 0);
}

#[test]
fn a_stale_or_stolen_cookie_draws_a_fresh_one() {
    let mut world = World::new(&["hans"]);
    let login = world.begin_login(address(HERE), "hans", "hans-pw").expect("LOGIN2");
    let elsewhere = world.send(address("127.0.0.2:4000"), &login.login1);
    assert!(matches!(Packet::parse(&elsewhere[0].bytes), Some(Packet::Retry { .. })));
    world.advance(Duration::from_secs(60));
    let stale = world.send(address(HERE), &login.login1);
    let Some(Packet::Retry { nonce, cookie }) = Packet::parse(&stale[0].bytes) else { panic!("no RETRY") };
    assert_eq!(nonce, login.nonce);
    let mut login1 = login.login1.clone();
    login1[17..49].copy_from_slice(&cookie);
    let reply = world.send(address(HERE), &login1);
    assert!(matches!(Packet::parse(&reply[0].bytes), Some(Packet::Login2 { .. })));
}

#[test]
fn another_version_is_told_ours() {
    let mut world = World::new(&["hans"]);
    let hello = Packet::Hello { version: 9, nonce: [3; 16] }.to_bytes();
    let reply = world.send(address(HERE), &hello);
    assert_eq!(Packet::parse(&reply[0].bytes), Some(Packet::Version { version: 1, nonce: [3; 16] }));
}

#[test]
fn a_client_at_loopback_of_a_server_that_listens_elsewhere_is_told() {
    let config = ServerConfig { listens_elsewhere: true, ..ServerConfig::default() };
    let mut world = World::start(&["hans", "vader"], config, crate::server::test_support::origin());
    assert!(world.login(HERE, "hans").welcome.local_only);
    assert!(!world.login("192.0.2.1:4000", "vader").welcome.local_only);
}

#[test]
fn while_records_are_made_everyone_waits_for_theirs() {
    let mut world = World::new(&[]);
    let plain = Credential::Plaintext(zeroize::Zeroizing::new(b"hans-pw".to_vec()));
    let users = [(user("hans"), plain)].into();
    let plaintexts = world.set_credentials(Credentials { users, warnings: Vec::new() });
    assert_eq!(plaintexts.len(), 1);
    let made = credentials(&["hans"]).users.remove(&user("hans"));
    let Some(Credential::Record(record)) = made else { panic!("a record") };
    let enrolled = |name, record, unblocks| EnrolmentResult { user: user(name), record, unblocks };
    let mut record = Some(*record);
    // A second time, hans' record is there already: he waits like anybody else.
    for round in 0..2 {
        let names = ["hans", "nobody"];
        for (at, name) in names.iter().enumerate() {
            let from = address(&format!("127.0.0.1:{}", 10 * round + at + 1));
            assert!(world.begin_login(from, name, "hans-pw").err().expect("no LOGIN2").is_empty());
        }
        world.server.handle_enrolled(enrolled("hans", record.take(), false));
        assert!(world.settle().is_empty(), "made, but not released");
        for name in names {
            world.server.handle_enrolled(enrolled(name, None, true));
            assert_eq!(world.settle().len(), 1, "LOGIN2 for {name}");
        }
    }
    assert!(world.begin_login(address("127.0.0.1:3"), "hans", "hans-pw").is_err(), "until all are made");
    world.server.handle_enrolment_done();
    assert_eq!(world.settle().len(), 1);
    world.login("127.0.0.1:5", "hans");
}

#[test]
fn records_that_were_made_outlast_a_reload() {
    let mut world = World::new(&[]);
    let file = |hans: &str| {
        let text = format!("hans {hans}\nvader vader-pw\nyoda yoda-pw\n");
        Credentials::parse(text.as_bytes(), std::path::Path::new("credentials.txt")).unwrap()
    };
    let reload = |world: &mut World, hans: &str| -> Vec<String> {
        let plaintexts = world.set_credentials(file(hans));
        plaintexts.into_iter().map(|(user, _)| user.to_string()).collect()
    };
    assert_eq!(reload(&mut world, "hans-pw"), ["hans", "vader", "yoda"]);
    for (name, credential) in credentials(&["hans", "vader"]).users {
        let Credential::Record(record) = credential else { panic!("a record") };
        world.server.handle_enrolled(EnrolmentResult { user: name, record: Some(*record), unblocks: false });
    }
    assert_eq!(reload(&mut world, "hans-pw"), ["yoda"], "what is made is made");
    assert_eq!(reload(&mut world, "other"), ["hans", "yoda"], "unless the line has changed");
    world.server.handle_enrolment_done();
    world.login(HERE, "vader");
}

#[test]
fn changed_credentials_log_out_whom_they_concern() {
    let mut world = World::new(&["hans", "vader", "yoda"]);
    let (mut hans, mut vader, mut yoda) =
        (world.login("127.0.0.1:1", "hans"), world.login("127.0.0.1:2", "vader"), world.login("127.0.0.1:3", "yoda"));
    let mut new = credentials(&["hans", "vader", "yoda"]);
    new.users.remove(&user("hans"));
    let other = credentials(&["vader"]).users.remove(&user("vader")).unwrap();
    new.users.insert(user("vader"), other);
    world.set_credentials(new);
    let told = world.settle();
    assert_eq!(hans.hear(told.clone()), [crate::common::message::ServerMessage::SessionRevoked]);
    assert_eq!(vader.hear(told.clone()), [crate::common::message::ServerMessage::SessionRevoked]);
    assert!(yoda.hear(told).is_empty() && world.heartbeat(&mut yoda).len() == 1);
    assert!(world.resume(&hans, hans.address).is_none(), "the ticket is void");
    assert!(world.resume(&vader, vader.address).is_none(), "the ticket is void");
    assert!(world.try_login(address("127.0.0.1:1"), "hans", "hans-pw").is_none());
}
