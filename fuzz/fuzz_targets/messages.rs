//! Anything under seal, either way: a message within its limits or none, and it means the same when written again.
#![no_main]

use fileshare::common::message::{ClientMessage, ServerMessage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Ok(message) = ClientMessage::decode(text) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(ClientMessage::decode(&again), Ok(message));
        assert!(again.len() <= text.len());
    }
    if let Ok(message) = ServerMessage::decode(text) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(ServerMessage::decode(&again), Ok(message));
    }
});
