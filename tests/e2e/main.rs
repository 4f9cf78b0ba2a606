//! End-to-end tests of the real binaries on loopback: all behaviour that a user can see, by subject.
//!
//! One test program rather than many, so that it links once and its tests run in parallel.

#![allow(clippy::disallowed_methods, reason = "end-to-end tests are not sans-IO: they read clocks")]

#[path = "../test_support/mod.rs"]
mod test_support;

mod attach;
mod bad_input;
mod commands;
mod contents;
mod direct_path;
mod edge_cases;
mod edge_cases_files;
mod edge_cases_login;
mod events;
mod exit_status;
mod first_run;
mod follow;
mod job_control;
mod jobs;
mod json;
mod json_schema;
mod live_shares;
mod logout;
mod persistence;
mod pipes;
mod recorded;
mod secrets;
mod server_options;
mod server_program;
mod sharing;
mod status;
mod streams;
mod terminal;
mod terminal_keys;
mod terminal_texts;
mod threat_limits;
mod threats;
mod threats_wire;
mod transfer_failures;
mod transfers;
mod waits;
mod walkthrough;
mod watch;
