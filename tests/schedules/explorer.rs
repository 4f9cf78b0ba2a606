//! Runs the tests, as `cargo test` and `cargo nextest` ask for it, each under many schedules.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

/// Schedules for each test and scheduler, unless `FILESHARE_SCHEDULES` says so.
const SCHEDULES_DEFAULT: usize = 1_000;
/// Preemptions at which the second scheduler aims: most faults of threads need no more.
const PREEMPTIONS: usize = 3;

/// Options of the usual test programs that have a value; none changes anything here.
const VALUE_OPTIONS: [&str; 4] = ["--format", "--color", "--test-threads", "--skip"];

/// A name and what runs under each schedule.
pub type ScheduleTest = (&'static str, fn());

/// Runs the tests whose name contains the first argument that is no option, or is it with `--exact`; `--list` lists them.
pub fn run(tests: &[ScheduleTest]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let is_value = |at: usize| at > 0 && VALUE_OPTIONS.contains(&arguments[at - 1].as_str());
    let is_filter = |at: &usize| !arguments[*at].starts_with('-') && !is_value(*at);
    let filter = (0..arguments.len()).find(is_filter).map(|at| &arguments[at]);
    let is_chosen = |name: &str| match filter {
        Some(filter) if has("--exact") => name == filter,
        Some(filter) => name.contains(filter.as_str()),
        None => true,
    };
    // No test is one that runs only when asked for.
    let chosen = tests.iter().filter(|(name, _)| is_chosen(name) && !has("--ignored"));
    let mut failed: Vec<&str> = Vec::new();
    for (name, test) in chosen {
        if has("--list") {
            println!("{name}: test");
            continue;
        }
        let is_ok = catch_unwind(AssertUnwindSafe(|| explore(*test))).is_ok();
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        failed.extend((!is_ok).then_some(*name));
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn explore(test: fn()) {
    if let Ok(schedule) = std::env::var("FILESHARE_SCHEDULE") {
        return shuttle::replay(test, &schedule);
    }
    let schedules =
        std::env::var("FILESHARE_SCHEDULES").map_or(SCHEDULES_DEFAULT, |text| text.parse().expect("a number"));
    Runner::new(RandomScheduler::new(schedules), config()).run(test);
    Runner::new(PctScheduler::new(PREEMPTIONS, schedules), config()).run(test);
}

fn config() -> Config {
    let mut config = Config::new();
    // That atomics are taken for sequentially consistent.
    config.silence_warnings = true;
    config
}
