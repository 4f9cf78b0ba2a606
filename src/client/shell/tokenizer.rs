//! Splitting a line into words as a POSIX shell quotes them; nothing is expanded.
//!
//! Remembers what was quoted, so that `*.pdf` is a pattern and `"*.pdf"` is a name. Must not know what a command is.

/// A word of a line, quotes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The text that was meant.
    pub text: String,
    /// The word as a pattern for globset, where an unquoted `*`, `?` or `[...]` makes it one; everything else that is
    /// special to globset is escaped by a backslash.
    pub pattern: Option<String>,
}

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    /// A quote is opened and never closed.
    #[error("a quote is not closed: {0}")]
    Unterminated(char),
    /// A backslash with nothing after it.
    #[error("the line ends in a backslash")]
    TrailingBackslash,
}

/// One character of a word, and whether it was quoted.
type QuotedChar = (char, bool);

/// Takes words off the front of a line, one by one.
#[derive(Debug, Clone)]
pub struct Tokenizer<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Tokenizer<'a> {
    /// Nothing is looked at yet.
    pub fn new(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    /// Where the next character to be looked at stands, bytes from the start of the line. After a word this is right
    /// behind it.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next word, `None` at the end of the line.
    pub fn next_token(&mut self) -> Result<Option<Token>, TokenizeError> {
        Ok(self.next_chars()?.map(|chars| Token { text: text_of(&chars), pattern: pattern_of(&chars) }))
    }

    /// All that are left.
    pub fn collect_tokens(mut self) -> Result<Vec<Token>, TokenizeError> {
        let mut words = Vec::new();
        while let Some(word) = self.next_token()? {
            words.push(word);
        }
        Ok(words)
    }

    fn next_chars(&mut self) -> Result<Option<Vec<QuotedChar>>, TokenizeError> {
        self.skip_blanks();
        let mut chars = Vec::new();
        let mut any = false;
        while let Some(c) = self.peek().filter(|c| !is_blank(*c)) {
            any = true;
            self.at += c.len_utf8();
            match c {
                '\'' => self.single_quoted(&mut chars)?,
                '"' => self.double_quoted(&mut chars)?,
                '\\' => chars.push((self.take().ok_or(TokenizeError::TrailingBackslash)?, true)),
                c => chars.push((c, false)),
            }
        }
        Ok(any.then_some(chars))
    }

    fn single_quoted(&mut self, chars: &mut Vec<QuotedChar>) -> Result<(), TokenizeError> {
        loop {
            match self.take().ok_or(TokenizeError::Unterminated('\''))? {
                '\'' => return Ok(()),
                c => chars.push((c, true)),
            }
        }
    }

    /// Within double quotes a backslash is itself but before `"`, `\`, `$` and a backtick (POSIX 2.2.3).
    fn double_quoted(&mut self, chars: &mut Vec<QuotedChar>) -> Result<(), TokenizeError> {
        let open = TokenizeError::Unterminated('"');
        loop {
            match self.take().ok_or(open)? {
                '"' => return Ok(()),
                '\\' => match self.take().ok_or(open)? {
                    c @ ('"' | '\\' | '$' | '`') => chars.push((c, true)),
                    c => chars.extend([('\\', true), (c, true)]),
                },
                c => chars.push((c, true)),
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

fn text_of(chars: &[QuotedChar]) -> String {
    chars.iter().map(|(c, _)| c).collect()
}

/// `None` if nothing in the word makes a pattern.
fn pattern_of(chars: &[QuotedChar]) -> Option<String> {
    let mut pattern = String::new();
    let mut special = false;
    let mut at = 0;
    while let Some(&(c, quoted)) = chars.get(at) {
        at += 1;
        match c {
            '*' | '?' if !quoted => {
                special = true;
                pattern.push(c);
            }
            '[' if !quoted && let Some(end) = class_end(chars, at) => {
                special = true;
                pattern.push('[');
                pattern.extend(chars[at..end].iter().map(|(c, _)| c));
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
fn class_end(chars: &[QuotedChar], start: usize) -> Option<usize> {
    let negated = matches!(chars.get(start), Some(('!' | '^', false)));
    let first = start + usize::from(negated);
    let closes = |&(c, quoted): &QuotedChar| c == ']' && !quoted;
    let length = chars.get(first + 1..)?.iter().take_while(|(c, _)| *c != '/').position(closes)?;
    (chars[first].0 != '/').then_some(first + 1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        Tokenizer::new(line).collect_tokens().unwrap().into_iter().map(|word| word.text).collect()
    }

    fn pattern(word: &str) -> Option<String> {
        Tokenizer::new(word).next_token().unwrap().unwrap().pattern
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
        assert_eq!(Tokenizer::new("get 'a").collect_tokens(), Err(TokenizeError::Unterminated('\'')));
        assert_eq!(Tokenizer::new("get \"a").collect_tokens(), Err(TokenizeError::Unterminated('"')));
        assert_eq!(Tokenizer::new("get \"a\\").collect_tokens(), Err(TokenizeError::Unterminated('"')));
        assert_eq!(Tokenizer::new("get a\\").collect_tokens(), Err(TokenizeError::TrailingBackslash));
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
            let word = Tokenizer::new(&quote(name)).next_token().unwrap().unwrap();
            assert_eq!((word.text.as_str(), word.pattern), (name, None), "{name}");
        }
    }

    #[test]
    fn the_position_is_right_behind_the_word() {
        let mut words = Tokenizer::new("auth  hans  secret ");
        words.next_token().unwrap();
        words.next_token().unwrap();
        assert_eq!(&"auth  hans  secret "[words.position()..], "  secret ");
    }
}
