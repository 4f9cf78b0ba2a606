use std::time::Duration;

use log::Level;

use crate::common::message::{AudienceRef, ClientMessage, Request, Response, ServerMessage};
use crate::common::types::{PublicationsDigest, RequestId};
use crate::server::core::LoadedState;
use crate::server::core::ServerConfig;
use crate::server::journal::{Change, LastMutation, LoadSink};
use crate::server::test_support::{Client, World, address, credentials, file, logged, name, origin};

const HERE: &str = "127.0.0.1:4000";

fn publish(text: &str) -> Request {
    Request::Publish { files: vec![file(text)], audience: AudienceRef::Everyone }
}

fn unpublish(text: &str) -> Request {
    Request::Unpublish { names: vec![name(text)] }
}

fn request(id: u64, request: Request) -> ClientMessage {
    ClientMessage::Request { id: RequestId(id), lowest_pending: RequestId(0), request }
}

fn own_names(world: &mut World, client: &mut Client) -> Vec<String> {
    let Response::OwnPublications { entries, next: None } =
        world.ask(client, Request::OwnPublications { user_initiated: true, cursor: None })
    else {
        panic!("no list")
    };
    entries.into_iter().map(|entry| entry.name.to_string()).collect()
}

fn digest(response: &ServerMessage) -> PublicationsDigest {
    match response {
        ServerMessage::Reply {
            response: Response::Published { digest } | Response::Unpublished { digest, .. },
            ..
        } => *digest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_visible_or_acknowledged_before_it_is_durable() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.stores = false;
    assert_eq!(world.try_ask(&mut hans, publish("a")), None);
    assert!(own_names(&mut world, &mut hans).is_empty());
    world.store();
    let sent = world.settle();
    assert_eq!(hans.hear(sent).len(), 1);
    assert_eq!(own_names(&mut world, &mut hans), ["a"]);
}

#[test]
fn a_repeated_mutation_acts_once_and_is_answered_each_time() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.stores = false;
    assert!(world.say(&mut hans, &request(1, publish("a"))).is_empty());
    assert!(world.say(&mut hans, &request(1, publish("a"))).is_empty(), "it is on its way");
    assert_eq!(world.journal.len(), 1);
    world.stores = true;
    world.store();
    let sent = world.settle();
    let first = hans.hear(sent);
    assert_eq!(first.len(), 1);
    assert_eq!(world.say(&mut hans, &request(1, publish("a"))), first);
    let withdrawn = world.say(&mut hans, &request(2, unpublish("a")));
    assert_eq!(world.say(&mut hans, &request(2, unpublish("a"))), withdrawn, "found, although it is gone by now");
    let late = world.say(&mut hans, &request(1, publish("a")));
    assert_eq!(late, [ServerMessage::Reply { id: RequestId(1), response: Response::Rejected }]);
    assert!(own_names(&mut world, &mut hans).is_empty(), "a late repeat brings nothing back");
    assert_eq!(world.journal.len(), 2);
}

#[test]
fn ids_below_the_floor_are_refused() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let ask =
        |floor| ClientMessage::Request { id: RequestId(4), lowest_pending: RequestId(floor), request: publish("a") };
    let refused = [ServerMessage::Reply { id: RequestId(4), response: Response::Rejected }];
    assert_eq!(world.say(&mut hans, &ask(5)), refused);
    assert_eq!(world.say(&mut hans, &ask(0)), refused, "a floor never sinks");
    assert!(world.journal.is_empty());
}

#[test]
fn what_is_found_is_told_bit_by_bit() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.ask(&mut hans, Request::Publish { files: vec![file("a"), file("b")], audience: AudienceRef::Everyone });
    let names = ["x", "b", "b", "a"].map(name).to_vec();
    let response = world.ask(&mut hans, Request::Unpublish { names });
    assert_eq!(response, Response::Unpublished { published_mask: 0b1010, digest: PublicationsDigest::default() });
    let response = world.ask(&mut hans, unpublish("a"));
    assert_eq!(response, Response::Unpublished { published_mask: 0, digest: PublicationsDigest::default() });
    assert_eq!(world.journal.len(), 2, "what changes nothing is not stored");
}

