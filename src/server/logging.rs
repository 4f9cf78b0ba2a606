//! The server's log: one line per event on stderr, `09:11:48.886: 127.0.0.1:57820: Received PUB from hans`, in UTC.
//!
//! Owns the format. The code that logs names from the network escapes them
//! ([`escape_controls`](crate::common::escape::escape_controls)).

use std::io;

use log::LevelFilter;
use simplelog::{Config, ConfigBuilder, format_description};

use crate::common::log_queue;

/// Starts logging to stderr. Later calls have no effect. An error says that there is no thread for it.
pub fn init(level: LevelFilter) -> io::Result<()> {
    log_queue::init(level, config(), io::stderr())
}

fn config() -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_time_format_custom(format_description!("[hour]:[minute]:[second].[subsecond digits:3]:"))
        .set_max_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_time_level(LevelFilter::Error)
        .add_filter_allow_str("fileshare");
    config.build()
}

#[cfg(test)]
mod tests {
    use log::{Level, Log, Record};
    use simplelog::WriteLogger;

    use super::*;

    struct Pieces(std::sync::mpsc::Sender<Vec<u8>>);

    impl io::Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_time_and_message() {
        let mut written = Vec::new();
        let (to, from) = std::sync::mpsc::channel();
        let logger = WriteLogger::new(LevelFilter::Info, config(), Pieces(to));
        for (level, target) in [(Level::Info, "fileshare::server"), (Level::Debug, "fileshare"), (Level::Error, "mio")]
        {
            let message = format_args!("127.0.0.1:57820: Received PUB from hans");
            logger.log(&Record::builder().level(level).target(target).args(message).build());
        }
        drop(logger);
        from.iter().for_each(|piece: Vec<u8>| written.extend(piece));
        let line = String::from_utf8(written).unwrap();
        assert_eq!(line.lines().count(), 1, "lines below the level or of other crates are left out");
        let (time, rest) = line.split_at("09:11:48.886".len());
        assert_eq!(rest, ": 127.0.0.1:57820: Received PUB from hans\n");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "00:00:00.000");
    }
}
