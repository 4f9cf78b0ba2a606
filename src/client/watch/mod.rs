//! Watched folders (`pub --watch`): what happens in them, and what follows for the publications.
//!
//! * `core` decides; sans-IO.
//! * `survey` looks what is at a path.
//! * `notifier` reports what the kernel has seen.
//! * `registry` knows which folders of the client are watched.
//!
//! Must not know about the server.

mod core;
mod notifier;
mod registry;
mod survey;

pub use self::core::WatchCore;
pub use self::notifier::{Notification, Notifier};
pub use self::registry::WatchRegistry;
pub use self::survey::WatchedFolder;
