//! The request parser under random bytes in random pieces, against a slow model of it.
//!
//! `FUZZ_SEED` and `FUZZ_COUNT` make the test against the model another, or a longer one.

use anteroom::protocol::{Limits, RequestParser, Span};
use fastrand::Rng;
use proptest::prelude::*;

/// Inputs of the generator-based test.
const INPUTS: u64 = 1_000_000;

/// What a stream of bytes means: the requests in it, and the error that ends it, if one does.
#[derive(Debug, PartialEq, Eq, Default)]
struct Meaning {
    requests: Vec<Vec<Vec<u8>>>,
    error: Option<String>,
}

/// Gives the bytes to the parser in these pieces, as a connection does.
fn parse(pieces: &[&[u8]], limits: Limits, rng: &mut Rng) -> Meaning {
    let mut meaning = Meaning::default();
    let (mut parser, mut buffer, mut start) = (RequestParser::default(), Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut spans: Vec<Span> = Vec::new();
        loop {
            let first = spans.len();
            match parser.parse(&mut buffer, start, limits, &mut spans) {
                Ok(None) => {
                    assert_eq!(first, spans.len(), "an incomplete request leaves no arguments");
                    break;
                }
                Ok(Some(end)) => {
                    assert!(end > start && end <= buffer.len());
                    start = end;
                    let bytes = |span: &Span| buffer[span.start as usize..][..span.len as usize].to_vec();
                    meaning.requests.push(spans[first..].iter().map(bytes).collect());
                }
                Err(error) => {
                    meaning.error = Some(error.to_string());
                    return meaning;
                }
            }
        }
        // What is done with is dropped now or later: an incomplete request must survive being moved.
        if rng.bool() {
            buffer.drain(..start);
            start = 0;
        }
    }
    meaning
}

/// The same, from Redis's rules, byte by byte and from the beginning.
fn model(mut input: &[u8], limits: Limits) -> Meaning {
    let mut meaning = Meaning::default();
    loop {
        let request = match input.first() {
            None => return meaning,
            Some(b'*') => model_array(&mut input, limits),
            Some(_) => model_inline(&mut input),
        };
        match request {
            Ok(Some(request)) => meaning.requests.push(request),
            Ok(None) => return meaning,
            Err(error) => {
                meaning.error = Some(error);
                return meaning;
            }
        }
    }
}

type Modelled = Result<Option<Vec<Vec<u8>>>, String>;

fn model_array(input: &mut &[u8], limits: Limits) -> Modelled {
    let mut rest = *input;
    let Some(count) = model_line(&mut rest) else { return Ok(None) };
    let count = match model_number(&count[1..]) {
        Some(count) if count <= i64::from(i32::MAX) => count,
        _ => return Err("invalid multibulk length".to_owned()),
    };
    if count > 10 && !limits.authenticated {
        return Err("unauthenticated multibulk length".to_owned());
    }
    let mut request = Vec::new();
    for _ in 0..count.max(0) {
        let Some(header) = model_line(&mut rest) else { return Ok(None) };
        if header.first() != Some(&b'$') {
            let got = header.first().copied().unwrap_or(b'\r');
            return Err(format!("expected '$', got '{}'", char::from(got)));
        }
        let len = match model_number(&header[1..]) {
            Some(len) if len >= 0 && len <= limits.max_bulk => len as usize,
            _ => return Err("invalid bulk length".to_owned()),
        };
        if len > 16384 && !limits.authenticated {
            return Err("unauthenticated bulk length".to_owned());
        }
        if rest.len() < len + 2 {
            return Ok(None);
        }
        request.push(rest[..len].to_vec());
        rest = &rest[len + 2..];
    }
    *input = rest;
    Ok(Some(request))
}

/// A line ends with a carriage return and any byte behind it.
fn model_line(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let line: Vec<u8> = rest.iter().copied().take_while(|byte| *byte != b'\r').collect();
    if rest.len() < line.len() + 2 {
        return None;
    }
    *rest = &rest[line.len() + 2..];
    Some(line)
}

/// Only the form that the number would be printed in counts.
fn model_number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

fn model_inline(input: &mut &[u8]) -> Modelled {
    let line: Vec<u8> = input.iter().copied().take_while(|byte| *byte != b'\n').collect();
    if line.len() == input.len() {
        return Ok(None);
    }
    *input = &input[line.len() + 1..];
    let line = line.strip_suffix(b"\r").unwrap_or(&line);
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let unbalanced = || "unbalanced quotes in request".to_owned();
    let space = |byte: u8| byte == b' ' || (9..=13).contains(&byte);
    let (mut words, mut at) = (Vec::new(), 0);
    while at < line.len() {
        if space(line[at]) {
            at += 1;
            continue;
        }
        let mut word = Vec::new();
        while at < line.len() && !matches!(line[at], b' ' | b'\n' | b'\r' | b'\t') {
            let quote = line[at];
            at += 1;
            if !matches!(quote, b'"' | b'\'') {
                word.push(quote);
                continue;
            }
            loop {
                let byte = *line.get(at).ok_or_else(unbalanced)?;
                at += 1;
                if byte == quote {
                    break;
                }
                word.push(if byte == b'\\' { model_escape(line, &mut at, quote) } else { byte });
            }
            if line.get(at).is_some_and(|byte| !space(*byte)) {
                return Err(unbalanced());
            }
            break;
        }
        words.push(word);
    }
    Ok(Some(words))
}

