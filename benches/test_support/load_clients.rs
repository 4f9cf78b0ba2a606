//! Many client sessions on one thread, with one `poll`. Each has its own socket, since a session belongs to one address.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fileshare::internals::client::session::{Event, Session, SessionConfig};
use fileshare::internals::common::limits::DATAGRAM_MAX_BYTES;
use fileshare::internals::common::opaque::KeyStretching;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zeroize::Zeroizing;

use super::user;

/// Concurrent logins: fewer than the server stores for one address.
const LOGINS: usize = 256;
/// The bench fails when nothing happens for this long.
const TIMEOUT: Duration = Duration::from_secs(60);

struct LoadClient {
    session: Session,
    socket: UdpSocket,
    timer: Option<Instant>,
    /// When what is not yet answered was sent first.
    waits_since: Option<Instant>,
}

/// See the module's documentation.
pub struct LoadClients {
    server: SocketAddr,
    /// The number of the first user.
    first: usize,
    poll: Poll,
    events: Events,
    members: Vec<LoadClient>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    events_out: Vec<(usize, Event)>,
    sent: u64,
    received: u64,
    /// What [`advance`](Self::advance) added to the clock.
    ahead: Duration,
    /// `None` unless they are measured.
    round_trips: Option<Vec<Duration>>,
}

impl LoadClients {
    /// Creates the sessions of the first `members` users, not yet logged in.
    pub fn new(server: SocketAddr, members: usize) -> Self {
        Self::from(server, 0, members)
    }

    /// Creates the sessions of `members` users from number `first` on, not yet logged in.
    pub fn from(server: SocketAddr, first: usize, members: usize) -> Self {
        raise_descriptor_limit(members as u64 + 100);
        let (poll, mut rng) = (Poll::new().expect("a poll"), ChaCha20Rng::seed_from_u64(2));
        let member = |number| {
            let mut socket = UdpSocket::bind(([127, 0, 0, 1], 0).into()).expect("a socket");
            socket.connect(server).expect("a connected socket");
            poll.registry().register(&mut socket, Token(number), Interest::READABLE).expect("registered");
            let config = SessionConfig { servers: vec![server], tcp_port: 9, stretching: KeyStretching::Insecure };
            LoadClient {
                session: Session::new(config, ChaCha20Rng::from_seed(rng.r#gen())),
                socket,
                timer: None,
                waits_since: None,
            }
        };
        let members = (0..members).map(member).collect();
        let events = Events::with_capacity(1_024);
        let (timers, events_out, ahead, round_trips) = Default::default();
        Self { server, first, poll, events, members, timers, events_out, sent: 0, received: 0, ahead, round_trips }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Datagrams sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Datagrams received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// How long each answer took since the last call, from when the session sent first, for sessions that ask for one thing at a
    /// time. Measured from the first call on.
    pub fn take_round_trips(&mut self) -> Vec<Duration> {
        self.round_trips.replace(Vec::new()).unwrap_or_default()
    }

    /// Moves the clock of all sessions on, so that [`poll`](Self::poll) finds their timers due.
    pub fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }

    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }

    /// Logs all users in, at most [`LOGINS`] at a time.
    pub fn log_in(&mut self) {
        let (mut begun, mut done) = (0, 0);
        while done < self.members.len() {
            while begun < self.members.len() && begun - done < LOGINS {
                let name = user(self.first + begun);
                self.with_session(begun, |session, now| {
                    session.login(now, name.clone(), Zeroizing::new(name.as_str().as_bytes().to_vec()));
                });
                begun += 1;
            }
            for (member, event) in self.poll(TIMEOUT) {
                if let Event::LoginFinished(result) = event {
                    result.unwrap_or_else(|error| panic!("user {member}: {error}"));
                    done += 1;
                }
            }
        }
    }

    /// Calls one session with the current time, then sends what it has to send.
    pub fn with_session<T>(&mut self, number: usize, call: impl FnOnce(&mut Session, Instant) -> T) -> T {
        let result = call(&mut self.members[number].session, Instant::now() + self.ahead);
        self.flush(number);
        result
    }

    /// Handles datagrams and timers, waiting for at most `timeout`, and returns the events of the sessions.
    pub fn poll(&mut self, timeout: Duration) -> Vec<(usize, Event)> {
        let next = self.timers.peek().map(|Reverse((at, _))| at.saturating_duration_since(self.now()));
        let wait = if self.events_out.is_empty() { next.unwrap_or(timeout).min(timeout) } else { Duration::ZERO };
        self.poll.poll(&mut self.events, Some(wait)).expect("a poll");
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for number in ready {
            self.receive(number);
        }
        let now = self.now();
        while let Some(&Reverse((at, number))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            if self.members[number].timer.take_if(|timer| *timer == at).is_some() {
                self.members[number].session.handle_timeout(now);
                self.flush(number);
            }
        }
        std::mem::take(&mut self.events_out)
    }

    fn receive(&mut self, number: usize) {
        let mut datagram = [0; DATAGRAM_MAX_BYTES + 1];
        let now = self.now();
        let LoadClient { session, socket, waits_since, .. } = &mut self.members[number];
        loop {
            match socket.recv(&mut datagram) {
                Ok(length) => {
                    self.received += 1;
                    if let Some((times, since)) = self.round_trips.as_mut().zip(waits_since.take()) {
                        times.push(Instant::now() + self.ahead - since);
                    }
                    session.handle_datagram(now, self.server, &mut datagram[..length]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => session.unreachable(now, self.server),
            }
        }
        self.flush(number);
    }

    /// Takes the session's events, sends its datagrams and sets its timer.
    fn flush(&mut self, number: usize) {
        let LoadClient { session, socket, timer, waits_since } = &mut self.members[number];
        while let Some(event) = session.poll_event() {
            self.events_out.push((number, event));
        }
        while let Some((_, datagram)) = session.poll_transmit() {
            // A datagram that cannot be sent counts as lost: the session retransmits it.
            let _ = socket.send(&datagram);
            self.sent += 1;
            if self.round_trips.is_some() {
                waits_since.get_or_insert_with(|| Instant::now() + self.ahead);
            }
        }
        let due = session.poll_timeout();
        if let Some(at) = due.filter(|at| timer.is_none_or(|set| *at < set)) {
            *timer = Some(at);
            self.timers.push(Reverse((at, number)));
        }
    }
}

fn raise_descriptor_limit(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(maximum.map_or(wanted, |maximum| maximum.min(wanted))), maximum };
        setrlimit(Resource::Nofile, raised).expect("the limit can be raised up to the maximum");
    }
}
