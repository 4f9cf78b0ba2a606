//! Any credentials file: users, or an error that names a line and holds nothing of a password.
#![no_main]

use std::path::Path;

use fileshare::server::credentials::Credentials;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    match Credentials::parse(text, Path::new("file")) {
        Ok(credentials) => assert!(credentials.users.len() <= text.split(|byte| *byte == b'\n').count()),
        Err(error) => {
            let told = error.to_string();
            assert!(told.contains("line") && !told.contains(['\n', '\x1b']), "{told:?}");
        }
    }
});
