use std::time::Duration;

use crate::common::message::{ClientMessage, Request, Response};
use crate::common::packet::Packet;
use crate::server::core::ServerConfig;
use crate::server::test_support::{LoginOutcome, World, address, origin, user};

const HERE: &str = "127.0.0.1:4000";
const THERE: &str = "127.0.0.9:4001";

#[test]
fn a_change_of_address_keeps_the_run_and_raises_the_generation() {
    let mut world = World::new(&["hans"]);
    let mut before = world.login(HERE, "hans");
    world.heartbeat(&mut before);
    let mut after = world.resume(&before, address(THERE)).expect("RESUMED");
    assert_eq!(after.welcome.instance, before.welcome.instance);
    assert_ne!(after.welcome.session, before.welcome.session);
    assert_eq!(world.heartbeat(&mut after).len(), 1);
    assert!(world.heartbeat(&mut before).is_empty());
    assert_eq!(world.server.session_count(), 1);
    let again = world.resume(&after, address(HERE)).expect("and again");
    assert_eq!(again.welcome.instance, before.welcome.instance);
}

#[test]
fn a_repeated_resume_draws_the_same_bytes() {
    let mut world = World::new(&["hans"]);
    let hans = world.login(HERE, "hans");
    let (nonce, resume) = world.resume_packet(&hans, address(THERE));
    let first = world.send(address(THERE), &resume);
    let second = world.send(address(THERE), &resume);
    assert_eq!(first, second);
    let mut resumed = hans.resumed(address(THERE), nonce, &second[0].bytes).expect("RESUMED");
    assert_eq!(world.heartbeat(&mut resumed).len(), 1);
}

#[test]
fn a_ticket_whose_successor_was_seen_is_used_up() {
    let mut world = World::new(&["hans"]);
    let first = world.login(HERE, "hans");
    let (_, recorded) = world.resume_packet(&first, address(HERE));
    let reply = world.send(address(HERE), &recorded);
    assert_eq!(reply.len(), 1);
    let lost = world.resume(&first, address(THERE));
    let mut second = lost.expect("nobody has shown to know the session that the lost RESUMED began");
    world.heartbeat(&mut second);
    assert!(world.resume(&first, address(HERE)).is_none());
    world.send(address(HERE), &recorded);
    assert_eq!(world.heartbeat(&mut second).len(), 1, "the replay did not end the session");
    world.advance(Duration::from_secs(3));
    world.send(address(HERE), &recorded);
    assert_eq!(world.server.session_count(), 0, "nor did it begin one");
    assert!(world.resume(&second, address(HERE)).is_some());
}

#[test]
fn a_recorded_resumption_makes_no_session() {
    let mut world = World::new(&["hans"]);
    let hans = world.login(HERE, "hans");
    let (_, recorded) = world.resume_packet(&hans, address(HERE));
    // The server has forgotten that hans came back and left since; whoever sits at hans' address can renew the cookie.
    let mut later = World::start(&["hans"], ServerConfig::default(), origin() + Duration::from_secs(60));
    let reply = later.send(address(HERE), &recorded);
    let Some(Packet::Retry { cookie, .. }) = Packet::parse(&reply[0].bytes) else { panic!("a cookie of the past") };
    assert_eq!((reply.len(), later.server.session_count()), (1, 0), "as it was recorded it changes nothing");
    let mut renewed = recorded.clone();
    renewed[17..49].copy_from_slice(&cookie);
    let reply = later.send(address(HERE), &renewed);
    assert!(matches!(Packet::parse(&reply[0].bytes), Some(Packet::Refused { .. })));
    assert_eq!(later.server.session_count(), 0, "nor with another cookie: hans is not seen, and is nobody's source");
    assert!(later.resume(&hans, address(HERE)).is_some(), "the ticket's owner is not kept out by it");
}

#[test]
fn a_resumption_that_nobody_speaks_under_keeps_nobody_out() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.heartbeat(&mut hans);
    let (_, resume) = world.resume_packet(&hans, address(HERE));
    world.send(address(HERE), &resume);
    let mut client = world.login(THERE, "hans");
    world.send(address(HERE), &resume);
    assert_eq!(world.heartbeat(&mut client).len(), 1);
    assert_eq!(world.server.session_count(), 1);
    let again = world.try_login(address(HERE), "hans", "hans-pw");
    assert!(matches!(again, Some(LoginOutcome::AlreadyActive { .. })), "who has spoken stays");
}

#[test]
fn a_run_does_not_supersede_another() {
    let mut world = World::new(&["hans"]);
    let old = world.login(HERE, "hans");
    world.advance(Duration::from_secs(3));
    let mut new = world.login(THERE, "hans");
    assert!(world.resume(&old, address(HERE)).is_none());
    assert_eq!(world.heartbeat(&mut new).len(), 1);
}

#[test]
fn a_session_outlives_the_server() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let restart = |secret: u8| {
        let config = ServerConfig { root_secret: [secret; 32].into(), ..ServerConfig::default() };
        World::start(&["hans"], config, origin() + Duration::from_secs(10))
    };
    let mut same = restart(0);
    let bytes = hans.seal(&ClientMessage::Logout);
    assert_eq!(same.send(address(HERE), &bytes).len(), 1, "RESET");
    let mut resumed = same.resume(&hans, address(HERE)).expect("RESUMED");
    assert_eq!(resumed.welcome.instance, hans.welcome.instance);
    assert_eq!(
        same.ask(&mut resumed, Request::Peers { cursor: None }),
        Response::Users { users: Vec::new(), next: None }
    );
    let mut other = restart(1);
    assert!(other.send(address(HERE), &bytes).is_empty(), "no id of this server's");
    assert!(other.resume(&hans, address(HERE)).is_none());
}

#[test]
fn a_ticket_expires() {
    let mut world = World::new(&["hans"]);
    let hans = world.login(HERE, "hans");
    world.advance(Duration::from_secs(7 * 24 * 3_600));
    assert!(world.resume(&hans, address(HERE)).is_none());
}

#[test]
fn a_stolen_ticket_is_useless_without_its_secret() {
    let mut world = World::new(&["hans", "vader"]);
    let (hans, mut vader) = (world.login(HERE, "hans"), world.login(THERE, "vader"));
    vader.welcome.ticket.clone_from(&hans.welcome.ticket);
    assert!(world.resume(&vader, address(THERE)).is_none());
    let taken = world.try_login(address(THERE), "hans", "hans-pw");
    assert!(matches!(taken, Some(LoginOutcome::AlreadyActive { .. })), "hans is still there");
}

#[test]
fn ten_thousand_sessions_of_one_address_outlive_the_server() {
    let mut world = World::new(&[]);
    let users: Vec<String> = (0..10_000).map(|at| format!("user{at}")).collect();
    let clients: Vec<_> = users.iter().map(|user| world.insert_session(user)).collect();
    let mut later = World::start(&[], ServerConfig::default(), origin() + Duration::from_secs(10));
    for (at, client) in clients.iter().enumerate() {
        let owner = later.server.index.intern_owner(&user(&users[at]));
        later.server.accounts.entry(&user(&users[at]), || owner).version = Some([0; 16]);
        let from = address(&format!("127.0.0.1:{}", 1_000 + at));
        assert!(later.resume(client, from).is_some(), "client {at}");
    }
    assert_eq!(later.server.session_count(), 10_000);
}
