//! The `client` program: see [`fileshare::client`].

fn main() -> std::process::ExitCode {
    fileshare::client::run()
}
