//! Streams over a scripted session and server.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use super::*;
use crate::client::cancel::Cancelled;
use crate::client::control::{
    ListCallback, ListSignal, LoginError, LoginInfo, RequestTransport, ServerApi, SessionControl, WaitCondition,
    WaitId, WaitOutcome,
};
use crate::common::message::{ActivePeer, AvailableContent, Request, Response};
use crate::common::sync::lock;
use crate::common::types::{Content, Password, UserName, UsersDigest};

#[derive(Default)]
struct Scripted {
    state: Mutex<ScriptedState>,
}

#[derive(Default)]
struct ScriptedState {
    peers: Vec<&'static str>,
    files: Vec<(&'static str, u8)>,
    session: u64,
    login: u64,
    callbacks: Vec<(WaitId, ListCallback)>,
    requests: usize,
}

impl Scripted {
    /// Changes the state and reports it to all watched lists.
    fn change(&self, is_complete: bool, change: impl FnOnce(&mut ScriptedState)) {
        let mut state = lock(&self.state);
        change(&mut state);
        let signal = ListSignal { is_complete, session: state.session, login: state.login };
        state.callbacks.iter().for_each(|(_, callback)| callback(signal));
    }
}

impl SessionControl for Scripted {
    fn login(&self, _: UserName, _: Password) -> Result<LoginInfo, LoginError> {
        unreachable!()
    }

    fn user(&self) -> Option<UserName> {
        unreachable!()
    }

    fn wait(&self, _: WaitCondition, _: Duration, _: &Cancelled) -> Result<WaitOutcome, RequestError> {
        unreachable!()
    }

    fn watch(&self, _: WatchedList, on_change: ListCallback) -> Result<WaitId, RequestError> {
        let mut state = lock(&self.state);
        if state.callbacks.len() == 3 {
            return Err(RequestError::TooManyWaits);
        }
        on_change(ListSignal { is_complete: true, session: state.session, login: state.login });
        let id = WaitId(state.callbacks.len() as u64);
        state.callbacks.push((id, on_change));
        Ok(id)
    }

    fn unwatch(&self, watch: WaitId) {
        lock(&self.state).callbacks.retain(|(id, _)| *id != watch);
    }

    fn sessions(&self) -> u64 {
        lock(&self.state).session
    }

    fn logout(&self) {}
}

impl RequestTransport for Scripted {
    fn request(&self, request: Request) -> Result<Response, RequestError> {
        let mut state = lock(&self.state);
        state.requests += 1;
        match request {
            Request::Peers { .. } => {
                let peer = |name: &&str| ActivePeer { user: UserName::parse(name).unwrap(), active_s: 0 };
                Ok(Response::Peers { peers: state.peers.iter().map(peer).collect(), next: None })
            }
            Request::Resolve { .. } => {
                let entry = |&(name, byte): &(&str, u8)| AvailableContent {
                    name: FileName::parse(name).unwrap(),
                    content: Content { hash: ContentHash([byte; 32]), size: byte.into(), mtime_ms: 0 },
                    sources: 1,
                    age_s: 0,
                    users: UsersDigest::default(),
                };
                Ok(Response::Contents { entries: state.files.iter().map(entry).collect(), next: None })
            }
            other => panic!("{other:?}"),
        }
    }

    fn request_many(&self, _: Vec<Request>) -> Result<Vec<Response>, RequestError> {
        unreachable!()
    }
}

struct Fixture {
    server: Arc<Scripted>,
    bus: Arc<EventBus>,
    lists: Arc<ListWatcher>,
    _alive: Sender<Infallible>,
    cancelled: Cancelled,
}

impl Fixture {
    fn new() -> Self {
        let server = Arc::<Scripted>::default();
        let lists = ListWatcher::new(server.clone(), ServerApi::with_transport(server.clone()));
        let (alive, cancelled) = unbounded();
        Self { server, bus: Arc::default(), lists, _alive: alive, cancelled }
    }

