//! What server and client have to agree on, and helpers of both. No sockets, no clocks; imports neither `server` nor `client`.

pub(crate) mod case_fold;
pub(crate) mod chunk_tree;
pub(crate) mod crypto;
pub(crate) mod escape;
pub(crate) mod glob;
pub(crate) mod handshake_keys;
pub(crate) mod limits;
pub(crate) mod list_pages;
pub(crate) mod log_queue;
pub(crate) mod message;
pub(crate) mod name_query;
pub(crate) mod net;
pub(crate) mod normal_form;
pub(crate) mod opaque;
pub(crate) mod packet;
pub(crate) mod peer_crypto;
pub(crate) mod peer_message;
pub(crate) mod program_names;
pub(crate) mod rate;
pub(crate) mod redacted;
pub(crate) mod session_cipher;
pub(crate) mod signals;
pub(crate) mod sync;
pub(crate) mod threads;
pub(crate) mod ticket;
pub(crate) mod types;
