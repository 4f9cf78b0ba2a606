//! Storms in the virtual-time network of `tests/network`, made from any bytes.
#![no_main]
#![allow(dead_code, reason = "the tests use the rest of the network")]

#[path = "../../tests/network/simulation/mod.rs"]
mod simulation;

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(simulation::storm::Storm::from_input(input).run()));
