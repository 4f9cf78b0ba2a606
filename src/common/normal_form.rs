//! How texts are compared that Unicode writes in several ways, such as `é` as one character or as `e` with an accent: by their
//! NFC (UAX #15). Names are stored, shown and saved as they were published.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The NFC of `text`; borrowed if that is `text` itself. It may have more bytes than `text`, at most three times as many.
pub fn normal_form(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

/// Whether texts of other bytes have the same normal form.
pub fn has_variants(text: &str) -> bool {
    // The Kelvin sign, the Greek question mark and the Greek varia are canonically these.
    !text.is_ascii() || text.bytes().any(|byte| matches!(byte, b'K' | b';' | b'`'))
}

#[cfg(test)]
mod tests {
    use unicode_normalization::{IsNormalized, is_nfc_quick};

    use super::*;

    #[test]
    fn forms_of_one_text_are_equal() {
        for forms in
            [["é", "e\u{301}"], ["Å", "\u{212b}"], ["가", "\u{1100}\u{1161}"], ["a\u{323}\u{307}", "a\u{307}\u{323}"]]
        {
            assert_eq!(normal_form(forms[0]), normal_form(forms[1]));
        }
        assert_ne!(normal_form("é"), normal_form("e"));
        assert!(matches!(normal_form("日本é.txt"), Cow::Borrowed(_)), "nothing is copied that is normal already");
    }

    #[test]
    fn no_character_becomes_one_with_a_meaning_in_names_or_patterns() {
        const SYNTAX: &str = r"*?[]\/.!^-";
        for c in ('\u{80}'..=char::MAX).filter(|&c| is_nfc_quick([c].into_iter()) != IsNormalized::Yes) {
            let alone = normal_form(&c.to_string()).into_owned();
            assert!(!alone.contains(|c| SYNTAX.contains(c)), "{c:?}");
            assert!(alone.bytes().all(|byte| !byte.is_ascii() || has_variants(&char::from(byte).to_string())), "{c:?}");
            for before in SYNTAX.chars() {
                assert!(normal_form(&format!("{before}{c}")).starts_with(before), "{before:?} {c:?}");
            }
        }
    }

    #[test]
    fn names_have_variants_unless_they_are_plain_ascii() {
        assert!(has_variants("é") && has_variants("e\u{301}") && has_variants("OK") && has_variants("a;b"));
        assert!(!has_variants("report.pdf") && !has_variants(""));
    }
}
