//! The names and contents that a user publishes.

use std::time::Instant;

use fileshare::internals::common::message::Request;
use fileshare::internals::common::types::{Content, ContentHash, FileName, NamedContent, UserName};

use super::{NAMES, SimulatedClient};

impl SimulatedClient {
    /// New contents of so many names, which the user publishes under from now on.
    pub fn new_files(&mut self, count: usize) -> Vec<NamedContent> {
        self.names = count.max(NAMES);
        (0..count).map(|at| NamedContent { name: self.name(at), content: self.content() }).collect()
    }

    /// A test publishes files for everyone on the user's behalf.
    pub fn publishing(&mut self, now: Instant, request: &Request) {
        self.history.changing(now, &names_of(request), Some(&None));
    }

    /// It has published them.
    pub fn published(&mut self, now: Instant, files: &[NamedContent]) {
        let names: Vec<FileName> = files.iter().map(|file| file.name.clone()).collect();
        self.history.changed(now, &names);
        self.on_changed(&names);
        self.files.extend(files.iter().map(|file| (file.name.clone(), file.content)));
    }

    pub(super) fn name(&self, at: usize) -> FileName {
        file_name(&self.user, at)
    }

    pub(super) fn content(&mut self) -> Content {
        Content { hash: ContentHash(self.rng.arbitrary()), size: self.rng.arbitrary(), mtime_ms: 0 }
    }
}

/// What a mutation changes.
pub(super) fn names_of(request: &Request) -> Vec<FileName> {
    match request {
        Request::Publish { files, .. } => files.iter().map(|file| file.name.clone()).collect(),
        Request::Unpublish { names } => names.clone(),
        _ => Vec::new(),
    }
}

pub(super) fn file_name(user: &UserName, at: usize) -> FileName {
    FileName::parse(&format!("{user}/file {at}")).expect("a valid name")
}
