//! What a mistyped command may have meant.

use crate::client::commands::Verb;

/// A longer word is no mistyped command.
const TYPED_MAX_CHARS: usize = 16;

/// The command whose name differs from `typed` in the fewest letters: in one of up to three letters, in two of more. Upper
/// and lower case are the same.
pub fn similar_command(typed: &str) -> Option<&'static str> {
    let length = typed.chars().count();
    if length > TYPED_MAX_CHARS {
        return None;
    }
    let (typed, differences_max) = (typed.to_lowercase(), if length <= 3 { 1 } else { 2 });
    let names = Verb::ALL.into_iter().map(Verb::name).chain(["exit", "quit"]);
    let differences = names.map(|name| (strsim::damerau_levenshtein(&typed, name), name));
    differences
        .min_by_key(|(differences, _)| *differences)
        .filter(|(it, _)| *it <= differences_max)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_names_are_recognized() {
        for (typed, meant) in [
            ("shc", "sch"),
            ("SCH", "sch"),
            ("gte", "get"),
            ("put", "pub"),
            ("exti", "exit"),
            ("hlep", "help"),
            ("wiat", "wait"),
        ] {
            assert_eq!(similar_command(typed), Some(meant), "{typed}");
        }
        for typed in ["", "x", "frobnicate", "download", "abc", &"x".repeat(1 << 20)] {
            assert_eq!(similar_command(typed), None);
        }
    }
}
