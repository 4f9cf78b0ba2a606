//! The way into a client that already runs: commands of other processes of the same user, over a Unix socket.
//!
//! * `folder`: where the sockets are, and which of them is live.
//! * `protocol`: the lines over a socket: those of `--json`, and a few before and beside them.
//! * `serve`: the running client's end; each attached side is a command context of its own.
//! * `sink`: what a slow reader of it misses.
//! * `side`: the end of a process that was started with `--attach`.
//!
//! Defended: another user of the host gets no socket, neither to reach this user's client nor to pose as it. The folder is
//! ours alone (mode 0700, opened without following a link), and both ends check the other's user id before anything else.
//! Not defended: processes of the same user, who may do all that the user may.

mod folder;
mod protocol;
mod serve;
mod side;
mod sink;

pub use protocol::SideOptions;
pub use serve::{ControlSocket, SocketIdentity};
pub use side::AttachedSide;