#[test]
fn the_digest_tells_states_apart() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    let first = digest(&world.say(&mut hans, &request(1, publish("a")))[0]);
    let second = digest(&world.say(&mut hans, &request(2, publish("b")))[0]);
    let third = digest(&world.say(&mut hans, &request(3, unpublish("b")))[0]);
    assert!(first == third && first != second);
    let resumed = world.resume(&hans, address(HERE)).unwrap();
    assert_eq!(resumed.welcome.digest, first);
    assert_eq!(resumed.welcome.last_writer, hans.welcome.instance);
}

#[test]
fn a_mutation_survives_its_session() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.stores = false;
    world.say(&mut hans, &request(7, publish("a")));
    let mut resumed = world.resume(&hans, address("127.0.0.1:4001")).unwrap();
    assert!(world.say(&mut resumed, &request(7, publish("a"))).is_empty());
    let busy = world.say(&mut resumed, &request(8, publish("b")));
    assert!(matches!(busy[..], [ServerMessage::Reply { response: Response::Busy { .. }, .. }]));
    world.store();
    let sent = world.settle();
    let heard = resumed.hear(sent);
    assert!(matches!(heard[..], [ServerMessage::Reply { id: RequestId(7), response: Response::Published { .. } }]));
    assert_eq!(world.journal.len(), 1);
}

#[test]
fn the_last_answer_survives_the_server() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.say(&mut hans, &request(1, publish("a")));
    world.say(&mut hans, &request(2, unpublish("a")));
    let mut stored = LoadedState::new();
    let last = LastMutation { instance: hans.welcome.instance, request: RequestId(2), found: Some(1) };
    stored.last_mutation(crate::server::test_support::user("hans"), last);
    let mut later = World::start(&[], ServerConfig::default(), origin() + Duration::from_secs(9));
    let wall_ms = crate::server::test_support::WALL_MS + 9_000;
    later.server = crate::server::core::Server::new(ServerConfig::default(), stored, [5; 32], later.now, wall_ms);
    later.set_credentials(credentials(&["hans"]));
    let mut resumed = later.resume(&hans, address(HERE)).expect("RESUMED");
    assert_eq!(resumed.welcome.last_writer, hans.welcome.instance);
    let again = later.say(&mut resumed, &request(2, unpublish("a")));
    let expected = Response::Unpublished { published_mask: 1, digest: PublicationsDigest::default() };
    assert_eq!(again, [ServerMessage::Reply { id: RequestId(2), response: expected }]);
    assert!(later.journal.is_empty());
}

#[test]
fn a_full_queue_says_busy_and_forgets_nothing() {
    let mut world = World::new(&[]);
    world.stores = false;
    let users: Vec<_> = (0..8_193).map(|at| format!("user{at}")).collect();
    let mut clients: Vec<_> = users.iter().map(|user| world.insert_session(user)).collect();
    let mut busy = 0;
    for client in &mut clients {
        match world.try_ask(client, publish("a")) {
            None => {}
            Some(Response::Busy { .. }) => busy += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((busy, world.journal.len()), (1, 8_192));
    world.store();
    assert_eq!(world.settle().len(), 8_192);
    assert!(world.try_ask(clients.last_mut().unwrap(), publish("a")).is_none());
}

#[test]
fn publications_outlive_logging_out() {
    let mut world = World::new(&["hans"]);
    let mut hans = world.login(HERE, "hans");
    world.ask(&mut hans, publish("a"));
    world.say(&mut hans, &ClientMessage::Logout);
    let mut hans = world.login(HERE, "hans");
    assert_eq!(own_names(&mut world, &mut hans), ["a"]);
    assert!(matches!(&world.journal[0].change, Change::Publish { published_s: 1_700_000_000, .. }));
}

#[test]
fn a_publication_that_had_to_wait_has_one_verdict_in_the_log() {
    let mut world = World::new(&["hans"]);
    let mut earlier = world.login(HERE, "hans");
    world.stores = false;
    assert_eq!(world.try_ask(&mut earlier, publish("a")), None);
    world.say(&mut earlier, &ClientMessage::Logout);
    let mut hans = world.login(HERE, "hans");
    let lines = logged(Level::Info, || {
        let answer = world.say(&mut hans, &request(1, publish("b"))).pop();
        assert!(matches!(answer, Some(ServerMessage::Reply { response: Response::Busy { .. }, .. })), "{answer:?}");
        world.stores = true;
        world.settle();
        world.store();
        assert_eq!(world.say(&mut hans, &request(1, publish("b"))).len(), 1);
    });
    assert_eq!(lines, [format!("{HERE}: Received PUB from hans"), format!("{HERE}: Sent OK to hans")]);
}