    fn stream(&self, patterns: &[&str]) -> EventStream {
        let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern).unwrap()).collect();
        EventStream::new(&self.bus, &self.lists, patterns).unwrap()
    }

    /// The next events, as short texts.
    fn next<const N: usize>(&self, stream: &mut EventStream) -> [String; N] {
        std::array::from_fn(|_| describe(stream.next(&self.cancelled)))
    }
}

fn describe(streamed: Option<Streamed>) -> String {
    match streamed {
        Some(Streamed::Event(TimedEvent { kind, .. })) => match kind {
            EventKind::PeerJoined { user } => format!("+{user}"),
            EventKind::PeerLeft { user } => format!("-{user}"),
            EventKind::FileAvailable { name, content } => {
                format!("+{name} {}", content.map_or("waited for".into(), |content| content.bytes.to_string()))
            }
            EventKind::FileGone { name } => format!("-{name}"),
            other => format!("{other:?}"),
        },
        Some(Streamed::Dropped(count)) => format!("{count} dropped"),
        None => "cancelled".into(),
    }
}

#[test]
fn what_is_there_comes_first_and_then_what_changes() {
    let fixture = Fixture::new();
    fixture.server.change(true, |state| (state.peers, state.files) = (vec!["vader"], vec![("a.pdf", 1), ("b.txt", 1)]));
    let mut stream = fixture.stream(&["*.pdf"]);
    let mut first: [String; 2] = fixture.next(&mut stream);
    first.sort();
    assert_eq!(first, ["+a.pdf 1", "+vader"]);
    fixture.server.change(true, |state| state.files.push(("c.pdf", 2)));
    assert_eq!(fixture.next(&mut stream), ["+c.pdf 2"]);
    fixture.server.change(true, |state| state.files[0].1 = 3);
    assert_eq!(fixture.next(&mut stream), ["+a.pdf 3"], "another content is no departure");
    fixture.server.change(true, |state| state.files.push(("a.pdf", 4)));
    assert_eq!(fixture.next(&mut stream), ["+a.pdf 4"]);
    fixture.server.change(true, |state| state.files.retain(|(name, _)| *name != "a.pdf"));
    assert_eq!(fixture.next(&mut stream), ["-a.pdf"], "once for both contents");
    fixture.server.change(true, |state| state.peers.clear());
    assert_eq!(fixture.next(&mut stream), ["-vader"]);
}

#[test]
fn what_an_incomplete_list_lacks_has_not_gone() {
    let fixture = Fixture::new();
    fixture.server.change(true, |state| state.peers = vec!["vader", "yoda"]);
    let mut stream = fixture.stream(&[]);
    assert_eq!(fixture.next(&mut stream), ["+vader", "+yoda"]);
    fixture.server.change(false, |state| (state.peers, state.session) = (vec!["leia"], 1));
    assert_eq!(fixture.next(&mut stream), ["+leia"]);
    assert_eq!(stream.lists[0].snapshot().complete_in, None);
    fixture.server.change(true, |state| state.peers = vec!["leia", "yoda"]);
    assert_eq!(fixture.next(&mut stream), ["-vader"]);
    assert_eq!(stream.lists[0].snapshot().complete_in, Some(1));
    fixture.server.change(true, |state| (state.peers, state.login) = (vec!["hans", "yoda"], 1));
    assert_eq!(fixture.next(&mut stream), ["+hans", "+yoda"], "of another login nothing was known");
}

#[test]
fn a_list_from_a_later_session_than_its_report_counts_as_incomplete() {
    let fixture = Fixture::new();
    fixture.server.change(true, |state| state.peers = vec!["vader"]);
    let mut stream = fixture.stream(&[]);
    assert_eq!(fixture.next(&mut stream), ["+vader"]);
    let signal = ListSignal { is_complete: true, session: 0, login: 0 };
    {
        let mut state = lock(&fixture.server.state);
        (state.peers, state.session) = (vec!["leia"], 1);
        state.callbacks[0].1(signal);
    }
    assert_eq!(fixture.next(&mut stream), ["+leia"]);
    assert_eq!(stream.lists[0].snapshot().complete_in, None);
    fixture.server.change(true, |state| state.peers = vec![]);
    assert_eq!(fixture.next(&mut stream), ["-leia", "-vader"]);
}

