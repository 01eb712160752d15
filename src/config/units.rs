//! Units of sizes and times in the configuration.

/// Bytes from a size such as `64mb` (binary multiples with a `b`, decimal ones without, as in Redis).
pub fn parse_memory(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|character: char| !character.is_ascii_digit()).unwrap_or(lower.len());
    let factor: i64 = match &lower[split..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    lower[..split].parse::<i64>().ok()?.checked_mul(factor)
}

/// A size in the largest unit that holds it exactly, as [`parse_memory`] reads it.
pub fn format_memory(bytes: i64) -> String {
    let units = [("gb", 30), ("mb", 20), ("kb", 10)];
    let unit = units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(name, shift)| format!("{}{name}", bytes >> shift))
}

/// A time such as `10s`, `15m`, `250ms`, `1h`, `1d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let text = text.trim();
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let millis = match &text[split..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(std::time::Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("100", Some(100)),
            ("1k", Some(1000)),
            ("1KB", Some(1024)),
            ("2gb", Some(2 << 30)),
            ("64mb", Some(64 << 20)),
            ("", None),
            ("x", None),
            ("1tb", None),
            ("-1", None),
        ] {
            assert_eq!(parse_memory(text), bytes, "{text}");
        }
    }

    #[test]
    fn sizes_read_back() {
        for bytes in [0, 1, 1000, 1024, 1536, 3 << 20, (3 << 20) + 1, 5 << 40, i64::MAX] {
            assert_eq!(parse_memory(&format_memory(bytes)), Some(bytes));
        }
        assert_eq!(format_memory(64 << 20), "64mb");
    }

    #[test]
    fn times() {
        for (text, millis) in
            [("10", Some(10_000)), ("250ms", Some(250)), ("15m", Some(900_000)), ("1x", None)]
        {
            assert_eq!(parse_duration(text).map(|time| time.as_millis()), millis, "{text}");
        }
    }
}
