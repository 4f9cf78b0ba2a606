//! The real binaries on loopback: every promise that a user can see, one module a part of the contract.
//!
//! One program rather than many, so that it links once and its tests run side by side.

#![allow(clippy::disallowed_methods, reason = "these tests stand outside the cores: they may read clocks")]

#[path = "../testenv/mod.rs"]
mod testenv;

mod bad_input;
mod commands;
mod corners;
mod corners_files;
mod corners_login;
mod exit_status;
mod leaving;
mod persistence;
mod secrets;
mod server_program;
mod session_six;
mod sharing;
mod terminal;
mod threats;
mod threats_bars;
mod threats_wire;
mod transfers;
mod transfers_trouble;
