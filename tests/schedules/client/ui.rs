//! Lines above the prompt.

use std::sync::Arc;

use shuttle::thread;

use self::prompt_queue::Prompt;
use crate::common::sync::{Mutex, lock};

pub mod message {
    pub use fileshare::internals::client::message::CommandId;
}

#[path = "../../../src/client/ui/prompt_queue.rs"]
mod prompt_queue;

/// Jobs print while the prompt comes to its end. What one has handed over is printed once the prompt has gone, in order; what
/// comes later is the console's to write.
fn no_line_is_lost_when_the_prompt_goes() {
    let printed = Arc::new(Mutex::new(Vec::new()));
    let printing = Arc::clone(&printed);
    let print = move |line: String| {
        thread::yield_now();
        lock(&printing).push(line);
    };
    let prompt = Arc::new(Prompt::default());
    prompt.set_printer(Some(Box::new(print)));
    let jobs = ["a", "b"].map(|job| {
        let (prompt, printed) = (Arc::clone(&prompt), Arc::clone(&printed));
        thread::spawn(move || {
            for number in 0..2 {
                prompt.print(format!("{job}{number}"), |line| lock(&printed).push(line));
            }
        })
    });
    prompt.set_printer(None);
    jobs.into_iter().for_each(|job| job.join().unwrap());
    let printed = lock(&printed);
    for job in ["a", "b"] {
        let of_job: Vec<_> = printed.iter().filter(|line| line.starts_with(job)).collect();
        assert_eq!(of_job, [&format!("{job}0"), &format!("{job}1")]);
    }
}

pub fn tests() -> Vec<crate::explorer::ScheduleTest> {
    vec![("ui::no_line_is_lost_when_the_prompt_goes", no_line_is_lost_when_the_prompt_goes)]
}
