//! Characters to tokens, on demand: what `[[` and `.5` mean depends on where they stand, and the parser knows.

use crate::diagnose::Problem;

/// Characters that the names of queryable properties do not have (protocol notes: routing §3.4); white space besides.
const UNQUERYABLE: &str = "()<>@,;:\\\"/?={}";

/// What an author is told about such a name.
pub(crate) const UNQUERYABLE_MESSAGE: &str =
    "names with white space or one of ( ) < > @ , ; : \\ \" / ? = { } cannot be queried";

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    End,
    /// A name or keyword.
    Word(&'a str),
    /// `$` and a name; the name without `$`.
    Dollar(&'a str),
    Number(f64),
    Text(String),
    Symbol(Symbol),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symbol {
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    Comma,
    Dot,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Reads tokens from `at` on.
#[derive(Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

type Scan<T> = Result<T, Box<Problem>>;

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The offset of the next character.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// Moves over the given text if it comes next.
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn eat_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    fn next_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves over white space and comments.
    pub(crate) fn skip_blank(&mut self) -> Scan<()> {
        loop {
            self.eat_while(char::is_whitespace);
            let start = self.at;
            if !self.eat("/*") {
                return Ok(());
            }
            match self.rest().find("*/") {
                Some(end) => self.at += end + 2,
                None => {
                    return Err(Problem::new(start, self.text.len(), "this comment has no end")
                        .expected("`*/`")
                        .into());
                }
            }
        }
    }

    /// The next token and the offset of its first character. [`Self::at`] is then its end.
    pub(crate) fn token(&mut self) -> Scan<(Token<'a>, usize)> {
        self.skip_blank()?;
        let start = self.at;
        let Some(c) = self.next_char() else { return Ok((Token::End, start)) };
        let token = match c {
            '\'' | '"' => Token::Text(self.string(c)?),
            '$' => {
                self.at += 1;
                Token::Dollar(self.dollar_name())
            }
            _ if starts_name(c) => Token::Word(self.eat_while(continues_name)),
            _ if c.is_ascii_digit() || (c == '.' && self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit)) => {
                Token::Number(self.number()?)
            }
            _ => Token::Symbol(self.symbol(c)?),
        };
        Ok((token, start))
    }

    /// The text of an escaped name after `[[`, and the closing `]]`. `start` is where the brackets opened.
    pub(crate) fn escaped(&mut self, start: usize) -> Scan<&'a str> {
        let Some((name, _)) = self.rest().split_once("]]") else {
            let message = "this escaped name has no end";
            return Err(Problem::new(start, self.text.len(), message).expected("`]]`").into());
        };
        let name_start = self.at;
        self.at += name.len() + 2;
        if name.is_empty() {
            return Err(Problem::new(start, self.at, "an escaped name must not be empty").into());
        }
        let unqueryable = |c: char| c.is_whitespace() || c.is_control() || UNQUERYABLE.contains(c);
        match name.char_indices().find(|&(_, c)| unqueryable(c)) {
            None => Ok(name),
            Some((offset, c)) => {
                let at = name_start + offset;
                Err(Problem::new(at, at + c.len_utf8(), UNQUERYABLE_MESSAGE).into())
            }
        }
    }

    /// The name of a step after `.`
    pub(crate) fn segment(&mut self) -> Scan<&'a str> {
        let start = self.at;
        if self.eat("[[") {
            return self.escaped(start);
        }
        match self.next_char() {
            Some(c) if c == '$' || starts_name(c) => Ok(self.eat_while(continues_name)),
            Some(c) if c.is_ascii_digit() => {
                let name = self.eat_while(continues_name);
                let problem = Problem::new(start, self.at, "a name that starts with a digit must be escaped")
                    .expected("a name, or `[n]` for an element of an array")
                    .suggestion(format!("[[{name}]]"));
                Err(problem.into())
            }
            other => {
                let end = start + other.map_or(0, char::len_utf8);
                let after = "a path goes on with a name after `.`";
                let message = match other {
                    Some(c) if UNQUERYABLE.contains(c) => format!("{after}; {UNQUERYABLE_MESSAGE}"),
                    _ => after.to_owned(),
                };
                Err(Problem::new(start, end, message).expected("a name or `[[name]]`").into())
            }
        }
    }

    /// A name after `$`. Two system properties have a hyphen, which is otherwise an operator.
    fn dollar_name(&mut self) -> &'a str {
        let rest = self.rest();
        for hyphenated in ["dt-dataschema", "dt-subject"] {
            let (Some(head), Some(tail)) = (rest.get(..hyphenated.len()), rest.get(hyphenated.len()..)) else {
                continue;
            };
            if head.eq_ignore_ascii_case(hyphenated) && !tail.starts_with(continues_name) {
                self.at += head.len();
                return head;
            }
        }
        self.eat_while(continues_name)
    }

    fn string(&mut self, quote: char) -> Scan<String> {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        while let Some(c) = self.next_char() {
            let at = self.at;
            self.at += c.len_utf8();
            if c == '\\' {
                value.push(self.escape(at)?);
            } else if c != quote {
                value.push(c);
            } else if self.next_char() == Some(quote) {
                // A doubled quote stands for one.
                self.at += 1;
                value.push(quote);
            } else {
                return Ok(value);
            }
        }
        Err(Problem::new(start, self.text.len(), "this string has no end").expected(format!("`{quote}`")).into())
    }

    /// The character that an escape stands for, after the backslash at `start`.
    fn escape(&mut self, start: usize) -> Scan<char> {
        const EXPECTED: &str = "\\', \\\", \\\\ or \\uXXXX";
        let c = self.next_char();
        self.at += c.map_or(0, char::len_utf8);
        match c {
            Some(c @ ('\'' | '"' | '\\')) => return Ok(c),
            Some('u') => {}
            Some(c) => {
                let problem =
                    Problem::new(start, self.at, format!("`\\{c}` is not an escape; a backslash is written \\\\"))
                        .expected(EXPECTED)
                        .suggestion(format!("\\\\{c}"));
                return Err(problem.into());
            }
            None => return Err(Problem::new(start, self.at, "this string has no end").expected(EXPECTED).into()),
        }
        let high = self.hex4(start)?;
        let code = if (0xD800..0xDC00).contains(&high) && self.eat("\\u") {
            let low = self.hex4(start)?;
            if (0xDC00..0xE000).contains(&low) { 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00) } else { high }
        } else {
            high
        };
        char::from_u32(code)
            .ok_or_else(|| Problem::new(start, self.at, "half of a surrogate pair is not a character").into())
    }

    fn hex4(&mut self, start: usize) -> Scan<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => {
                let message = "\\u is followed by four hexadecimal digits";
                Err(Problem::new(start, self.at, message).expected("\\uXXXX").into())
            }
        }
    }

    fn number(&mut self) -> Scan<f64> {
        let start = self.at;
        let value = if self.eat("0x") || self.eat("0X") {
            let digits = self.eat_while(|c| c.is_ascii_hexdigit());
            // Like every other number, a hexadecimal one is the nearest double.
            #[allow(clippy::cast_precision_loss, reason = "numbers are doubles")]
            u64::from_str_radix(digits, 16).ok().map(|value| value as f64)
        } else {
            self.eat_while(|c| c.is_ascii_digit());
            // A dot without a digit after it is not part of the number.
            if self.rest().strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
                self.at += 1;
                self.eat_while(|c| c.is_ascii_digit());
            }
            let exponent =
                self.rest().strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
            if exponent.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
                self.at += 1;
                if !self.eat("+") {
                    self.eat("-");
                }
                self.eat_while(|c| c.is_ascii_digit());
            }
            self.text.get(start..self.at).and_then(|digits| digits.parse().ok()).filter(|value: &f64| value.is_finite())
        };
        if self.next_char().is_some_and(continues_name) {
            self.eat_while(continues_name);
            let written = self.text.get(start..self.at).unwrap_or("");
            let problem = Problem::new(start, self.at, format!("`{written}` is neither a number nor a name"))
                .expected("a number, a string in quotes or an escaped name [[…]]")
                .suggestion(format!("'{written}'"));
            return Err(problem.into());
        }
        value.ok_or_else(|| {
            let message = "the number is malformed or beyond the range of a double";
            Problem::new(start, self.at, message).into()
        })
    }

    fn symbol(&mut self, first: char) -> Scan<Symbol> {
        let start = self.at;
        // Operators of other languages that authors write by habit.
        for (foreign, ours) in [("==", "="), ("&&", "AND"), ("||", "OR"), ("=<", "<="), ("=>", ">=")] {
            if self.eat(foreign) {
                let message = format!("`{foreign}` is not an operator of this language; write `{ours}`");
                return Err(Problem::new(start, self.at, message)
                    .expected(format!("`{ours}`"))
                    .suggestion(ours)
                    .into());
            }
        }
        let symbols = [
            ("!=", Symbol::NotEqual),
            ("<>", Symbol::NotEqual),
            ("<=", Symbol::LessOrEqual),
            (">=", Symbol::GreaterOrEqual),
            ("<", Symbol::Less),
            (">", Symbol::Greater),
            ("=", Symbol::Equal),
            ("(", Symbol::Open),
            (")", Symbol::Close),
            ("[", Symbol::OpenBracket),
            ("]", Symbol::CloseBracket),
            (",", Symbol::Comma),
            (".", Symbol::Dot),
            ("+", Symbol::Plus),
            ("-", Symbol::Minus),
            ("*", Symbol::Star),
            ("/", Symbol::Slash),
            ("%", Symbol::Percent),
        ];
        if let Some((_, symbol)) = symbols.into_iter().find(|(text, _)| self.eat(text)) {
            return Ok(symbol);
        }
        self.at += first.len_utf8();
        let problem = match first {
            '!' => {
                Problem::new(start, self.at, "`!` is not an operator of this language; write `NOT`").suggestion("NOT ")
            }
            '\u{2018}' | '\u{2019}' | '\u{201C}' | '\u{201D}' => {
                Problem::new(start, self.at, "a string is written in straight quotes").suggestion("'")
            }
            ';' if self.rest().trim().is_empty() => {
                Problem::new(start, self.at, "a condition does not end with `;`").suggestion("")
            }
            c if UNQUERYABLE.contains(c) => {
                Problem::new(start, self.at, format!("`{c}` has no meaning here; {UNQUERYABLE_MESSAGE}"))
            }
            c => Problem::new(start, self.at, format!("`{}` has no meaning in a condition", c.escape_debug())),
        };
        Err(problem.into())
    }
}