#[test]
fn readers_share_lists_and_leave_nothing_behind() {
    let fixture = Fixture::new();
    fixture.server.change(true, |state| (state.peers, state.files) = (vec!["vader"], vec![("x", 1)]));
    let mut first = fixture.stream(&["x", "*"]);
    let events: [String; 2] = fixture.next(&mut first);
    assert!(events.contains(&"+x 1".into()) && events.contains(&"+vader".into()), "{events:?}");
    let mut second = fixture.stream(&["x"]);
    let events: [String; 2] = fixture.next(&mut second);
    assert!(events.contains(&"+x 1".into()) && events.contains(&"+vader".into()), "{events:?}");
    assert_eq!(lock(&fixture.server.state).callbacks.len(), 3, "shared");
    let y = vec![Pattern::parse("y").unwrap()];
    assert_eq!(EventStream::new(&fixture.bus, &fixture.lists, y).err(), Some(RequestError::TooManyWaits));
    drop((first, second));
    assert!(lock(&fixture.server.state).callbacks.is_empty() && !fixture.bus.is_read());
}

#[test]
fn what_is_followed_comes_and_goes_in_every_stream() {
    let fixture = Fixture::new();
    fixture.server.change(true, |state| (state.peers, state.files) = (vec!["vader"], vec![("a.pdf", 1), ("b.txt", 1)]));
    let mut stream = fixture.stream(&["b.txt"]);
    let mut first: [String; 2] = fixture.next(&mut stream);
    first.sort();
    assert_eq!(first, ["+b.txt 1", "+vader"]);
    let follow = |pattern| {
        let list = WatchedList::Files(Pattern::parse(pattern).unwrap());
        let reader = fixture.lists.reader(&list, bounded(1).0).unwrap();
        reader.follow();
        reader
    };
    let followed = follow("*");
    assert_eq!(fixture.next(&mut stream), ["+a.pdf 1"], "what is there, once");
    fixture.server.change(true, |state| state.files.push(("c.pdf", 2)));
    assert_eq!(fixture.next(&mut stream), ["+c.pdf 2"]);
    let mut late = fixture.stream(&[]);
    let mut first: [String; 4] = fixture.next(&mut late);
    first.sort();
    assert_eq!(first, ["+a.pdf 1", "+b.txt 1", "+c.pdf 2", "+vader"]);
    fixture.server.change(true, |state| state.files.retain(|(name, _)| *name != "a.pdf"));
    assert_eq!((fixture.next(&mut stream), fixture.next(&mut late)), (["-a.pdf".into()], ["-a.pdf".into()]));
    drop(followed);
    fixture.server.change(true, |state| state.files.retain(|(name, _)| *name != "b.txt"));
    assert_eq!(fixture.next(&mut stream), ["-b.txt"], "what is not followed any more has not gone");
    fixture.server.change(true, |state| state.peers.clear());
    assert_eq!(fixture.next(&mut late), ["-vader"]);
}

#[test]
fn events_reach_every_reader_and_a_slow_one_learns_how_many_it_has_missed() {
    let fixture = Fixture::new();
    let (mut first, mut second) = (fixture.stream(&[]), fixture.stream(&["a*"]));
    let waited_for = |name: &str| EventKind::FileAvailable { name: name.into(), content: None };
    fixture.bus.publish(waited_for("a"));
    fixture.bus.publish(EventKind::ConnectionLost);
    assert_eq!(fixture.next(&mut first), ["+a waited for", "ConnectionLost"]);
    assert_eq!(fixture.next(&mut second), ["ConnectionLost"], "its lists say so if it is there");
    for files in 0..5_000 {
        fixture.bus.publish(EventKind::Resynced { files });
    }
    assert_eq!(fixture.next(&mut first), ["904 dropped", "Resynced { files: 0 }"]);
    let rest = second.take_rest();
    assert_eq!((rest.len(), rest.last()), (4_097, Some(&Streamed::Dropped(904))), "without waiting");
}
