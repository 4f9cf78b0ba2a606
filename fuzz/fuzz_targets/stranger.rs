#![no_main]

#[expect(dead_code, reason = "each target uses one of them")]
#[path = "../invariants.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| invariants::stranger(input));
