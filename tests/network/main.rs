//! A network in one process: the server's core and any number of client sessions exchange datagrams in virtual time,
//! over a line that loses, repeats and reorders them. Everything comes from one seed, which a failure prints.
//!
//! `FILESHARE_PEER_HOURS` and `FILESHARE_SEEDS` make the long tests as long as wanted (see `scripts/network-soak.sh`).

mod line;
mod peer;
mod store;
mod world;

use std::time::Duration;

use fileshare::internals::common::limits::{COMMAND_TIMEOUT, LIVENESS_DEFAULT};
use fileshare::internals::common::message::{Request, Response};
use rand::Rng;

use self::line::Line;
use self::peer::Counts;
use self::world::World;

/// A number from the environment, or what fits an ordinary test run.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn at_20_percent_loss_every_command_completes_and_none_acts_twice() {
    for seed in 0..setting("FILESHARE_SEEDS", 5) {
        let mut world = World::new(seed, 8, Line::bad());
        world.run_for(Duration::from_secs(15));
        assert!(world.peers().all(|peer| peer.is_welcome()), "seed {seed}: all have logged in");
        world.work(Duration::from_millis(500));
        world.run_for(Duration::from_secs(120));
        world.finish_work();
        assert!(world.peers().all(|peer| peer.counts.commands > 20), "seed {seed}");
        world.check_all();
    }
}

#[test]
fn no_live_peer_is_ever_seen_as_dead() {
    const PEERS: u64 = 50;
    let hours = setting("FILESHARE_PEER_HOURS", 50);
    let mut world = World::settled(hours, PEERS as usize, Line::bad());
    world.watched = Some(PEERS as usize);
    world.run_for(Duration::from_secs(hours * 3_600 / PEERS));
    let lost: usize = world.peers().map(|peer| peer.counts.lost).sum();
    println!("{hours} peer-hours: no live peer was seen as dead; {lost} times a client believed itself cut off");
    assert!(lost as u64 <= 10 + hours / 5, "{lost} in {hours} hours");
    world.check_all();
}

#[test]
fn a_killed_peer_is_gone_within_the_liveness_time() {
    for seed in 0..20 {
        let mut world = World::settled(seed, 5, Line::bad());
        let alive = Duration::from_millis(world.rng.gen_range(0..10_000));
        world.run_for(alive);
        world.kill(2);
        world.run_for(LIVENESS_DEFAULT + world.line.delay_max * 11);
        let server = world.server.as_ref().expect("the server runs");
        assert_eq!(server.session_count(), 4, "seed {seed}");
        let Response::Users { users, next: None } = world.ask(0, Request::Peers { cursor: None }) else {
            panic!("no list")
        };
        let mut users: Vec<_> = users.iter().map(|user| user.as_str()).collect();
        users.sort_unstable();
        assert_eq!(users, ["user001", "user003", "user004"], "seed {seed}");
    }
}

#[test]
fn restarts_lose_nothing_and_are_not_noticed() {
    for seed in 0..setting("FILESHARE_SEEDS", 50) {
        let mut world = World::settled(seed, 6, Line::bad());
        world.work(Duration::from_millis(300));
        for _ in 0..4 {
            let up = Duration::from_millis(world.rng.gen_range(0..8_000));
            world.run_for(up);
            let down = Duration::from_millis(world.rng.gen_range(0..5_000));
            world.crash(down);
        }
        world.run_for(Duration::from_secs(20));
        world.finish_work();
        world.check_all();
        for peer in world.peers() {
            let Counts { commands, resumed, repaired, runs, .. } = peer.counts;
            assert!(commands > 5 && resumed >= 1, "seed {seed}: {:?}", peer.counts);
            assert_eq!((runs, repaired), (1, 0), "seed {seed}: resumed, not logged in again, and nothing was missing");
        }
    }
}

#[test]
fn a_server_that_forgets_everything_is_told_again() {
    for seed in 0..setting("FILESHARE_SEEDS", 10) {
        let mut world = World::settled(seed, 4, Line::bad());
        world.work(Duration::from_millis(300));
        world.run_for(Duration::from_secs(10));
        world.peers_mut().for_each(|peer| peer.forgives = true);
        world.crash(Duration::from_millis(500));
        world.forget_everything();
        world.run_for(COMMAND_TIMEOUT);
        world.finish_work();
        world.run_for(Duration::from_secs(5));
        world.check_all();
        assert!(world.peers().all(|peer| peer.counts.runs == 2), "seed {seed}");
        assert!(world.peers().any(|peer| peer.counts.repaired > 0), "seed {seed}");
    }
}

#[test]
fn a_server_that_lost_its_latest_changes_is_repaired() {
    for seed in 0..setting("FILESHARE_SEEDS", 10) {
        let mut world = World::settled(seed, 4, Line::bad());
        let backup = world.store.disk.clone();
        world.work(Duration::from_millis(300));
        world.run_for(Duration::from_secs(10));
        world.peers_mut().for_each(|peer| peer.forgives = true);
        world.crash(Duration::from_millis(500));
        world.store.restore(backup);
        world.run_for(Duration::from_secs(10));
        world.finish_work();
        world.run_for(Duration::from_secs(5));
        world.check_all();
        assert!(world.peers().any(|peer| peer.counts.repaired > 0), "seed {seed}");
    }
}

#[test]
fn a_client_whose_address_changes_comes_back_by_itself() {
    for seed in 0..10 {
        let mut world = World::settled(seed, 4, Line::bad());
        world.work(Duration::from_millis(300));
        for _ in 0..6 {
            let peer = world.rng.gen_range(0..4);
            world.move_peer(peer);
            let time = Duration::from_millis(world.rng.gen_range(0..6_000));
            world.run_for(time);
        }
        world.run_for(Duration::from_secs(10));
        world.finish_work();
        world.check_all();
        assert!(world.peers().all(|peer| peer.counts.runs == 1), "seed {seed}");
        assert!(world.peers().any(|peer| peer.counts.resumed > 0), "seed {seed}");
    }
}
