//! Times and sizes as other proxies write them.

use std::time::Duration;

use shoal_model::units::{ByteSize, Period};

/// Longest time that a site can say: 100 years.
const MAX_MS: f64 = 100.0 * 365.0 * 86_400e3;

/// nginx: `30`, `30s`, `1h30m`, `250ms`; a bare number is seconds.
pub(super) fn nginx_time(text: &str) -> Option<Period> {
    const UNITS: [(&str, f64); 8] = [
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 60e3),
        ("h", 3_600e3),
        ("d", 86_400e3),
        ("w", 604_800e3),
        ("M", 30.0 * 86_400e3),
        ("y", 365.0 * 86_400e3),
    ];
    sum_of(text, &UNITS, Some(1e3)).and_then(period)
}

/// nginx: `8k`, `10m`, `1g`, or bytes.
pub(super) fn nginx_size(text: &str) -> Option<ByteSize> {
    let (digits, shift) = match text.char_indices().next_back()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes <= 1 << 59).map(ByteSize)
}

/// Caddy: a duration of Go, or one with days: `1m30s`, `1.5h`, `2d`, `100ms`.
pub(super) fn go_duration(text: &str) -> Option<Period> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-6),
        ("us", 1e-3),
        ("µs", 1e-3),
        ("ms", 1.0),
        ("s", 1e3),
        ("m", 60e3),
        ("h", 3_600e3),
        ("d", 86_400e3),
    ];
    if text == "0" {
        return Some(Period::seconds(0));
    }
    sum_of(text, &UNITS, None).and_then(period)
}

/// Caddy: `10MB`, `5MiB`, `512k`, or bytes.
pub(super) fn caddy_size(text: &str) -> Option<ByteSize> {
    let text: String = text.split_whitespace().collect();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let factor: u64 = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    let bytes = number * factor as f64;
    (bytes <= 5e17).then_some(ByteSize(bytes.round() as u64))
}

fn period(ms: f64) -> Option<Period> {
    (ms <= MAX_MS).then(|| Period(Duration::from_millis(ms.round() as u64)))
}

/// Numbers with units, one after another, in milliseconds; `bare` is what the last one counts without a unit.
fn sum_of(text: &str, units: &[(&str, f64)], bare: Option<f64>) -> Option<f64> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c.is_whitespace()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "" => bare.filter(|_| rest.is_empty())?,
            name => units.iter().find(|(unit, _)| *unit == name)?.1,
        };
        sum += number * unit;
        rest = rest[end..].trim_start();
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_they_are_meant() {
        let shown = |period: Option<Period>| period.map_or("-".to_owned(), |period| period.to_string());
        for (text, nginx, go) in [
            ("30", "30s", "-"),
            ("30s", "30s", "30s"),
            ("1h30m", "90m", "90m"),
            ("1h 30m", "90m", "90m"),
            ("250ms", "250ms", "250ms"),
            ("1d", "1d", "1d"),
            ("1M", "30d", "-"),
            ("1.5h", "90m", "90m"),
            ("0", "0ms", "0ms"),
            ("1h30", "3630s", "-"),
            ("", "-", "-"),
            ("s", "-", "-"),
            ("5 parsecs", "-", "-"),
            ("-5s", "-", "-"),
            ("99999999999y", "-", "-"),
        ] {
            assert_eq!(
                (shown(nginx_time(text)), shown(go_duration(text))),
                (nginx.into(), go.into()),
                "{text}"
            );
        }
        for (text, nginx, caddy) in [
            ("10m", Some(10 << 20), Some(10_000_000)),
            ("512", Some(512), Some(512)),
            ("8K", Some(8192), Some(8000)),
            ("10MiB", None, Some(10 << 20)),
            ("10 MB", None, Some(10_000_000)),
            ("", None, None),
            ("é", None, None),
            ("99999999999999999999g", None, None),
        ] {
            let seen = (nginx_size(text).map(|size| size.0), caddy_size(text).map(|size| size.0));
            assert_eq!(seen, (nginx, caddy), "{text}");
        }
    }
}
