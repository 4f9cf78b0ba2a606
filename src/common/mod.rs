//! What server and client must agree on. No sockets, no clocks; imports neither `server` nor `client`.

pub(crate) mod content;
pub(crate) mod escape;
pub(crate) mod limits;
pub(crate) mod login;
pub(crate) mod message;
pub(crate) mod net;
pub(crate) mod packet;
pub(crate) mod rate;
pub(crate) mod redacted;
pub(crate) mod seal;
pub(crate) mod sync;
pub(crate) mod ticket;
pub(crate) mod transfer;
pub(crate) mod types;
