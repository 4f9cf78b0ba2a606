//! The control socket, and cancellations of an attached side, which one thread reads while another runs the commands.

use std::sync::Arc;

use shuttle::thread;

use self::replaceable::Replaceable;
use self::side_commands::SideCommands;
use crate::client::cancel::is_cancelled;
use crate::client::commands::CommandState;
use crate::common::sync::atomic::{AtomicUsize, Ordering};

#[path = "../../../src/client/attach/replaceable.rs"]
mod replaceable;

#[path = "../../../src/client/attach/side_commands.rs"]
mod side_commands;

/// A side cancels its first command, which may end meanwhile, and nothing else: whenever the cancellation arrives, the second
/// one is not cancelled, and the first one is if it still runs then.
fn a_cancellation_is_for_its_command_alone() {
    let (state, commands) = (Arc::new(CommandState::default()), Arc::new(SideCommands::default()));
    let (cancelled_state, cancelled_commands) = (Arc::clone(&state), Arc::clone(&commands));
    let side = thread::spawn(move || cancelled_commands.cancel(1.into(), &cancelled_state));
    let first = state.begin_command();
    commands.begin(&1.into(), &state);
    let first_cancelled = state.cancelled();
    thread::yield_now();
    drop(first);
    let second = state.begin_command();
    let cancelled = state.cancelled();
    commands.begin(&2.into(), &state);
    thread::yield_now();
    drop(second);
    side.join().unwrap();
    assert!(!is_cancelled(&cancelled), "the second command was cancelled");
    assert!(state.cancelled().same_channel(&cancelled));
    let _ = first_cancelled;
}

/// A side that leaves cancels what runs and what begins later.
fn nothing_runs_on_for_a_side_that_has_left() {
    let state = Arc::new(CommandState::default());
    let closing = Arc::clone(&state);
    let side = thread::spawn(move || closing.close());
    let commands = [(); 2].map(|()| {
        let _running = state.begin_command();
        state.cancelled()
    });
    side.join().unwrap();
    assert!(is_cancelled(&commands[1]) && state.is_cancelled());
    let _running = state.begin_command();
    assert!(state.is_cancelled());
}

/// A side cancels the command that it has sent, which has begun or will: it is cancelled either way.
fn a_cancellation_is_not_lost() {
    let (state, commands) = (Arc::new(CommandState::default()), Arc::new(SideCommands::default()));
    let (cancelled_state, cancelled_commands) = (Arc::clone(&state), Arc::clone(&commands));
    let side = thread::spawn(move || cancelled_commands.cancel(1.into(), &cancelled_state));
    let _running = state.begin_command();
    commands.begin(&1.into(), &state);
    // Waits as a `wait` does, for ever unless it is cancelled.
    assert!(state.cancelled().recv().is_err());
    side.join().unwrap();
}

/// A socket whose name is taken while it is open.
struct OpenSocket(Arc<AtomicUsize>);

impl OpenSocket {
    fn open(name: &Arc<AtomicUsize>) -> Result<Self, ()> {
        assert_eq!(name.fetch_add(1, Ordering::SeqCst), 0, "it has been released");
        Ok(Self(Arc::clone(name)))
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Logins open one socket after the other, while logouts close it and the client ends: never two at once, and none at the end.
fn no_socket_is_open_once_the_client_has_ended() {
    let (sockets, name) = (Arc::new(Replaceable::default()), Arc::default());
    let logins = [(); 2].map(|()| {
        let (sockets, name) = (Arc::clone(&sockets), Arc::clone(&name));
        thread::spawn(move || sockets.replace(|| OpenSocket::open(&name)).unwrap())
    });
    sockets.clear();
    sockets.end();
    assert_eq!(name.load(Ordering::SeqCst), 0);
    logins.into_iter().for_each(|login| login.join().unwrap());
    assert_eq!(name.load(Ordering::SeqCst), 0, "in the end");
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![
        ("attach::a_cancellation_is_for_its_command_alone", a_cancellation_is_for_its_command_alone),
        ("attach::a_cancellation_is_not_lost", a_cancellation_is_not_lost),
        ("attach::no_socket_is_open_once_the_client_has_ended", no_socket_is_open_once_the_client_has_ended),
        ("attach::nothing_runs_on_for_a_side_that_has_left", nothing_runs_on_for_a_side_that_has_left),
    ]
}
