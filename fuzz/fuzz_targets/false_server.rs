#![no_main]

#[expect(dead_code, reason = "each target uses one of them")]
#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::false_server(bytes));
