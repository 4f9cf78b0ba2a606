//! Upload slots, which the listeners' threads take and the uploads' threads give back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fileshare::internals::common::types::UserName;
use shuttle::thread;

use self::slots::UploadSlots;
use crate::common::sync::{Mutex, lock};

mod limits {
    use std::time::Duration;

    pub struct UploadLimits {
        pub turn: Duration,
        pub turn_min_rate: u64,
    }

    impl Default for UploadLimits {
        fn default() -> Self {
            Self { turn: Duration::from_secs(10), turn_min_rate: 1 << 16 }
        }
    }
}

#[path = "../../../src/client/upload/slots.rs"]
mod slots;

const TOTAL: u8 = 2;

/// Never more slots are in use than there are, or by one user than half of them, whichever threads take and give them back; in
/// the end all are free, also those of a thread that panicked.
fn slots_are_never_lost_nor_doubled() {
    let (slots, now) = (Arc::new(UploadSlots::new(TOTAL)), Instant::now());
    let held: Arc<Mutex<Vec<&str>>> = Arc::default();
    let users = ["vader", "vader", "yoda", "hans"];
    let uploads = users.map(|name| {
        let (slots, held) = (Arc::clone(&slots), Arc::clone(&held));
        thread::spawn(move || {
            let user = UserName::parse(name).unwrap();
            let Some(slot) = slots.acquire(&user, now) else { return };
            let mut holders = lock(&held);
            holders.push(name);
            assert!(holders.len() <= usize::from(TOTAL), "{holders:?}");
            assert!(holders.iter().filter(|holder| **holder == name).count() == 1, "{holders:?}");
            drop(holders);
            thread::yield_now();
            slot.must_yield(now, &limits::UploadLimits::default());
            let mut holders = lock(&held);
            let place = holders.iter().position(|holder| *holder == name).unwrap();
            holders.remove(place);
            drop(holders);
            drop(slot);
        })
    });
    uploads.into_iter().for_each(|upload| upload.join().unwrap());
    assert_eq!(slots.free(), TOTAL);
    // Who was refused waits; once they have gone, any user gets a slot.
    let later = now + Duration::from_secs(60);
    assert!(slots.acquire(&UserName::parse("vader").unwrap(), later).is_some());
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![("upload::slots_are_never_lost_nor_doubled", slots_are_never_lost_nor_doubled)]
}
