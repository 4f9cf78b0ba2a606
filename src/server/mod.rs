//! The server: knows who is online and who shares what, and never touches file content. Never imports `client`.

mod accounts;
pub mod cookie;
pub mod core;
pub mod credentials;
mod cursor;
pub mod enrolment;
mod handshake;
pub mod index;
pub mod journal;
mod keys;
mod outbox;
mod sessions;
pub mod throttle;
