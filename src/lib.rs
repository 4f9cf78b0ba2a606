//! **fileshare**: a permissioned peer-to-peer file share.
//!
//! A *server* knows which users are online and which files each publishes; it never receives file content. *Clients*
//! talk to it in UDP datagrams and download files directly from each other over TCP.
//!
//! The crate has three parts:
//!
//! * `common` — what both programs must agree on: names, messages, packets, keys, tickets, peer messages, verification
//!   of content. No sockets, no clocks; imports neither `client` nor `server`.
//! * [`server`] — a sans-IO core, the single-threaded event loop that drives it, and the journal thread that makes
//!   publications durable. Never imports `client`.
//! * [`client`] — a sans-IO session, the control thread that drives it, the listener thread that serves peers, the
//!   downloads, and the shell. Never imports `server`.
//!
//! `docs/ARCHITECTURE.md` describes the design; `docs/PROTOCOL.md` describes every byte of the protocol.

pub mod client;
mod common;
#[doc(hidden)]
pub mod internals;
pub mod server;
#[cfg(feature = "testkit")]
pub mod testkit;

/// The examples in Rust of the scripting cookbook; `scripts/recipes.py` runs the others.
#[cfg(all(doctest, feature = "testkit"))]
#[doc = include_str!("../docs/SCRIPTING.md")]
struct ScriptingCookbook;
