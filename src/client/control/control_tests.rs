//! The control thread over real sockets on loopback, with a scripted server on another thread.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use zeroize::Zeroizing;

use super::*;
use crate::client::session::test_support::{PASSWORD, ScriptedServer, hans};
use crate::common::limits::DATAGRAM_MAX_BYTES;
use crate::common::message::{ClientMessage, NameQuery, ServerMessage};
use crate::common::opaque::KeyStretching;
use crate::common::types::FileName;

/// Far longer than anything in these tests takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What an observer has received.
#[derive(Debug, PartialEq, Eq)]
enum Observed {
    Started { resumed: bool },
    LoggedOut,
    Dropped,
}

struct TestObserver(Sender<Observed>);

impl TestObserver {
    fn new() -> (Arc<Self>, Receiver<Observed>) {
        let (sender, receiver) = channel();
        (Arc::new(Self(sender)), receiver)
    }

    fn report(&self, observed: Observed) {
        let _ = self.0.send(observed);
    }
}

impl Drop for TestObserver {
    fn drop(&mut self) {
        self.report(Observed::Dropped);
    }
}

impl Observer for TestObserver {
    fn session_started(&self, user: &UserName, _: &SessionParams, ticket_key: &Secret, resumed: bool) {
        assert_eq!((user, ticket_key.len()), (&hans(), 32));
        self.report(Observed::Started { resumed });
    }
    fn connection_lost(&self) {}
    fn logged_out(&self) {
        self.report(Observed::LoggedOut);
    }
    fn resynced(&self, _: usize) {}
    fn free_slots(&self) -> u8 {
        3
    }
}

/// A scripted server behind a socket. It echoes the names of a search, and answers everything else with no users.
struct RunningServer {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl RunningServer {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let thread = std::thread::spawn(move || serve(&socket, ScriptedServer::new(address)));
        Self { address, thread: Some(thread) }
    }

    /// Sends a one-byte command to the server's thread; see `serve`.
    fn command(&self, command: u8) {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(&[command], self.address).unwrap();
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.command(b'q');
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
                ClientMessage::Request { id, request, .. } => {
                    ServerMessage::Reply { id, page: 0, response: respond(request) }
                }
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
        _ => Response::Peers { peers: Vec::new(), next: None },
    }
}

fn start(servers: Vec<SocketAddr>) -> (ControlHandle, Receiver<Observed>) {
    let (observer, observed) = TestObserver::new();
    let options = SessionConfig { servers, tcp_port: 4_000, stretching: KeyStretching::Insecure };
    (ControlHandle::start(options, observer).unwrap(), observed)
}

fn password() -> Password {
    Zeroizing::new(PASSWORD.to_vec())
}

fn search(text: &str) -> Request {
    Request::Search { query: NameQuery::Substring(text.into()), cursor: None }
}

#[test]
fn a_session_from_login_to_logout() {
    let server = RunningServer::start();
    let (control, observed) = start(vec![server.address]);
    assert_eq!(control.user(), None);
    assert_eq!(control.request(search("a")), Err(RequestError::NotAuthenticated));
    assert_eq!(control.login(hans(), Zeroizing::new(b"wrong".to_vec())), Err(LoginError::Refused));
    control.login(hans(), password()).unwrap();
    assert_eq!(observed.recv_timeout(TIMEOUT), Ok(Observed::Started { resumed: false }));
    assert_eq!(control.user(), Some(hans()));
    assert_eq!(control.login(hans(), password()), Err(LoginError::LoggedIn));
    assert_eq!(control.request(search("a")), Ok(respond(search("a"))));
    control.logout();
    assert_eq!(control.user(), None);
    assert_eq!(control.request(search("a")), Err(RequestError::NotAuthenticated));
    control.logout();
    control.login(hans(), password()).unwrap();
    drop(control);
    let last = std::iter::from_fn(|| observed.recv_timeout(TIMEOUT).ok()).last();
    assert_eq!(last, Some(Observed::Dropped), "the thread ends with its last handle");
}

#[test]
fn many_responses_come_in_order_and_many_threads_may_send_requests() {
    let server = RunningServer::start();
    let (control, _observed) = start(vec![server.address]);
    control.login(hans(), password()).unwrap();
    let requester = |thread: usize| {
        let control = control.clone();
        move || {
            let requests: Vec<Request> = (0..300).map(|at| search(&format!("{thread} {at}"))).collect();
            let expected: Vec<Response> = requests.iter().cloned().map(respond).collect();
            assert_eq!(control.request_many(requests), Ok(expected));
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|thread| drop(scope.spawn(requester(thread)))));
    assert_eq!(control.request_many(Vec::new()), Ok(Vec::new()));
}

#[test]
fn the_next_address_is_tried_if_the_first_is_unreachable() {
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let unreachable = closed.local_addr().unwrap();
    drop(closed);
    let server = RunningServer::start();
    let (control, _observed) = start(vec![unreachable, server.address]);
    control.login(hans(), password()).unwrap();
    assert!(control.request(search("a")).is_ok());
}

#[test]
fn a_reset_is_followed_by_a_resumption_and_requests_go_on() {
    let server = RunningServer::start();
    let (control, observed) = start(vec![server.address]);
    control.login(hans(), password()).unwrap();
    assert_eq!(observed.recv_timeout(TIMEOUT), Ok(Observed::Started { resumed: false }));
    server.command(b'r');
    assert_eq!(observed.recv_timeout(TIMEOUT), Ok(Observed::Started { resumed: true }));
    assert_eq!(control.request(search("a")), Ok(respond(search("a"))));
}

#[test]
fn a_control_thread_needs_an_address() {
    let (observer, _observed) = TestObserver::new();
    let options = SessionConfig { servers: Vec::new(), tcp_port: 4_000, stretching: KeyStretching::Insecure };
    assert!(ControlHandle::start(options, observer).is_err());
}
