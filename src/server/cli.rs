//! The server's command line: parsed and validated. Owns names, defaults and usage errors. Must not open anything.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use log::LevelFilter;

use super::core::Quotas;
use crate::common::program_names::with_program_names;
use crate::common::types::UserName;

/// Range of `--heartbeat` and `--liveness`.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Least time between a late heartbeat and the end of the session: clients repeat the heartbeat twelve times within it.
const LIVENESS_MARGIN_MIN: Duration = Duration::from_millis(50);
/// Least `--max-files-per-second`: a client waits for 30 s until a request of 64 files may follow another.
const FILES_PER_SECOND_MIN: u64 = 4;

/// [`getting_started`], without the names of the programs.
const GETTING_STARTED: &str = "\
{server}: knows who is online and who shares what in a file share

  echo 'hans his passphrase' >> credentials.txt
      a user: a name, one space, the password
  chmod 600 credentials.txt
      nobody else reads the passwords
  {server} 12000
      for the clients of this machine, UDP port 12000
  {server} 12000 --bind 192.0.2.10
      for a network: an address of this machine

Each user then runs '{client} 127.0.0.1 12000 -u hans', with that address.
'{server} --help' lists every option.
";

/// Printed for `server` without any argument.
pub fn getting_started() -> String {
    with_program_names(GETTING_STARTED)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Serve(ServeOptions),
    /// Say whether a server with these options could start.
    Check(ServeOptions),
    /// Read a password and print this user's record line, for the server with this data file if there is one.
    Enrol {
        user: UserName,
        data: Option<PathBuf>,
    },
    /// Delete what this user has published.
    Forget {
        user: UserName,
        credentials: PathBuf,
        data: PathBuf,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeOptions {
    /// With port 0, the system chooses a free port.
    pub listen: SocketAddr,
    pub credentials: PathBuf,
    /// The data file; `None`: `--ephemeral`.
    pub data: Option<PathBuf>,
    /// Interval of the heartbeats of clients.
    pub heartbeat: Duration,
    /// Silence after which a session ends.
    pub liveness: Duration,
    pub log_level: LevelFilter,
    pub log_format: LogFormat,
    /// A file that holds the port while the server runs.
    pub port_file: Option<PathBuf>,
    pub status: Option<StatusOptions>,
    pub quotas: Quotas,
}

/// The status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusOptions {
    /// A loopback address. With port 0, the system chooses a free port.
    pub address: SocketAddr,
    /// Whether it shows users and their addresses.
    pub shows_users: bool,
}

/// What a line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

/// Server of a permissioned peer-to-peer file share: knows who is online and who shares what.
#[derive(Debug, Parser)]
#[command(name = "server", version)]
struct Arguments {
    /// UDP port; 0 takes a free one
    #[arg(value_name = "PORT", required_unless_present_any = ["enrol", "forget", "check"])]
    port: Option<u16>,
    /// Address to listen on, IPv4 or IPv6
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Who may join
    #[arg(long, value_name = "FILE", default_value = "credentials.txt")]
    credentials: PathBuf,
    /// Where publications are kept [default: fileshare.db]
    #[arg(long, value_name = "FILE", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep nothing after exit (for test harnesses)
    #[arg(long)]
    ephemeral: bool,
    /// How often clients report, seconds; the server tells them
    #[arg(long, value_name = "SECS", default_value = "2", value_parser = parse_seconds)]
    heartbeat: Duration,
    /// Silence after which a client is no longer active, seconds
    #[arg(long, value_name = "SECS", default_value = "3", value_parser = parse_seconds)]
    liveness: Duration,
    /// What is logged on stderr
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = parse_level)]
    log_level: LevelFilter,
    /// How lines of the log look
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Write the port to FILE when the server is ready, and remove FILE when it ends
    #[arg(long, value_name = "FILE", conflicts_with_all = ["enrol", "forget"])]
    port_file: Option<PathBuf>,
    /// Serve a status page and metrics over HTTP at this loopback address; port 0 takes a free one, which the log names
    #[arg(long, value_name = "IP:PORT", value_parser = parse_loopback, conflicts_with_all = ["enrol", "forget"])]
    status: Option<SocketAddr>,
    /// Show on the status page who is logged in, and from where
    #[arg(long, requires = "status")]
    status_users: bool,
    /// Most publications of a user; a batch over a quota is refused, what exists stays
    #[arg(long, value_name = "N", default_value_t = Quotas::default().files)]
    max_files: u64,
    /// Most bytes that the names of a user's publications take
    #[arg(long, value_name = "N", default_value_t = Quotas::default().name_bytes)]
    max_name_bytes: u64,
    /// Most members of a user's audiences, summed over those that differ
    #[arg(long, value_name = "N", default_value_t = Quotas::default().audience_members)]
    max_audience: u64,
    /// Files that a user may publish and unpublish each second, and 50 times as many at once
    #[arg(long, value_name = "N", default_value_t = Quotas::default().files_per_s, value_parser = clap::value_parser!(u64).range(FILES_PER_SECOND_MIN..))]
    max_files_per_second: u64,
    /// Read NAME's password (from the terminal, hidden, or the first line of stdin), print a line for the credentials
    /// file that reveals no password, and exit. With --data, the line is for the server with that data file: nobody can tell
    /// by logging in when it was added
    #[arg(long, value_name = "NAME", conflicts_with_all = ["port", "ephemeral"])]
    enrol: Option<UserName>,
    /// Delete what USER has published, who is not in the credentials any more, say how much it was, and exit. No server may
    /// be running on the data file
    #[arg(long, value_name = "USER", conflicts_with_all = ["port", "ephemeral", "enrol"])]
    forget: Option<UserName>,
    /// Check the options, the credentials and the data file, say what is wrong or `ok`, change nothing, and exit. A server may
    /// run meanwhile
    #[arg(long, conflicts_with_all = ["enrol", "forget"])]
    check: bool,
}

