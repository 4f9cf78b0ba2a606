//! The real binaries on loopback: every promise that a user can see, one module a part of the contract.
//!
//! One program rather than many, so that it links once and its tests run side by side.

#![allow(clippy::disallowed_methods, reason = "these tests stand outside the cores: they may read clocks")]

#[path = "../test_support/mod.rs"]
mod test_support;

mod bad_input;
mod commands;
mod edge_cases;
mod edge_cases_files;
mod edge_cases_login;
mod exit_status;
mod logout;
mod persistence;
mod secrets;
mod server_program;
mod sharing;
mod terminal;
mod threat_limits;
mod threats;
mod threats_wire;
mod transfer_failures;
mod transfers;
mod walkthrough;
