//! How texts are compared without regard to case: one rule for `sch -i` at the client and for the server's index.

use super::normal_form::normal_form;

/// Appends `text`, in its normal form and lower-cased, to `out`.
///
/// Each character is lower-cased by itself, so that the fold of a part of a normal form is part of the fold of the whole: a
/// search without case finds at least what the same search with case finds. [`str::to_lowercase`] does not do that, since it gives ς at
/// the end of a word and σ elsewhere; here both are σ.
pub fn fold_into(text: &str, out: &mut Vec<u8>) {
    if text.is_ascii() {
        let start = out.len();
        out.extend_from_slice(text.as_bytes());
        out[start..].make_ascii_lowercase();
        return;
    }
    for c in normal_form(text).chars().flat_map(char::to_lowercase) {
        let c = if c == 'ς' { 'σ' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// The fold of `text`, in UTF-8.
pub fn fold(text: &str) -> Vec<u8> {
    let mut folded = Vec::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// Whether `text` contains `needle` when both are folded.
pub fn contains_ignoring_case(text: &str, needle: &str) -> bool {
    memchr::memmem::find(&fold(text), &fold(needle)).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_fold_of_a_part_is_part_of_the_fold(a in "\\PC{0,4}", b in "[aAΣςσİKkÄß\u{308}\u{323}]{0,6}", c in "\\PC{0,4}") {
            let (whole, part) = (format!("{a}{b}{c}"), normal_form(&b));
            if normal_form(&whole).contains(&*part) {
                prop_assert!(contains_ignoring_case(&whole, &part));
            }
            prop_assert!(std::str::from_utf8(&fold(&whole)).is_ok());
        }
    }

    #[test]
    fn a_sigma_is_the_same_letter_everywhere_in_a_word() {
        for needle in ["ΣΊΣΥΦΟΣ", "σίσυφος", "σίσυφοσ", "ΦΟΣ.T"] {
            assert!(contains_ignoring_case("ΣΊΣΥΦΟΣ.txt", needle), "{needle}");
            assert!(contains_ignoring_case("σίσυφος.txt", needle), "{needle}");
        }
        assert!(!contains_ignoring_case("ΣΊΣΥΦΟΣ.txt", "σίσιφος"));
    }

    #[test]
    fn forms_of_one_letter_are_the_same() {
        for (text, needle) in [("CAFÉ.txt", "cafe\u{301}"), ("cafe\u{301}.txt", "CAFÉ"), ("A\u{30a}.txt", "\u{212b}")]
        {
            assert!(contains_ignoring_case(text, needle), "{text} {needle}");
        }
        assert!(!contains_ignoring_case("cafe\u{301}.txt", "cafe."));
    }
}
