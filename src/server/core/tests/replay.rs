//! Somebody on the line records everything that is sent to the server and says it again.

use std::time::Duration;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::common::message::{AudienceRef, ClientMessage, NameQuery, Request, Response};
use crate::common::packet::Packet;
use crate::server::core::ServerConfig;
use crate::server::test_support::{Client, LoginOutcome, World, address, file, name, origin, user};

const HANS: &str = "192.0.2.1:4000";
const VADER: &str = "192.0.2.2:4000";

/// hans publishes and withdraws, vader searches and asks for sources, hans changes its address, both report.
fn lived() -> (World, Client, Client) {
    let mut world = World::new(&["hans", "vader"]);
    let (mut hans, mut vader) = (world.login(HANS, "hans"), world.login(VADER, "vader"));
    for round in ["a", "b"] {
        world.ask(
            &mut hans,
            Request::Publish { files: vec![file(round), file("plan")], audience: AudienceRef::Everyone },
        );
        world.ask(&mut hans, Request::Unpublish { names: vec![name(round)] });
        world.heartbeat(&mut hans);
        world.ask(&mut vader, Request::Search { query: NameQuery::Substring(round.into()), cursor: None });
        world.ask(&mut vader, Request::StageAudience { key: 1, part: 0, users: vec![user("hans")] });
    }
    world.ask(&mut vader, Request::Publish { files: vec![file("secret")], audience: AudienceRef::Staged(1) });
    let mut hans = world.resume(&hans, address("192.0.2.9:4000")).expect("RESUMED");
    world.heartbeat(&mut hans);
    (world, hans, vader)
}

fn peers(world: &mut World, client: &mut Client) -> Response {
    world.ask(client, Request::Peers { cursor: None })
}

fn own(world: &mut World, client: &mut Client) -> Response {
    world.ask(client, Request::OwnPublications { user_initiated: true, cursor: None })
}

#[test]
fn a_recording_in_any_order_changes_nothing() {
    let (mut world, mut hans, mut vader) = lived();
    let before =
        (own(&mut world, &mut hans), own(&mut world, &mut vader), peers(&mut world, &mut vader), world.journal.len());
    let tape = world.recorded.clone();
    assert!(tape.len() > 20 && tape.iter().any(|(_, bytes)| bytes[0] == 0x08), "logins, commands and a resumption");
    for round in 0..20 {
        let mut part = tape.clone();
        part.shuffle(&mut world.rng);
        if round % 2 == 1 {
            let length = world.rng.gen_range(0..part.len());
            part.truncate(length);
        }
        for (from, bytes) in &part {
            // From where it was said, or from elsewhere.
            let from = if round % 4 < 2 { *from } else { address("192.0.2.66:6") };
            world.send(from, bytes);
        }
    }
    assert_eq!(world.server.session_count(), 2);
    assert_eq!(world.heartbeat(&mut hans).len(), 1);
    assert_eq!(world.heartbeat(&mut vader).len(), 1);
    let after =
        (own(&mut world, &mut hans), own(&mut world, &mut vader), peers(&mut world, &mut vader), world.journal.len());
    assert_eq!(before, after);
    world.advance(Duration::from_millis(2_999));
    tape.iter().for_each(|(from, bytes)| drop(world.send(*from, bytes)));
    world.advance(Duration::from_millis(1));
    world.settle();
    assert_eq!(world.server.session_count(), 0, "nor is it a sign of life");
    tape.iter().for_each(|(from, bytes)| drop(world.send(*from, bytes)));
    assert_eq!(world.server.session_count(), 0, "nor a login");
}

#[test]
fn no_login_begins_again() {
    let mut world = World::new(&["hans"]);
    let from = address(HANS);
    for password in ["hans-pw", "a slip of the finger"] {
        let login = world.begin_login(from, "hans", password).expect("LOGIN2");
        let answer = world.send(from, &login.login3);
        if let Some(LoginOutcome::Welcome(mut client)) = login.outcome(from, &answer[0].bytes) {
            world.say(&mut client, &ClientMessage::Logout);
        }
        // Somebody says the login again, step by step, until long after its cookie has expired.
        for _ in 0..300 {
            world.advance(Duration::from_millis(100));
            let replies = world.send(from, &login.login1);
            assert!(replies.iter().all(|reply| matches!(Packet::parse(&reply.bytes), Some(Packet::Retry { .. }))));
            let replies = world.send(from, &login.login3);
            assert!(replies.iter().all(|reply| reply == &answer[0]), "what it was refused by, for a while");
        }
        assert!(world.send(from, &login.login3).is_empty());
    }
    assert_eq!(world.server.session_count(), 0);
}

#[test]
fn a_recording_means_nothing_to_a_restarted_server() {
    let (world, hans, mut vader) = lived();
    let config = ServerConfig::default();
    let mut later = World::start(&["hans", "vader"], config, origin() + Duration::from_secs(5));
    let mut tape = world.recorded.clone();
    for round in 0..10 {
        tape.iter().for_each(|(from, bytes)| drop(later.send(*from, bytes)));
        assert_eq!((later.server.session_count(), later.journal.len()), (0, 0), "round {round}");
        tape.shuffle(&mut later.rng);
    }
    // And among those who come back.
    let mut hans = later.resume(&hans, hans.address).expect("RESUMED");
    later.heartbeat(&mut hans);
    let mut vader_again = later.resume(&vader, vader.address).expect("RESUMED");
    later.heartbeat(&mut vader_again);
    tape.iter().for_each(|(from, bytes)| drop(later.send(*from, bytes)));
    assert_eq!((later.server.session_count(), later.journal.len()), (2, 0));
    assert_eq!(own(&mut later, &mut hans), Response::OwnPublications { entries: Vec::new(), next: None });
    let stale = vader.seal(&ClientMessage::Logout);
    later.send(vader.address, &stale);
    assert_eq!(later.heartbeat(&mut vader_again).len(), 1);
}
