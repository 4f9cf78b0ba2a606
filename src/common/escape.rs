//! Text from outside: control characters are escaped on a terminal and in a log; line endings and byte order marks of files.

use std::fmt::{self, Write};
use std::path::Path;

use super::types::is_control;

/// Displays `text` with every control character (Unicode Cc, bidi controls, U+2028, U+2029) as an escape like `\u{1b}`,
/// so that the text stays on its line and moves no cursor.
pub fn escape_controls(text: &str) -> EscapedControls<'_> {
    EscapedControls(text)
}

/// See [`escape_controls`].
#[derive(Debug, Clone, Copy)]
pub struct EscapedControls<'a>(&'a str);

impl fmt::Display for EscapedControls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_control(c)) {
            write!(f, "{}{}", &rest[..at], c.escape_unicode())?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// A JSON text in which the control characters that JSON permits in a string are escaped too.
pub fn escape_json_controls(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // They are all in the Basic Multilingual Plane.
            c if is_control(c) => write!(escaped, "\\u{:04x}", u32::from(c)).expect("a string takes all"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A path for a log line or an error message, with control characters escaped.
pub fn display_path(path: &Path) -> String {
    escape_controls(&path.display().to_string()).to_string()
}

/// What some editors put in front of a UTF-8 text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file without a byte order mark in front.
pub fn strip_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// `line` without its line ending, LF or CR LF. At most one is removed.
pub fn strip_line_ending(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::{escape_controls, strip_line_ending};

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_controls("plain ä 日本 b\\c").to_string(), "plain ä 日本 b\\c");
        assert_eq!(escape_controls("a\x1b[31mb\r\n").to_string(), "a\\u{1b}[31mb\\u{d}\\u{a}");
        assert_eq!(escape_controls("\u{9b}2J\u{202e}gpj\u{2028}").to_string(), "\\u{9b}2J\\u{202e}gpj\\u{2028}");
    }

    #[test]
    fn one_line_ending_is_stripped() {
        assert_eq!(strip_line_ending(b"a\n\r\n"), b"a\n");
        assert_eq!(strip_line_ending(b"a\n"), b"a");
        assert_eq!(strip_line_ending(b"a\r"), b"a\r");
    }
}