pub(crate) fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, Box<Problem>> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            match lexer.token()?.0 {
                Token::End => return Ok(tokens),
                token => tokens.push(token),
            }
        }
    }

    fn one(text: &str) -> Token<'_> {
        let mut all = tokens(text).unwrap();
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0)
    }

    #[test]
    fn strings_have_both_quotes_escapes_and_doubling() {
        for (text, value) in [
            ("'a'", "a"),
            ("\"a\"", "a"),
            ("''", ""),
            ("'operator''sDevice'", "operator'sDevice"),
            ("''''", "'"),
            (r#""say ""hi"", 'you'""#, "say \"hi\", 'you'"),
            (r#"'\' \" \\ \u00e9 \uD83D\uDE00'"#, "' \" \\ é 😀"),
            ("'é/*no comment*/'", "é/*no comment*/"),
        ] {
            assert_eq!(one(text), Token::Text(value.into()), "{text}");
        }
        for text in ["'", "'a", "\"a'", "'\\", r"'\n'", r"'\u12'", r"'\uD83D'", r"'\uDE00'", r"'\uD83Dx'", r"'\uD83DA'"]
        {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (text, value) in [
            ("0", 0.0),
            ("42", 42.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("1.5E-2", 0.015),
            ("0xFf", 255.0),
            ("0X10", 16.0),
            ("0xFFFFFFFFFFFFFFFF", 18_446_744_073_709_551_615.0),
        ] {
            assert_eq!(one(text), Token::Number(value), "{text}");
        }
        for text in ["0x", "0xG", "1e999", "12ab", "1e", "0x10000000000000000", "1_000"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_blanks_and_symbols() {
        assert_eq!(
            tokens("a/* , */<>$dt-subject - $dt-sub\n\t_b9$").unwrap(),
            [
                Token::Word("a"),
                Token::Symbol(Symbol::NotEqual),
                Token::Dollar("dt-subject"),
                Token::Symbol(Symbol::Minus),
                Token::Dollar("dt"),
                Token::Symbol(Symbol::Minus),
                Token::Word("sub"),
                Token::Word("_b9$"),
            ]
        );
        assert!(tokens("a /* b").is_err());
        for (text, suggestion) in [("a == 1", "="), ("a && b", "AND"), ("a || b", "OR"), ("!a", "NOT "), ("a;", "")] {
            assert_eq!(tokens(text).unwrap_err().suggestion.as_deref(), Some(suggestion), "{text}");
        }
    }
}
