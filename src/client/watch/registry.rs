//! Which folders of the client are watched. All watches end with it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::survey::is_beneath;
use crate::common::sync::lock;

/// See the [module](self). Paths are relative to the shared folder, which is the empty path.
#[derive(Default)]
pub struct WatchRegistry(Mutex<BTreeMap<String, RunningWatch>>);

/// Ends its watch when it is dropped.
struct RunningWatch(Box<dyn Fn() + Send>);

impl Drop for RunningWatch {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl WatchRegistry {
    /// A folder is watched from now on until `end` is called. A watch of the same folder ends.
    pub fn add(&self, path: &str, end: impl Fn() + Send + 'static) {
        let replaced = lock(&self.0).insert(path.into(), RunningWatch(Box::new(end)));
        drop(replaced);
    }

    /// Ends the watch of this folder. Returns whether there was one.
    pub fn stop(&self, path: &str) -> bool {
        let stopped = lock(&self.0).remove(path);
        stopped.is_some()
    }

    /// Another watched folder that this one is in, or that is in it.
    pub fn overlapping(&self, path: &str) -> Option<String> {
        let is_other = |other: &&String| *other != path && (is_beneath(path, other) || is_beneath(other, path));
        lock(&self.0).keys().find(is_other).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_folder_is_watched_twice_nor_within_another() {
        let watches = WatchRegistry::default();
        watches.add("a/b", || ());
        assert_eq!(watches.overlapping("a").as_deref(), Some("a/b"));
        assert_eq!(watches.overlapping("").as_deref(), Some("a/b"));
        assert_eq!(watches.overlapping("a/b/c").as_deref(), Some("a/b"));
        assert_eq!(
            [watches.overlapping("a/b"), watches.overlapping("a/bc"), watches.overlapping("c")],
            [None, None, None]
        );
        assert!(watches.stop("a/b") && !watches.stop("a/b"));
        assert_eq!(watches.overlapping("a"), None);
    }
}
