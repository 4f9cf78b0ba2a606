//! Splitting a line into words as a POSIX shell quotes them; nothing is expanded.
//!
//! Remembers what was quoted, so that `*.pdf` is a pattern and `"*.pdf"` is a name. Must not know what a command is.

/// A word of a line, quotes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text that was meant.
    pub text: String,
    /// The word as a pattern for globset, where an unquoted `*`, `?` or `[...]` makes it one; everything else that is
    /// special to globset is escaped by a backslash.
    pub pattern: Option<String>,
}

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A quote is opened and never closed.
    #[error("a quote is not closed: {0}")]
    Unterminated(char),
    /// A backslash with nothing after it.
    #[error("the line ends in a backslash")]
    TrailingBackslash,
}

/// One character of a word, and whether it was quoted.
type Mark = (char, bool);

/// Takes words off the front of a line, one by one.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    /// Nothing is looked at yet.
    pub fn of(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    /// Where the next character to be looked at stands, bytes from the start of the line. After a word this is right
    /// behind it.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next word, `None` at the end of the line.
    pub fn next_word(&mut self) -> Result<Option<Word>, WordsError> {
        Ok(self.next_marks()?.map(|marks| Word { text: text_of(&marks), pattern: pattern_of(&marks) }))
    }

    /// All that are left.
    pub fn rest(mut self) -> Result<Vec<Word>, WordsError> {
        let mut words = Vec::new();
        while let Some(word) = self.next_word()? {
            words.push(word);
        }
        Ok(words)
    }

    fn next_marks(&mut self) -> Result<Option<Vec<Mark>>, WordsError> {
        self.skip_blanks();
        let mut marks = Vec::new();
        let mut any = false;
        while let Some(c) = self.peek().filter(|c| !is_blank(*c)) {
            any = true;
            self.at += c.len_utf8();
            match c {
                '\'' => self.single_quoted(&mut marks)?,
                '"' => self.double_quoted(&mut marks)?,
                '\\' => marks.push((self.take().ok_or(WordsError::TrailingBackslash)?, true)),
                c => marks.push((c, false)),
            }
        }
        Ok(any.then_some(marks))
    }

    fn single_quoted(&mut self, marks: &mut Vec<Mark>) -> Result<(), WordsError> {
        loop {
            match self.take().ok_or(WordsError::Unterminated('\''))? {
                '\'' => return Ok(()),
                c => marks.push((c, true)),
            }
        }
    }

    /// Within double quotes a backslash is itself but before `"`, `\`, `$` and a backtick (POSIX 2.2.3).
    fn double_quoted(&mut self, marks: &mut Vec<Mark>) -> Result<(), WordsError> {
        let open = WordsError::Unterminated('"');
        loop {
            match self.take().ok_or(open)? {
                '"' => return Ok(()),
                '\\' => match self.take().ok_or(open)? {
                    c @ ('"' | '\\' | '$' | '`') => marks.push((c, true)),
                    c => marks.extend([('\\', true), (c, true)]),
                },
                c => marks.push((c, true)),
            }
        }
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.line[self.at..].chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }
}

/// Whether `c` stands between words.
pub fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Quotes `text` where a shell would need it, so that the line reads back as `text`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        let special = is_blank(c) || "\\'\"*?[".contains(c) || (at == 0 && "#-".contains(c));
        quoted.extend(special.then_some('\\'));
        quoted.push(c);
    }
    quoted
}

fn text_of(marks: &[Mark]) -> String {
    marks.iter().map(|(c, _)| c).collect()
}

