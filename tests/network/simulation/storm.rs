//! Storms: everything goes wrong at once while users give commands; when it is over, the promises must hold.
//!
//! A seed, or the bytes of an input, determine the storm, and the storm everything else. A storm that fails is made as small
//! as it can be, and printed as JSON: `FILESHARE_STORM='...'` runs that one alone, and prints what happens.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::simulation::choices::Choices;
use crate::simulation::faulty_link::FaultyLink;
use crate::simulation::simulated_journal::Disk;
use crate::simulation::simulated_network::{Cut, SimulatedNetwork};

/// After the last fault: all have reconnected, logged in again, and resynchronised.
const RECOVERY: Duration = Duration::from_secs(90);
/// Faults of a storm.
const FAULTS: usize = 14;
/// Longest time that a fault lasts.
const FAULT_MAX_MS: u64 = 9_000;
/// Names that a user has published before the first fault: four pages or more.
const PUBLISHED_MAX: usize = 100;
/// Furthest that the wall clock is set: eight days, beyond the life of a ticket.
const CLOCK_MAX_MS: i64 = 8 * 24 * 3_600 * 1_000;

/// What goes wrong. Clients are given by number, times in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Fault {
    /// The server dies, and starts again.
    Crash {
        down_ms: u64,
    },
    /// The disk is copied, for a later `Restore`.
    Backup,
    /// The server dies, and starts with the backup.
    Restore {
        down_ms: u64,
    },
    /// The server starts without its keys and its disk, as with `--ephemeral`.
    LoseState {
        down_ms: u64,
    },
    /// The server's process stands still.
    StopServer {
        ms: u64,
    },
    /// A client's process stands still.
    StopClient {
        client: usize,
        ms: u64,
    },
    /// A client is not heard, or hears nothing, or both, until the next `Cut` of it.
    Cut {
        client: usize,
        to_server: bool,
        to_client: bool,
    },
    ChangeAddress {
        client: usize,
    },
    /// A client dies; its user starts another.
    Kill {
        client: usize,
    },
    /// The wall clock is set to this offset.
    SetClock {
        offset_ms: i64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Storm {
    seed: u64,
    pub clients: usize,
    loss: f64,
    duplication: f64,
    delay_max_ms: u64,
    /// Longest wait of a user before the next command.
    think_max_ms: u64,
    /// The users give commands until so many faults have happened: later commands would repair what these have broken.
    busy_faults: usize,
    /// Faults, each with the time before it in milliseconds.
    faults: Vec<(u64, Fault)>,
    /// Names that each user has published before the first fault: the lists have pages.
    #[serde(default)]
    published: usize,
    /// What users, network and disk decide first, in hexadecimal: what was left of the input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    script: String,
}

impl Storm {
    /// The storm of a seed.
    pub fn random(seed: u64) -> Self {
        Self::chosen(seed, &mut Choices::from_seed(seed))
    }

    /// The storm of an input: any bytes are one.
    pub fn from_input(input: &[u8]) -> Self {
        let mut choices = Choices::from_input(input);
        let storm = Self::chosen(0, &mut choices);
        Self { script: hex::encode(choices.rest()), ..storm }
    }

    /// Each storm has some kinds of faults only, so that each kind also meets few others.
    fn chosen(seed: u64, rng: &mut Choices) -> Self {
        let clients = rng.gen_range(2..=6);
        let kinds: Vec<u32> = (0..9).filter(|_| rng.gen_bool(0.4)).collect();
        let mut storm = Self {
            seed,
            clients,
            loss: [0.0, 0.05, 0.2, 0.3][rng.gen_range(0..4)],
            duplication: [0.0, 0.1, 0.5][rng.gen_range(0..3)],
            delay_max_ms: [2, 30, 300][rng.gen_range(0..3)],
            think_max_ms: [50, 300, 2_000][rng.gen_range(0..3)],
            busy_faults: rng.gen_range(1..=FAULTS),
            faults: Vec::new(),
            published: 0,
            script: String::new(),
        };
        for _ in 0..if kinds.is_empty() { 0 } else { FAULTS } {
            let after_ms = rng.gen_range(0..6_000);
            let kind = kinds[rng.gen_range(0..kinds.len())];
            storm.faults.push((after_ms, random_fault(rng, kind, clients)));
        }
        storm.published = [0, 0, 0, PUBLISHED_MAX][rng.gen_range(0..4)];
        storm
    }

    /// Runs it. Panics if a promise is broken.
    pub fn run(&self) -> SimulatedNetwork {
        let mut network = SimulatedNetwork::with_clients_logged_in(self.seed, self.clients, FaultyLink::perfect());
        network.check_liveness();
        (0..self.clients).for_each(|client| network.publish_many(client, self.published));
        let now = network.now;
        (0..self.clients).for_each(|client| network.with_client(client, |client| client.enter_storm(now)));
        network.link = FaultyLink {
            loss: self.loss,
            duplication: self.duplication,
            delay_max: Duration::from_millis(self.delay_max_ms),
            ..FaultyLink::bad()
        };
        network.feed(&hex::decode(&self.script).expect("hexadecimal"));
        network.start_commands(Duration::from_millis(self.think_max_ms));
        let mut backup = network.journal.disk.clone();
        for (at, (after_ms, fault)) in self.faults.iter().enumerate() {
            network.run_for(Duration::from_millis(*after_ms));
            if at == self.busy_faults {
                network.stop_commands();
            }
            network.trace(|| format!("fault: {fault:?}"));
            match *fault {
                Fault::Backup => backup = network.journal.disk.clone(),
                Fault::Restore { down_ms } => {
                    network.lose_unless_resynchronised();
                    network.crash(Duration::from_millis(down_ms));
                    network.journal.restore(backup.clone());
                }
                ref fault => apply(&mut network, fault),
            }
            if matches!(fault, Fault::LoseState { .. }) {
                // A backup of another data file, with other keys, is none of this server.
                backup = Disk::default();
            }
        }
        network.stop_commands();
        network.cuts.clear();
        network.trace(|| "the storm is over".into());
        network.link = FaultyLink::bad();
        network.run_for(RECOVERY);
        network.finish_commands();
        network.run_for(Duration::from_secs(10));
        network.check_all();
        network.check_searches();
        network.check_served();
        let sessions = network.server.as_ref().map(|server| server.session_count());
        assert_eq!(sessions, Some(self.clients), "a session each");
        network.check_repeats();
        network.check_waits();
        network
    }

    /// Why it fails, if it does.
    pub fn failure(&self) -> Option<String> {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let result = panic::catch_unwind(AssertUnwindSafe(|| drop(self.run())));
        panic::set_hook(hook);
        let failure = result.err()?;
        let text = failure.downcast_ref::<String>().cloned();
        Some(text.or_else(|| failure.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    }

    /// The smallest storm found that fails too: without faults that it does not need, and without losses if possible.
    pub fn shrunk(&self) -> Self {
        let mut smallest = self.clone();
        let perfect = Self { loss: 0.0, duplication: 0.0, delay_max_ms: 2, ..smallest.clone() };
        if perfect.failure().is_some() {
            smallest = perfect;
        }
        let mut at = smallest.faults.len();
        while at > 0 {
            at -= 1;
            let mut without = smallest.clone();
            let (time, _) = without.faults.remove(at);
            without.busy_faults -= usize::from(at < without.busy_faults);
            // The others stay where they are in time.
            if let Some((after, _)) = without.faults.get_mut(at) {
                *after += time;
            }
            if without.failure().is_some() {
                smallest = without;
            }
        }
        let shorter =
            |storm: &Self| Self { script: storm.script[..storm.script.len() / 8 * 4].into(), ..storm.clone() };
        while !smallest.script.is_empty() && shorter(&smallest).failure().is_some() {
            smallest = shorter(&smallest);
        }
        smallest
    }
}

fn random_fault(rng: &mut Choices, kind: u32, clients: usize) -> Fault {
    let (client, ms) = (rng.gen_range(0..clients), rng.gen_range(0..FAULT_MAX_MS));
    match kind {
        0 => Fault::Crash { down_ms: ms },
        1 if rng.gen_bool(0.5) => Fault::Backup,
        1 => Fault::Restore { down_ms: ms },
        2 => Fault::LoseState { down_ms: ms },
        3 => Fault::StopServer { ms },
        4 => Fault::StopClient { client, ms },
        5 => Fault::Cut { client, to_server: rng.gen_bool(0.4), to_client: rng.gen_bool(0.4) },
        6 => Fault::ChangeAddress { client },
        7 => Fault::Kill { client },
        _ => Fault::SetClock { offset_ms: rng.gen_range(-CLOCK_MAX_MS..CLOCK_MAX_MS) },
    }
}

fn apply(network: &mut SimulatedNetwork, fault: &Fault) {
    match *fault {
        Fault::Crash { down_ms } => network.crash(Duration::from_millis(down_ms)),
        Fault::LoseState { down_ms } => {
            network.lose_unless_resynchronised();
            network.crash(Duration::from_millis(down_ms));
            network.lose_all_state();
        }
        Fault::StopServer { ms } => network.stop_server(Duration::from_millis(ms)),
        Fault::StopClient { client, ms } => {
            let until = network.now + Duration::from_millis(ms);
            network.stopped_clients.insert(client, until);
        }
        Fault::Cut { client, to_server, to_client } => _ = network.cuts.insert(client, Cut { to_server, to_client }),
        Fault::ChangeAddress { client } => network.change_address(client),
        Fault::Kill { client } => {
            network.kill(client);
            network.revive(client);
        }
        Fault::SetClock { offset_ms } => network.set_wall_clock(offset_ms),
        Fault::Backup | Fault::Restore { .. } => unreachable!("the storm has the backup"),
    }
}
