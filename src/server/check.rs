//! `--check`: whether a server with these options could start. Changes nothing, and a server may run on the same files.

use std::net::{SocketAddr, TcpListener};

use super::auth::credentials::{Credentials, SAMPLE_USERS_WARNING};
use super::cli::ServeOptions;
use super::error::ServerError;
use super::journal::Journal;
use super::port_file;
use super::socket::ServerSocket;

/// What `--check` has found, one line each.
#[derive(Debug, Default)]
pub struct Findings {
    /// Why the server would not start.
    pub errors: Vec<ServerError>,
    /// What its administrator should look at.
    pub warnings: Vec<String>,
}

/// Reads and checks everything that a server with these options would read at its start.
pub fn check(options: &ServeOptions) -> Findings {
    let mut findings = Findings::default();
    match Credentials::read(&options.credentials) {
        Ok(credentials) => findings.warnings = credentials_warnings(credentials, options),
        Err(error) => findings.errors.push(error.into()),
    }
    // Any free port: that of the options may be a running server's.
    let address = SocketAddr::new(options.listen.ip(), 0);
    if let Err(source) = ServerSocket::bind(address) {
        findings.errors.push(ServerError::Listen { listen: options.listen, source });
    }
    if let Some(status) = options.status
        && let Err(source) = TcpListener::bind(SocketAddr::new(status.address.ip(), 0))
    {
        findings.errors.push(ServerError::Listen { listen: status.address, source });
    }
    if let Some(data) = &options.data {
        match Journal::check(data) {
            Ok(warnings) => findings.warnings.extend(warnings),
            Err(error) => findings.errors.push(error.into()),
        }
    }
    findings.errors.extend(options.port_file.as_deref().and_then(|path| port_file::check(path).err()));
    findings
}

fn credentials_warnings(credentials: Credentials, options: &ServeOptions) -> Vec<String> {
    let has_sample_users = credentials.has_sample_users();
    let mut warnings = credentials.warnings;
    if has_sample_users && !options.listen.ip().is_loopback() {
        warnings.push(SAMPLE_USERS_WARNING.into());
    }
    warnings
}
