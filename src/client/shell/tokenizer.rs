//! Splits a line into tokens as a POSIX shell quotes words. Expands nothing.
//!
//! Remembers what was quoted: `*.pdf` is a pattern, `"*.pdf"` a name. Must not know what a command is.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Without quotes.
    pub text: String,
    /// Present if an unquoted `*`, `?` or `[...]` makes the word a pattern. All other characters that are
    /// special in a pattern are escaped with a backslash.
    pub pattern: Option<String>,
}

/// Why a line cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenizeError {
    #[error("a quote is not closed: {0}")]
    Unterminated(char),
    #[error("the line ends in a backslash")]
    TrailingBackslash,
}

/// One character of a token.
#[derive(Debug, Clone, Copy)]
struct QuotedChar {
    c: char,
    is_quoted: bool,
}

impl QuotedChar {
    fn quoted(c: char) -> Self {
        Self { c, is_quoted: true }
    }

    fn unquoted(c: char) -> Self {
        Self { c, is_quoted: false }
    }
}

/// Yields the tokens of a line one by one.
#[derive(Debug, Clone)]
pub struct Tokenizer<'a> {
    line: &'a str,
    at: usize,
}

impl<'a> Tokenizer<'a> {
    /// Starts at the beginning of `line`.
    pub fn new(line: &'a str) -> Self {
        Self { line, at: 0 }
    }

    /// Offset of the next character, bytes from the start of the line: the end of the token returned last.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next token; `None` at the end of the line.
    pub fn next_token(&mut self) -> Result<Option<Token>, TokenizeError> {
        Ok(self.next_chars()?.map(|chars| Token { text: text_of(&chars), pattern: pattern_of(&chars) }))
    }

    /// All remaining tokens.
    pub fn collect_tokens(mut self) -> Result<Vec<Token>, TokenizeError> {
        let mut tokens = Vec::new();
        while let Some(token) = self.next_token()? {
            tokens.push(token);
        }
        Ok(tokens)
    }

    fn next_chars(&mut self) -> Result<Option<Vec<QuotedChar>>, TokenizeError> {
        self.skip_blanks();
        let mut chars = Vec::new();
        let mut is_token = false;
        while let Some(c) = self.peek().filter(|c| !is_blank(*c)) {
            is_token = true;
            self.at += c.len_utf8();
            match c {
                '\'' => self.single_quoted(&mut chars)?,
                '"' => self.double_quoted(&mut chars)?,
                '\\' => chars.push(QuotedChar::quoted(self.take().ok_or(TokenizeError::TrailingBackslash)?)),
                c => chars.push(QuotedChar::unquoted(c)),
            }
        }
        Ok(is_token.then_some(chars))
    }

    fn single_quoted(&mut self, chars: &mut Vec<QuotedChar>) -> Result<(), TokenizeError> {
        loop {
            match self.take().ok_or(TokenizeError::Unterminated('\''))? {
                '\'' => return Ok(()),
                c => chars.push(QuotedChar::quoted(c)),
            }
        }
    }

