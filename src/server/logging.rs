//! The server's log on stderr. As text, one line per event in UTC, `09:11:48.886: 127.0.0.1:57820: Received PUB from hans`; or
//! one JSON object per line.
//!
//! Owns both formats. The code that logs names from the network escapes them in the text
//! ([`escape_controls`](crate::common::escape::escape_controls)) and passes them unchanged as fields, which are escaped here.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::SystemTime;

use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record, error};
use serde::{Serialize, Serializer};
use simplelog::{Config, ConfigBuilder, WriteLogger, format_description};
use time::OffsetDateTime;

use super::cli::LogFormat;
use crate::common::escape::escape_json_controls;
use crate::common::log_queue;
use crate::common::sync::lock;

/// Of what the log has; other crates are left out.
const TARGET: &str = "fileshare";

/// Starts logging to stderr. Later calls have no effect. An error says that there is no thread for it.
pub fn init(level: LevelFilter, format: LogFormat) -> io::Result<()> {
    log_queue::init(level, io::stderr(), |lines| match format {
        LogFormat::Text => WriteLogger::new(level, config(), lines),
        LogFormat::Json => Box::new(JsonLogger { level, to: Mutex::new(lines) }),
    })?;
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            error!(event = "panic"; "{panic}");
            log::logger().flush();
        }));
    }
    Ok(())
}

impl LogFormat {
    /// The line, without its end, that says why the server does not start or had to stop.
    pub fn error_line(self, error: &impl Display) -> String {
        match self {
            Self::Text => format!("server: {error}"),
            Self::Json => {
                JsonLine { level: Level::Error, event: "failed".into(), ..JsonLine::new(now(), error) }.to_string()
            }
        }
    }
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
        .add_filter_allow_str(TARGET);
    config.build()
}

/// Writes each record as a JSON object.
struct JsonLogger<W> {
    level: LevelFilter,
    to: Mutex<W>,
}

impl<W: Write + Send> Log for JsonLogger<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && record.target().starts_with(TARGET) {
            // As for text, a failure cannot be reported anywhere.
            let _ = lock(&self.to).write_all(format!("{}\n", JsonLine::of_record(now(), record)).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One line of the log. Fields without a value are left out.
#[derive(Debug, Serialize)]
struct JsonLine {
    /// RFC 3339 in UTC, with milliseconds.
    time: String,
    #[serde(serialize_with = "lower_case")]
    level: Level,
    /// What happened; `message` where no name is fixed.
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// The line of the text format, without its time.
    message: String,
}

impl JsonLine {
    fn new(time: OffsetDateTime, message: impl Display) -> Self {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        Self {
            time: time.format(format).unwrap_or_default(),
            level: Level::Info,
            event: "message".into(),
            address: None,
            user: None,
            verb: None,
            result: None,
            count: None,
            message: message.to_string(),
        }
    }

    fn of_record(time: OffsetDateTime, record: &Record<'_>) -> Self {
        let fields = record.key_values();
        let text = |key: &str| fields.get(Key::from_str(key)).map(|value| value.to_string());
        let line = Self::new(time, record.args());
        Self {
            level: record.level(),
            event: text("event").unwrap_or(line.event),
            address: text("address"),
            user: text("user"),
            verb: text("verb"),
            result: text("result"),
            count: fields.get(Key::from_str("count")).and_then(|value| value.to_u64()),
            ..line
        }
    }
}

impl fmt::Display for JsonLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&escape_json_controls(&json))
    }
}

fn lower_case<S: Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&level.as_str().to_ascii_lowercase())
}

#[expect(clippy::disallowed_methods, reason = "the time in a line of the log")]
fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use serde_json::{Value, json};

    use super::*;

    struct Pieces(Sender<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the logger that `format` makes writes for records of different levels and crates.
    fn written(format: impl FnOnce(Pieces) -> Box<dyn Log>) -> String {
        let (to, from) = channel();
        let logger = format(Pieces(to));
        for (level, target) in [(Level::Info, "fileshare::server"), (Level::Debug, "fileshare"), (Level::Error, "mio")]
        {
            let message = format_args!("127.0.0.1:57820: Received PUB from hans");
            logger.log(&Record::builder().level(level).target(target).args(message).build());
        }
        drop(logger);
        let text = String::from_utf8(from.iter().flatten().collect()).unwrap();
        assert_eq!(text.lines().count(), 1, "lines below the level or of other crates are left out");
        text
    }

    #[test]
    fn a_line_is_time_and_message() {
        let line = written(|to| WriteLogger::new(LevelFilter::Info, config(), to));
        let (time, rest) = line.split_at("09:11:48.886".len());
        assert_eq!(rest, ": 127.0.0.1:57820: Received PUB from hans\n");
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "00:00:00.000");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = written(|to| Box::new(JsonLogger { level: LevelFilter::Info, to: Mutex::new(to) }));
        assert!(line.ends_with('\n'));
        let mut object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["time"].take().as_str().map(str::len), Some("2026-01-31T09:11:48.886Z".len()));
        let message = "127.0.0.1:57820: Received PUB from hans";
        assert_eq!(object, json!({"time": null, "level": "info", "event": "message", "message": message}));
    }

    #[test]
    fn fields_keep_their_text_and_are_escaped() {
        let name = "a\"b\u{1b}[31m\u{9b}\u{202e}\u{2028}\n";
        let fields = [("event", log::kv::Value::from("sent")), ("user", name.into()), ("count", 3_u64.into())];
        let args = format_args!("two\nlines");
        let record = Record::builder().level(Level::Warn).key_values(&fields).args(args).build();
        let line = JsonLine::of_record(OffsetDateTime::UNIX_EPOCH, &record).to_string();
        assert!(line.is_ascii() && !line.chars().any(char::is_control), "{line}");
        let expected = json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "warn", "event": "sent", "user": name, "count": 3,
            "message": "two\nlines",
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn the_error_that_ends_the_server_has_the_format_of_the_log() {
        assert_eq!(LogFormat::Text.error_line(&"no room"), "server: no room");
        let object: Value = serde_json::from_str(&LogFormat::Json.error_line(&"no\troom")).unwrap();
        let shown = (&object["level"], &object["event"], &object["message"]);
        assert_eq!(shown, (&json!("error"), &json!("failed"), &json!("no\troom")));
    }
}
