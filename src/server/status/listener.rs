//! The status page's connections, on the event loop's poll.
//!
//! Defended: at most [`CONNECTIONS_MAX`] connections, each for at most 10 seconds, with 4 KiB of a request or one response (the
//! largest lists 250 users), and the system's buffers of a socket. When a new one comes and all are in use, the oldest
//! unfinished request gives way, so slow clients keep no scrape out. What is ready is served first, so clients that come again
//! and again keep none out either: it waits for its turn. A turn of the event loop makes at most one response, and reads or
//! writes once for each connection, so no client delays a heartbeat by more than that takes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::debug;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Registry, Token};

use super::connection::{HttpConnection, HttpStep};
use super::http::{Resource, error_response};

const CONNECTIONS_MAX: usize = 16;
/// Connections accepted in one turn.
const ACCEPTED_PER_TURN: usize = CONNECTIONS_MAX;
/// After a failure, for instance since the process has too many files open: the poll does not report again what waits.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

struct Slot {
    connection: HttpConnection<TcpStream>,
    /// The stream may be ready; the poll reports each change once.
    is_ready: bool,
}

pub struct StatusListener {
    listener: TcpListener,
    /// Of the listener; the connections have the next ones.
    first_token: Token,
    slots: [Option<Slot>; CONNECTIONS_MAX],
    /// When connections may wait to be accepted.
    accept_at: Option<Instant>,
    /// The slot that was served last.
    last_served: usize,
}

impl StatusListener {
    /// `first_token` and the [`CONNECTIONS_MAX`] tokens after it are the listener's.
    pub fn bind(address: SocketAddr, registry: &Registry, first_token: Token) -> io::Result<Self> {
        let mut listener = TcpListener::bind(address)?;
        registry.register(&mut listener, first_token, Interest::READABLE)?;
        let slots = std::array::from_fn(|_| None);
        Ok(Self { listener, first_token, slots, accept_at: None, last_served: 0 })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// When [`run`](Self::run) is to be called at the latest.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let slots = || self.slots.iter().flatten();
        if slots().any(|slot| slot.is_ready) {
            return Some(now);
        }
        slots().map(|slot| slot.connection.deadline).chain(self.accept_at).min()
    }

    /// Serves what is ready. `respond` makes a response.
    pub fn run(
        &mut self,
        now: Instant,
        registry: &Registry,
        events: &Events,
        respond: impl FnOnce(Resource) -> Vec<u8>,
    ) {
        for event in events {
            match event.token().0.checked_sub(self.first_token.0) {
                Some(0) => self.accept_at = Some(now),
                Some(number) => {
                    self.slots.get_mut(number - 1).into_iter().flatten().for_each(|slot| slot.is_ready = true)
                }
                None => {}
            }
        }
        for slot in &mut self.slots {
            slot.take_if(|slot| slot.connection.deadline <= now);
        }
        self.accept(now, registry);
        self.serve(respond);
    }

    fn accept(&mut self, now: Instant, registry: &Registry) {
        for _ in 0..ACCEPTED_PER_TURN {
            if self.accept_at.is_none_or(|at| now < at) {
                return;
            }
            let Some(number) = self.slot_for_next() else { return };
            match self.listener.accept() {
                Ok((stream, _)) => self.add(now, registry, number, stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.accept_at = None,
                Err(error) => {
                    debug!("the status page cannot accept a connection: {error}");
                    self.accept_at = Some(now + ACCEPT_RETRY);
                }
            }
        }
    }

    /// A free slot, or else that of the oldest unfinished request, or else that of the oldest connection. A connection that may
    /// have sent a request keeps its slot until that was read.
    fn slot_for_next(&self) -> Option<usize> {
        let order = |slot: &Option<Slot>| {
            slot.as_ref().map(|Slot { connection, .. }| (connection.is_answered(), connection.deadline))
        };
        let is_ready = |number: usize| self.slots[number].as_ref().is_some_and(|slot| slot.is_ready);
        let candidates = (0..CONNECTIONS_MAX).filter(|&number| !is_ready(number));
        candidates.min_by_key(|&number| order(&self.slots[number]))
    }

    fn add(&mut self, now: Instant, registry: &Registry, number: usize, mut stream: TcpStream) {
        // Dropped before the new one is registered: closing removes it from the poll.
        self.slots[number] = None;
        let token = Token(self.first_token.0 + 1 + number);
        match registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => {
                self.slots[number] = Some(Slot { connection: HttpConnection::new(now, stream), is_ready: true });
            }
            Err(error) => debug!("the status page cannot serve a connection: {error}"),
        }
    }

    /// One step for each connection that is ready, until one of them has a request to answer. The slots take turns.
    fn serve(&mut self, respond: impl FnOnce(Resource) -> Vec<u8>) {
        let first = self.last_served + 1;
        for number in (first..first + CONNECTIONS_MAX).map(|number| number % CONNECTIONS_MAX) {
            let Some(slot) = self.slots[number].as_mut().filter(|slot| slot.is_ready) else { continue };
            match slot.connection.step() {
                HttpStep::Blocked => slot.is_ready = false,
                HttpStep::Ready => {}
                HttpStep::Done => self.slots[number] = None,
                HttpStep::Request(request) => {
                    slot.connection.respond(request.map_or_else(error_response, respond));
                    self.last_served = number;
                    return;
                }
            }
        }
    }
}