impl Action {
    /// Parses and validates a command line, including the program's name. `exit` of the error prints it and exits with
    /// status 2 for a usage error and 0 for `--help`.
    pub fn parse(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let arguments = Arguments::try_parse_from(line)?;
        if let Some(user) = arguments.enrol {
            return Ok(Self::Enrol { user, data: arguments.data });
        }
        let credentials = arguments.credentials;
        let data = arguments.data.unwrap_or("fileshare.db".into());
        if let Some(user) = arguments.forget {
            return Ok(Self::Forget { user, credentials, data });
        }
        if arguments.liveness < arguments.heartbeat + LIVENESS_MARGIN_MIN {
            let margin = LIVENESS_MARGIN_MIN.as_secs_f64();
            let text = format!("the liveness time must be at least {margin} s longer than the heartbeat interval");
            return Err(Arguments::command().error(ErrorKind::ValueValidation, text));
        }
        let options = ServeOptions {
            listen: SocketAddr::new(arguments.bind, arguments.port.unwrap_or(0)),
            credentials,
            data: (!arguments.ephemeral).then_some(data),
            heartbeat: arguments.heartbeat,
            liveness: arguments.liveness,
            log_level: arguments.log_level,
            log_format: arguments.log_format,
            port_file: arguments.port_file,
            status: arguments.status.map(|address| StatusOptions { address, shows_users: arguments.status_users }),
            quotas: Quotas {
                files: arguments.max_files,
                name_bytes: arguments.max_name_bytes,
                audience_members: arguments.max_audience,
                files_per_s: arguments.max_files_per_second,
            },
        };
        Ok(if arguments.check { Self::Check(options) } else { Self::Serve(options) })
    }

    /// Of everything that the program writes to stderr after this.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Serve(options) => options.log_format,
            Self::Check(_) | Self::Enrol { .. } | Self::Forget { .. } => LogFormat::Text,
        }
    }
}

/// The options, for the manual page and the completions.
pub fn command_line() -> clap::Command {
    Arguments::command()
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "not a number of seconds".to_owned())?;
    let interval = Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".to_owned())?;
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!("from {} to {} seconds", INTERVAL_MIN.as_secs_f64(), INTERVAL_MAX.as_secs()))
    }
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().map_err(|_| "an address and a port, such as 127.0.0.1:9200".to_owned())?;
    match address.ip().to_canonical().is_loopback() {
        true => Ok(address),
        false => Err("a loopback address; others reach it over ssh or a proxy".to_owned()),
    }
}

