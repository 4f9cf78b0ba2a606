//! The manual pages and the completions of shells in docs are those of the options as they are. `FILESHARE_WRITE_MANUALS=1` writes
//! them anew. scripts/package.sh makes those of the package from them.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use fileshare::internals::client::commands::Verb;
use fileshare::internals::{client, server};

/// A manual page; `sections` come after the options.
fn manual(command: Command, sections: &Roff) -> Vec<u8> {
    let (man, mut page) = (Man::new(command).section("1").date(""), Vec::new());
    man.render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| sections.to_writer(&mut page))
        .expect("a buffer takes all");
    page
}

/// The commands of the client's shell.
fn commands() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["COMMANDS"]);
    for verb in Verb::ALL {
        roff.control("TP", []);
        roff.text([bold(verb.usage())]);
        roff.text([roman(format!("{}. Example: {}", verb.about(), verb.example()))]);
    }
    roff
}

/// What the server does when it is told to.
fn signals() -> Roff {
    let effects = [
        ("SIGTERM, SIGINT", "Store what is queued and exit with 0."),
        ("SIGHUP", "Read the credentials again. A file with an error, or without users, changes nothing."),
        ("SIGUSR1", "Write the figures of the status page that are not 0 to the log, whatever its level."),
    ];
    let mut roff = Roff::new();
    roff.control("SH", ["SIGNALS"]);
    for (signal, effect) in effects {
        roff.control("TP", []);
        roff.text([bold(signal)]);
        roff.text([roman(effect)]);
    }
    roff
}

fn completion(shell: Shell, mut command: Command) -> Vec<u8> {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    generate(shell, &mut command, name, &mut script);
    script
}

/// The paths and contents.
fn files() -> Vec<(String, Vec<u8>)> {
    let programs = [
        (client::cli::command_line().name("client"), commands()),
        (server::cli::command_line().name("server"), signals()),
    ];
    let mut files = Vec::new();
    for (command, sections) in programs {
        let name = command.get_name().to_owned();
        files.push((format!("docs/man/{name}.1"), manual(command.clone(), &sections)));
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            files.push((format!("docs/completions/{file}"), completion(shell, command.clone())));
        }
    }
    files
}

#[test]
fn manual_pages_and_completions_are_current() {
    for (name, expected) in files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        if std::env::var_os("FILESHARE_WRITE_MANUALS").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders can be made");
            fs::write(&path, &expected).expect("files can be written");
        }
        let is_current = fs::read(&path).is_ok_and(|found| found == expected);
        assert!(is_current, "{name} is not current; FILESHARE_WRITE_MANUALS=1 cargo test --test manuals writes it");
    }
}
