//! **fileshare**: a permissioned peer-to-peer file share.
//!
//! A *server* knows who is online and who shares what; it never touches file content. *Clients* talk to it in UDP
//! datagrams and fetch files straight from each other over TCP.
//!
//! Three rooms, and the doors between them:
//!
//! * [`common`] — what both sides must agree on: names, messages, packets, keys, tickets, transfer frames, content
//!   verification. No sockets, no clocks, never imports the other two.
//! * [`server`] — a sans-IO core, the single-threaded event loop that feeds it, and the journal thread that makes
//!   publications durable. Never imports `client`.
//! * [`client`] — a sans-IO session, the control thread that feeds it, the listener thread that serves peers, the
//!   downloads, and the shell. Never imports `server`.
//!
//! `docs/ARCHITECTURE.md` is the map; `docs/PROTOCOL.md` describes every byte.

pub mod client;
pub mod common;
pub mod server;
