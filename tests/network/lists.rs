//! Watched lists over a faulty link: after a quiet time everyone knows what they may see, and nobody ever learns more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fileshare::internals::client::events::ListEntry;
use fileshare::internals::client::session::{WaitId, WatchedList};
use fileshare::internals::common::glob::Pattern;
use fileshare::internals::common::limits::LIVENESS_DEFAULT;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent};
use rand::Rng;

use super::seeds;
use super::simulation::faulty_link::FaultyLink;
use super::simulation::simulated_network::SimulatedNetwork;
use super::simulation::simulated_users::user;

/// By then every client has resumed, absence counts, and every lost report was repeated.
const QUIET: Duration = Duration::from_secs(40);
/// Users who are there from the start or join.
const USERS: usize = 10;
const PATTERNS: [&str; 2] = ["shared/*", "*"];

fn file(name: &FileName, hash: ContentHash) -> ListEntry {
    ListEntry::File { name: name.clone(), hash, size: 1 }
}

/// Who publishes what to whom, as a test knows it.
#[derive(Default)]
struct Model {
    /// By publisher and name; the audience as numbers of users, empty for everyone.
    published: BTreeMap<(usize, FileName), (ContentHash, Vec<usize>)>,
    /// By user: what was ever shared with it.
    ever_visible: BTreeSet<(usize, ListEntry)>,
}

