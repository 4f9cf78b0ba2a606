use std::time::Duration;

use zeroize::Zeroizing;

use crate::common::message::{ClientMessage, Heartbeat, Request, Response, ServerMessage};
use crate::common::packet::Packet;
use crate::common::session_cipher::{SessionCipher, Side};
use crate::server::test_support::{LoginOutcome, World, address, user};

const HERE: &str = "127.0.0.1:4000";

#[test]
fn a_heartbeat_is_acknowledged_and_keeps_alive() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    for _ in 0..10 {
        world.advance(Duration::from_millis(2_999));
        assert_eq!(world.heartbeat(&mut hans), [ServerMessage::HeartbeatAck { number: 1 }]);
    }
    assert_eq!(world.server.session_count(), 1);
}

#[test]
fn silence_ends_a_session_at_its_very_moment() {
    let mut world = World::new(&["hans", "vader"]);
    let mut hans = world.login(HERE, "hans");
    world.advance(Duration::from_millis(500));
    let mut vader = world.login("127.0.0.1:4001", "vader");
    let peers = |world: &mut World, vader: &mut _| world.ask(vader, Request::Peers { cursor: None });
    world.advance(Duration::from_millis(2_499));
    assert_eq!(peers(&mut world, &mut vader), Response::Users { users: vec![user("hans")], next: None });
    assert_eq!(world.server.poll_timeout(), Some(world.now + Duration::from_millis(1)), "it sleeps just until then");
    world.advance(Duration::from_millis(1));
    assert_eq!(peers(&mut world, &mut vader), Response::Users { users: Vec::new(), next: None });
    assert!(world.heartbeat(&mut hans).is_empty());
}

#[test]
fn a_server_that_slept_gives_its_clients_a_chance() {
    let mut world = World::new(&["hans", "vader"]);
    let (mut hans, _gone) = (world.login(HERE, "hans"), world.login("127.0.0.1:4001", "vader"));
    world.advance(Duration::from_secs(60));
    world.server.handle_stall(world.now);
    assert_eq!(world.heartbeat(&mut hans).len(), 1);
    assert_eq!(world.server.session_count(), 2);
    world.advance(Duration::from_secs(1));
    world.settle();
    assert_eq!(world.server.session_count(), 1, "who says nothing is gone after all");
    assert_eq!(world.heartbeat(&mut hans).len(), 1);
}

#[test]
fn the_user_of_an_ended_session_can_log_in_again() {
    let mut world = World::new(&["hans"]);
    let first = world.login(HERE, "hans");
    let refused = world.try_login(address("127.0.0.1:4001"), "hans", "hans-pw");
    assert!(matches!(refused, Some(LoginOutcome::AlreadyActive { .. })));
    world.advance(Duration::from_secs(3));
    let second = world.login("127.0.0.1:4001", "hans");
    assert!(second.welcome.instance > first.welcome.instance);
}

#[test]
fn a_session_belongs_to_one_address() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert!(world.send(address("127.0.0.1:4001"), &bytes).is_empty());
    assert_eq!(world.send(address(HERE), &bytes).len(), 1, "and the stranger did not use it up");
}

#[test]
fn a_mapped_address_is_the_address_itself() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert_eq!(world.send(address("[::ffff:127.0.0.1]:4000"), &bytes)[0].to, address(HERE));
}

#[test]
fn a_replayed_datagram_changes_nothing() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let bytes = hans.seal(&ClientMessage::Heartbeat(Heartbeat { number: 1, free_slots: 0 }));
    assert_eq!(world.send(address(HERE), &bytes).len(), 1);
    world.advance(Duration::from_millis(2_500));
    assert!(world.send(address(HERE), &bytes).is_empty());
    world.advance(Duration::from_millis(500));
    world.settle();
    assert_eq!(world.server.session_count(), 0, "and counts as no sign of life");
}

#[test]
fn leaving_is_acknowledged_and_final() {
    let mut world = World::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (world.login(HERE, "hans"), world.login("127.0.0.1:4001", "vader"));
    assert_eq!(world.say(&mut hans, &ClientMessage::Logout), [ServerMessage::LogoutAck]);
    let peers = world.ask(&mut vader, Request::Peers { cursor: None });
    assert_eq!(peers, Response::Users { users: Vec::new(), next: None });
    assert!(world.resume(&hans, hans.address).is_none());
    world.login(HERE, "hans");
}

#[test]
fn an_unknown_session_draws_a_believable_reset_and_random_ids_none() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.say(&mut hans, &ClientMessage::Logout);
    let bytes = hans.seal(&ClientMessage::Logout);
    let reply = world.send(address(HERE), &bytes);
    let token = hans.welcome.reset_token.0;
    let expected = Packet::Reset { id: hans.welcome.session, token, delay_ms: 0 };
    assert_eq!(Packet::parse(&reply[0].bytes), Some(expected));
    assert!(reply[0].bytes.len() < bytes.len());
    let mut forged = bytes.clone();
    forged[3] ^= 1;
    assert!(world.send(address(HERE), &forged).is_empty());
}

/// A datagram of a session that has ended.
fn stale(world: &mut World) -> Vec<u8> {
    let id = world.server.keys.new_session_id(&mut world.rng);
    let mut channel = SessionCipher::new(Side::Client, id, &Zeroizing::new([1; 32]));
    let mut bytes = Vec::new();
    channel.seal_into(&mut bytes, |text| ClientMessage::Logout.encode(text));
    bytes
}

/// What the reset that it draws says, if any.
fn delay(world: &mut World, from: &str, bytes: &[u8]) -> Option<u16> {
    match Packet::parse(&world.send(address(from), bytes).pop()?.bytes) {
        Some(Packet::Reset { delay_ms, .. }) => Some(delay_ms),
        other => panic!("{other:?}"),
    }
}

#[test]
fn resets_spread_the_clients() {
    let mut world = World::new(&[]);
    let hosts: Vec<String> = (0..20_000).map(|at| format!("10.0.{}.{}:4000", at / 250, at % 250)).collect();
    let sessions: Vec<_> = hosts.iter().map(|_| stale(&mut world)).collect();
    let delays: Vec<_> =
        sessions.iter().zip(&hosts).filter_map(|(session, host)| delay(&mut world, host, session)).collect();
    assert_eq!((delays.len(), delays[10_000]), (20_000, 4_000));
    assert_eq!(delays.iter().max(), Some(&5_000));
    // Each keeps its turn, and when all have had theirs there is no more waiting.
    world.advance(Duration::from_millis(1_500));
    assert_eq!(delay(&mut world, &hosts[10_000], &sessions[10_000]), Some(2_500));
    world.advance(Duration::from_secs(10));
    assert_eq!(delay(&mut world, &hosts[10_000], &sessions[10_000]), Some(0));
}

#[test]
fn a_recorded_datagram_said_again_delays_nobody() {
    let mut world = World::new(&[]);
    let (recorded, hans) = (stale(&mut world), stale(&mut world));
    for round in 0..100_u64 {
        for _ in 0..1_000 {
            delay(&mut world, "192.0.2.66:6", &recorded);
        }
        let from = format!("10.0.0.{round}:4000");
        assert!(delay(&mut world, &from, &hans).is_some_and(|delay_ms| delay_ms <= 1), "round {round}");
        world.advance(Duration::from_millis(10 * round));
    }
}
