//! Which folders of the client are watched, by which job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::survey::is_beneath;
use crate::client::jobs::Job;
use crate::common::sync::lock;

/// See the [module](self). Paths are relative to the shared folder, which is the empty path.
#[derive(Debug, Default)]
pub struct WatchRegistry(Mutex<BTreeMap<String, Arc<Job>>>);

impl WatchRegistry {
    /// This job watches the folder. Another watch of it ends.
    pub fn add(&self, path: &str, job: &Arc<Job>) {
        if let Some(replaced) = lock(&self.0).insert(path.into(), Arc::clone(job)) {
            replaced.cancel();
        }
    }

    /// Cancels the watch of this folder, if there is one.
    pub fn stop(&self, path: &str) -> Option<Arc<Job>> {
        lock(&self.0).remove(path).filter(|job| job.cancel())
    }

    /// The watched folders, sorted.
    pub fn folders(&self) -> Vec<String> {
        let mut watched = lock(&self.0);
        watched.retain(|_, job| !job.has_ended());
        watched.keys().cloned().collect()
    }

    /// Another watched folder that this one is in, or that is in it.
    pub fn overlapping(&self, path: &str) -> Option<String> {
        let is_other = |other: &String| *other != path && (is_beneath(path, other) || is_beneath(other, path));
        self.folders().into_iter().find(is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cancel::is_cancelled;
    use crate::client::exit_code::ExitCode;
    use crate::client::jobs::{JobKind, JobOwner, Jobs};

    #[test]
    fn no_folder_is_watched_twice_nor_within_another() {
        let watches = WatchRegistry::default();
        let jobs = Arc::<Jobs>::default();
        let begin = || jobs.begin(JobKind::Watch, String::new(), &JobOwner::default(), false).unwrap();
        let [first, second] = [begin(), begin()];
        watches.add("a/b", first.job());
        watches.add("a/b", second.job());
        assert!(is_cancelled(&first.cancelled()) && !is_cancelled(&second.cancelled()));
        assert_eq!(watches.overlapping("a").as_deref(), Some("a/b"));
        assert_eq!(watches.overlapping("").as_deref(), Some("a/b"));
        assert_eq!(watches.overlapping("a/b/c").as_deref(), Some("a/b"));
        assert_eq!(
            [watches.overlapping("a/b"), watches.overlapping("a/bc"), watches.overlapping("c")],
            [None, None, None]
        );
        assert!(watches.stop("a/b").is_some() && watches.stop("a/b").is_none());
        assert!(is_cancelled(&second.cancelled()));
        watches.add("c", second.job());
        second.end(ExitCode::Success);
        assert_eq!(watches.overlapping("c/d"), None);
    }
}
