//! What goes wrong: clients and the server die, move, stand still, or do not hear each other; the disk and the clock change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::server::core::Effects;
use rand::Rng;

use super::{Scheduled, SimulatedNetwork, WALL_MS};
use crate::simulation::simulated_client::SimulatedClient;
use crate::simulation::simulated_journal::Disk;
use crate::simulation::simulated_users::address;

/// Which way a client's datagrams are lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    pub to_server: bool,
    pub to_client: bool,
}

impl SimulatedNetwork {
    /// A client dies without a message.
    pub fn kill(&mut self, client: usize) {
        if let Some(mut killed) = self.clients[client].take() {
            killed.die(self.now);
            if self.has_lost_data {
                killed.resynchronised.clear();
                killed.lose_track();
            }
            self.dead.insert(client, killed);
        }
    }

    /// The user of a client that has died logs in with another one.
    pub fn revive(&mut self, number: usize) {
        let dead = self.dead.remove(&number).expect("it has died");
        let mut revived = self.client(number);
        revived.inherit(dead);
        self.clients[number] = Some(revived);
        let now = self.now;
        self.with_client(number, |client| client.login(now));
    }

    /// A client's address changes.
    pub fn change_address(&mut self, client: usize) {
        let moved = address(client, self.rng.gen_range(10_000..60_000));
        self.addresses.retain(|_, of| *of != client);
        self.addresses.insert(moved, client);
        let now = self.now;
        self.with_client(client, |client| {
            client.address = moved;
            client.disturbances.push(now);
            client.history.unsure(now);
        });
    }

    /// The server dies at once and starts again after a while.
    pub fn crash(&mut self, down: Duration) {
        if self.server.take().is_some() {
            self.journal.crash(&mut self.rng);
            self.clients.iter_mut().flatten().for_each(SimulatedClient::server_died);
            self.out = Effects::default();
            self.generation += 1;
            self.stopped_server = None;
            self.restarts.push(self.now);
            self.push(self.now + down, Scheduled::Restart);
        }
    }

    /// The server's process stands still for a while: its socket receives.
    pub fn stop_server(&mut self, time: Duration) {
        if self.server.is_some() && self.stopped_server.is_none() {
            self.stopped_server = Some(Vec::new());
            self.push(self.now + time, Scheduled::ServerContinues);
        }
    }

    /// The disk is about to be replaced: only clients that are logged in know what their users have published.
    pub fn lose_unless_resynchronised(&mut self) {
        self.has_lost_data = true;
        for client in self.clients.iter_mut().flatten() {
            client.tolerates_differences = true;
            client.lose_track();
        }
    }

    /// The wall clock is set.
    pub fn set_wall_clock(&mut self, offset_ms: i64) {
        self.clock_offset_ms = offset_ms;
        let (now, wall_ms) = (self.now, self.wall_ms());
        // One that stands still reads it when it goes on.
        if self.stopped_server.is_none() {
            self.with_server(|server, _| server.set_wall_clock(now, wall_ms));
        }
    }

    pub(super) fn wall_ms(&self) -> u64 {
        (WALL_MS + (self.now - self.start).as_millis() as u64).saturating_add_signed(self.clock_offset_ms)
    }

    /// The server loses its keys and all publications, as with `--ephemeral`.
    pub fn lose_all_state(&mut self) {
        self.root_secret = self.rng.arbitrary();
        self.journal.restore(Disk::default());
    }

    pub(super) fn is_cut(&self, address: SocketAddr, way: impl Fn(&Cut) -> bool) -> bool {
        self.addresses.get(&address).and_then(|client| self.cuts.get(client)).is_some_and(way)
    }

    pub(super) fn stopped_until(&self, client: Option<&usize>) -> Option<Instant> {
        self.stopped_clients.get(client?).copied().filter(|until| *until > self.now)
    }

    /// As the event loop does: what was received while it stood still comes before the timers.
    pub(super) fn continue_server(&mut self) {
        let Some(received) = self.stopped_server.take() else { return };
        let (now, wall_ms) = (self.now, self.wall_ms());
        self.liveness.iter_mut().for_each(|oracle| oracle.on_continued(now));
        received.iter().for_each(|(from, datagram)| self.server_hears(*from, datagram));
        self.with_server(|server, out| {
            server.set_wall_clock(now, wall_ms);
            server.handle_suspension(now);
            for (from, mut datagram) in received {
                server.handle_datagram(now, from, &mut datagram, out);
            }
        });
    }
}