fn parse_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" | "warn" | "info" | "debug" | "trace" => Ok(text.parse().expect("a level of `log`")),
        _ => Err("one of error, warn, info, debug, trace".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Action, clap::Error> {
        Action::parse(std::iter::once("server").chain(line.split_whitespace()))
    }

    fn options(line: &str) -> ServeOptions {
        match parse(line) {
            Ok(Action::Serve(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let expected = ServeOptions {
            listen: "127.0.0.1:12000".parse().unwrap(),
            credentials: "credentials.txt".into(),
            data: Some("fileshare.db".into()),
            heartbeat: Duration::from_secs(2),
            liveness: Duration::from_secs(3),
            log_level: LevelFilter::Info,
            log_format: LogFormat::Text,
            port_file: None,
            status: None,
            quotas: Quotas { files: 250_000, name_bytes: 32 << 20, audience_members: 100_000, files_per_s: 2_000 },
        };
        assert_eq!(options("12000"), expected);
    }

    #[test]
    fn every_option_is_parsed() {
        let given = options(
            "0 --bind ::1 --credentials who --data where --heartbeat 0.5 --liveness 0.75 --log-level trace --log-format json \
             --port-file port --status [::1]:9200 --status-users \
             --max-files 1 --max-name-bytes 2 --max-audience 3 --max-files-per-second 4",
        );
        let expected = ServeOptions {
            listen: "[::1]:0".parse().unwrap(),
            credentials: "who".into(),
            data: Some("where".into()),
            heartbeat: Duration::from_millis(500),
            liveness: Duration::from_millis(750),
            log_level: LevelFilter::Trace,
            log_format: LogFormat::Json,
            port_file: Some("port".into()),
            status: Some(StatusOptions { address: "[::1]:9200".parse().unwrap(), shows_users: true }),
            quotas: Quotas { files: 1, name_bytes: 2, audience_members: 3, files_per_s: 4 },
        };
        assert_eq!(given, expected);
        assert_eq!(options("0 --ephemeral").data, None);
        let user = UserName::parse("hans").unwrap();
        let (user_name, credentials) = (user.clone(), "who".into());
        let expected = Action::Forget { user: user_name, credentials, data: "fileshare.db".into() };
        assert_eq!(parse("--forget hans --credentials who").unwrap(), expected);
        assert_eq!(parse("--enrol hans").unwrap(), Action::Enrol { user: user.clone(), data: None });
        assert_eq!(parse("--enrol hans --data x").unwrap(), Action::Enrol { user, data: Some("x".into()) });
    }

    #[test]
    fn usage_errors_exit_with_2() {
        let wrong = [
            "",
            "x",
            "65536",
            "1 2",
            "1 --bind host",
            "1 --ephemeral --data x",
            "1 --heartbeat 3",
            "1 --liveness 2",
            "1 --heartbeat 0",
            "1 --heartbeat -1",
            "1 --heartbeat NaN",
            "1 --liveness inf",
            "1 --log-level loud",
            "1 --log-level off",
            "1 --log-format xml",
            "1 --status 9200",
            "1 --status localhost:9200",
            "1 --status 0.0.0.0:9200",
            "1 --status [::]:9200",
            "1 --status 192.168.1.7:9200",
            "1 --status-users",
            "--enrol hans --status 127.0.0.1:9200",
            "--forget hans --check",
            "--check --enrol hans",
            "--enrol hans --port-file port",
            "--check --heartbeat 3",
            "1 --max-files -1",
            "1 --max-files-per-second 3",
            "1 --heartbeat 0.1 --liveness 0.149",
            "1 --enrol hans",
            "1 --forget hans",
            "--forget hans --ephemeral",
            "--forget hans --enrol hans",
            "--enrol #x",
        ];
        for line in wrong {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
        assert_eq!(parse("--help").unwrap_err().exit_code(), 0);
    }
}
