//! Long lists over a faulty link: whatever is lost, repeated or late, what is there all the time is listed once.

use std::collections::BTreeMap;
use std::time::Duration;

use fileshare::internals::common::message::{AudienceRef, NameQuery, Request, Response};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent};
use rand::Rng;

use super::seeds;
use super::simulation::faulty_link::FaultyLink;
use super::simulation::simulated_network::SimulatedNetwork;

/// Names that stay, in some forty pages.
const STAYING: usize = 800;
/// Files of one PUBLISH, which has to fit into a datagram.
const BATCH_FILES: usize = 12;

fn name(folder: &str, at: usize) -> FileName {
    FileName::parse(&format!("{folder}/{at:0>40}")).expect("a name")
}

fn publish(names: &[FileName]) -> Request {
    let content = Content { hash: ContentHash([1; 32]), size: 1, mtime_ms: 0 };
    let file = |name: &FileName| NamedContent { name: name.clone(), content };
    Request::Publish { files: names.iter().map(file).collect(), audience: AudienceRef::Everyone }
}

/// Publishes or withdraws some names, without waiting until that has happened.
fn change(network: &mut SimulatedNetwork, client: usize) {
    let first = network.rng.gen_range(0..400);
    let names: Vec<FileName> = (first..first + 8).map(|at| name("changing", at)).collect();
    let request = if network.rng.gen_bool(0.6) { publish(&names) } else { Request::Unpublish { names } };
    let now = network.now;
    network.with_client(client, |client| client.session.request(now, request));
}

#[test]
fn a_long_list_has_each_name_that_stays_once() {
    for seed in seeds(20) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 3, FaultyLink::perfect());
        let staying: Vec<FileName> = (0..STAYING).map(|at| name("staying", at)).collect();
        for (at, names) in staying.chunks(BATCH_FILES).enumerate() {
            let response = network.request(at % 2, publish(names));
            assert!(matches!(response, Response::Published { .. }), "{response:?}");
        }
        network.link = FaultyLink::bad();
        for _ in 0..3 {
            let (mut listed, mut cursor) = (BTreeMap::<FileName, usize>::new(), None);
            loop {
                change(&mut network, 0);
                change(&mut network, 1);
                let time = Duration::from_millis(network.rng.gen_range(0..60));
                network.run_for(time);
                let query = NameQuery::Prefix(String::new());
                let Response::SearchResults { names, next } = network.request(2, Request::Search { query, cursor })
                else {
                    panic!("a list")
                };
                names.into_iter().for_each(|name| *listed.entry(name).or_default() += 1);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            for name in &staying {
                assert_eq!(listed.get(name), Some(&1), "seed {seed}: {name:?}");
            }
        }
    }
}
