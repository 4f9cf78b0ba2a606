//! What the user sees: messages and their text, the two output streams, the password prompt, and the terminal.
//!
//! Must not know which command produced a result.

pub mod console;
pub mod look;
pub mod message;
pub mod observer;
pub mod output;
pub mod password;
mod prompt_queue;
pub(crate) mod standard_stream;
mod summary;
pub mod terminal;
mod units;
