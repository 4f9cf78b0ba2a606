//! A network in one process: the server's core and any number of client sessions exchange datagrams in virtual time,
//! over a link that loses, duplicates and reorders them. One seed determines everything; a failure prints it.
//!
//! `FILESHARE_PEER_HOURS` and `FILESHARE_SEEDS` set the length of the long tests (see `scripts/network-soak.sh`);
//! `FILESHARE_SEED` runs one seed alone.

mod lists;
mod pages;
mod simulation;
mod storms;
mod waits;

use std::ops::Range;
use std::time::Duration;

use fileshare::internals::common::limits::{COMMAND_TIMEOUT, LIVENESS_DEFAULT};
use fileshare::internals::common::message::{Request, Response};
use rand::Rng;

use self::simulation::faulty_link::FaultyLink;
use self::simulation::simulated_client::Counts;
use self::simulation::simulated_network::SimulatedNetwork;

/// A number from the environment, or a default for an ordinary test run.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// The seeds of a test: `FILESHARE_SEED` alone, or `FILESHARE_SEEDS` of them from `FILESHARE_FIRST_SEED` on.
fn seeds(default: u64) -> Range<u64> {
    match setting("FILESHARE_SEED", u64::MAX) {
        u64::MAX => {
            let first = setting("FILESHARE_FIRST_SEED", 0);
            first..first + setting("FILESHARE_SEEDS", default)
        }
        seed => seed..seed + 1,
    }
}

#[test]
fn at_20_percent_loss_every_command_completes_and_none_acts_twice() {
    for seed in seeds(5) {
        let mut network = SimulatedNetwork::new(seed, 8, FaultyLink::bad());
        network.run_for(Duration::from_secs(15));
        assert!(network.clients().all(|client| client.has_logged_in()), "seed {seed}: all have logged in");
        network.start_commands(Duration::from_millis(500));
        network.run_for(Duration::from_secs(120));
        network.finish_commands();
        assert!(network.clients().all(|client| client.counts.commands > 20), "seed {seed}");
        network.check_all();
    }
}

#[test]
fn no_live_client_ever_expires() {
    const CLIENTS: u64 = 50;
    let hours = setting("FILESHARE_PEER_HOURS", 50);
    let mut network = SimulatedNetwork::with_clients_logged_in(hours, CLIENTS as usize, FaultyLink::bad());
    network.expected_sessions = Some(CLIENTS as usize);
    network.run_for(Duration::from_secs(hours * 3_600 / CLIENTS));
    let lost: usize = network.clients().map(|client| client.counts.lost).sum();
    println!("{hours} client-hours: no live client expired; {lost} times a client lost its connection");
    assert!(lost as u64 <= 10 + hours / 5, "{lost} in {hours} hours");
    network.check_all();
}

#[test]
fn a_killed_client_expires_within_the_liveness_time() {
    for seed in 0..20 {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 5, FaultyLink::bad());
        let alive = Duration::from_millis(network.rng.gen_range(0..10_000));
        network.run_for(alive);
        network.kill(2);
        network.run_for(LIVENESS_DEFAULT + network.link.delay_max * 11);
        let server = network.server.as_ref().expect("the server runs");
        assert_eq!(server.session_count(), 4, "seed {seed}");
        let Response::Peers { peers, next: None } = network.request(0, Request::Peers { cursor: None }) else {
            panic!("no list")
        };
        let mut users: Vec<_> = peers.iter().map(|peer| peer.user.as_str()).collect();
        users.sort_unstable();
        assert_eq!(users, ["user001", "user003", "user004"], "seed {seed}");
    }
}

#[test]
fn restarts_lose_nothing_and_are_not_noticed() {
    for seed in seeds(50) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 6, FaultyLink::bad());
        network.start_commands(Duration::from_millis(300));
        for _ in 0..4 {
            let up = Duration::from_millis(network.rng.gen_range(0..8_000));
            network.run_for(up);
            let down = Duration::from_millis(network.rng.gen_range(0..5_000));
            network.crash(down);
        }
        network.run_for(Duration::from_secs(20));
        network.finish_commands();
        network.check_all();
        for client in network.clients() {
            let Counts { commands, resumed, resynced, instances, .. } = client.counts;
            assert!(commands > 5 && resumed >= 1, "seed {seed}: {:?}", client.counts);
            assert_eq!((instances, resynced), (1, 0), "seed {seed}: resumed, no new login, nothing missing");
        }
    }
}

#[test]
fn a_server_that_lost_everything_is_resynchronised() {
    for seed in seeds(10) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 4, FaultyLink::bad());
        network.start_commands(Duration::from_millis(300));
        network.run_for(Duration::from_secs(10));
        network.clients_mut().for_each(|client| client.tolerates_differences = true);
        network.crash(Duration::from_millis(500));
        network.lose_all_state();
        network.run_for(COMMAND_TIMEOUT);
        network.finish_commands();
        network.run_for(Duration::from_secs(5));
        network.check_all();
        assert!(network.clients().all(|client| client.counts.instances == 2), "seed {seed}");
        assert!(network.clients().any(|client| client.counts.resynced > 0), "seed {seed}");
    }
}

#[test]
fn a_server_that_lost_its_latest_changes_is_resynchronised() {
    for seed in seeds(10) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 4, FaultyLink::bad());
        let backup = network.journal.disk.clone();
        network.start_commands(Duration::from_millis(300));
        network.run_for(Duration::from_secs(10));
        network.clients_mut().for_each(|client| client.tolerates_differences = true);
        network.crash(Duration::from_millis(500));
        network.journal.restore(backup);
        network.run_for(Duration::from_secs(10));
        network.finish_commands();
        network.run_for(Duration::from_secs(5));
        network.check_all();
        assert!(network.clients().any(|client| client.counts.resynced > 0), "seed {seed}");
    }
}

#[test]
fn a_client_whose_address_changes_reconnects_by_itself() {
    for seed in 0..10 {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 4, FaultyLink::bad());
        network.start_commands(Duration::from_millis(300));
        for _ in 0..6 {
            let client = network.rng.gen_range(0..4);
            network.change_address(client);
            let time = Duration::from_millis(network.rng.gen_range(0..6_000));
            network.run_for(time);
        }
        network.run_for(Duration::from_secs(10));
        network.finish_commands();
        network.check_all();
        assert!(network.clients().all(|client| client.counts.instances == 1), "seed {seed}");
        assert!(network.clients().any(|client| client.counts.resumed > 0), "seed {seed}");
    }
}