/// `None` if nothing in the word makes a pattern.
fn pattern_of(marks: &[Mark]) -> Option<String> {
    let mut pattern = String::new();
    let mut special = false;
    let mut at = 0;
    while let Some(&(c, quoted)) = marks.get(at) {
        at += 1;
        match c {
            '*' | '?' if !quoted => {
                special = true;
                pattern.push(c);
            }
            '[' if !quoted && let Some(end) = class_end(marks, at) => {
                special = true;
                pattern.push('[');
                pattern.extend(marks[at..end].iter().map(|(c, _)| c));
                at = end;
            }
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    special.then_some(pattern)
}

/// Where the class that begins at `start` (behind its `[`) ends, behind its `]`. A `[` that is never closed, or not
/// before the next `/`, is an ordinary character.
fn class_end(marks: &[Mark], start: usize) -> Option<usize> {
    let negated = matches!(marks.get(start), Some(('!' | '^', false)));
    let first = start + usize::from(negated);
    let closes = |&(c, quoted): &Mark| c == ']' && !quoted;
    let length = marks.get(first + 1..)?.iter().take_while(|(c, _)| *c != '/').position(closes)?;
    (marks[first].0 != '/').then_some(first + 1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        Words::of(line).rest().unwrap().into_iter().map(|word| word.text).collect()
    }

    fn pattern(word: &str) -> Option<String> {
        Words::of(word).next_word().unwrap().unwrap().pattern
    }

    #[test]
    fn words_are_split_as_a_shell_quotes_them() {
        assert_eq!(texts("get \"a b\" 'a b' a\\ b"), ["get", "a b", "a b", "a b"]);
        assert_eq!(texts("  get\t a  "), ["get", "a"]);
        assert_eq!(texts(r#"a"b c"'d e'f"#), ["ab cd ef"]);
        assert_eq!(texts(r#""" '' x"#), ["", "", "x"]);
        assert_eq!(texts(r#""a\"b\\c\$d\e""#), [r#"a"b\c$d\e"#]);
        assert_eq!(texts(r"'a\b'"), [r"a\b"]);
        assert_eq!(texts("$HOME ~ `x` {a,b} ;"), ["$HOME", "~", "`x`", "{a,b}", ";"]);
        assert_eq!(texts("a#b #c"), ["a#b", "#c"]);
        assert_eq!(texts(" \t "), Vec::<String>::new());
        assert_eq!(texts("日本\\ 語"), ["日本 語"]);
    }

    #[test]
    fn what_is_opened_must_be_closed() {
        assert_eq!(Words::of("get 'a").rest(), Err(WordsError::Unterminated('\'')));
        assert_eq!(Words::of("get \"a").rest(), Err(WordsError::Unterminated('"')));
        assert_eq!(Words::of("get \"a\\").rest(), Err(WordsError::Unterminated('"')));
        assert_eq!(Words::of("get a\\").rest(), Err(WordsError::TrailingBackslash));
    }

    #[test]
    fn only_unquoted_specials_make_a_pattern() {
        assert_eq!(pattern("*.pdf").as_deref(), Some("*.pdf"));
        assert_eq!(pattern("a?[bc]").as_deref(), Some("a?[bc]"));
        assert_eq!(pattern("\"*.pdf\""), None);
        assert_eq!(pattern("'a?'"), None);
        assert_eq!(pattern(r"\*"), None);
        assert_eq!(pattern("a{b}"), None);
        assert_eq!(pattern(r"'*'*").as_deref(), Some(r"\**"));
        assert_eq!(pattern("{a}*").as_deref(), Some(r"\{a\}*"));
    }

    #[test]
    fn a_bracket_that_is_not_closed_is_itself() {
        assert_eq!(pattern("a[1"), None);
        assert_eq!(pattern("a["), None);
        assert_eq!(pattern("[]"), None);
        assert_eq!(pattern("[!]"), None);
        assert_eq!(pattern("[a/b]"), None);
        assert_eq!(pattern("[/]"), None);
        assert_eq!(pattern("[]a]").as_deref(), Some("[]a]"));
        assert_eq!(pattern("[!a]x").as_deref(), Some("[!a]x"));
        assert_eq!(pattern("[1*").as_deref(), Some(r"\[1*"));
    }

    #[test]
    fn quoting_reads_back() {
        for name in ["a b", "it's", "a\"b", "*", "[x]", "#a", "-l", "日本", "a\\b", "plain", "x#y-z"] {
            let word = Words::of(&quote(name)).next_word().unwrap().unwrap();
            assert_eq!((word.text.as_str(), word.pattern), (name, None), "{name}");
        }
    }

    #[test]
    fn the_position_is_right_behind_the_word() {
        let mut words = Words::of("auth  hans  secret ");
        words.next_word().unwrap();
        words.next_word().unwrap();
        assert_eq!(&"auth  hans  secret "[words.position()..], "  secret ");
    }
}
