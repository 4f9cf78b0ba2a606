//! The way into a client that already runs: commands of other processes of the same user, over a Unix socket.
//!
//! * `protocol`: the lines over a socket: those of `--json`, and a few before and beside them.
//! * `serve`: the running client's end; each attached side is a command context of its own.
//! * `replaceable`: one socket at a time, and none once the client ends.
//! * `side_commands`: which of its commands a cancellation is for.
//! * `sink`: what a slow reader of it misses.
//! * `side`: the end of a process that was started with `--attach`.
//!
//! Defended: another user of the host gets no socket, neither to reach this user's client nor to pose as it. The folder is
//! ours alone (see [`control_folder`](crate::client::control_folder)), and both ends check the other's user id before anything else.
//! Not defended: processes of the same user, who may do all that the user may.

mod protocol;
mod replaceable;
mod serve;
mod side;
mod side_commands;
mod sink;

pub use protocol::SideOptions;
pub use serve::{ControlSocket, SocketIdentity};
pub use side::AttachedSide;
