//! The control thread over real sockets on loopback, with a scripted server on another thread.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::client::session::test_support::{PASSWORD, ScriptedServer, hans};
use crate::common::limits::DATAGRAM_MAX_BYTES;
use crate::common::message::{ClientMessage, NameQuery, ServerMessage};
use crate::common::types::FileName;

/// Nothing in these tests takes as long as this.
const LONG: Duration = Duration::from_secs(60);

/// What the observer was told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Started { resumed: bool },
    LoggedOut,
    Dropped,
}

struct Watcher(Sender<Told>);

impl Watcher {
    fn new() -> (Arc<Self>, Receiver<Told>) {
        let (told, hears) = channel();
        (Arc::new(Self(told)), hears)
    }

    fn tell(&self, told: Told) {
        let _ = self.0.send(told);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.tell(Told::Dropped);
    }
}

impl Observer for Watcher {
    fn session_started(&self, user: &UserName, _: &SessionParams, ticket_key: &Secret, resumed: bool) {
        assert_eq!((user, ticket_key.len()), (&hans(), 32));
        self.tell(Told::Started { resumed });
    }
    fn connection_lost(&self) {}
    fn logged_out(&self) {
        self.tell(Told::LoggedOut);
    }
    fn resynced(&self, _: usize) {}
    fn free_slots(&self) -> u8 {
        3
    }
}

/// A scripted server behind a socket: names searched for are echoed, everything else is answered with nobody.
struct Served {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || serve(&socket, ScriptedServer::new(address)));
        Self { address, thread: Some(thread) }
    }

    /// One byte to the server's thread; see `serve`.
    fn order(&self, order: u8) {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(&[order], self.address).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.order(b'q');
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the server's thread failed");
    }
}

fn serve(socket: &UdpSocket, mut server: ScriptedServer) {
    let mut client = None;
    loop {
        let mut buffer = [0; DATAGRAM_MAX_BYTES];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        match (&buffer[..length], client) {
            (b"q", _) => return,
            (b"r", Some(client)) => drop(socket.send_to(&server.reset(0), client)),
            (datagram, _) => {
                client = Some(from);
                if let Some(answer) = server.handle(datagram.to_vec()) {
                    socket.send_to(&answer, from).unwrap();
                }
            }
        }
        while let Some(message) = server.messages.pop_front() {
            let answer = match message {
                ClientMessage::Logout => ServerMessage::LogoutAck,
                ClientMessage::Request { id, request, .. } => ServerMessage::Reply { id, response: respond(request) },
                ClientMessage::Heartbeat(_) => continue,
            };
            let answer = server.seal(&answer);
            socket.send_to(&answer, from).unwrap();
        }
    }
}

fn respond(request: Request) -> Response {
    match request {
        Request::Search { query: NameQuery::Substring(text), .. } => {
            Response::SearchResults { names: vec![FileName::parse(&text).unwrap()], next: None }
        }
        _ => Response::Users { users: Vec::new(), next: None },
    }
}

fn start(servers: Vec<SocketAddr>) -> (ControlHandle, Receiver<Told>) {
    let (watcher, told) = Watcher::new();
    let options = ControlOptions { servers, tcp_port: 4_000, stretching: KeyStretching::Insecure };
    (ControlHandle::start(options, watcher).unwrap(), told)
}

fn password() -> Password {
    Zeroizing::new(PASSWORD.to_vec())
}

fn search(text: &str) -> Request {
    Request::Search { query: NameQuery::Substring(text.into()), cursor: None }
}

#[test]
fn a_session_from_login_to_leaving() {
    let server = Served::start();
    let (control, told) = start(vec![server.address]);
    assert_eq!(control.user(), None);
    assert_eq!(control.request(search("a")), Err(RequestError::NotAuthenticated));
    assert_eq!(control.login(hans(), Zeroizing::new(b"wrong".to_vec())), Err(LoginError::Refused));
    control.login(hans(), password()).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(Told::Started { resumed: false }));
    assert_eq!(control.user(), Some(hans()));
    assert_eq!(control.login(hans(), password()), Err(LoginError::LoggedIn));
    assert_eq!(control.request(search("a")), Ok(respond(search("a"))));
    control.logout();
    assert_eq!(control.user(), None);
    assert_eq!(control.request(search("a")), Err(RequestError::NotAuthenticated));
    control.logout();
    control.login(hans(), password()).unwrap();
    drop(control);
    let last = std::iter::from_fn(|| told.recv_timeout(LONG).ok()).last();
    assert_eq!(last, Some(Told::Dropped), "the thread ends with its last handle");
}

#[test]
fn many_questions_are_answered_in_their_order_and_many_threads_may_ask() {
    let server = Served::start();
    let (control, _told) = start(vec![server.address]);
    control.login(hans(), password()).unwrap();
    let asker = |thread: usize| {
        let control = control.clone();
        move || {
            let requests: Vec<Request> = (0..300).map(|at| search(&format!("{thread} {at}"))).collect();
            let expected: Vec<Response> = requests.iter().cloned().map(respond).collect();
            assert_eq!(control.request_many(requests), Ok(expected));
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|thread| drop(scope.spawn(asker(thread)))));
    assert_eq!(control.request_many(Vec::new()), Ok(Vec::new()));
}

#[test]
fn the_next_address_is_tried_when_nobody_listens_at_the_first() {
    let deaf = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let nobody = deaf.local_addr().unwrap();
    drop(deaf);
    let server = Served::start();
    let (control, _told) = start(vec![nobody, server.address]);
    control.login(hans(), password()).unwrap();
    assert!(control.request(search("a")).is_ok());
}

#[test]
fn a_reset_is_followed_by_a_resumption_and_requests_go_on() {
    let server = Served::start();
    let (control, told) = start(vec![server.address]);
    control.login(hans(), password()).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(Told::Started { resumed: false }));
    server.order(b'r');
    assert_eq!(told.recv_timeout(LONG), Ok(Told::Started { resumed: true }));
    assert_eq!(control.request(search("a")), Ok(respond(search("a"))));
}

#[test]
fn a_control_without_any_address_does_not_start() {
    let (watcher, _told) = Watcher::new();
    let options = ControlOptions { servers: Vec::new(), tcp_port: 4_000, stretching: KeyStretching::Insecure };
    assert!(ControlHandle::start(options, watcher).is_err());
}
