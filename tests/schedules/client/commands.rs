//! The state of a command context.

pub use self::cancellation::CommandState;

#[path = "../../../src/client/commands/cancellation.rs"]
mod cancellation;
