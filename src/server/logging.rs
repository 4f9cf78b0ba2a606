//! The server's log: one line per event on stderr, `09:11:48.886: 127.0.0.1:57820: Received PUB from hans`, in UTC.
//!
//! Owns the format. The code that logs names from the network escapes them
//! ([`escape_controls`](crate::common::escape::escape_controls)).

use std::io::{LineWriter, Write};

use log::LevelFilter;
use simplelog::{ConfigBuilder, WriteLogger, format_description};

/// Starts logging to stderr, with one write per line. Later calls have no effect.
pub fn init(level: LevelFilter) {
    // The only error is that a logger is already set.
    let _ = log::set_boxed_logger(logger(level, std::io::stderr())).map(|()| log::set_max_level(level));
}

fn logger(level: LevelFilter, to: impl Write + Send + 'static) -> Box<dyn log::Log> {
    let mut config = ConfigBuilder::new();
    config
        .set_time_format_custom(format_description!("[hour]:[minute]:[second].[subsecond digits:3]:"))
        .set_max_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_time_level(LevelFilter::Error)
        .add_filter_allow_str("fileshare");
    WriteLogger::new(level, config.build(), LineWriter::new(to))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use log::{Level, Record};

    use super::*;

    struct LineSender(Sender<Vec<u8>>);

    impl Write for LineSender {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_time_and_message_in_one_write() {
        let (to, from) = channel();
        let logger = logger(LevelFilter::Info, LineSender(to));
        for (level, target) in [(Level::Info, "fileshare::server"), (Level::Debug, "fileshare"), (Level::Error, "mio")]
        {
            let message = format_args!("127.0.0.1:57820: Received PUB from hans");
            logger.log(&Record::builder().level(level).target(target).args(message).build());
        }
        drop(logger);
        let writes: Vec<_> = from.iter().collect();
        assert_eq!(writes.len(), 1, "lines below the level or of other crates are left out");
        let line = String::from_utf8(writes.concat()).unwrap();
        let (time, rest) = line.split_at("09:11:48.886".len());
        assert_eq!(rest, ": 127.0.0.1:57820: Received PUB from hans\n");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "00:00:00.000");
    }
}
