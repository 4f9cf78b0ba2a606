//! Watched folders (`pub --watch`): what happens in them, and what follows for the publications.
//!
//! * `core` decides; sans-IO.
//! * `survey` looks what is at a path.
//! * `notifier` reports what the kernel has seen.
//!
//! Must not know about the server.

mod core;
mod notifier;
mod survey;

pub use self::core::WatchCore;
pub use self::notifier::{Notification, Notifier};
pub use self::survey::{WatchedFolder, is_beneath};
