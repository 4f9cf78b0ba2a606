//! Any line that is typed: a command or an error of one line; and what is quoted reads back.
#![no_main]

use fileshare::client::command;
use fileshare::client::paths::tidy;
use fileshare::client::words::{Words, quote};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let _ = command::parse(line);
    let Ok(text) = std::str::from_utf8(line) else { return };
    if !text.is_empty() && !text.contains(['\n', '\r']) {
        let words = Words::of(&quote(text)).rest().expect("our own quotes close");
        assert_eq!((words.len(), words[0].text.as_str(), &words[0].pattern), (1, text, &None));
    }
    for word in Words::of(text).rest().into_iter().flatten() {
        if let Ok(path) = tidy(&word) {
            assert!(!path.text.starts_with('/') && path.text.split('/').all(|part| part != ".."), "{path:?}");
        }
    }
});
