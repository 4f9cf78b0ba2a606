//! The command line as typed. Checks values, opens nothing.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, ValueEnum};

use crate::client::commands::Verb;
use crate::client::download::OnExists;
use crate::client::exit_code::ExitCode;
use crate::client::ui::look::ColorPolicy;
use crate::client::upload::LIMIT_RATE_MIN;
use crate::common::program_names::with_program_names;

/// Printed for `client` without any argument, with the names of the programs.
const GETTING_STARTED: &str = "\
{client}: share files with the users of one fileshare server

  {client} 127.0.0.1 12000
      a shell; type 'help' in it
  {client} 127.0.0.1 12000 -u hans
      the same, logged in as hans
  {client} 127.0.0.1 12000 -u hans -c 'sch pdf'
      one command, then leave
  {client} 127.0.0.1 12000 -u hans --stay -c 'pub report.pdf'
      publish, then stay online for others to fetch it

The password is asked for, or read from --password-file or FILESHARE_PASSWORD.
'{server}' without arguments says how to start a server.
'{client} --help' lists every option.
";

/// Share files with the users of one fileshare server.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "client", version, max_term_width = 100, after_help = commands_help())]
pub struct Options {
    /// Host name or IP address of the server
    #[arg(required_unless_present = "attach", requires = "port")]
    pub server: Option<String>,

    /// UDP port of the server
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Run the commands in a client that already runs here: the only one, or that of NAME or of the server
    #[arg(
        short,
        long,
        conflicts_with_all = ["stay", "dir", "listen", "password_file", "limit_rate", "upload_slots", "no_control", "tcp_only"]
    )]
    pub attach: bool,

    /// No control socket: nobody can attach to this client
    #[arg(long)]
    pub no_control: bool,

    /// Log in as NAME at start
    #[arg(short, long, value_name = "NAME", env = "FILESHARE_USER")]
    pub user: Option<String>,

    /// The first line of FILE is the password; '-' is stdin [else: env FILESHARE_PASSWORD, else a hidden prompt]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// The folder to share from and download to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// Run this command; may be given several times. A leading '-' ignores its failure
    #[arg(short, long = "command", value_name = "CMD", conflicts_with = "batch", allow_hyphen_values = true)]
    pub commands: Vec<OsString>,

    /// Run the commands in FILE, one a line; '-' is stdin
    #[arg(short, long, value_name = "FILE")]
    pub batch: Option<PathBuf>,

    /// After the commands, stay online and keep serving until SIGINT or SIGTERM
    #[arg(long)]
    pub stay: bool,

    /// Where to listen for peers [default: the address that faces the server, a free port]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,

    /// One JSON object a line on stdout instead of text
    #[arg(long)]
    pub json: bool,

    /// With --json, report events beside the commands, from the start
    #[arg(long, requires = "json")]
    pub events: bool,

    /// Colours in text
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub color: ColorPolicy,

    /// What 'get' does when the file is there already
    #[arg(long, value_name = "POLICY", value_enum, default_value = "error")]
    pub on_exists: OnExists,

    /// How long 'get' waits for a source to return when all are gone
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = parse_seconds)]
    pub retry_for: Duration,

    /// Bytes a second over all uploads; K, M and G are powers of 1024
    #[arg(long, value_name = "BYTES/S", value_parser = parse_rate)]
    pub limit_rate: Option<u64>,

    /// Uploads that may run at the same time
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u8).range(1..))]
    pub upload_slots: u8,

    /// Transfer over TCP between clients of one user on one host too, where files are passed directly otherwise
    #[arg(long)]
    pub tcp_only: bool,

    /// No greetings, no notes
    #[arg(short, long)]
    pub quiet: bool,

    /// More detail on stderr; twice for still more
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Options {
    /// Reads the command line. `Err` is the exit status after help, a version, or an error has been printed.
    pub fn from_command_line() -> Result<Self, ExitCode> {
        if std::env::args_os().len() <= 1 {
            // A failure of stderr cannot be reported anywhere.
            let _ = io::stderr().write_all(with_program_names(GETTING_STARTED).as_bytes());
            return Err(ExitCode::Usage);
        }
        Self::parse_line(std::env::args_os()).map_err(|error| match error.print() {
            _ if error.use_stderr() => ExitCode::Usage,
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "client: cannot write to standard output: {error}");
                (&error).into()
            }
            _ => ExitCode::Success,
        })
    }

    /// Parses a command line, including the program's name.
    fn parse_line(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let options = Self::try_parse_from(line)?;
        // Not a value parser: its errors repeat the value, which may hold a password.
        if options.commands.iter().any(|command| command.as_bytes().contains(&b'\n')) {
            return Err(Self::command().error(ErrorKind::ValueValidation, "a command of -c is one line; give -c again"));
        }
        Ok(options)
    }
}

/// The options, for the manual page and the completions.
pub fn command_line() -> clap::Command {
    Options::command()
}

fn commands_help() -> String {
    let names: Vec<&str> = Verb::ALL.iter().map(|verb| verb.name()).collect();
    format!("Commands: {}. 'help' explains them, 'help get' one of them.", names.join(", "))
}

/// Seconds, decimals allowed.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a span of time".into())
}

