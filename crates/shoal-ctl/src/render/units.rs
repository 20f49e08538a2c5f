//! Times and sizes in few characters.

use crate::output::Style;

/// `17 B`, `1.2 KiB`, `3.4 GiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024.0
        && let Some(larger) = units.next()
    {
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{size:.1} {unit}") }
}

/// The two largest units: `12s`, `3m 4s`, `2h 3m`, `5d 1h`.
pub fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// `2026-03-01 12:34:56Z`.
pub fn moment(unix_seconds: i64) -> String {
    let second = unix_seconds.rem_euclid(86_400);
    format!("{} {:02}:{:02}:{:02}Z", date(unix_seconds), second / 3600, second / 60 % 60, second % 60)
}

/// `2026-03-01`, after the days-to-civil algorithm of H. Hinnant (<https://howardhinnant.github.io/date_algorithms.html>).
pub(super) fn date(unix_seconds: i64) -> String {
    let shifted = unix_seconds.div_euclid(86_400) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `5h 2m left`, `1 day left`, `30 days left`, `expired`.
pub(super) fn days_left(unix: i64, style: Style) -> String {
    match days_until(unix, style) {
        days if days < 0 => "expired".to_owned(),
        0 => format!("{} left", span(unix.unsigned_abs().saturating_sub(style.now))),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    }
}

/// Whole days; below 0 = it is over.
pub(super) fn days_until(unix: i64, style: Style) -> i64 {
    let now = i64::try_from(style.now).unwrap_or(i64::MAX);
    unix.saturating_sub(now).div_euclid(86_400)
}

/// `hits` as a share of `all`, `-` when there is nothing to share.
pub(super) fn percent(hits: u64, all: u64) -> String {
    if all == 0 { "-".to_owned() } else { format!("{}%", (u128::from(hits) * 100 / u128::from(all))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (184, "3m 4s"), (7_380, "2h 3m"), (435_600, "5d 1h")]
        {
            assert_eq!(span(seconds), text);
        }
        assert_eq!((percent(1, 0), percent(1, 3), percent(3, 3)), ("-".into(), "33%".into(), "100%".into()));
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }
}
