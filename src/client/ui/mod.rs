//! What the user sees: the two output streams, the text or JSON of each result, the password prompt, and the terminal.
//!
//! Must not know which command produced a result.

pub mod console;
pub mod observer;
pub mod password;
pub mod report;
pub(crate) mod standard_stream;
pub mod terminal;
