//! Waits over a faulty link: none is missed, none ends early, none ends for what its user may not see.

use std::time::{Duration, Instant};

use fileshare::internals::client::session::{WaitCondition, WaitId, WaitOutcome};
use fileshare::internals::common::limits::LIVENESS_DEFAULT;
use fileshare::internals::common::message::{AudienceRef, Request, Response};
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent};
use rand::Rng;

use super::lists::watch_all;
use super::simulation::faulty_link::FaultyLink;
use super::simulation::simulated_network::SimulatedNetwork;
use super::simulation::simulated_users::user;
use super::{seeds, setting};

/// Longest time from a change to the end of a wait while the server runs: a lost report comes with the next heartbeat.
const REPORT_MAX: Duration = Duration::from_secs(3);
/// The same across a restart of the server: clients resume within seconds, and absence counts only then.
const REPORT_AFTER_RESTART_MAX: Duration = Duration::from_secs(20);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn name(text: &str) -> FileName {
    FileName::parse(text).expect("a valid name")
}

fn wait(network: &mut SimulatedNetwork, client: usize, condition: WaitCondition, timeout: Duration) -> WaitId {
    let wait = WaitId(network.rng.r#gen());
    let now = network.now;
    network.with_client(client, |client| client.session.wait(now, wait, condition, timeout));
    wait
}

/// When and how a wait has ended; `None`: it has not.
fn end_of(network: &SimulatedNetwork, client: usize, wait: WaitId) -> Option<(Instant, WaitOutcome)> {
    let finished = &network.clients[client].as_ref().expect("the client is alive").finished_waits;
    let (at, finished) = finished.iter().find(|(_, finished)| finished.wait == wait)?;
    Some((*at, finished.result.expect("the server is reachable")))
}

fn run_random(network: &mut SimulatedNetwork, max_ms: u64) {
    let time = Duration::from_millis(network.rng.gen_range(0..max_ms));
    network.run_for(time);
}

fn publish(network: &mut SimulatedNetwork, client: usize, text: &str, audience: &[usize]) {
    let audience = if audience.is_empty() {
        AudienceRef::Everyone
    } else {
        let users = audience.iter().map(|number| user(*number)).collect();
        let staged = network.request(client, Request::StageAudience { key: 1, part: 0, users });
        assert_eq!(staged, Response::AudienceStaged);
        AudienceRef::Staged(1)
    };
    let content = Content { hash: ContentHash([7; 32]), size: 1, mtime_ms: 0 };
    let files = vec![NamedContent { name: name(text), content }];
    let published = network.request(client, Request::Publish { files, audience });
    assert!(matches!(published, Response::Published { .. }), "{published:?}");
}

/// Restarts the server in every other seed, at random moments during `work`.
fn maybe_restart(network: &mut SimulatedNetwork) -> Duration {
    if !network.rng.gen_bool(0.5) {
        return REPORT_MAX;
    }
    let down = Duration::from_millis(network.rng.gen_range(0..3_000));
    network.crash(down);
    REPORT_AFTER_RESTART_MAX
}

#[test]
fn a_wait_for_a_file_ends_soon_after_it_is_visible_and_never_before() {
    for seed in seeds(30) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 4, FaultyLink::bad());
        let seen = wait(&mut network, 0, WaitCondition::FileAvailable(name("a")), LONG);
        let hidden = wait(&mut network, 1, WaitCondition::FileAvailable(name("a")), Duration::from_secs(60));
        let own = wait(&mut network, 2, WaitCondition::FileAvailable(name("a")), Duration::from_secs(60));
        run_random(&mut network, 10_000);
        publish(&mut network, 2, "a", &[3]);
        run_random(&mut network, 10_000);
        assert_eq!(end_of(&network, 0, seen), None, "seed {seed}: only user003 may see it");
        let limit = maybe_restart(&mut network);
        let published_from = network.now;
        publish(&mut network, 2, "a", &[0, 3]);
        network.run_for(limit);
        let (at, outcome) = end_of(&network, 0, seen).unwrap_or_else(|| panic!("seed {seed}: the wait was missed"));
        assert_eq!(outcome, WaitOutcome::Met, "seed {seed}");
        assert!(at >= published_from, "seed {seed}");
        network.run_for(Duration::from_secs(60));
        for (client, wait) in [(1, hidden), (2, own)] {
            assert_eq!(end_of(&network, client, wait).map(|end| end.1), Some(WaitOutcome::TimedOut), "seed {seed}");
        }
    }
}

