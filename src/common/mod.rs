//! What server and client must agree on. No sockets, no clocks; imports neither `server` nor `client`.

pub mod content;
pub mod hidden;
pub mod limits;
pub mod login;
pub mod message;
pub mod packet;
pub mod seal;
pub mod text;
pub mod ticket;
pub mod transfer;
pub mod types;
