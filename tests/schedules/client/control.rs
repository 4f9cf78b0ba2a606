//! Commands on their way to the control thread.

use std::sync::Arc;

use shuttle::thread;

use self::command_queue::CommandQueue;
use crate::common::sync::{Condvar, Mutex, lock, wait};

#[path = "../../../src/client/control/command_queue.rs"]
mod command_queue;

/// The waker of a poll: it stays until the poll has seen it.
#[derive(Default)]
struct Waker {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Waker {
    fn wake(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_one();
    }

    fn poll(&self) {
        let mut is_set = lock(&self.is_set);
        while !*is_set {
            is_set = wait(&self.changed, is_set);
        }
        *is_set = false;
    }
}

/// The control thread, which has nothing else to wake it, gets every command.
fn no_command_sleeps() {
    let (queue, commands) = CommandQueue::new();
    let (queue, waker) = (Arc::new(queue), Arc::new(Waker::default()));
    let callers = [1, 2].map(|caller| {
        let (queue, waker) = (Arc::clone(&queue), Arc::clone(&waker));
        thread::spawn(move || {
            for number in 0..2 {
                queue.send(10 * caller + number, || waker.wake());
            }
        })
    });
    let mut taken = Vec::new();
    loop {
        while let Ok(command) = commands.try_recv() {
            taken.push(command);
        }
        if taken.len() == 4 {
            break;
        }
        waker.poll();
        queue.set_awake();
    }
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let of_caller = |caller: i32| taken.iter().filter(|command| **command / 10 == caller).copied().collect::<Vec<_>>();
    assert_eq!([of_caller(1), of_caller(2)], [[10, 11], [20, 21]]);
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![("control::no_command_sleeps", no_command_sleeps)]
}
