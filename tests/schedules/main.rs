//! What threads hand to each other, under many schedules: [shuttle] runs the modules of `src` themselves, which are
//! included here with its locks, atomics, channels and threads in place of those of the standard library and crossbeam
//! (`common.rs`). What a module does to the world (a disk, a socket, a screen) is played by the test.
//!
//! A schedule that fails is printed; `FILESHARE_SCHEDULE` runs it again, alone. `FILESHARE_SCHEDULES` is how many are tried
//! for each test.
//!
//! [shuttle]: https://docs.rs/shuttle

// The modules under test have more than these tests use, and their own tests, which run in the library.
#![allow(dead_code, unused_imports, unfulfilled_lint_expectations, clippy::all)]

mod client;
mod common;
mod explorer;
mod server;

fn main() -> std::process::ExitCode {
    let tests = [client::tests(), common::logs::tests(), server::tests()].concat();
    explorer::run(&tests)
}