/// Bytes per second, with an optional suffix K, M or G.
fn parse_rate(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number of bytes; K, M or G may follow it".to_string())?;
    let bytes = number * f64::from(1u32 << shift);
    match bytes >= LIMIT_RATE_MIN as f64 && bytes < u64::MAX as f64 {
        true => Ok(bytes as u64),
        false => Err(format!("the least rate is {LIMIT_RATE_MIN} bytes a second")),
    }
}

impl ValueEnum for ColorPolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Always, Self::Never]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Auto => ("auto", "At a terminal, unless NO_COLOR is set or TERM is dumb"),
            Self::Always => ("always", "Also in a pipe"),
            Self::Never => ("never", "None"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

impl ValueEnum for OnExists {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Error, Self::Overwrite, Self::Rename, Self::Skip]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Error => ("error", "Refuse"),
            Self::Overwrite => ("overwrite", "Replace it, atomically"),
            Self::Rename => ("rename", "Save as `name (1).ext`"),
            Self::Skip => ("skip", "Leave it and succeed"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, ErrorKind> {
        Options::parse_line(std::iter::once("client").chain(line.split(' '))).map_err(|error| error.kind())
    }

    #[test]
    fn a_command_is_one_line_and_any_bytes() {
        let parse = |command: &[u8]| {
            let command = std::ffi::OsStr::from_bytes(command);
            Options::parse_line(["client".as_ref(), "h".as_ref(), "1".as_ref(), "-c".as_ref(), command])
        };
        for command in [&b"auth hans secret\nxit"[..], b"lap\n", b"\n"] {
            let error = parse(command).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ValueValidation, 2));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let command = b"auth hans \xff";
        assert_eq!(parse(command).unwrap().commands[0].as_bytes(), command);
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let options = parse("localhost 12000").unwrap();
        assert_eq!(
            (options.server.as_deref(), options.port, options.dir.as_os_str()),
            (Some("localhost"), Some(12000), ".".as_ref())
        );
        assert_eq!((options.on_exists, options.retry_for), (OnExists::Error, Duration::from_secs(10)));
        assert_eq!((options.listen, options.limit_rate, options.batch), (None, None, None));
        assert!(!options.stay && !options.json && !options.quiet && options.commands.is_empty());
    }

    #[test]
    fn commands_come_in_order_and_exclude_a_batch() {
        let options = parse("h 1 -c lap -u hans -c -get --command lpf --listen [::1]:0").unwrap();
        assert_eq!(options.commands, ["lap", "-get", "lpf"]);
        assert_eq!(options.user.as_deref(), Some("hans"));
        assert_eq!(parse("h 1 -c lap -b x"), Err(ErrorKind::ArgumentConflict));
        assert_eq!(parse("h 1 -b -").unwrap().batch, Some("-".into()));
    }

    #[test]
    fn missing_and_invalid_arguments_are_usage_errors() {
        assert_eq!(parse("h"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("-u hans"), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(parse("h 0"), Err(ErrorKind::ValueValidation));
        assert_eq!(parse("h 65536"), Err(ErrorKind::ValueValidation));
        assert_eq!(parse("h 1 --on-exists maybe"), Err(ErrorKind::InvalidValue));
        assert_eq!(parse("h 1 --password x"), Err(ErrorKind::UnknownArgument));
        assert_eq!(parse("h 1 --listen localhost"), Err(ErrorKind::ValueValidation));
        for code in ["h 1 --bogus", "h", "h 1 2"] {
            let line = std::iter::once("client").chain(code.split(' '));
            assert_eq!(Options::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn an_attached_client_needs_no_server_and_has_no_client_of_its_own() {
        let options = parse("--attach -c lap").unwrap();
        assert!(options.attach && options.server.is_none() && options.port.is_none());
        assert!(parse("--attach --json --events").is_ok());
        assert_eq!(parse("-a -u hans localhost 12000 --json -q --on-exists skip").unwrap().port, Some(12000));
        assert_eq!(parse("--attach localhost"), Err(ErrorKind::MissingRequiredArgument));
        for own in [
            "--stay",
            "--dir x",
            "--listen [::1]:0",
            "--password-file x",
            "--no-control",
            "--limit-rate 1K",
            "--tcp-only",
        ] {
            assert_eq!(parse(&format!("--attach {own}")), Err(ErrorKind::ArgumentConflict), "{own}");
        }
    }

    #[test]
    fn help_and_version_are_not_errors() {
        for line in [["client", "--help"], ["client", "--version"]] {
            let error = Options::try_parse_from(line).unwrap_err();
            assert!(error.exit_code() == 0 && !error.use_stderr());
        }
    }

    #[test]
    fn rates_and_times_have_units() {
        assert_eq!(parse_rate("1500"), Ok(1_500));
        assert_eq!(parse_rate("2K"), Ok(2_048));
        assert_eq!(parse_rate("1.5m"), Ok(1_572_864));
        assert_eq!(parse_rate("1G"), Ok(1 << 30));
        assert_eq!(
            (parse_rate("16"), parse_rate("15")),
            (Ok(16), Err("the least rate is 16 bytes a second".to_owned()))
        );
        for bad in ["", "K", "0", "-1", "1T", "nan", "inf", "1e300", "ä"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(
            parse_seconds("-1").is_err()
                && parse_seconds("nan").is_err()
                && parse_seconds("1e30").is_err()
                && parse_seconds("x").is_err()
        );
    }
}
