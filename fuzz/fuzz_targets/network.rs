//! Storms in the virtual-time network of `tests/network`, made from any bytes.
#![no_main]
#![allow(dead_code, reason = "the tests use the rest of the network")]

#[path = "../../tests/network/choices.rs"]
mod choices;
#[path = "../../tests/network/faulty_link.rs"]
mod faulty_link;
#[path = "../../tests/network/liveness.rs"]
mod liveness;
#[path = "../../tests/network/simulated_client/mod.rs"]
mod simulated_client;
#[path = "../../tests/network/simulated_journal.rs"]
mod simulated_journal;
#[path = "../../tests/network/simulated_list.rs"]
mod simulated_list;
#[path = "../../tests/network/simulated_network/mod.rs"]
mod simulated_network;
#[path = "../../tests/network/simulated_users.rs"]
mod simulated_users;
#[path = "../../tests/network/storm.rs"]
mod storm;
#[path = "../../tests/network/user_history.rs"]
mod user_history;
#[path = "../../tests/network/wait_oracle.rs"]
mod wait_oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(storm::Storm::from_input(input).run()));