/// What a backslash within quotes, just read, stands for.
fn model_escape(line: &[u8], at: &mut usize, quote: u8) -> u8 {
    let rest = &line[*at..];
    if quote == b'\'' {
        *at += usize::from(rest.first() == Some(&b'\''));
        return *rest.first().filter(|byte| **byte == b'\'').unwrap_or(&b'\\');
    }
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    if let [b'x', high, low, ..] = rest
        && let (Some(high), Some(low)) = (hex(high), hex(low))
    {
        *at += 3;
        return (high * 16 + low) as u8;
    }
    *at += usize::from(!rest.is_empty());
    match rest.first() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'b') => 8,
        Some(b'a') => 7,
        Some(other) => *other,
        None => b'\\',
    }
}

/// A stream that is mostly almost right: whole requests, their parts, edge numbers and noise.
pub fn stream(rng: &mut Rng, noise: &[u8]) -> Vec<u8> {
    const PARTS: &[&str] = &[
        "*1\r\n$4\r\nPING\r\n",
        "*2\r\n$4\r\nECHO\r\n$3\r\nabc\r\n",
        "*0\r\n",
        "*-1\r\n",
        "*2\r\n",
        "*3\r\n$0\r\n\r\n",
        "*11\r\n",
        "*1\r\n",
        "$1\r\n",
        "$10\r\n0123456789\r\n",
        "$-1\r\n",
        "$16385\r\n",
        "$20000\r\n",
        "\r\n",
        "\n",
        "\r",
        "*",
        "$",
        "PING\r\n",
        "ping \"a\\x41\\n\" 'b\\'c'\n",
        "\"",
        "'",
        "\\",
        " ",
        "*2147483647\r\n",
        "*2147483648\r\n",
        "*9223372036854775808\r\n",
        "$9223372036854775807\r\n",
        "$4294967296\r\n",
        "*01\r\n",
        "$+1\r\n",
        "*-0\r\n",
        "$",
        "*1\r\n*1\r\n*1\r\n",
        "1",
        "99",
        "\"a\"b",
        "\\x4",
        "*1\r\n$2147483648\r\n",
        "$5\rxabcde\r\n",
    ];
    let mut bytes = Vec::new();
    for _ in 0..rng.usize(1..6) {
        match rng.u8(0..8) {
            0 => bytes.push(noise[rng.usize(..noise.len())]),
            1 => {
                let word: Vec<u8> = (0..rng.usize(..120)).map(|_| noise[rng.usize(..noise.len())]).collect();
                bytes.extend_from_slice(format!("*1\r\n${}\r\n", word.len()).as_bytes());
                bytes.extend_from_slice(&word);
                bytes.extend_from_slice(b"\r\n");
            }
            _ => bytes.extend_from_slice(PARTS[rng.usize(..PARTS.len())].as_bytes()),
        }
    }
    match rng.u8(0..6) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 => {
            let at = rng.usize(..bytes.len());
            bytes[at] = noise[rng.usize(..noise.len())];
        }
        _ => {}
    }
    bytes
}

fn cut<'a>(bytes: &'a [u8], rng: &mut Rng) -> Vec<&'a [u8]> {
    let longest = [1, 2, 3, 7, 40, usize::MAX / 2][rng.usize(..6)];
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn limits(rng: &mut Rng) -> Limits {
    let max_bulk = [100, 16_384, 1 << 20, 512 << 20][rng.usize(..4)];
    Limits { max_bulk, authenticated: rng.u8(..4) != 0 }
}

#[test]
fn a_million_streams_mean_what_the_model_says() {
    let bytes: Vec<u8> = (0..=255).collect();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, count) = (number("FUZZ_SEED").unwrap_or(0), number("FUZZ_COUNT").unwrap_or(INPUTS));
    let threads = 4;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let bytes = &bytes;
            scope.spawn(move || {
                let mut rng = Rng::with_seed(seed + thread);
                for _ in 0..count / threads {
                    let input = stream(&mut rng, bytes);
                    let limits = limits(&mut rng);
                    let expected = model(&input, limits);
                    let pieces = cut(&input, &mut rng);
                    let meaning = parse(&pieces, limits, &mut rng);
                    assert_eq!(meaning, expected, "{:?} in {pieces:?}", String::from_utf8_lossy(&input));
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_never_change_the_meaning(
        input in proptest::collection::vec(any::<u8>(), 0..400),
        seed in any::<u64>(),
    ) {
        let mut rng = Rng::with_seed(seed);
        let limits = limits(&mut rng);
        let whole = parse(&[&input], limits, &mut rng);
        prop_assert_eq!(&whole, &model(&input, limits));
        let pieces = cut(&input, &mut rng);
        prop_assert_eq!(&whole, &parse(&pieces, limits, &mut rng));
    }
}
