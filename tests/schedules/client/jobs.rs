//! Watches and follows, of which there is one for each folder or pattern.

use std::sync::Arc;

use shuttle::thread;

use crate::client::jobs_by_key::JobsByKey;
use crate::common::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub struct JobOwner;

impl JobOwner {
    pub fn leave(&self) {}
}

/// A job that ends as soon as it is cancelled.
#[derive(Debug, Default)]
pub struct Job {
    has_ended: AtomicBool,
}

impl Job {
    pub fn cancel(&self) -> bool {
        !self.has_ended.swap(true, Ordering::SeqCst)
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }
}

/// Two sides watch one folder at the same time: one watch goes on, and ends when the folder is not to be watched any more.
fn of_two_watches_of_a_folder_one_goes_on() {
    let watches = Arc::new(JobsByKey::default());
    let sides = [(); 2].map(|()| {
        let watches = Arc::clone(&watches);
        thread::spawn(move || {
            let job = Arc::default();
            watches.replace(|path| *path == "folder", "folder", &job);
            job
        })
    });
    let jobs = sides.map(|side| side.join().unwrap());
    assert_eq!(jobs.iter().filter(|job: &&Arc<Job>| !job.has_ended()).count(), 1);
    assert_eq!(watches.stop(|path| *path == "folder").len(), 1);
    assert!(jobs.iter().all(|job| job.has_ended()) && watches.keys().is_empty());
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![("jobs::of_two_watches_of_a_folder_one_goes_on", of_two_watches_of_a_folder_one_goes_on)]
}
