//! The `client` program: see [`fileshare::client::run`].

fn main() -> std::process::ExitCode {
    fileshare::client::run::main()
}
