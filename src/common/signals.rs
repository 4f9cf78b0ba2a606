//! A signal that both programs handle alike.

use std::io;
use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;

/// From now on a write beyond the limit on file sizes (`ulimit -f`) fails with an error, as one to a full disk. Without a
/// handler the signal ends the program.
pub fn report_file_size_limit_as_error() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}
