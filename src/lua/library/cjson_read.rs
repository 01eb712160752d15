//! `cjson.decode`: Lua values from JSON, in a single pass.

use super::super::machine::shared;
use super::super::stack::{Raise, Stack};

/// Arrays and objects within one another that the reader follows at most.
const MAX_DEPTH: i32 = 2000;

/// `cjson.decode(text)`
pub(super) fn decode(stack: &mut Stack) -> Result<usize, Raise> {
    if stack.len() != 1 {
        return Err(Stack::bad_argument(1, "decode", "expected 1 argument"));
    }
    let text = stack.check_text(1, "decode")?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err("JSON parser does not support UTF-16 or UTF-32".into());
    }
    let json = shared(stack).json;
    let mut reader = Reader {
        text: &text,
        at: 0,
        depth: 0,
        max_depth: json.decode_depth.min(MAX_DEPTH),
        allows_invalid: json.decode_invalid == 1,
    };
    let token = reader.token();
    reader.value(stack, token)?;
    match reader.token() {
        (Token::End, _) => Ok(1),
        token => Err(reader.unexpected("the end", &token)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::String(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Error(what) => what,
        }
    }
}

type Placed = (Token, usize);

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: i32,
    max_depth: i32,
    allows_invalid: bool,
}

impl Reader<'_> {
    fn unexpected(&self, expected: &str, (token, place): &Placed) -> Raise {
        format!("Expected {expected} but found {} at character {}", token.name(), place + 1).into()
    }

    /// Pushes the value that begins with a token.
    fn value(&mut self, stack: &mut Stack, token: Placed) -> Result<(), Raise> {
        match token.0 {
            Token::String(bytes) => stack.push_bytes(&bytes),
            Token::Number(number) => stack.push_number(number),
            Token::Boolean(value) => stack.push_boolean(value),
            Token::Null => stack.push_null(),
            Token::ObjectBegin => return self.object(stack),
            Token::ArrayBegin => return self.array(stack),
            _ => return Err(self.unexpected("value", &token)),
        }
        Ok(())
    }

    fn descend(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.depth += 1;
        if self.depth <= self.max_depth && stack.has_room(4) {
            return Ok(());
        }
        let (depth, place) = (self.depth, self.at);
        Err(format!("Found too many nested data structures ({depth}) at character {place}").into())
    }

    fn object(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.descend(stack)?;
        stack.push_table(0, 0);
        let mut token = self.token();
        if matches!(token.0, Token::ObjectEnd) {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let Token::String(key) = &token.0 else {
                return Err(self.unexpected("object key string", &token));
            };
            stack.push_bytes(key);
            let colon = self.token();
            if !matches!(colon.0, Token::Colon) {
                return Err(self.unexpected("colon", &colon));
            }
            let value = self.token();
            self.value(stack, value)?;
            stack.set_entry(-3);
            let end = self.token();
            match end.0 {
                Token::ObjectEnd => break,
                Token::Comma => token = self.token(),
                _ => return Err(self.unexpected("comma or object end", &end)),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn array(&mut self, stack: &mut Stack) -> Result<(), Raise> {
        self.descend(stack)?;
        stack.push_table(0, 0);
        let mut token = self.token();
        if matches!(token.0, Token::ArrayEnd) {
            self.depth -= 1;
            return Ok(());
        }
        for index in 1.. {
            self.value(stack, token)?;
            stack.set_element(-2, index);
            let end = self.token();
            match end.0 {
                Token::ArrayEnd => break,
                Token::Comma => token = self.token(),
                _ => return Err(self.unexpected("comma or array end", &end)),
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn token(&mut self) -> Placed {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let place = self.at;
        let Some(&byte) = self.text.get(place) else { return (Token::End, place) };
        self.at += 1;
        let token = match byte {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(place),
            b'-' | b'+' | b'0'..=b'9' | b'i' | b'I' | b'n' | b'N' | b't' | b'f' => {
                self.at = place;
                self.word()
            }
            _ => Token::Error("invalid token"),
        };
        (token, place)
    }

    fn word(&mut self) -> Token {
        for (word, token) in
            [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)]
        {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return token;
            }
        }
        let rest = &self.text[self.at..];
        let first = rest[0];
        if matches!(first, b't' | b'f' | b'+') || first == b'n' && !starts_with(rest, "nan") {
            return Token::Error("invalid token");
        }
        self.number()
    }

    fn number(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let (sign, digits) = match rest.strip_prefix(b"-") {
            Some(digits) => (-1.0, digits),
            None => (1.0, rest),
        };
        let skipped = rest.len() - digits.len();
        for (word, value) in [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)] {
            if starts_with(digits, word) {
                return self.invalid_number(skipped + word.len(), sign * value);
            }
        }
        if starts_with(digits, "0x") {
            let len = digits[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let text = String::from_utf8_lossy(&digits[2..2 + len]).into_owned();
            return match u64::from_str_radix(&text, 16) {
                Ok(value) => self.invalid_number(skipped + 2 + len, sign * value as f64),
                Err(_) => Token::Error("invalid number"),
            };
        }
        let has_leading_zero = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
        let len = number_len(digits);
        let text = std::str::from_utf8(&rest[..skipped + len]).unwrap_or_default();
        match text.parse() {
            Ok(value) if has_leading_zero => self.invalid_number(skipped + len, value),
            Ok(value) => {
                self.at += skipped + len;
                Token::Number(value)
            }
            Err(_) => Token::Error("invalid number"),
        }
    }

    /// A number that JSON does not know.
    fn invalid_number(&mut self, len: usize, value: f64) -> Token {
        if !self.allows_invalid {
            return Token::Error("invalid number");
        }
        self.at += len;
        Token::Number(value)
    }

    fn string(&mut self, place: usize) -> Placed {
        let mut bytes = Vec::new();
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return (Token::Error("unexpected end of string"), self.at);
            };
            self.at += 1;
            match byte {
                b'"' => return (Token::String(bytes), place),
                b'\\' => {
                    let escaped = self.text.get(self.at).copied();
                    self.at += 1;
                    let decoded = match escaped {
                        Some(byte @ (b'"' | b'\\' | b'/')) => byte,
                        Some(b'b') => 8,
                        Some(b't') => b'\t',
                        Some(b'n') => b'\n',
                        Some(b'f') => 12,
                        Some(b'r') => b'\r',
                        Some(b'u') => match self.unicode() {
                            Some(letter) => {
                                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                                continue;
                            }
                            None => return (Token::Error("invalid unicode escape code"), self.at - 2),
                        },
                        _ => return (Token::Error("invalid escape code"), self.at - 2),
                    };
                    bytes.push(decoded);
                }
                _ => bytes.push(byte),
            }
        }
    }

    /// Four digits behind `\u`, and four more if they are the first half of a pair.
    fn unicode(&mut self) -> Option<char> {
        let digits = |at: usize| {
            let text = std::str::from_utf8(self.text.get(at..at + 4)?).ok()?;
            text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(text, 16).ok())?
        };
        let first = digits(self.at)?;
        if (first & 0xF800) != 0xD800 {
            self.at += 4;
            return char::from_u32(first);
        }
        if first & 0x400 != 0 || self.text.get(self.at + 4..self.at + 6) != Some(b"\\u") {
            return None;
        }
        let second = digits(self.at + 6).filter(|second| second & 0xFC00 == 0xDC00)?;
        self.at += 10;
        char::from_u32((((first & 0x3FF) << 10) | (second & 0x3FF)) + 0x10000)
    }
}

/// How many bytes read as a decimal number.
fn number_len(text: &[u8]) -> usize {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut len = digits(0);
    if text.get(len) == Some(&b'.') {
        len += 1 + digits(len + 1);
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'+' | b'-')));
        let exponent = text.get(len + 1 + sign..).map_or(0, |_| digits(len + 1 + sign));
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}

fn starts_with(text: &[u8], word: &str) -> bool {
    text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word.as_bytes())
}
