//! How text looks to a person at a terminal. A program at the end of a pipe gets plain text.

use std::io::IsTerminal;

/// `--color`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ColorPolicy {
    /// At a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    Always,
    Never,
}

/// How the text of one stream looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// A person reads it.
    pub is_terminal: bool,
    pub has_color: bool,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    Heading,
    Failure,
    Warning,
    /// Less important than the text around it.
    Aside,
}

impl Look {
    pub fn of(stream: &impl IsTerminal, policy: ColorPolicy) -> Self {
        let is_terminal = stream.is_terminal();
        let is_set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let has_color = match policy {
            ColorPolicy::Auto => is_terminal && !is_set("NO_COLOR") && !is_dumb,
            ColorPolicy::Always => true,
            ColorPolicy::Never => false,
        };
        Self { is_terminal, has_color }
    }

    /// The text, which is on one line, so that it stands out.
    pub fn emphasize(self, emphasis: Emphasis, text: &str) -> String {
        if !self.has_color {
            return text.into();
        }
        let code = match emphasis {
            Emphasis::Heading => 1,
            Emphasis::Failure => 31,
            Emphasis::Warning => 33,
            Emphasis::Aside => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The text in lines of at most `columns` characters, broken at blanks; all but the first are indented.
pub fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let (mut wrapped, mut used) = (String::new(), 0);
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > indent && used + 1 + length > columns {
            wrapped += &format!("\n{:indent$}", "");
            used = indent;
        } else if !wrapped.is_empty() {
            wrapped.push(' ');
            used += 1;
        }
        wrapped += word;
        used += length;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colored_text_has_escape_codes() {
        let colored = Look { is_terminal: true, has_color: true };
        assert_eq!(colored.emphasize(Emphasis::Failure, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Look { is_terminal: true, has_color: false }.emphasize(Emphasis::Heading, "a"), "a");
        assert_eq!(Look::default().emphasize(Emphasis::Aside, "a"), "a");
    }

    #[test]
    fn lines_break_at_blanks() {
        assert_eq!(wrap("a bc def", 80, 2), "a bc def");
        assert_eq!(wrap("a bc def", 4, 2), "a bc\n  def");
        assert_eq!(wrap("abcdefgh ij k", 4, 1), "abcdefgh\n ij\n k");
        assert_eq!(wrap("", 4, 1), "");
    }
}
