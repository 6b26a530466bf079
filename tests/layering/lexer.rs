//! Just enough of Rust's lexical structure to see names in code and not in comments, strings or characters.

/// A name or one punctuation character, with its line. Literals are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) line: usize,
    pub(crate) text: String,
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < chars.len() {
        lexer.next();
    }
    lexer.tokens
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip(&mut self, count: usize) {
        let end = (self.at + count).min(self.chars.len());
        self.line += self.chars[self.at..end].iter().filter(|&&c| c == '\n').count();
        self.at = end;
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.at < self.chars.len() && wanted(self.peek(0)) {
            self.skip(1);
        }
    }

    fn next(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.skip_while(|c| c != '\n'),
            ('/', '*') => self.skip_block_comment(),
            ('"', _) => self.skip_string(),
            ('\'', _) => self.skip_character_or_lifetime(),
            (c, _) if starts_name(c) => self.name(),
            (c, _) if c.is_ascii_digit() => self.skip_while(continues_name),
            (c, _) => {
                if !c.is_whitespace() {
                    self.tokens.push(Token { line: self.line, text: c.to_string() });
                }
                self.skip(1);
            }
        }
    }

    fn name(&mut self) {
        let start = self.at;
        let line = self.line;
        self.skip_while(continues_name);
        let text: String = self.chars[start..self.at].iter().collect();
        let is_raw = matches!(text.as_str(), "r" | "br" | "cr");
        match self.peek(0) {
            '"' if is_raw => self.skip_raw_string(0),
            '"' if matches!(text.as_str(), "b" | "c") => self.skip_string(),
            '\'' if text == "b" => self.skip_character_or_lifetime(),
            '#' if is_raw => {
                let hashes = self.chars[self.at..].iter().take_while(|&&c| c == '#').count();
                self.skip(hashes);
                if self.peek(0) == '"' {
                    self.skip_raw_string(hashes);
                } else {
                    // A raw identifier.
                    self.name();
                }
            }
            _ => self.tokens.push(Token { line, text }),
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.skip(2);
                }
                ('*', '/') => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.skip(1),
            }
        }
    }

    fn skip_string(&mut self) {
        self.skip(1);
        while self.at < self.chars.len() {
            match self.peek(0) {
                '\\' => self.skip(2),
                '"' => return self.skip(1),
                _ => self.skip(1),
            }
        }
    }

    fn skip_raw_string(&mut self, hashes: usize) {
        self.skip(1);
        while self.at < self.chars.len() {
            if self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#') {
                return self.skip(1 + hashes);
            }
            self.skip(1);
        }
    }

    fn skip_character_or_lifetime(&mut self) {
        if self.peek(1) == '\\' {
            self.skip(3);
            self.skip_while(|c| c != '\'');
            self.skip(1);
        } else if self.peek(2) == '\'' {
            self.skip(3);
        } else {
            self.skip(1);
            self.skip_while(continues_name);
        }
    }
}
