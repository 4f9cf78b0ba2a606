//! Showing names from the network safely: on a terminal, in a log, anywhere a control character could act.

use std::fmt;

use super::types::is_control;

/// Shows `text` with every control character (Unicode Cc, bidi controls, U+2028, U+2029) as an escape like `\u{1b}`,
/// so that it stays on its line and moves no cursor.
pub fn safe(text: &str) -> Safe<'_> {
    Safe(text)
}

/// See [`safe`].
#[derive(Debug, Clone, Copy)]
pub struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| is_control(c)) {
            write!(f, "{}{}", &rest[..at], c.escape_unicode())?;
            rest = &rest[at + c.len_utf8()..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn controls_are_shown_and_never_sent() {
        assert_eq!(safe("plain ä 日本 b\\c").to_string(), "plain ä 日本 b\\c");
        assert_eq!(safe("a\x1b[31mb\r\n").to_string(), "a\\u{1b}[31mb\\u{d}\\u{a}");
        assert_eq!(safe("\u{9b}2J\u{202e}gpj\u{2028}").to_string(), "\\u{9b}2J\\u{202e}gpj\\u{2028}");
    }
}
