//! Anything on a TCP connection: how it begins, how long a record is, and what stands in one.
#![no_main]

use fileshare::common::limits::{RECORD_MAX_BYTES, TICKET_MAX_BYTES};
use fileshare::common::transfer::{self, Preamble, ToDownloader, ToUploader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Preamble::parse(bytes) {
        Ok(Preamble::NeedBytes(needed)) => assert!(needed > bytes.len() && needed < TICKET_MAX_BYTES + 100),
        Ok(Preamble::Whole { ticket, prologue, noise }) => {
            assert!(ticket.len() <= TICKET_MAX_BYTES);
            assert_eq!(prologue.len() + noise.len(), bytes.len());
            let _ = transfer::answer(&[7; 32], prologue, noise);
        }
        Err(_) => {}
    }
    if let Some(head) = bytes.first_chunk()
        && let Ok(length) = transfer::record_bytes(*head)
    {
        assert!(length < RECORD_MAX_BYTES + 100);
    }
    let _ = postcard::take_from_bytes::<ToUploader>(bytes);
    let _ = postcard::take_from_bytes::<ToDownloader>(bytes);
});
