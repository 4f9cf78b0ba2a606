//! Signals that end a client, as events for the thread that waits.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::client::life::Ending;

/// From now on tells `heard` of each signal, on a thread of its own. `hangup`: the terminal going away is one, too.
pub fn watch(hangup: bool, heard: impl Fn(Ending) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    if hangup {
        signals.add_signal(SIGHUP)?;
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            heard(if signal == SIGINT { Ending::Interrupt } else { Ending::Terminate });
        }
    })?;
    Ok(())
}
