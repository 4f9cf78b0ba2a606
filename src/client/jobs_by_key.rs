//! Jobs by what they are about: one for each.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::jobs::Job;
use crate::common::sync::{Mutex, lock};

/// See the [module](self).
#[derive(Debug)]
pub struct JobsByKey<K>(Mutex<BTreeMap<K, Arc<Job>>>);

impl<K> Default for JobsByKey<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> JobsByKey<K> {
    /// This job is about the key. Those about the same end.
    pub fn replace(&self, is_same: impl Fn(&K) -> bool, key: K, job: &Arc<Job>) {
        let mut jobs = lock(&self.0);
        // Under the same lock: of two that begin at a time, one would go on that no key names.
        jobs.extract_if(.., |key, _| is_same(key)).for_each(|(_, other)| _ = other.cancel());
        jobs.insert(key, Arc::clone(job));
    }

    /// Cancels all that are about such keys. Returns those that went on.
    pub fn stop(&self, is_meant: impl Fn(&K) -> bool) -> Vec<Arc<Job>> {
        let stopped = lock(&self.0).extract_if(.., |key, _| is_meant(key)).collect::<Vec<_>>();
        stopped.into_iter().map(|(_, job)| job).filter(|job| job.cancel()).collect()
    }

    /// What goes on is about these, sorted.
    pub fn keys(&self) -> Vec<K>
    where
        K: Clone,
    {
        let mut jobs = lock(&self.0);
        jobs.retain(|_, job| !job.has_ended());
        jobs.keys().cloned().collect()
    }
}
