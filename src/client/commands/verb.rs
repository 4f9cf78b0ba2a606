//! The commands by name, with the texts of `help`.

use crate::client::ui::look::wrap;

/// A command that can be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Auth,
    /// End what goes on in the background.
    Cancel,
    /// Write a file to standard output.
    Cat,
    Events,
    /// Fetch what matches whenever it changes.
    Follow,
    Get,
    Help,
    /// List what goes on in the background.
    Jobs,
    /// List the active peers.
    Lap,
    /// List the published files.
    Lpf,
    /// List what a peer shares.
    Ls,
    Pub,
    Sch,
    Stop,
    Unfollow,
    Unp,
    Wait,
    Xit,
}

impl Verb {
    /// All, sorted by name.
    pub const ALL: [Self; 18] = [
        Self::Auth,
        Self::Cancel,
        Self::Cat,
        Self::Events,
        Self::Follow,
        Self::Get,
        Self::Help,
        Self::Jobs,
        Self::Lap,
        Self::Lpf,
        Self::Ls,
        Self::Pub,
        Self::Sch,
        Self::Stop,
        Self::Unfollow,
        Self::Unp,
        Self::Wait,
        Self::Xit,
    ];

    /// By its name, or by another name for it.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "exit" | "quit" => Some(Self::Xit),
            "?" => Some(Self::Help),
            _ => Self::ALL.into_iter().find(|verb| verb.name() == name),
        }
    }

    pub fn name(self) -> &'static str {
        self.texts()[0]
    }

    /// One line: the arguments.
    pub fn usage(self) -> &'static str {
        self.texts()[1]
    }

    /// One line: what the command does.
    pub fn about(self) -> &'static str {
        self.texts()[2]
    }

    /// One line that could be typed.
    pub fn example(self) -> &'static str {
        self.texts()[3]
    }

    /// Name, usage, about, example.
    fn texts(self) -> [&'static str; 4] {
        match self {
            Self::Auth => ["auth", "auth USERNAME [PASSWORD]", "log in; without PASSWORD it is asked for", "auth hans"],
            Self::Cancel => ["cancel", "cancel NUMBER", "end a job, by its number in 'jobs'", "cancel 1"],
            Self::Cat => {
                ["cat", "cat [--wait SECS] FILENAME", "write the content of a file to standard output", "cat notes.txt"]
            }
            Self::Events => [
                "events",
                "events [FILENAME...]",
                "report what happens, until Ctrl-C; also to these files; takes patterns",
                "events *.pdf",
            ],
            Self::Follow => [
                "follow",
                "follow [--mirror] [--from USERNAME] [FILENAME...]",
                "download what matches whenever it changes; --mirror: remove what is gone; alone: list what is followed",
                "follow --from vader photos/",
            ],
            Self::Get => [
                "get",
                "get [--share | -o PATH] [--wait SECS] [-n] FILENAME...",
                "download; takes names, 'name#hash', patterns and 'folder/'; -n: only say what it would do",
                "get report.pdf photos/",
            ],
            Self::Help => ["help", "help [COMMAND]", "explain the commands", "help get"],
            Self::Jobs => ["jobs", "jobs", "list what goes on in the background, and who downloads from here", "jobs"],
            Self::Lap => ["lap", "lap [-l]", "list the active peers; -l details", "lap -l"],
            Self::Lpf => ["lpf", "lpf [-l]", "list the files you have published; -l details", "lpf -l"],
            Self::Ls => {
                ["ls", "ls [-l] USERNAME", "list what an active peer shares with you; -l details", "ls -l vader"]
            }
            Self::Pub => [
                "pub",
                "pub [--to USERNAME]... [--stdin | --watch] FILENAME...",
                "publish files, patterns or folders, to all or to some; --stdin: store standard input first; \
                 --watch: keep a folder published as it changes",
                "pub --to vader report.pdf",
            ],
            Self::Sch => [
                "sch",
                "sch [-i] [-l] SUBSTRING",
                "search the active peers' files; -i any case, -l details",
                "sch -l pdf",
            ],
            Self::Stop => ["stop", "stop", "end the client, also one that is reached by --attach", "stop"],
            Self::Unfollow => {
                ["unfollow", "unfollow FILENAME...", "download no longer what 'follow' does", "unfollow photos/"]
            }
            Self::Unp => [
                "unp",
                "unp FILENAME... | unp --watch FOLDER",
                "withdraw what you have published; --watch: only watch the folder no longer",
                "unp report.pdf",
            ],
            Self::Wait => [
                "wait",
                "wait peer|gone USERNAME [SECS] | wait file FILENAME [SECS] | wait NUMBER|all [SECS]",
                "wait for a peer to come or go, for a file (SECS: 30), or for the end of jobs",
                "wait file report.pdf 60",
            ],
            Self::Xit => ["xit", "xit", "log out and exit", "xit"],
        }
    }
}

/// The text of `help` for one command, or for all of them.
pub fn help_text(verb: Option<Verb>) -> String {
    match verb {
        Some(verb) => format!("usage: {}\n{}\n", verb.usage(), verb.about()),
        None => Verb::ALL.iter().map(|verb| format!("{:<36} {}\n", verb.usage(), verb.about())).collect(),
    }
}

/// The same for a person at a terminal of this width.
pub fn help_page(verb: Option<Verb>, columns: usize) -> String {
    let entry = |verb: &Verb| {
        let indented = |text: &str| wrap(&format!("    {text}"), columns, 4);
        let (usage, about) = (wrap(verb.usage(), columns, 4), indented(verb.about()));
        format!("{usage}\n{about}\n{}\n", indented(&format!("example: {}", verb.example())))
    };
    match verb {
        Some(verb) => format!("usage: {}", entry(&verb)),
        None => Verb::ALL.iter().map(entry).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usage_starts_with_its_name() {
        for verb in Verb::ALL {
            assert!(verb.usage().starts_with(verb.name()));
            assert_eq!(Verb::parse(verb.name()), Some(verb));
        }
    }
}