impl Model {
    fn publish(&mut self, network: &mut SimulatedNetwork, client: usize, name: FileName) {
        let hash = ContentHash(network.rng.r#gen());
        let users = 0..USERS;
        let audience: Vec<usize> = match network.rng.gen_bool(0.5) {
            true => Vec::new(),
            false => users.clone().filter(|&user| user != client && network.rng.gen_bool(0.4)).collect(),
        };
        let visible = users.filter(|user| audience.is_empty() || audience.contains(user));
        self.ever_visible.extend(visible.map(|user| (user, file(&name, hash))));
        let reference = if audience.is_empty() {
            AudienceRef::Everyone
        } else {
            let users = audience.iter().map(|number| user(*number)).collect();
            network.request(client, Request::StageAudience { key: 1, part: 0, users });
            AudienceRef::Staged(1)
        };
        let files = vec![NamedContent { name: name.clone(), content: Content { hash, size: 1, mtime_ms: 0 } }];
        match network.request(client, Request::Publish { files, audience: reference }) {
            Response::Published { .. } => _ = self.published.insert((client, name), (hash, audience)),
            // The session has ended since the audience was staged.
            Response::UnknownAudience => {}
            other => panic!("{other:?}"),
        }
    }

    fn unpublish(&mut self, network: &mut SimulatedNetwork, client: usize, name: FileName) {
        let unpublished = network.request(client, Request::Unpublish { names: vec![name.clone()] });
        assert!(matches!(unpublished, Response::Unpublished { .. }), "{unpublished:?}");
        self.published.remove(&(client, name));
    }

    /// What the list of a user shows.
    fn list(&self, network: &SimulatedNetwork, viewer: usize, list: &WatchedList) -> BTreeSet<ListEntry> {
        let is_active = |number: usize| network.clients[number].as_ref().is_some_and(|client| client.is_online);
        let others = (0..network.clients.len()).filter(|&number| number != viewer && is_active(number));
        match list {
            WatchedList::Peers => others.map(|number| ListEntry::Peer(user(number))).collect(),
            WatchedList::Files(pattern) => {
                let others: BTreeSet<usize> = others.collect();
                let shown = self.published.iter().filter(|((owner, name), (_, audience))| {
                    let is_visible = audience.is_empty() || audience.contains(&viewer);
                    others.contains(owner) && is_visible && pattern.matches(name)
                });
                shown.map(|((_, name), (hash, _))| file(name, *hash)).collect()
            }
        }
    }
}

pub fn watch_all(network: &mut SimulatedNetwork, client: usize) {
    let patterns = PATTERNS.map(|pattern| WatchedList::Files(Pattern::parse(pattern).expect("a pattern")));
    for list in [WatchedList::Peers].into_iter().chain(patterns) {
        let (id, now) = (WaitId(network.rng.r#gen()), network.now);
        network.with_client(client, |client| client.watch(now, id, list));
    }
}

fn random_name(network: &mut SimulatedNetwork) -> FileName {
    let folder = ["shared/", "other/", ""][network.rng.gen_range(0..3)];
    FileName::parse(&format!("{folder}{}", network.rng.gen_range(0..3))).expect("a name")
}

/// A user who is logged in.
fn online_client(network: &mut SimulatedNetwork) -> Option<usize> {
    let number = network.rng.gen_range(0..network.clients.len());
    network.clients[number].as_ref().is_some_and(|client| client.is_online).then_some(number)
}

fn act(network: &mut SimulatedNetwork, model: &mut Model) {
    let Some(client) = online_client(network) else { return };
    let now = network.now;
    match network.rng.gen_range(0..20) {
        0..8 => {
            let name = random_name(network);
            model.publish(network, client, name);
        }
        8..11 => {
            let name = random_name(network);
            model.unpublish(network, client, name);
        }
        11..13 if network.clients.len() < USERS => {
            let number = network.clients.len();
            network.join(number);
            watch_all(network, number);
        }
        13 => network.kill(client),
        14..16 => {
            network.with_client(client, |client| client.session.logout(now));
            // Also where the farewell is lost.
            network.run_for(LIVENESS_DEFAULT + Duration::from_millis(1_500));
            let now = network.now;
            network.with_client(client, |client| client.login(now));
        }
        16 => network.change_address(client),
        17 => {
            let down = Duration::from_millis(network.rng.gen_range(0..4_000));
            network.crash(down);
        }
        _ => {}
    }
}

#[test]
fn after_a_quiet_time_everyone_knows_what_they_may_see_and_nobody_ever_learns_more() {
    let (mut learned, mut gone) = (0, 0);
    for seed in seeds(30) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 4, FaultyLink::bad());
        let mut model = Model::default();
        (0..4).for_each(|client| watch_all(&mut network, client));
        for _ in 0..25 {
            act(&mut network, &mut model);
            let time = Duration::from_millis(network.rng.gen_range(0..1_500));
            network.run_for(time);
        }
        network.run_for(QUIET);
        for (number, client) in network.clients.iter().enumerate() {
            let Some(client) = client.as_ref().filter(|client| client.is_online) else { continue };
            for watched in &client.lists {
                let list = &watched.list;
                let expected = model.list(&network, number, list);
                assert_eq!(watched.entries(), expected, "seed {seed}: what user {number} knows of {list:?}");
                (learned, gone) = (learned + watched.learned.len(), gone + watched.gone.len());
                for entry in &watched.learned {
                    let may_know =
                        matches!(entry, ListEntry::Peer(_)) || model.ever_visible.contains(&(number, entry.clone()));
                    assert!(may_know, "seed {seed}: user {number} was told of {entry:?}");
                }
            }
        }
    }
    assert!(learned > 500 && gone > 100, "{learned} entries came, {gone} went");
}

#[test]
fn restarts_of_the_server_make_nothing_go() {
    for seed in seeds(30) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 5, FaultyLink::bad());
        let mut model = Model::default();
        for client in 0..5 {
            let name = FileName::parse(&format!("shared/{client}")).expect("a name");
            model.publish(&mut network, client, name);
            watch_all(&mut network, client);
        }
        for _ in 0..5 {
            let up = Duration::from_millis(network.rng.gen_range(0..12_000));
            network.run_for(up);
            let down = Duration::from_millis(network.rng.gen_range(0..4_000));
            network.crash(down);
        }
        network.run_for(QUIET);
        for (number, client) in network.clients().enumerate() {
            for watched in &client.lists {
                assert_eq!(watched.entries(), model.list(&network, number, &watched.list), "seed {seed}");
                assert!(watched.gone.is_empty(), "seed {seed}: user {number} took {:?} for gone", watched.gone);
            }
        }
    }
}
