//! The journal thread: takes all that waits, stores it in one transaction, says what is durable.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::queue::{Batch, Shared};
use super::store::{Store, StoreError};

/// How long to wait before asking a locked store again. The store itself has waited already.
const LOCKED_PAUSE: Duration = Duration::from_millis(20);
/// A store that stays locked is mentioned again after so many tries.
const LOCKED_TRIES_PER_WARNING: u32 = 60;
/// A closing server gives up on a locked store after so many tries, of about a second each.
const LOCKED_TRIES_WHEN_CLOSING: u32 = 30;

pub(super) fn start(
    shared: Arc<Shared>,
    store: Box<dyn Store>,
    wake: Box<dyn Fn() + Send>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("journal".into()).spawn(move || {
        let run = catch_unwind(AssertUnwindSafe(|| run(&shared, store, &wake)));
        let outcome = run.unwrap_or_else(|_| Err("the journal thread ended by a fault of its own".into()));
        if let Err(line) = outcome {
            shared.fail(line);
            wake();
        }
    })
}

fn run(shared: &Shared, mut store: Box<dyn Store>, wake: &dyn Fn()) -> Result<(), String> {
    while let Some(batch) = shared.take() {
        write(shared, store.as_mut(), &batch)?;
        shared.stored(&batch);
        wake();
    }
    store.close().map_err(|error| error.to_string())
}

/// Stores a batch, however long another program locks the file: the queue is bounded and says so when full.
fn write(shared: &Shared, store: &mut dyn Store, batch: &Batch) -> Result<(), String> {
    let mut locked_tries = 0;
    let mut closing_tries = 0;
    loop {
        match store.write(&batch.mutations) {
            Ok(()) => return Ok(()),
            Err(StoreError::Failed(line)) => return Err(line),
            Err(StoreError::Locked(line)) => {
                if locked_tries % LOCKED_TRIES_PER_WARNING == 0 {
                    log::warn!("{line}; {} changes wait", batch.mutations.len());
                }
                locked_tries += 1;
                closing_tries += u32::from(shared.is_closing());
                if closing_tries >= LOCKED_TRIES_WHEN_CLOSING {
                    return Err(format!("{line}; {} changes could not be stored", batch.mutations.len()));
                }
                shared.pause(LOCKED_PAUSE);
            }
        }
    }
}
