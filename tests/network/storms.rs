//! Storms of seeds, of the fuzzer's corpus, and of a failure that is run again.

use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use super::seeds;
use super::simulation::simulated_network::SimulatedNetwork;
use super::simulation::storm::Storm;

/// Runs the storm. One that fails is made as small as it can be; `of` says which it is.
fn run(of: &str, storm: &Storm) -> SimulatedNetwork {
    panic::catch_unwind(AssertUnwindSafe(|| storm.run())).unwrap_or_else(|_| {
        let smallest = storm.shrunk();
        let mut text = smallest.failure().unwrap_or_default();
        let json = serde_json::to_string(&smallest).expect("a storm");
        write!(text, "\n{of}; run it alone, with its trace:\n  FILESHARE_STORM='{json}'").expect("a string");
        panic!("{text}");
    })
}

#[test]
fn storms_break_no_promise() {
    if let Ok(text) = std::env::var("FILESHARE_STORM") {
        let storm: Storm = serde_json::from_str(&text).expect("a storm as a failure prints it");
        return drop(storm.run());
    }
    let (mut commands, mut resumed, mut resynced, mut loaded, mut clients, mut count) = (0, 0, 0, 0, 0, 0);
    for seed in seeds(100) {
        let network = run(&format!("seed {seed}"), &Storm::random(seed));
        count += 1;
        for client in network.clients() {
            clients += 1;
            commands += client.counts.commands;
            resumed += client.counts.resumed;
            resynced += client.counts.resynced;
            loaded += usize::from(client.own_publications.is_loaded());
        }
    }
    println!(
        "{count} storms: {commands} commands, {resumed} sessions resumed, {resynced} files published again, {loaded} of {clients} lists loaded"
    );
    // A single storm may be a calm one.
    assert!(
        count < 50 || (commands > 50 * count && resumed > count && 10 * loaded > 8 * clients),
        "{count} storms, {commands} commands, {resumed} resumed, {loaded} of {clients} loaded"
    );
}

/// The inputs in the corpus of the fuzz target `network`, or the one that `FILESHARE_INPUT` names.
#[test]
fn storms_of_the_corpus_break_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/network");
    let inputs = match std::env::var_os("FILESHARE_INPUT") {
        Some(input) => vec![input.into()],
        None => fs::read_dir(corpus).expect("a corpus").map(|entry| entry.expect("an input").path()).collect(),
    };
    assert!(!inputs.is_empty());
    for input in inputs {
        run(&input.display().to_string(), &Storm::from_input(&fs::read(&input).expect("an input")));
    }
}