    /// Within double quotes a backslash is an ordinary character except before `"`, `\`, `$` and a backtick (POSIX 2.2.3).
    fn double_quoted(&mut self, chars: &mut Vec<QuotedChar>) -> Result<(), TokenizeError> {
        let open = TokenizeError::Unterminated('"');
        loop {
            match self.take().ok_or(open)? {
                '"' => return Ok(()),
                '\\' => match self.take().ok_or(open)? {
                    c @ ('"' | '\\' | '$' | '`') => chars.push(QuotedChar::quoted(c)),
                    c => chars.extend(['\\', c].map(QuotedChar::quoted)),
                },
                c => chars.push(QuotedChar::quoted(c)),
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

/// Whether `c` separates words.
pub fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Quotes `text` so that the tokenizer reads it back as one token with this text.
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
    chars.iter().map(|char| char.c).collect()
}

/// `None` if no character makes it a pattern.
fn pattern_of(chars: &[QuotedChar]) -> Option<String> {
    let mut pattern = String::new();
    let mut is_pattern = false;
    let mut at = 0;
    while let Some(&QuotedChar { c, is_quoted }) = chars.get(at) {
        at += 1;
        match c {
            '*' | '?' if !is_quoted => {
                is_pattern = true;
                pattern.push(c);
            }
            '[' if !is_quoted && let Some(end) = class_end(chars, at) => {
                is_pattern = true;
                pattern.push('[');
                for &QuotedChar { c, is_quoted } in &chars[at..end] {
                    pattern.extend(is_quoted.then_some('\\'));
                    pattern.push(c);
                }
                at = end;
            }
            '*' | '?' | '[' | '\\' => pattern.extend(['\\', c]),
            c => pattern.push(c),
        }
    }
    is_pattern.then_some(pattern)
}

/// The index after the `]` of the class whose `[` is before `start`. `None` if the `[` is an ordinary character because it
/// is not closed before the next `/`.
fn class_end(chars: &[QuotedChar], start: usize) -> Option<usize> {
    let negated = matches!(chars.get(start), Some(QuotedChar { c: '!' | '^', is_quoted: false }));
    let first = start + usize::from(negated);
    let closes = |char: &QuotedChar| char.c == ']' && !char.is_quoted;
    let length = chars.get(first + 1..)?.iter().take_while(|char| char.c != '/').position(closes)?;
    (chars[first].c != '/').then_some(first + 1 + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        Tokenizer::new(line).collect_tokens().unwrap().into_iter().map(|token| token.text).collect()
    }

    fn pattern(word: &str) -> Option<String> {
        Tokenizer::new(word).next_token().unwrap().unwrap().pattern
    }

    #[test]
    fn tokens_are_split_as_a_shell_quotes_words() {
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
    fn unclosed_quotes_are_errors() {
        assert_eq!(Tokenizer::new("get 'a").collect_tokens(), Err(TokenizeError::Unterminated('\'')));
        assert_eq!(Tokenizer::new("get \"a").collect_tokens(), Err(TokenizeError::Unterminated('"')));
        assert_eq!(Tokenizer::new("get \"a\\").collect_tokens(), Err(TokenizeError::Unterminated('"')));
        assert_eq!(Tokenizer::new("get a\\").collect_tokens(), Err(TokenizeError::TrailingBackslash));
    }

    #[test]
    fn only_unquoted_special_characters_make_a_pattern() {
        assert_eq!(pattern("*.pdf").as_deref(), Some("*.pdf"));
        assert_eq!(pattern("a?[bc]").as_deref(), Some("a?[bc]"));
        assert_eq!(pattern("\"*.pdf\""), None);
        assert_eq!(pattern("'a?'"), None);
        assert_eq!(pattern(r"\*"), None);
        assert_eq!(pattern("a{b}"), None);
        assert_eq!(pattern(r"'*'*").as_deref(), Some(r"\**"));
        assert_eq!(pattern("{a}*").as_deref(), Some("{a}*"));
        assert_eq!(pattern(r"[a\]'-'b]").as_deref(), Some(r"[a\]\-b]"));
    }

    #[test]
    fn an_unclosed_bracket_is_an_ordinary_character() {
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
    fn quoted_text_reads_back() {
        for name in ["a b", "it's", "a\"b", "*", "[x]", "#a", "-l", "日本", "a\\b", "plain", "x#y-z"] {
            let token = Tokenizer::new(&quote(name)).next_token().unwrap().unwrap();
            assert_eq!((token.text.as_str(), token.pattern), (name, None), "{name}");
        }
    }

    #[test]
    fn the_position_is_the_end_of_the_token() {
        let mut tokens = Tokenizer::new("auth  hans  secret ");
        tokens.next_token().unwrap();
        tokens.next_token().unwrap();
        assert_eq!(&"auth  hans  secret "[tokens.position()..], "  secret ");
    }
}
