#![no_main]

#[expect(dead_code, reason = "each target uses one function")]
#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::unauthenticated_client(bytes));
