//! The names of the programs, in texts that say what to type: the Debian package calls the programs otherwise.

use std::ffi::OsStr;
use std::path::Path;

/// `text` with the names of the client and the server for `{client}` and `{server}`.
pub fn with_program_names(text: &str) -> String {
    replace_names(text, std::env::args_os().next().as_deref())
}

/// `program` is the path by which this program was started.
fn replace_names(text: &str, program: Option<&OsStr>) -> String {
    let name = program.and_then(|path| Path::new(path).file_name()).and_then(OsStr::to_str);
    let (client, server) = match name {
        Some("fileshare" | "fileshare-server") => ("fileshare", "fileshare-server"),
        _ => ("client", "server"),
    };
    text.replace("{client}", client).replace("{server}", server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_package_if_it_started_the_program() {
        let named = |program: &str| replace_names("{server} 1, {client} 2", Some(OsStr::new(program)));
        for program in ["client", "/opt/fileshare/server", "./fileshare-client", ""] {
            assert_eq!(named(program), "server 1, client 2");
        }
        for program in ["fileshare", "/usr/bin/fileshare-server"] {
            assert_eq!(named(program), "fileshare-server 1, fileshare 2");
        }
        assert_eq!(replace_names("{client}", None), "client");
    }
}
