//! What the user sees: the two output streams, the text or JSON of each result, and the password prompt.
//!
//! Must not know which command produced a result.

pub mod console;
pub mod observer;
pub mod password;
pub mod report;