#[test]
fn a_wait_for_a_peer_to_go_never_takes_a_restart_of_the_server_for_it() {
    for seed in seeds(30) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 3, FaultyLink::bad());
        let gone = wait(&mut network, 0, WaitCondition::PeerGone(user(2)), LONG);
        for _ in 0..network.rng.gen_range(1..4) {
            run_random(&mut network, 8_000);
            let down = Duration::from_millis(network.rng.gen_range(0..4_000));
            network.crash(down);
        }
        // A wait that begins while nobody knows who is active.
        let late = wait(&mut network, 1, WaitCondition::PeerGone(user(2)), LONG);
        network.run_for(Duration::from_secs(30));
        for (client, wait) in [(0, gone), (1, late)] {
            assert_eq!(end_of(&network, client, wait), None, "seed {seed}: user002 is active");
        }
        network.kill(2);
        network.run_for(LIVENESS_DEFAULT + REPORT_MAX + network.link.delay_max * 11);
        for (client, wait) in [(0, gone), (1, late)] {
            assert_eq!(end_of(&network, client, wait).map(|end| end.1), Some(WaitOutcome::Met), "seed {seed}");
        }
    }
}

#[test]
fn a_wait_for_a_peer_ends_when_it_has_logged_in() {
    for seed in seeds(30) {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 2, FaultyLink::bad());
        let joined = wait(&mut network, 0, WaitCondition::PeerActive(user(2)), LONG);
        let once = wait(&mut network, 1, WaitCondition::PeerActive(user(2)), Duration::ZERO);
        run_random(&mut network, 20_000);
        network.run_for(REPORT_MAX);
        assert_eq!(end_of(&network, 0, joined), None, "seed {seed}");
        assert_eq!(end_of(&network, 1, once).map(|end| end.1), Some(WaitOutcome::TimedOut), "seed {seed}: asked once");
        let from = network.now;
        network.join(2);
        network.run_for(Duration::from_secs(5) + REPORT_MAX);
        let (at, outcome) = end_of(&network, 0, joined).unwrap_or_else(|| panic!("seed {seed}: the wait was missed"));
        assert!(outcome == WaitOutcome::Met && at > from, "seed {seed}");
    }
}

#[test]
fn waits_of_random_scripts_end_as_they_must_while_clients_come_and_go() {
    let (seeds, mut waits, mut met) = (seeds(10), 0, 0);
    for seed in seeds.clone() {
        let mut network = SimulatedNetwork::with_clients_logged_in(seed, 6, FaultyLink::bad());
        network.clients_mut().for_each(|client| client.comes_and_goes = true);
        // In quiet networks no other message makes up for a lost report.
        let (is_quiet, disturbs) = (seed % 3 == 0, seed % 2 == 0);
        let (think_ms, rounds, acts) = if is_quiet { (8_000, 60, 16) } else { (600, 12, 4) };
        network.start_commands(Duration::from_millis(think_ms));
        for _ in 0..rounds {
            run_random(&mut network, 12_000);
            let client = network.rng.gen_range(0..6);
            let is_idle = network.clients[client].as_ref().map(|client| client.is_online && client.is_idle());
            match (is_idle, network.rng.gen_range(0..acts)) {
                (None, _) => network.revive(client),
                (Some(true), 0..2) => network.kill(client),
                (Some(true), 2) if disturbs => network.change_address(client),
                (_, 3) if disturbs => {
                    let down = Duration::from_millis(network.rng.gen_range(0..4_000));
                    network.crash(down);
                }
                _ => {}
            }
        }
        network.finish_commands();
        waits += network.waits_checked;
        met += network.waits_met;
    }
    println!("seeds {seeds:?}: {waits} waits of scripts have ended as they must; the conditions of {met} were met");
    assert!(met > 30 * seeds.count() && waits > 2 * met, "{waits} waits ended, {met} of them met");
}

#[test]
fn waits_and_watched_lists_cost_nothing_while_nothing_changes() {
    const CLIENTS: usize = 100;
    let datagrams = |waits: bool| {
        let mut network = SimulatedNetwork::with_clients_logged_in(1, CLIENTS, FaultyLink::perfect());
        if waits {
            for client in 0..CLIENTS {
                wait(&mut network, client, WaitCondition::FileAvailable(name("never")), LONG * 10);
                wait(&mut network, client, WaitCondition::PeerGone(user((client + 1) % CLIENTS)), LONG * 10);
                watch_all(&mut network, client);
            }
        }
        // By then absence is known, which is a change of its own.
        network.run_for(Duration::from_secs(20));
        let before = network.datagrams;
        network.run_for(Duration::from_secs(setting("FILESHARE_IDLE_SECONDS", 3_600)));
        network.datagrams - before
    };
    let idle = datagrams(false);
    assert!(idle > 300_000, "{idle} datagrams");
    assert_eq!(datagrams(true), idle);
}
