//! What happens to this client and to what it may see, for programs that follow it.
//!
//! * `kind`: what can happen. `bus`: carries events from the threads where they happen; none of them waits for a reader.
//! * `known`: what is known of the lists of peers and files. `lists` keeps it up to date.
//! * `stream`: one reader, of the events and of the lists that it has chosen.
//!
//! Lists are states: a reader that is slow gets their difference later, however many changes there were, and loses none.
//! Other events are queued for each reader, and dropped and counted when its queue is full.

mod bus;
mod kind;
mod known;
mod lists;
mod stream;

pub use self::bus::EventBus;
pub use self::kind::EventKind;
pub use self::known::{ListDifference, ListEntry, difference, merge};
pub use self::lists::{ListReader, ListWatcher};
pub use self::stream::{EventStream, Streamed};
