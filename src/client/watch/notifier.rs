//! What the kernel reports of watched folders, as events of the [core](super::core).
//!
//! Each folder is watched by itself, before it is listed: nothing that happens in it is missed. Whatever happens to a folder
//! itself has it listed again, and so watched again.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKind as Kind, ModifyKind};
use notify::{Config, Error, ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::core::PathEvent;
use super::survey::is_beneath;
use crate::client::files::is_left_out;

/// Files that were created and not opened yet, of which is known that a writer opens them.
const CREATED_MAX: usize = 4_096;

/// Watches folders beneath the shared folder. Its thread ends with it.
pub struct Notifier {
    watcher: RecommendedWatcher,
    /// The shared folder.
    dir: PathBuf,
}

/// What is reported.
pub enum Notification<'a> {
    /// The path is relative to the shared folder.
    Path(&'a str, PathEvent),
    /// Events were lost.
    Lost,
}

impl Notifier {
    /// Reports what happens beneath `folder`, which is relative to the shared folder `dir`. `on_event` is called on a thread
    /// of its own and must not block.
    pub fn start(
        dir: &Path,
        folder: &str,
        mut on_event: impl FnMut(Notification<'_>) + Send + 'static,
    ) -> Result<Self, String> {
        let (root, folder) = (dir.to_owned(), folder.to_owned());
        let mut created = HashSet::new();
        let handler = move |event: Result<Event, Error>| match event {
            Ok(event) if event.need_rescan() => on_event(Notification::Lost),
            Ok(event) => {
                let Some(kind) = kind_of(&event, &mut created) else { return };
                for path in event.paths.iter().filter_map(|path| path.strip_prefix(&root).ok()?.to_str()) {
                    if !is_ignored(path, &folder) {
                        on_event(Notification::Path(path, kind));
                    }
                }
            }
            Err(error) => {
                log::debug!("watching {folder}: {error}");
                on_event(Notification::Lost);
            }
        };
        let watcher = RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false));
        Ok(Self { watcher: watcher.map_err(|error| describe(&error))?, dir: dir.to_owned() })
    }

    /// Watches one folder, not those in it. Again is fine.
    pub fn watch(&mut self, path: &str) -> Result<(), String> {
        match self.watcher.watch(&self.dir.join(path), RecursiveMode::NonRecursive) {
            Ok(()) => Ok(()),
            // It has vanished: its own event comes.
            Err(Error { kind: ErrorKind::PathNotFound, .. }) => Ok(()),
            Err(Error { kind: ErrorKind::Io(error), .. }) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(describe(&error)),
        }
    }
}

fn kind_of(event: &Event, created: &mut HashSet<PathBuf>) -> Option<PathEvent> {
    let path = event.paths.first()?;
    match event.kind {
        // Not a hard link, which nobody opens: a writer does right after it.
        Kind::Create(CreateKind::File) => {
            if created.len() >= CREATED_MAX {
                created.clear();
            }
            created.insert(path.clone());
            Some(PathEvent::Changed)
        }
        Kind::Access(AccessKind::Open(_)) => created.remove(path).then_some(PathEvent::Writing),
        Kind::Access(AccessKind::Close(AccessMode::Write)) => {
            created.remove(path);
            Some(PathEvent::Settled)
        }
        Kind::Access(_) => None,
        Kind::Modify(ModifyKind::Data(_)) => Some(PathEvent::Writing),
        Kind::Modify(ModifyKind::Name(_)) | Kind::Remove(_) => {
            created.remove(path);
            Some(PathEvent::Settled)
        }
        Kind::Create(_) | Kind::Modify(_) | Kind::Any | Kind::Other => Some(PathEvent::Changed),
    }
}

/// Whether a path is left out of the folder, or is not in it.
fn is_ignored(path: &str, folder: &str) -> bool {
    let Some(beneath) = path.strip_prefix(folder).filter(|_| path == folder || is_beneath(path, folder)) else {
        return true;
    };
    beneath.split('/').any(|name| is_left_out(name.as_bytes()))
}

fn describe(error: &Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the system watches no more folders for this user (fs.inotify.max_user_watches)".into()
        }
        ErrorKind::Io(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            "the system has no further watch for this user (fs.inotify.max_user_instances), or too many files are open"
                .into()
        }
        ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, RemoveKind, RenameMode};

    use super::*;

    #[test]
    fn a_created_file_that_is_opened_is_written_until_it_is_closed() {
        let mut created = HashSet::new();
        let mut kind = |kind| kind_of(&Event::new(kind).add_path("/x/a".into()), &mut created);
        let open = Kind::Access(AccessKind::Open(AccessMode::Any));
        assert_eq!(kind(open), None, "a reader");
        assert_eq!(kind(Kind::Create(CreateKind::File)), Some(PathEvent::Changed));
        assert_eq!(kind(open), Some(PathEvent::Writing));
        assert_eq!(kind(open), None, "a reader");
        assert_eq!(kind(Kind::Access(AccessKind::Close(AccessMode::Write))), Some(PathEvent::Settled));
        assert_eq!(kind(Kind::Create(CreateKind::File)), Some(PathEvent::Changed));
        assert_eq!(kind(Kind::Remove(RemoveKind::File)), Some(PathEvent::Settled));
        assert_eq!(kind(open), None);
        assert_eq!(kind(Kind::Modify(ModifyKind::Name(RenameMode::To))), Some(PathEvent::Settled));
        assert_eq!(kind(Kind::Create(CreateKind::Folder)), Some(PathEvent::Changed));
    }

    #[test]
    fn paths_that_folders_leave_out_are_ignored_but_the_folder_itself_may_be_hidden() {
        for (path, folder) in
            [("a/.x", "a"), ("a/.x/y", "a"), ("ab", "a"), ("a/fileshare.db", ""), ("b/x", "a"), (".git/x", "")]
        {
            assert!(is_ignored(path, folder), "{path} in {folder}");
        }
        for (path, folder) in [("a/x", "a"), (".c/x", ".c"), ("a", "a"), ("", ""), ("x", "")] {
            assert!(!is_ignored(path, folder), "{path} in {folder}");
        }
    }
}
